//! Translation of an address by the CPU itself: `AT S1E1R` and `PAR_EL1`.

use super::esr::FaultStatus;
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use core::arch::asm;

/// A translation as the CPU sees it at this moment, TLB included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Par {
    /// The byte that a read reaches.
    pub phys: PhysAddr,
    /// The attribute byte, as in `MAIR_EL1`.
    pub attribute: u8,
}

/// Physical address that a read of `addr` at EL1 reaches; `None` if it faults. Reads nothing. Any context.
#[must_use]
pub fn translate(addr: VirtAddr) -> Option<Par> {
    walk(addr).ok()
}

/// Physical address that a read of `addr` at EL1 reaches. Reads nothing. Any context.
///
/// # Errors
///
/// The fault that it would take.
pub fn walk(addr: VirtAddr) -> Result<Par, FaultStatus> {
    let saved = super::irq::local_irq_save_flags();
    let par: u64;
    // The barriers are for Cortex-A77 up to r1p0 (erratum 1508412), and no fast path comes here.
    // SAFETY: the instruction writes PAR_EL1, which nobody else relies on, and interrupts are masked until it is read.
    unsafe {
        asm!("at s1e1r, {addr}", "isb", "dmb sy", "mrs {par}, par_el1", "dmb sy", addr = in(reg) addr.get(), par = out(reg) par,
            options(nostack, preserves_flags));
    }
    super::irq::local_irq_restore_flags(saved);
    // Arm ARM D24.2, PAR_EL1: F in bit 0; PA in 47:12, ATTR in 63:56, or with F the status in 6:1.
    let [low, .., attribute] = par.to_le_bytes();
    if par & 1 != 0 {
        return Err(FaultStatus::decode(low >> 1));
    }
    let phys = PhysAddr::new((par & 0x0000_ffff_ffff_f000) | addr.offset_in(PAGE_SIZE));
    Ok(Par { phys, attribute })
}
