//! Entries of user tables one by one, for `mm::user::pages`, which locks them: many CPUs change entries of one table there,
//! and tables that fall empty are unlinked while others look.
#![forbid(unsafe_code)]

use super::table::{Flushed, FreshTable, Last, Table, UnlinkedTable};
use super::{Count, Gather, PageTable, PgtableError, Space};
use crate::addr::{PMD_SIZE, VirtAddr, VirtRange};
use crate::hal::entry::RawEntry;
use crate::hal::frame::{FrameSource, NoFrame};
use crate::hal::level::{LeafLevel, Level, Slot};
use crate::hal::mmu::{Asid, Invalidation, Mmu, WalkDepth};
use core::sync::atomic::Ordering;

/// The outcome of [`PageTable::unlink_emptied`].
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Unlinked {
    /// A table that points to tables is among them.
    pub(in crate::mm) upper: bool,
    /// Where there may be a table next; behind the last address there is none.
    pub(in crate::mm) next: Option<VirtAddr>,
}

impl<M: Mmu> PageTable<M> {
    /// Empty tables of a user space.
    ///
    /// # Errors
    ///
    /// [`PgtableError::NoFrame`].
    pub(in crate::mm) fn new_user<F: FrameSource>(mmu: M, frames: &F, asid: Asid) -> Result<Self, PgtableError> {
        Self::with_root(mmu, frames, Space::User(asid), true)
    }

    /// The number of a user space in the TLB from now on. Nothing is invalidated: no CPU runs the space, and none holds a
    /// translation under the new number.
    pub(in crate::mm) fn set_asid(&self, asid: Asid) {
        self.asid.store(asid.get(), Ordering::Relaxed);
    }

    /// The table in which the descent for `at` ends, and the entry there. In a look, or by
    /// a caller that keeps the tables.
    #[inline(always)]
    pub(in crate::mm) fn lowest(&self, at: VirtAddr) -> (Table, RawEntry) {
        // Level by level, so that each is a constant.
        let pgd = self.root.table();
        let pud = match pgd.descend(&self.mmu, Level::Pgd.slot(at)) {
            Ok(pud) => pud,
            Err(raw) => return (pgd, raw),
        };
        let pmd = match pud.descend(&self.mmu, Level::Pud.slot(at)) {
            Ok(pmd) => pmd,
            Err(raw) => return (pud, raw),
        };
        match pmd.descend(&self.mmu, Level::Pmd.slot(at)) {
            Ok(pte) => (pte, pte.read(&self.mmu, Level::Pte.slot(at))),
            Err(raw) => (pmd, raw),
        }
    }

    /// The table of last entries for `at`, the entry there, and where the table's entries are counted; `None` if there is no such
    /// table. As [`Self::lowest`].
    #[inline(always)]
    pub(in crate::mm) fn last_entry(&self, at: VirtAddr) -> Option<(Table, RawEntry, Count)> {
        let pmd = self.block_level(at)?;
        let slot = Level::Pmd.slot(at);
        let pte = pmd.descend(&self.mmu, slot).ok()?;
        Some((pte, pte.read(&self.mmu, Level::Pte.slot(at)), Count::of(pmd, slot)))
    }

    /// The table in which the descent for `at` ends, the entry there, and where the table's entries are counted; the root's
    /// are not. As [`Self::lowest`].
    #[inline(always)]
    pub(in crate::mm) fn lowest_counted(&self, at: VirtAddr) -> (Table, RawEntry, Option<Count>) {
        let pgd = self.root.table();
        let pud = match pgd.descend(&self.mmu, Level::Pgd.slot(at)) {
            Ok(pud) => pud,
            Err(raw) => return (pgd, raw, None),
        };
        let pmd = match pud.descend(&self.mmu, Level::Pud.slot(at)) {
            Ok(pmd) => pmd,
            Err(raw) => return (pud, raw, Some(Count::of(pgd, Level::Pgd.slot(at)))),
        };
        match pmd.descend(&self.mmu, Level::Pmd.slot(at)) {
            Ok(pte) => (pte, pte.read(&self.mmu, Level::Pte.slot(at)), Some(Count::of(pmd, Level::Pmd.slot(at)))),
            Err(raw) => (pmd, raw, Some(Count::of(pud, Level::Pud.slot(at)))),
        }
    }

