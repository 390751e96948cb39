//! Unmapping: entries made invalid, flushed, and only then their frames given back; guard pages in their place.
#![forbid(unsafe_code)]

use super::anon::part_end;
use super::fault::Need;
use super::hal::Format;
use super::leaving::Leaving;
use super::space_pages::UserPages;
use super::spare::Spare;
use super::{PagesError, UserHal};
use crate::addr::{Order, PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::level::{ENTRIES, LeafLevel, Level, Run, Slot};
use crate::mm::pgtable::Table;

impl<H: UserHal> UserPages<H> {
    /// Unmaps `range`: when it returns, no CPU reaches what was there, the frames that nobody else has are free, and so are
    /// the tables all of whose addresses lie in `hole`, the gap between areas that `range` leaves or becomes part of (Linux:
    /// `free_pgtables` with its floor and ceiling). Guard pages go too. Addresses that are not mapped are no error. May sleep
    /// if `gfp` says so. Cost: one flush for 2 MiB of addresses, and some 36 instructions a page.
    ///
    /// # Errors
    ///
    /// [`PagesError::Range`]; [`PagesError::OutOfMemory`] if an edge lies in a block of 2 MiB and there is no frame for the
    /// table that it is split into. Nothing has changed then.
    pub fn unmap(&self, range: VirtRange, hole: VirtRange, gfp: Gfp) -> Result<(), PagesError> {
        self.admit(range)?;
        if self.is_bare(range, hole) {
            return Ok(());
        }
        self.carve(range, gfp)?;
        self.zap(range, false);
        self.reap_around(range, if hole.contains_range(range) { hole } else { range });
        Ok(())
    }

    /// Whether nothing is mapped in `range`, and no table can lie in `hole` as a whole that translates some of it: one descent.
    fn is_bare(&self, range: VirtRange, hole: VirtRange) -> bool {
        match self.tables().absent_around(range) {
            // The root stays.
            Some(Level::Pgd) => true,
            Some(level) => {
                let (start, size) = (range.start(), level.size() * ENTRIES as u64);
                VirtRange::from_size(start.align_down(size), size).is_some_and(|table| !hole.contains_range(table))
            }
            None => false,
        }
    }

    /// Frees what `range` maps and keeps the range: the next read finds zeroes (Linux: `MADV_DONTNEED`, and `MADV_FREE`, whose
    /// memory goes at once and not when it becomes short). Guard pages stay. Otherwise as [`UserPages::unmap`].
    ///
    /// # Errors
    ///
    /// Those of [`UserPages::unmap`].
    pub fn discard(&self, range: VirtRange, gfp: Gfp) -> Result<(), PagesError> {
        self.admit(range)?;
        self.carve(range, gfp)?;
        self.zap(range, true);
        Ok(())
    }

    /// Makes every page of `range` a guard page, whose access is [`FaultError::Guard`](super::FaultError::Guard), and frees
    /// what was there; or makes guard pages ordinary again, absent ones (Linux: `MADV_GUARD_INSTALL`, `MADV_GUARD_REMOVE`).
    /// They are entries of the tables: the area around them stays one. May sleep if `gfp` says so.
    ///
    /// # Errors
    ///
    /// [`PagesError::Range`], [`PagesError::OutOfMemory`]; no page has changed then.
    pub fn guard(&self, range: VirtRange, on: bool, gfp: Gfp) -> Result<(), PagesError> {
        self.admit(range)?;
        if !on {
            self.each_part(range, |part| self.remove_guards(part));
            return Ok(());
        }
        // All that can fail comes first.
        let mut at = range.start();
        while at < range.end() {
            let end = part_end(at, range.end());
            self.table_at(at, gfp)?;
            at = end;
        }
        let mut at = range.start();
        while at < range.end() {
            let end = part_end(at, range.end());
            let part = VirtRange::new(at, end).unwrap_or_default();
            let _entries = self.lock_entries(at);
            let (table, _) = self.tables().lowest(at);
            if table.level() != Level::Pte {
                // Somebody changes this range as well.
                return Err(PagesError::OutOfMemory);
            }
            self.zap_entries(table, part, false);
            table.fill(self.tables().mmu(), run_of(part), Format::<H>::GUARD, 0);
            at = end;
        }
        Ok(())
    }

    fn remove_guards(&self, part: VirtRange) {
        let _entries = self.lock_entries(part.start());
        let mmu = self.tables().mmu();
        let (table, _) = self.tables().lowest(part.start());
        if table.level() == Level::Pte {
            for slot in run_of(part).slots() {
                if table.read(mmu, slot) == Format::<H>::GUARD {
                    table.write(mmu, slot, RawEntry::ABSENT);
                }
            }
        }
    }

    /// Makes sure that there is a table of last entries for `at`: a block is split.
    pub(super) fn table_at(&self, at: VirtAddr, gfp: Gfp) -> Result<(), PagesError> {
        if self.tables().look(|| self.tables().lowest(at)).0.level() == Level::Pte {
            return Ok(());
        }
        let spare = Spare::new(self.hal(), gfp, Order::ZERO);
        self.grow(at, LeafLevel::Pte, &spare)?;
        self.split_at(at, &spare)
    }

    /// Splits the block around `at`, if there is one.
    fn split_at(&self, at: VirtAddr, spare: &Spare<'_, H>) -> Result<(), PagesError> {
        loop {
            let split = {
                let _entries = self.lock_entries(at);
                self.split_block(at, &spare.tables)
            };
            match split {
                Err(Need::Never(error)) => return Err(error.into()),
                Err(_) => spare.get_table()?,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Makes the edges of `range` edges of leaves.
    pub(in crate::mm::user) fn carve(&self, range: VirtRange, gfp: Gfp) -> Result<(), PagesError> {
        let inside = |edge: VirtAddr| !edge.is_aligned(PMD_SIZE);
        // One look finds the block that has both edges inside.
        let together = range.start().align_down(PMD_SIZE) == range.end().align_down(PMD_SIZE);
        let end = Some(range.end()).filter(|end| inside(*end) && !(together && inside(range.start())));
        for edge in Some(range.start()).filter(|start| inside(*start)).into_iter().chain(end) {
            // A block, or nothing: what else there is has edges everywhere, or is unfolded where it is changed.
            let (table, raw) = self.tables().look(|| self.tables().lowest(edge));
            if table.level() != Level::Pte && !raw.is_absent() {
                self.split_at(edge, &Spare::new(self.hal(), gfp, Order::ZERO))?;
            }
        }
        Ok(())
    }

    /// Runs `f` for each part of `range` that one entry of 2 MiB translates, where there may be something.
    #[inline]
    pub(super) fn each_part(&self, range: VirtRange, mut f: impl FnMut(VirtRange)) {
        let mut at = range.start();
        // A range under one entry is looked at by `f` itself.
        let is_one = at.align_down(PMD_SIZE) == VirtAddr::new(range.end().get().wrapping_sub(1)).align_down(PMD_SIZE);
        let mut next = if is_one { Some(range) } else { self.tables().next_part(at, range.end()) };
        while let Some(part) = next {
            f(part);
            at = part.end();
            next = if at < range.end() { self.tables().next_part(at, range.end()) } else { None };
        }
    }

    /// Everything in `range`, whose edges are edges of leaves.
    pub(super) fn zap_all(&self, range: VirtRange) {
        self.zap(range, false);
    }

    fn zap(&self, range: VirtRange, keep_guards: bool) {
        self.each_part(range, |part| self.zap_part(part, keep_guards));
    }

    fn zap_part(&self, part: VirtRange, keep_guards: bool) {
        let _entries = self.lock_entries(part.start());
        let (table, raw) = self.tables().lowest(part.start());
        match Format::<H>::decode(table.level(), raw) {
            _ if table.level() == Level::Pte => self.zap_entries(table, part, keep_guards),
            // One that reaches beyond the part was mapped after the edges were made edges: it stays.
            Entry::Leaf(leaf) | Entry::Parked(leaf) if part.size() == leaf.level.size() => {
                self.zap_block(table, part.start(), &leaf);
            }
            _ => {}
        }
    }

    fn zap_block(&self, table: Table, start: VirtAddr, leaf: &Leaf) {
        table.write(self.tables().mmu(), table.level().slot(start), RawEntry::ABSENT);
        self.tables().flush_leaf(start, leaf.level);
        let mut leaving = Leaving::new(self.hal());
        leaving.add_block(Pfn::containing(leaf.phys), leaf.level.size() >> PAGE_SHIFT);
        self.count_dropped(leaving.finish());
    }

    /// Frees what the entries of `part` map. Under their lock.
    fn zap_entries(&self, table: Table, part: VirtRange, keep_guards: bool) {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let run = run_of(part);
        if table.is_empty(mmu, run) {
            return;
        }
        self.cut_groups(table, part);
        table.invalidate_each(mmu, run);
        tables.flush_leaves(part.start(), run.count() as u64, LeafLevel::Pte);
        // No CPU reaches the frames any more.
        let mut leaving = Leaving::new(self.hal());
        let guards = leaving.add_entries(table, mmu, run);
        if guards && keep_guards {
            for slot in run.slots() {
                if table.read(mmu, slot) != Format::<H>::GUARD {
                    table.write(mmu, slot, RawEntry::ABSENT);
                }
            }
        } else {
            // No barrier: walkers do not tell invalid entries apart.
            table.clear(mmu, run);
        }
        self.count_dropped(leaving.finish());
    }

    /// Unfolds the groups that an edge of `part` cuts. Under their lock.
    pub(super) fn cut_groups(&self, table: Table, part: VirtRange) {
        let last_end = part.end().is_aligned(PMD_SIZE);
        for edge in [Some(part.start()), Some(part.end()).filter(|_| !last_end)].into_iter().flatten() {
            let slot = Level::Pte.slot(edge);
            if slot != slot.group_start() {
                self.unfold_if_grouped(table, slot, edge);
            }
        }
    }

    /// Unfolds the group that an entry belongs to, if it belongs to one. Under their lock.
    pub(super) fn unfold_if_grouped(&self, table: Table, slot: Slot, at: VirtAddr) {
        let raw = table.read(self.tables().mmu(), slot);
        if Format::<H>::is_valid(raw) && Format::<H>::is_contiguous(raw) {
            self.unfold(table, slot, at);
        }
    }
}

/// The entries of a part of 2 MiB.
pub(super) fn run_of(part: VirtRange) -> Run {
    Run::from_slot(Level::Pte.slot(part.start()), part.size() / PAGE_SIZE)
}
