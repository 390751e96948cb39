//! Splitting: blocks into tables, contiguous groups into plain entries, so that an edge of a range falls between two
//! leaves.
#![forbid(unsafe_code)]

use super::place::Place;
use super::rewrite::LivePolicy;
use super::table::FreshTable;
use super::{PageTable, PgtableError, Space};
use crate::addr::{VirtAddr, VirtRange};
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{ENTRIES, LeafLevel, Level, Run};
use crate::hal::mmu::{Invalidation, Mmu, WalkDepth};

impl<M: Mmu> PageTable<M> {
    /// [`Self::carve`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_carve<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        policy: LivePolicy,
    ) -> Result<(), PgtableError> {
        self.admit(range)?;
        self.admit_policy(policy)?;
        self.split_at(frames, range.start(), policy)?;
        self.split_at(frames, range.end(), policy)
    }

    /// Makes `at` the edge of a leaf.
    fn split_at<F: FrameSource>(&self, frames: &F, at: VirtAddr, policy: LivePolicy) -> Result<(), PgtableError> {
        while let Some(place) = self.find(at).filter(|place| self.is_cut(place, at)) {
            match M::Format::decode(place.table.level(), place.raw) {
                Entry::Leaf(leaf) if leaf.contiguous => self.unfold(&place, &leaf, policy),
                Entry::Leaf(leaf) => self.split_block(frames, &place, &leaf, policy)?,
                Entry::Parked(leaf) => self.split_parked(frames, &place, &leaf)?,
                _ => return Err(PgtableError::Malformed(at)),
            }
        }
        Ok(())
    }

    /// Takes the contiguous bit from the whole group that a leaf belongs to.
    pub(super) fn unfold(&self, place: &Place, leaf: &Leaf, policy: LivePolicy) {
        let group = Run::group(place.slot);
        let start = place.start.align_down(leaf.level.contiguous_size());
        if policy == LivePolicy::BreakBeforeMake && self.space == Space::Kernel {
            let what = self.leaves(start, group.count() as u64, leaf.level);
            return place.table.unfold_broken(&self.mmu, group, what);
        }
        self.rewrite(place.table, group, start, leaf.level, policy, |raw| M::Format::with_contiguous(raw, false));
    }

    /// Puts a table of 512 leaves in the place of a block.
    fn split_block<F: FrameSource>(
        &self,
        frames: &F,
        place: &Place,
        leaf: &Leaf,
        policy: LivePolicy,
    ) -> Result<(), PgtableError> {
        let Some(below) = leaf.level.below() else { return Err(PgtableError::Malformed(place.start)) };
        let fresh =
            FreshTable::new(&self.mmu, frames, below.level())?.with_live(if self.counted { ENTRIES } else { 0 });
        if policy == LivePolicy::BreakBeforeMake && self.space == Space::Kernel {
            // The table may lie in the very block: it is complete before the block goes.
            let first = M::Format::leaf(below, leaf.phys, leaf.prot, false);
            fresh.table().fill(&self.mmu, Run::TABLE, first, below.size());
            place.table.link_broken(&self.mmu, place.slot, fresh, self.leaves(place.start, 1, leaf.level));
            self.count_taken(1);
            return Ok(());
        }
        if policy == LivePolicy::BreakBeforeMake {
            self.break_leaves(place.table, Run::from_slot(place.slot, 1), place.start, leaf.level);
        }
        let current = place.table.read(&self.mmu, place.slot);
        match self.link_split(place, fresh, current, leaf.level, below) {
            Ok(()) => self.count_taken(1),
            Err(fresh) => {
                // The entry has changed: a caller broke the contract. The new entry stays.
                fresh.discard(&self.mmu, frames);
                return Err(PgtableError::Malformed(place.start));
            }
        }
        match policy {
            LivePolicy::BbmLevel2 => self.flush_leaf(place.start, leaf.level),
            LivePolicy::BreakBeforeMake | LivePolicy::NotLive => self.mmu.publish(),
        }
        Ok(())
    }

    /// Puts a table of 512 parked entries in the place of a parked block. No CPU has the block, so nothing is invalidated.
    fn split_parked<F: FrameSource>(&self, frames: &F, place: &Place, leaf: &Leaf) -> Result<(), PgtableError> {
        let Some(below) = leaf.level.below() else { return Err(PgtableError::Malformed(place.start)) };
        let fresh =
            FreshTable::new(&self.mmu, frames, below.level())?.with_live(if self.counted { ENTRIES } else { 0 });
        let first = M::Format::park(M::Format::leaf(below, leaf.phys, leaf.prot, false));
        fresh.table().fill(&self.mmu, Run::TABLE, first, below.size());
        match place.table.link(&self.mmu, place.slot, place.raw, fresh) {
            Ok(_) => {
                self.count_taken(1);
                self.mmu.publish();
                Ok(())
            }
            Err((fresh, _)) => {
                fresh.discard(&self.mmu, frames);
                Err(PgtableError::Malformed(place.start))
            }
        }
    }

    /// The invalidation of `count` leaves from `start` on.
    fn leaves(&self, start: VirtAddr, count: u64, stride: LeafLevel) -> Invalidation {
        Invalidation { start, count, stride, depth: WalkDepth::LastLevel, scope: self.scope() }
    }

    /// Fills the new table after the block as it is now and links it; again if the hardware set a flag meanwhile.
    fn link_split(
        &self,
        place: &Place,
        mut fresh: FreshTable,
        mut current: RawEntry,
        level: LeafLevel,
        below: LeafLevel,
    ) -> Result<(), FreshTable> {
        loop {
            let Entry::Leaf(block) = M::Format::decode(level.level(), M::Format::revalidate(current)) else {
                return Err(fresh);
            };
            let first = M::Format::leaf(below, block.phys, block.prot, false);
            fresh.table().fill(&self.mmu, Run::TABLE, first, below.size());
            match place.table.link(&self.mmu, place.slot, current, fresh) {
                Ok(table) => {
                    debug_assert!(table.level() != Level::Pgd, "a block is never split into a root");
                    return Ok(());
                }
                Err((unlinked, found)) => (fresh, current) = (unlinked, found),
            }
        }
    }
}