    /// Links an empty table of last entries for `at`, if it is the only one missing: whether it did. The table is cleared before
    /// `lock` keeps others from linking and unlinking.
    ///
    /// # Errors
    ///
    /// [`NoFrame`].
    pub(in crate::mm) fn add_last_table<F: FrameSource, L>(
        &self,
        frames: &F,
        at: VirtAddr,
        lock: impl FnOnce() -> L,
    ) -> Result<bool, NoFrame> {
        let fresh = FreshTable::new(&self.mmu, frames, Level::Pte)?;
        let _structure = lock();
        let slot = Level::Pmd.slot(at);
        let fresh = match self.block_entries(at) {
            Some((above, count)) => match above.link(&self.mmu, slot, RawEntry::ABSENT, fresh) {
                Ok(_) => {
                    self.count_taken(1);
                    count.add(&self.mmu, 1);
                    self.mmu.publish();
                    return Ok(true);
                }
                Err((fresh, _)) => fresh,
            },
            None => fresh,
        };
        fresh.discard(&self.mmu, frames);
        Ok(false)
    }

    /// The table whose entries span 2 MiB for `at`, and where they are counted.
    #[inline]
    pub(in crate::mm) fn block_entries(&self, at: VirtAddr) -> Option<(Table, Count)> {
        let pud = self.root.table().descend(&self.mmu, Level::Pgd.slot(at)).ok()?;
        let slot = Level::Pud.slot(at);
        let pmd = pud.descend(&self.mmu, slot).ok()?;
        Some((pmd, Count::of(pud, slot)))
    }

    /// The first part of `at..end` under one entry that spans 2 MiB and is not absent; `None` if there is none.
    pub(in crate::mm) fn next_part(&self, at: VirtAddr, end: VirtAddr) -> Option<VirtRange> {
        let start = self.next_part_of(at, end, Level::Pmd)?;
        VirtRange::new(start, super::entry_end(start, PMD_SIZE, end))
    }

    /// The first address from `at` on, below `end`, whose entry of `level`, which is not the last, is not absent.
    pub(in crate::mm) fn next_part_of(&self, at: VirtAddr, end: VirtAddr, level: Level) -> Option<VirtAddr> {
        let mut at = at;
        while at < end {
            let (next, absent) = self.look(|| {
                let mut table = self.root.table();
                let mut raw = table.read(&self.mmu, table.level().slot(at));
                while let (Ok(child), true) = (table.descend(&self.mmu, table.level().slot(at)), table.level() < level)
                {
                    table = child;
                    raw = table.read(&self.mmu, table.level().slot(at));
                }
                // Absent entries of one table are passed over without a descent for each.
                let (absent, size) = (raw.is_absent(), table.level().size());
                let mut next = at;
                while raw.is_absent() {
                    next = super::entry_end(next, size, end);
                    let slot = table.level().slot(next);
                    if next >= end || slot == Slot::wrapping(0) {
                        break;
                    }
                    raw = table.read(&self.mmu, slot);
                }
                (next, absent)
            });
            if !absent {
                return Some(at);
            }
            at = next;
        }
        None
    }

    /// The level of the absent entry under which all of `range` lies; `None` if there is no such entry above the last level.
    pub(in crate::mm) fn absent_around(&self, range: VirtRange) -> Option<Level> {
        let at = range.start();
        self.look(|| {
            let mut table = self.root.table();
            loop {
                let level = table.level();
                match table.descend(&self.mmu, level.slot(at)) {
                    Ok(child) if child.level() == Level::Pte => return None,
                    Ok(child) => table = child,
                    Err(raw) => {
                        let alone = at.align_down(level.size())
                            == VirtAddr::new(range.end().get().wrapping_sub(1)).align_down(level.size());
                        return (raw.is_absent() && alone).then_some(level);
                    }
                }
            }
        })
    }

    /// Unlinks the table in which the descent for `at` ends, if nothing is in it, and each one above that is empty then, as far
    /// as all their addresses lie in `hole`; they are freed with the gather. Nobody else links a table anywhere; `lock` keeps
    /// others from the entries of a table of last entries. The next such place is looked for below `end`.
    pub(in crate::mm) fn unlink_emptied<F: FrameSource, L>(
        &self,
        (at, end): (VirtAddr, VirtAddr),
        hole: VirtRange,
        gather: &mut Gather<'_, M, F>,
        lock: impl Fn() -> L,
    ) -> Unlinked {
        let (mut path, mut table) = ([None; 3], self.root.table());
        for place in &mut path {
            let slot = table.level().slot(at);
            let Ok(child) = table.descend(&self.mmu, slot) else { break };
            *place = Some((table, slot));
            table = child;
        }
        let mut upper = false;
        let mut places = path.into_iter().rev().flatten().peekable();
        while let Some((above, slot)) = places.next() {
            let (level, start) = (above.level(), at.align_down(above.level().size()));
            let inside = VirtRange::from_size(start, level.size()).is_some_and(|span| hole.contains_range(span));
            let _entries = (inside && level == Level::Pmd).then(&lock);
            if !inside || !above.supersede_empty(&self.mmu, slot, &mut gather.removed) {
                break;
            }
            if let Some((above, slot)) = places.peek() {
                Count::of(*above, *slot).take(&self.mmu, 1);
            }
            gather.note_empty_table(start, level.size());
            upper |= level != Level::Pmd;
            table = above;
        }
        // Absent entries of one table are passed over without a descent for each.
        let (level, mut next) = (table.level(), at);
        loop {
            match next.align_down(level.size()).checked_add(level.size()) {
                Some(behind) => next = behind,
                None => return Unlinked { upper, next: None },
            }
            let slot = level.slot(next);
            if slot == Slot::FIRST || next >= end || !table.read(&self.mmu, slot).is_absent() {
                return Unlinked { upper, next: Some(next) };
            }
        }
    }

