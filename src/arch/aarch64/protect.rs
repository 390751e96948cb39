//! Protection of EL1 and EL0 from each other's memory, beyond that by the tables, on CPUs that have it.
//!
//! Branch target identification is not among it: `core` as it comes with the stable compiler has no landing pads, so no
//! page is guarded (`GP`), and the controls of `BTI` stay as they are at reset.

use super::features::IdRegisters;
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{SCTLR_EL1, TCR_EL1};
use core::arch::asm;
use tock_registers::interfaces::{Readable, Writeable};

/// `SCTLR_EL1.SPAN`: where clear, `PSTATE.PAN` is set by every exception that is taken to EL1.
const SPAN: u64 = 1 << 23;
/// `SCTLR_EL1.EPAN`: PAN counts for user pages that may only be executed, too.
const EPAN: u64 = 1 << 57;
/// `TCR_EL1.E0PD1`: an access from EL0 to the kernel's half faults at once, with any mapping there.
const E0PD1: u64 = 1 << 56;

/// Protections that a CPU has switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Barriers {
    /// EL1 does not load from or store to user pages by accident (`FEAT_PAN`).
    pub pan: bool,
    /// Nor from those that may only be executed (`FEAT_PAN3`).
    pub epan: bool,
    /// EL0 cannot tell by the time that a fault takes what the kernel has mapped (`FEAT_E0PD`).
    pub e0pd: bool,
}

/// Switches on the protections that this CPU has. Once, before it takes interrupts.
pub fn init_cpu(cpu: &IdRegisters) {
    if cpu.has_pan() {
        let epan = if cpu.has_epan() { EPAN } else { 0 };
        SCTLR_EL1.set(SCTLR_EL1.get() & !SPAN | epan);
        // SAFETY: MSR PAN, #1 bars this CPU from user pages, of which the kernel has no references. Written as a word: the
        // assembler knows the instruction from Armv8.1 on only.
        unsafe { asm!(".inst 0xd500419f", options(nomem, nostack, preserves_flags)) };
    }
    if cpu.has_e0pd() {
        TCR_EL1.set(TCR_EL1.get() | E0PD1);
    }
    barrier::isb(barrier::SY);
}

/// Protections that are on, on this CPU, by its registers.
#[must_use]
pub fn barriers(cpu: &IdRegisters) -> Barriers {
    let mut pan = 0_u64;
    if cpu.has_pan() {
        // SAFETY: reads PSTATE.PAN, which this CPU has.
        unsafe { asm!("mrs {}, s3_0_c4_c2_3", out(reg) pan, options(nomem, nostack, preserves_flags)) };
    }
    let sctlr = SCTLR_EL1.get();
    Barriers { pan: pan != 0 && sctlr & SPAN == 0, epan: sctlr & EPAN != 0, e0pd: TCR_EL1.get() & E0PD1 != 0 }
}
