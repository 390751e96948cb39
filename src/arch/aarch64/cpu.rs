//! Which CPU this is, and what it does while it has nothing to do.
//!
//! The number lives in `TPIDRRO_EL0`, bits 15:0: `TPIDR_EL1` is kept for the per-CPU base, and the exception vectors
//! need a number without touching memory.

use crate::addr::CpuId;
use aarch64_cpu::{asm, registers::TPIDRRO_EL0};
use tock_registers::interfaces::{Readable, Writeable};

/// More CPUs than any board that Quarry knows (QEMU virt: up to 256 in its device trees).
pub const MAX_CPUS: usize = 256;

/// The CPU that executes this. Any context; one register read.
#[must_use]
pub fn current() -> CpuId {
    CpuId::new((TPIDRRO_EL0.get() & 0xffff) as u32)
}

/// Tells this CPU its number; once, before anything asks for it. Clears the vectors' count of bad stacks.
pub fn set_current(cpu: CpuId) {
    TPIDRRO_EL0.set(u64::from(cpu.get()));
}

/// One step of waiting for another CPU or a device: YIELD. (`core::hint::spin_loop` is ISB here, which under emulation
/// burns the time slice that the other CPU needs.)
pub fn relax() {
    // SAFETY: YIELD is a hint and changes nothing.
    unsafe { core::arch::asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// How a lock of crate `spin` waits in this kernel.
#[derive(Clone, Copy, Debug)]
pub struct Relax;

impl spin::RelaxStrategy for Relax {
    fn relax() {
        relax();
    }
}

/// Stops this CPU for good, interrupts masked.
pub fn park() -> ! {
    super::irq::mask_all();
    loop {
        asm::wfi();
    }
}
