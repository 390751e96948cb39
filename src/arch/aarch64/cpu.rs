//! Which CPU this is, and what it does while it has nothing to do.
//!
//! The number lives in `TPIDRRO_EL0`, bits 15:0: `TPIDR_EL1` holds the address of the CPU's own data, and the exception
//! vectors need a number without touching memory.

use crate::addr::{CpuId, VirtAddr};
use aarch64_cpu::{
    asm,
    registers::{TPIDR_EL1, TPIDRRO_EL0},
};
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

/// Where this CPU's own data lie, as [`set_local`] was told: one register read. Stays the same as long as the CPU does:
/// while interrupts are masked.
#[must_use]
#[inline(always)]
pub fn local() -> VirtAddr {
    VirtAddr::new(TPIDR_EL1.get())
}

/// Tells this CPU where its own data lie.
pub fn set_local(data: VirtAddr) {
    TPIDR_EL1.set(data.get());
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