    /// Takes the table out that the entry of 2 MiB for `at` points to, with all that is in it, and waits until no CPU
    /// translates through it. Nobody else changes entries there, nor links a table anywhere.
    pub(in crate::mm) fn take_table(&self, at: VirtAddr) -> Option<(UnlinkedTable, Flushed)> {
        let (table, count) = self.block_entries(at)?;
        let unlinked = table.supersede_live(&self.mmu, Level::Pmd.slot(at), RawEntry::ABSENT)?;
        count.take(&self.mmu, 1);
        let start = at.align_down(PMD_SIZE);
        let (count, stride) = (PMD_SIZE / LeafLevel::Pte.size(), LeafLevel::Pte);
        let scope = self.scope();
        self.flush_span(Invalidation { start, count, stride, depth: WalkDepth::AnyLevel, scope });
        Some((unlinked, Flushed::wait(&self.mmu)))
    }

    /// Links what [`PageTable::take_table`] took under the entry of 2 MiB for `at`.
    ///
    /// # Errors
    ///
    /// The table, if there is something, or no table above.
    pub(in crate::mm) fn give_table(
        &self,
        at: VirtAddr,
        taken: UnlinkedTable,
        flushed: &Flushed,
    ) -> Result<(), UnlinkedTable> {
        let Some((table, count)) = self.block_entries(at) else { return Err(taken) };
        let linked = taken.link(&self.mmu, table, Level::Pmd.slot(at), flushed);
        if linked.is_ok() {
            count.add(&self.mmu, 1);
        }
        self.mmu.publish();
        linked.map_err(|(taken, _)| taken)
    }

    /// Gives back what [`PageTable::take_table`] took.
    pub(in crate::mm) fn free_taken<F: FrameSource>(&self, taken: UnlinkedTable, flushed: Flushed, frames: &F) {
        // Nothing points to it since before the flush.
        self.walkers.wait();
        self.count_given_back(taken.free(&self.mmu, frames, flushed));
    }

    /// Gives back every table but the root, once no CPU has it in a TTBR, after it has shown `each` the tables of last entries
    /// and the blocks above: no CPU reaches what they map. One invalidation for all of the space, whatever is in it; no entry is
    /// changed. Any context. Cost: about two instructions an entry of the upper tables.
    pub(in crate::mm) fn raze<F: FrameSource>(&mut self, frames: &F, mut each: impl FnMut(Last)) {
        if self.table_frames() == 1 {
            // Tables that there were have been flushed since.
            return;
        }
        // Nothing has changed that is to be seen first, so no barrier before. No walk begins after it without the root in a
        // TTBR, whatever the entries say (Arm ARM D8.16: TLBI ASIDE1IS drops cached walks
        // too, and the DSB behind it ends those under way).
        self.invalidate_space();
        let flushed = Flushed::wait(&self.mmu);
        // INVARIANT: WALK-1: nobody looks; the caller has the only reference.
        let tables = self.table_frames() - 1;
        let freed = self.root.raze(&self.mmu, frames, tables, &flushed, &mut each);
        debug_assert!(freed == tables, "PT-4: {freed} tables found, {tables} accounted for");
        // The root is empty for every walker before it is in a TTBR again.
        self.mmu.publish_table();
        self.count_given_back(freed);
    }

    /// Frees the root of tables in which nothing is left, once no CPU has it in a TTBR. The value is not used again.
    pub(in crate::mm) fn free_root<F: FrameSource>(&mut self, frames: &F) {
        self.raze(frames, |_| {});
        self.count_given_back(1);
        self.root.free(frames);
    }
}
