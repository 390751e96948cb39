//! The performance monitors: instructions retired, as event counter 0 counts them from the boot stub on.

use super::features::IdRegisters;
use core::arch::asm;

/// INST_RETIRED, and its bit in `PMCEID0_EL0`.
const INST_RETIRED: u64 = 0x08;

/// Whether this CPU counts retired instructions. QEMU does only under `-icount` with a fixed shift.
#[must_use]
pub fn counts_instructions(cpu: &IdRegisters) -> bool {
    if !cpu.has_pmu() {
        return false;
    }
    let events: u64;
    // SAFETY: reading which events there are has no effect.
    unsafe { asm!("mrs {}, pmceid0_el0", out(reg) events, options(nomem, nostack, preserves_flags)) };
    events >> INST_RETIRED & 1 != 0
}

/// Value of event counter 0: 32 bits of instructions retired since the boot stub started it, or 0 on a CPU without this event.
/// Any context; the read itself is ordered after everything before it.
#[must_use]
pub fn instructions_retired(cpu: &IdRegisters) -> u64 {
    if !counts_instructions(cpu) {
        return 0;
    }
    let count: u64;
    // SAFETY: reading a counter has no effect; the ISB orders it.
    unsafe { asm!("isb", "mrs {}, pmevcntr0_el0", out(reg) count, options(nomem, nostack, preserves_flags)) };
    count & 0xffff_ffff
}
