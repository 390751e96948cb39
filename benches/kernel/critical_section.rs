//! Critical section of `embedded-alloc`, where others take a lock: interrupts masked, as on the single-core machines that it is
//! for.

use critical_section::{Impl, RawRestoreState};

struct Masked;

critical_section::set_impl!(Masked);

/// All of DAIF.
const DAIF: u64 = 0b1111 << 6;

// SAFETY: one CPU runs benchmarks, and with exceptions masked nothing comes between its instructions.
unsafe impl Impl for Masked {
    unsafe fn acquire() -> RawRestoreState {
        let before: u64;
        // SAFETY: masking exceptions is always allowed at EL1. No `nomem`: memory accesses stay on their side.
        unsafe {
            core::arch::asm!("mrs {}, daif", "msr daifset, #0xf", out(reg) before, options(nostack, preserves_flags))
        };
        before & DAIF
    }

    unsafe fn release(before: RawRestoreState) {
        // SAFETY: the state that `acquire` found.
        unsafe { core::arch::asm!("msr daif, {}", in(reg) before, options(nostack, preserves_flags)) };
    }
}
