//! What each further CPU owes, in one call.

use super::tables;
use crate::addr::CpuId;
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::{cpu, mem, tlb};
use crate::global::{answer_requests, bring_cpu_online, start_tags_on_cpu};
use aarch64_cpu::registers::TTBR1_EL1;
use core::fmt;

/// Why a CPU cannot take part. It must not call this crate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CpuRefused {
    /// It has no data: its number is not below [`Setup::cpus`](super::Setup::cpus).
    Number(CpuId),
    /// It lacks what the CPU that booted has: memory tags, or instructions that are in use.
    Lacks(CpuId),
    /// Its registers are not as [`bring_up`](super::bring_up()) wants them.
    Registers(super::BringUpError),
}

impl fmt::Display for CpuRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(cpu) => write!(f, "{cpu:?} has no data: its number is too large"),
            Self::Lacks(cpu) => write!(f, "{cpu:?} lacks what the CPU that booted has"),
            Self::Registers(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CpuRefused {}

/// This CPU takes part from here on, as number `number`. On a CPU that has just started, before anything else of this crate, with
/// interrupts masked.
///
/// # Errors
///
/// [`CpuRefused`].
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
    cpu::set_current(number);
    tlb::init_cpu(false);
    if !start_tags_on_cpu() || !mem::can_run_on(&IdRegisters::read()) {
        return Err(CpuRefused::Lacks(number));
    }
    // SAFETY: the caller's promise: it has just come, masked.
    if !unsafe { bring_cpu_online() } {
        return Err(CpuRefused::Number(number));
    }
    // Requests that were queued before this CPU came online.
    answer_requests();
    Ok(())
}
