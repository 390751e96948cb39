//! Masking exceptions on this CPU: `local_irq_save` and its kin, with the saved state as a guard.
//!
//! Interrupts arrive as IRQ; FIQ stays masked for good, as nothing in this kernel uses it.

use aarch64_cpu::registers::DAIF;
use core::arch::asm;
use core::marker::PhantomData;
use tock_registers::interfaces::Readable;

/// Interrupts are masked while this lives; dropping it restores the previous mask. Guards must be dropped in the reverse order
/// of their making, on the CPU that made them.
#[must_use = "interrupts are unmasked again when the guard is dropped"]
#[derive(Debug)]
pub struct IrqGuard {
    were_enabled: bool,
    /// The mask belongs to one CPU: neither `Send` nor `Sync`.
    _this_cpu: PhantomData<*mut ()>,
}

/// Masks interrupts on this CPU until the guard is dropped (Linux: `local_irq_save`). Any context.
pub fn local_irq_save() -> IrqGuard {
    let were_enabled = local_irqs_enabled();
    local_irq_disable();
    IrqGuard { were_enabled, _this_cpu: PhantomData }
}

impl Drop for IrqGuard {
    fn drop(&mut self) {
        if self.were_enabled {
            local_irq_enable();
        }
    }
}

/// The exception mask before [`local_irq_save_flags`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "interrupts stay masked until it is restored"]
pub struct IrqFlags(u64);

impl IrqFlags {
    /// The bit of a mask of interrupts (`DAIF.I`).
    pub const MASKED: u64 = 1 << 7;
    /// The bit of a mask of fast interrupts (`DAIF.F`), which is always set.
    pub const FIQ_MASKED: u64 = 1 << 6;

    /// The mask as `DAIF` has it.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Masks interrupts on this CPU and returns the previous mask: for code whose every instruction counts, where a guard is not
/// wanted. Any context.
#[inline(always)]
pub fn local_irq_save_flags() -> IrqFlags {
    let before = DAIF.get();
    local_irq_disable();
    IrqFlags(before)
}

/// Restores the mask. On the same CPU, in the reverse order of saving.
#[inline(always)]
pub fn local_irq_restore_flags(flags: IrqFlags) {
    // SAFETY: the mask was in force before, so the interrupts that it lets through were unmasked then. Without `nomem` it is a
    // compiler barrier.
    unsafe { asm!("msr daif, {}", in(reg) flags.0, options(nostack, preserves_flags)) };
}

/// Whether this CPU takes interrupts.
#[must_use]
pub fn local_irqs_enabled() -> bool {
    !DAIF.is_set(DAIF::I)
}

/// Masks interrupts on this CPU. Memory accesses are not moved across it.
#[inline]
pub fn local_irq_disable() {
    // SAFETY: masking interrupts breaks no invariant of safe code; without `nomem` it is a compiler barrier.
    unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
}

/// Unmasks interrupts on this CPU. The vectors and the interrupt handler must be in place, as they are after
/// `trap::init` and `trap::set_handlers`. Memory accesses are not moved across it.
pub fn local_irq_enable() {
    // SAFETY: an interrupt saves and restores the whole state of the code that it interrupts.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
}

/// Unmasks SError on this CPU, so that a bus error reported late is reported at all. After `trap::init`.
pub fn unmask_serror() {
    // SAFETY: an SError ends in a report and never returns to the code that it interrupts.
    unsafe { asm!("msr daifclr, #4", options(nostack, preserves_flags)) };
}

/// Masks debug exceptions, SError, IRQ and FIQ on this CPU.
pub fn mask_all() {
    // SAFETY: masking exceptions breaks no invariant of safe code.
    unsafe { asm!("msr daifset, #0xf", options(nostack, preserves_flags)) };
}
