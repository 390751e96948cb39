//! Entries of user tables one by one, for `mm::user::pages`, which locks them: many CPUs change entries of one table there,
//! and tables that fall empty are unlinked while others look.
#![forbid(unsafe_code)]

use super::table::{Flushed, Last, Table, UnlinkedTable};
use super::{Gather, PageTable, PgtableError, Space};
use crate::addr::{PMD_SIZE, VirtAddr, VirtRange};
use crate::hal::entry::RawEntry;
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level, Slot};
use crate::hal::mmu::{Asid, Invalidation, Mmu, WalkDepth};
use core::sync::atomic::Ordering;

impl<M: Mmu> PageTable<M> {
    /// Empty tables of a user space.
    ///
    /// # Errors
    ///
    /// [`PgtableError::NoFrame`].
    pub(in crate::mm) fn new_user<F: FrameSource>(mmu: M, frames: &F, asid: Asid) -> Result<Self, PgtableError> {
        Self::with_root(mmu, frames, Space::User(asid))
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

    /// Unlinks the table under the entry of `level` for `at`, if there is one and nothing is in it; it is freed with the
    /// gather. Nobody else links a table anywhere, or changes an entry of that table. Whether it did.
    pub(in crate::mm) fn unlink_empty<F: FrameSource>(
        &self,
        at: VirtAddr,
        level: Level,
        gather: &mut Gather<'_, M, F>,
    ) -> bool {
        let mut table = self.root.table();
        while table.level() < level {
            match table.descend(&self.mmu, table.level().slot(at)) {
                Ok(child) => table = child,
                Err(_) => return false,
            }
        }
        let slot = level.slot(at);
        let empty = table.supersede_empty(&self.mmu, slot, &mut gather.removed);
        if empty {
            gather.note_empty_table(at.align_down(level.size()));
        }
        empty
    }

    /// Takes the table out that the entry of 2 MiB for `at` points to, with all that is in it, and waits until no CPU
    /// translates through it. Nobody else changes entries there.
    pub(in crate::mm) fn take_table(&self, at: VirtAddr) -> Option<(UnlinkedTable, Flushed)> {
        let table = self.block_level(at)?;
        let unlinked = table.supersede_live(&self.mmu, Level::Pmd.slot(at), RawEntry::ABSENT)?;
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
        let Some(table) = self.block_level(at) else { return Err(taken) };
        let linked = taken.link(&self.mmu, table, Level::Pmd.slot(at), flushed);
        self.mmu.publish();
        linked.map_err(|(taken, _)| taken)
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
        let freed = self.root.raze(&self.mmu, frames, &flushed, &mut each);
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
