//! Changing leaves that are in use: the three ways to keep break-before-make (Arm ARM D8.17).
#![forbid(unsafe_code)]

use super::table::Table;
use super::{PageTable, PgtableError};
use crate::addr::VirtAddr;
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::level::{LeafLevel, Run};
use crate::hal::mmu::{BbmLevel, Mmu};

/// Treatment of a mapping while its size, memory type or contiguous bit changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LivePolicy {
    /// It may be in use throughout. Only sizes and permissions can change, and only where the CPUs have FEAT_BBM level 2.
    BbmLevel2,
    /// It is invalid for a moment: an access from any CPU, this one included, would fault. The caller sees to it that
    /// there is none: nobody uses the range, or every other CPU is held and the code at work, its stack and its data
    /// lie elsewhere.
    BreakBeforeMake,
    /// The tables are in no TTBR yet, nor were they since the last full flush: nothing is cached.
    NotLive,
}

impl<M: Mmu> PageTable<M> {
    /// Refuses a policy that the CPUs do not carry.
    pub(super) fn admit_policy(&self, policy: LivePolicy) -> Result<(), PgtableError> {
        if policy == LivePolicy::BbmLevel2 && self.mmu.bbm_level() != BbmLevel::Two {
            return Err(PgtableError::BbmUnsupported);
        }
        Ok(())
    }

    /// Changes the leaves of `run`, the first of which maps `start`, in size or contiguous bit, and waits until no CPU
    /// holds what they were.
    pub(in crate::mm) fn rewrite(
        &self,
        table: Table,
        run: Run,
        start: VirtAddr,
        level: LeafLevel,
        policy: LivePolicy,
        change: impl Fn(RawEntry) -> RawEntry,
    ) {
        if policy == LivePolicy::BreakBeforeMake {
            self.break_leaves(table, run, start, level);
        }
        for slot in run.slots() {
            table.update(&self.mmu, slot, |raw| change(M::Format::revalidate(raw)));
        }
        if policy == LivePolicy::BbmLevel2 {
            self.flush_leaves(start, run.count() as u64, level);
        } else {
            self.mmu.publish();
        }
    }

    /// Makes the leaves of `run` invalid, keeping all else they say, and waits until no CPU holds them.
    pub(super) fn break_leaves(&self, table: Table, run: Run, start: VirtAddr, level: LeafLevel) {
        for slot in run.slots() {
            table.update(&self.mmu, slot, M::Format::invalidate);
        }
        self.flush_leaves(start, run.count() as u64, level);
    }
}
