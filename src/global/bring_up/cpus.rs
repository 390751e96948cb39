//! Brings up each further CPU, in one call.

use super::tables;
use crate::addr::CpuId;
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::{alternative, cpu, dcache, errata, mem, tlb, uaccess};
use crate::global::{answer_requests, bring_cpu_online, is_online, possible_cpus, start_tags_on_cpu};
use aarch64_cpu::registers::TTBR1_EL1;
use core::fmt;

/// Reason why a CPU cannot join. It must call nothing of this crate except `join_cpu` once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CpuRefused {
    /// The CPU has no data: its number is not below [`Setup::cpus`](super::Setup::cpus).
    Number(CpuId),
    /// A CPU with this number has joined already.
    Taken(CpuId),
    /// It lacks a feature of the boot CPU that is in use: memory tags, or instructions.
    Lacks(CpuId),
    /// It has an erratum whose workaround the kernel has taken out, as no CPU before it needed it.
    Erratum(CpuId),
    /// Its registers do not have the values that [`bring_up`](super::bring_up()) needs.
    Registers(super::BringUpError),
}

impl fmt::Display for CpuRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(cpu) => write!(f, "{cpu:?} has no data: its number is too large"),
            Self::Taken(cpu) => write!(f, "{cpu:?} takes part already: the number is another CPU's"),
            Self::Lacks(cpu) => write!(f, "{cpu:?} lacks what the CPU that booted has"),
            Self::Erratum(cpu) => write!(f, "{cpu:?} has an erratum whose workaround has been taken out"),
            Self::Registers(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CpuRefused {}

/// This CPU joins, as number `number`. Call it on a CPU that has just started, before any other function of this crate, with
/// interrupts masked.
///
/// # Errors
///
/// [`CpuRefused`]; the CPU may try again, with another number.
///
/// # Safety
///
/// As for [`bring_up`](super::bring_up()), of this CPU's registers and vectors. No other CPU has the number.
pub unsafe fn join_cpu(number: CpuId) -> Result<(), CpuRefused> {
    // A kernel that adopted its own tables has them in TTBR1 already.
    if let Some(root) = tables::root().filter(|root| root.get() != TTBR1_EL1.get_baddr()) {
        tables::load(root);
    }
    tables::check_registers().map_err(CpuRefused::Registers)?;
    // Before the CPU is told the number, of which its register holds 16 bits.
    if !possible_cpus().any(|cpu| cpu == number) {
        return Err(CpuRefused::Number(number));
    }
    if is_online(number) {
        return Err(CpuRefused::Taken(number));
    }
    cpu::set_current(number);
    let here = IdRegisters::read();
    errata::note(here.errata());
    if !alternative::suits(here.errata()) {
        return Err(CpuRefused::Erratum(number));
    }
    tlb::init_cpu(false);
    dcache::init_cpu(false);
    if !start_tags_on_cpu() || !mem::can_run_on(&here) || !uaccess::can_run_on(&here) {
        return Err(CpuRefused::Lacks(number));
    }
    // SAFETY: by this function's `# Safety`, the CPU has just come, with interrupts masked, and its registers are this crate's.
    if !unsafe { bring_cpu_online() } {
        return Err(CpuRefused::Number(number));
    }
    // Requests that were queued before this CPU came online.
    answer_requests();
    Ok(())
}
