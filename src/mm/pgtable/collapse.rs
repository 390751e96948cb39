//! Collapsing: tables that say what a block could say, and entries that could be contiguous groups.
#![forbid(unsafe_code)]

use super::gather::Pending;
use super::place::Place;
use super::rewrite::LivePolicy;
use super::table::Table;
use super::{MapFlags, PageTable, PgtableError};
use crate::addr::{VirtAddr, VirtRange};
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Run};
use crate::hal::mmu::{Mmu, WalkDepth};
use core::ops::ControlFlow;

/// Leaves made by [`PageTable::collapse`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collapsed {
    /// Tables that became blocks.
    pub blocks: u64,
    /// Runs that became contiguous groups.
    pub groups: u64,
}

impl<M: Mmu> PageTable<M> {
    /// [`Self::collapse`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_collapse<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        flags: MapFlags,
        policy: LivePolicy,
    ) -> Result<Collapsed, PgtableError> {
        self.admit(range)?;
        self.admit_policy(policy)?;
        let mut collapsed = Collapsed::default();
        if !flags.contains(MapFlags::NO_HUGE) {
            for level in [LeafLevel::Pmd, LeafLevel::Pud] {
                self.each_place(range, |place| {
                    if place.table.level() == level.level() && contains(range, place.start, level.size()) {
                        collapsed.blocks += u64::from(self.collapse_table(frames, &place, level, policy));
                    }
                });
            }
        }
        if !flags.contains(MapFlags::NO_CONT) {
            self.each_place(range, |place| {
                let level = place.table.level().leaf().filter(|&level| level != LeafLevel::Pud);
                if let Some(level) = level
                    && place.slot == place.slot.group_start()
                    && contains(range, place.start, level.contiguous_size())
                {
                    collapsed.groups += u64::from(self.fold(&place, level, policy));
                }
            });
        }
        Ok(collapsed)
    }

    fn each_place(&self, range: VirtRange, mut f: impl FnMut(Place)) {
        let _ = self.walk_places(range.start().get(), range.end().get() - 1, &mut |place| {
            f(place);
            ControlFlow::<()>::Continue(())
        });
    }

    /// The first leaf of `run`, if the run maps memory in order, aligned to `size`, with one protection. Flags that the
    /// hardware may still set by itself must be set already: they could change between this look and the joining.
    fn uniform(&self, table: Table, run: Run, size: u64) -> Option<Leaf> {
        let leaf_at = |slot| match M::Format::decode(table.level(), table.read(&self.mmu, slot)) {
            Entry::Leaf(leaf) => Some(leaf),
            _ => None,
        };
        let first = leaf_at(run.first())?;
        let follows = |(index, slot)| {
            let offset = index as u64 * first.level.size();
            leaf_at(slot)
                .is_some_and(|leaf| leaf.prot == first.prot && leaf.phys.offset_from(first.phys) == Some(offset))
        };
        let settled = first.prot.is_accessed() && (first.prot.is_dirty() || !first.prot.is_writable());
        (settled && first.phys.is_aligned(size) && run.slots().enumerate().all(follows)).then_some(first)
    }

    /// Makes the table that `place` points to a block of `level`. Returns whether it could be one.
    fn collapse_table<F: FrameSource>(&self, frames: &F, place: &Place, level: LeafLevel, policy: LivePolicy) -> bool {
        let Ok(child) = place.table.descend(&self.mmu, place.slot) else { return false };
        let Some(first) = self.uniform(child, Run::TABLE, level.size()) else { return false };
        let block = M::Format::leaf(level, first.phys, first.prot, false);
        let meanwhile = if policy == LivePolicy::BreakBeforeMake { RawEntry::ABSENT } else { block };
        let Some(unlinked) = place.table.supersede_live(&self.mmu, place.slot, meanwhile) else { return false };
        let mut pending = Pending::new();
        let pages = level.size() / LeafLevel::Pte.size();
        pending.note(self, place.start, pages, LeafLevel::Pte, WalkDepth::AnyLevel);
        if let Some(flushed) = pending.flush(self) {
            // Not before: a walker that has the table cached goes on using it, and so does a look of software.
            self.walkers.wait();
            self.count_given_back(unlinked.free(&self.mmu, frames, flushed));
        }
        if policy == LivePolicy::BreakBeforeMake {
            place.table.write(&self.mmu, place.slot, block);
            self.mmu.publish();
        }
        true
    }

    /// Makes the sixteen entries from `place` on a contiguous group. Returns whether they could be one and were not.
    fn fold(&self, place: &Place, level: LeafLevel, policy: LivePolicy) -> bool {
        let group = Run::group(place.slot);
        match self.uniform(place.table, group, level.contiguous_size()) {
            Some(first) if !first.contiguous => {
                let join = |raw| M::Format::with_contiguous(raw, true);
                self.rewrite(place.table, group, place.start, level, policy, join);
                true
            }
            _ => false,
        }
    }
}

/// Whether the `size` bytes from `start` on lie in `range`.
fn contains(range: VirtRange, start: VirtAddr, size: u64) -> bool {
    VirtRange::from_size(start, size).is_some_and(|unit| range.contains_range(unit))
}
