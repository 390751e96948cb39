//! A last table that is found once: for whoever has 2 MiB of addresses for good and changes what is mapped there often.
#![forbid(unsafe_code)]

use super::gather::Means;
use super::table::Table;
use super::{PageTable, PgtableError};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PHYS_SHIFT_MAX, PMD_SIZE, PhysAddr, Pfn, VirtAddr, VirtRange};
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level, Run};
use crate::hal::mmu::{Invalidation, Mmu, WalkDepth};
use crate::hal::prot::Prot;

/// The table of the 512 last entries for 2 MiB of addresses.
///
/// It is good as long as nobody unmaps all of these addresses without
/// [`UnmapFlags::KEEP_TABLES`](super::UnmapFlags::KEEP_TABLES): whoever has it has them, which is the contract of the
/// page table's maker.
#[derive(Clone, Copy, Debug)]
pub struct PinnedTable {
    table: Table,
    start: VirtAddr,
    /// Of the tables that it belongs to.
    root: PhysAddr,
}

impl PinnedTable {
    /// The entries for `range`, if all of them are in this table, which is one of `root`'s.
    #[inline]
    fn run(&self, root: PhysAddr, range: VirtRange) -> Result<Run, PgtableError> {
        let offset = range.start().get().wrapping_sub(self.start.get());
        if offset >= PMD_SIZE || range.size() > PMD_SIZE - offset || root != self.root {
            return Err(PgtableError::OutsideSpace);
        }
        if (offset | range.size()) & (PAGE_SIZE - 1) != 0 {
            return Err(PgtableError::Unaligned);
        }
        if range.is_empty() {
            return Err(PgtableError::Empty);
        }
        Ok(Run::from_slot(Level::Pte.slot(range.start()), range.size() >> PAGE_SHIFT))
    }
}

impl<M: Mmu> PageTable<M> {
    /// The last table for the 2 MiB that `at` lies in, made if need be. Any context that `frames` allows.
    ///
    /// # Errors
    ///
    /// [`PgtableError::NoFrame`]; [`Overlap`](PgtableError::Overlap) if a block is mapped there;
    /// [`OutsideSpace`](PgtableError::OutsideSpace).
    pub fn pin<F: FrameSource>(&self, frames: &F, at: VirtAddr) -> Result<PinnedTable, PgtableError> {
        let start = at.align_down(PMD_SIZE);
        let range = VirtRange::from_size(start, PMD_SIZE).ok_or(PgtableError::OutsideSpace)?;
        self.populate(frames, range, LeafLevel::Pte)?;
        let table = self.last_level(start).ok_or(PgtableError::Overlap(start))?;
        Ok(PinnedTable { table, start, root: self.root() })
    }

    /// [`PageTable::map_frames`] where the table is known. Cost: eight instructions a page.
    ///
    /// # Errors
    ///
    /// Those of [`PageTable::map_frames`], but that no frame for a table can be wanting; nothing is mapped then.
    #[inline]
    pub fn map_pinned(
        &self,
        pinned: PinnedTable,
        start: VirtAddr,
        frames: impl ExactSizeIterator<Item = Pfn>,
        prot: Prot,
    ) -> Result<(), PgtableError> {
        if !self.space.admits(prot) {
            return Err(PgtableError::WrongPrivilege);
        }
        let pages = frames.len() as u64;
        let range = pages.checked_mul(PAGE_SIZE).and_then(|bytes| VirtRange::from_size(start, bytes));
        let range = range.ok_or(PgtableError::OutsideSpace)?;
        let run = pinned.run(self.root(), range)?;
        if !pinned.table.is_empty(&self.mmu, run) {
            return Err(PgtableError::Overlap(start));
        }
        let attributes = M::Format::attributes(prot);
        let mut all = 0;
        for (slot, frame) in run.slots().zip(frames) {
            all |= frame.get();
            let leaf = M::Format::leaf_with(attributes, LeafLevel::Pte, frame.start(), false);
            pinned.table.write(&self.mmu, slot, leaf);
        }
        if all >> (PHYS_SHIFT_MAX - PAGE_SHIFT) != 0 {
            self.unmap_pinned(pinned, range)?;
            return Err(PgtableError::PhysOutOfRange);
        }
        self.mmu.publish();
        Ok(())
    }

    /// Unmaps single pages, and waits until no CPU reaches what was there. The table stays.
    ///
    /// # Errors
    ///
    /// [`PgtableError::OutsideSpace`] for a range that is not all in this table;
    /// [`Unaligned`](PgtableError::Unaligned), [`Empty`](PgtableError::Empty).
    #[inline]
    pub fn unmap_pinned(&self, pinned: PinnedTable, range: VirtRange) -> Result<(), PgtableError> {
        let run = pinned.run(self.root(), range)?;
        for slot in run.slots() {
            pinned.table.write(&self.mmu, slot, RawEntry::ABSENT);
        }
        let what = Invalidation {
            start: range.start(),
            count: run.count() as u64,
            stride: LeafLevel::Pte,
            depth: WalkDepth::LastLevel,
            scope: self.space.scope(),
        };
        self.mmu.order_before_invalidate();
        match self.means(&what, 0) {
            Means::ByRange => self.mmu.invalidate_range(what),
            Means::ByAddress => self.mmu.invalidate(what),
            Means::Everything => self.invalidate_space(),
        }
        self.mmu.complete();
        Ok(())
    }
}
