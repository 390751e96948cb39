//! Unmapping: entries cleared, tables that fall empty taken out, invalidations gathered.
#![forbid(unsafe_code)]

use super::place::Place;
use super::{Gather, PageTable, PgtableError, entry_end};
use crate::addr::{PAGE_SHIFT, VirtAddr, VirtRange};
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{ENTRIES, LeafLevel, Level, Run};
use crate::hal::mmu::Mmu;

bitflags::bitflags! {
    /// How [`PageTable::unmap`] goes about it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct UnmapFlags: u32 {
        /// Tables stay where they are, empty, for the next mapping in the same place.
        const KEEP_TABLES = 1 << 0;
    }
}

impl<M: Mmu> PageTable<M> {
    /// [`Self::unmap`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_unmap<F: FrameSource>(
        &self,
        range: VirtRange,
        flags: UnmapFlags,
        gather: &mut Gather<'_, M, F>,
    ) -> Result<(), PgtableError> {
        self.admit(range)?;
        if let Some(count) = self.clear_pages(range, gather) {
            gather.note(range.start(), count, LeafLevel::Pte);
            return Ok(());
        }
        if let Some(count) = self.clear_blocks(range) {
            gather.note(range.start(), count, LeafLevel::Pmd);
            return Ok(());
        }
        self.unmap_runs(range, flags, gather)
    }

    /// [`Self::unmap_and_flush`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_unmap_and_flush<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        flags: UnmapFlags,
    ) -> Result<(), PgtableError> {
        self.admit(range)?;
        if self.unmap_unit(range) {
            return Ok(());
        }
        self.unmap_and_flush_runs(frames, range, flags)
    }

    /// Frees the table that translates all of `range` and nothing else, and those below it, if there is one: `range` is what an
    /// entry spans, nothing is mapped there, and nobody maps there meanwhile. Any context. Cost: a descent; if there is a
    /// table, its flush.
    pub(crate) fn free_tables<F: FrameSource>(&self, frames: &F, range: VirtRange) {
        if self.admit(range).is_err() {
            return;
        }
        let mut table = self.root.table();
        loop {
            let level = table.level();
            match table.descend(&self.mmu, level.slot(range.start())) {
                Ok(_) if level.size() == range.size() && range.start().is_aligned(range.size()) => break,
                Ok(child) if level.size() > range.size() => table = child,
                _ => return,
            }
        }
        let freed = self.unmap_and_flush_runs(frames, range, UnmapFlags::empty());
        debug_assert!(freed.is_ok(), "a table is no leaf: {freed:?}");
    }

    #[inline(never)]
    fn unmap_and_flush_runs<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        flags: UnmapFlags,
    ) -> Result<(), PgtableError> {
        // Flushed where it goes out of scope: handing it on would be a copy.
        let mut gather = self.gather(frames);
        self.do_unmap(range, flags, &mut gather)
    }

    /// The usual case of an unmap: pages of one table, which stays. Returns how many, or `None` if it is another case.
    #[inline]
    fn clear_pages<F: FrameSource>(&self, range: VirtRange, gather: &mut Gather<'_, M, F>) -> Option<u64> {
        let count = range.size() >> PAGE_SHIFT;
        let first = Level::Pte.slot(range.start());
        let run = Run::from_slot(first, count);
        if run.count() as u64 != count || run.count() == ENTRIES {
            return None;
        }
        let table = gather.last_level(range.start())?;
        // An edge of the table is an edge of every group in it.
        if table.is_in_group(&self.mmu, first) || table.is_in_group(&self.mmu, Level::Pte.slot(range.end())) {
            return None;
        }
        table.clear(&self.mmu, run);
        Some(count)
    }

    /// The same for blocks of 2 MiB, if there is no table among them.
    fn clear_blocks(&self, range: VirtRange) -> Option<u64> {
        let run = super::blocks_of_one_table(range.start(), range.size())?;
        let table = self.block_level(range.start())?;
        let is_table = |slot| M::Format::next_table(table.read(&self.mmu, slot)).is_some();
        let cut = |slot| table.is_in_group(&self.mmu, slot);
        if run.slots().any(is_table) || cut(run.first()) || cut(Level::Pmd.slot(range.end())) {
            return None;
        }
        table.clear(&self.mmu, run);
        Some(run.count() as u64)
    }

    /// Any unmap.
    #[inline(never)]
    fn unmap_runs<F: FrameSource>(
        &self,
        range: VirtRange,
        flags: UnmapFlags,
        gather: &mut Gather<'_, M, F>,
    ) -> Result<(), PgtableError> {
        self.check_edge(range.start())?;
        self.check_edge(range.end())?;
        self.unmap_checked(range, flags, gather);
        Ok(())
    }

    /// Unmaps a range whose edges cut nothing.
    fn unmap_checked<F: FrameSource>(&self, range: VirtRange, flags: UnmapFlags, gather: &mut Gather<'_, M, F>) {
        let (mut at, end) = (range.start(), range.end());
        let mut table = self.root.table();
        while at < end {
            let level = table.level();
            let slot = level.slot(at);
            let next = entry_end(at, level.size(), end);
            let whole = next.get() - at.get() == level.size();
            if level.leaf() == Some(LeafLevel::Pte) {
                let run = Run::from_slot(slot, (end.get() - at.get()) >> PAGE_SHIFT);
                table.clear(&self.mmu, run);
                gather.note(at, run.count() as u64, LeafLevel::Pte);
                at = VirtAddr::new(at.get() + ((run.count() as u64) << PAGE_SHIFT));
                table = self.root.table();
                continue;
            }
            match table.descend(&self.mmu, slot) {
                Ok(_) if whole && !flags.contains(UnmapFlags::KEEP_TABLES) => {
                    gather.forget_table();
                    table.supersede(&self.mmu, slot, RawEntry::ABSENT, &mut gather.removed);
                    gather.note_subtree(at, level);
                }
                Ok(child) => {
                    table = child;
                    continue;
                }
                Err(raw) if raw.is_absent() => {}
                Err(_) => {
                    table.clear(&self.mmu, Run::from_slot(slot, 1));
                    if let Some(leaf) = level.leaf() {
                        gather.note(at, 1, leaf);
                    }
                }
            }
            at = next;
            if level.slot(at).get() == 0 {
                // The next entry is in another table.
                table = self.root.table();
            }
        }
    }

    /// Refuses an address inside a block or a contiguous group.
    pub(super) fn check_edge(&self, at: VirtAddr) -> Result<(), PgtableError> {
        match self.find(at) {
            Some(place) if self.is_cut(&place, at) => Err(PgtableError::WouldSplit(at)),
            _ => Ok(()),
        }
    }

    /// Whether a boundary at `at` cuts the unit that `place` belongs to.
    pub(super) fn is_cut(&self, place: &Place, at: VirtAddr) -> bool {
        if place.raw.is_absent() {
            return false;
        }
        let grouped = M::Format::is_contiguous(place.raw) && place.slot != place.slot.group_start();
        place.start != at || grouped
    }
}
