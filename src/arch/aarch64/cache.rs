//! Data-cache maintenance by address (Arm ARM D7.5): for readers that bypass the caches.

use crate::addr::VirtRange;
use core::arch::asm;

/// Bytes of the smallest line of all data caches.
fn line() -> u64 {
    let ctr: u64;
    // SAFETY: reading an ID register has no effect.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    // DminLine: log2 of words.
    4 << (ctr >> 16 & 0xf)
}

/// Writes the cached lines of `range` to memory, where a CPU with its MMU off sees it, and drops them, so that what such a CPU
/// writes is not hidden either. It has got there when this returns. Any context. `range` must be mapped, or the instruction
/// faults. One instruction a line. (Cleaning alone is broken on some cores: [`super::errata`].)
// A function of its own, so that the model of the caches can leave out one call of it (docs/testing.md).
#[inline(never)]
pub(crate) fn clean_and_invalidate_to_poc(range: VirtRange) {
    let line = line();
    let mut at = range.start().align_down(line).get();
    while at < range.end().get() {
        // SAFETY: this changes no memory that Rust knows of: it makes the contents visible to others.
        unsafe { asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
        at += line;
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}
