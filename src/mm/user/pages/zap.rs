//! Unmapping: entries made invalid, flushed, and only then their frames given back; guard pages in their place.
#![forbid(unsafe_code)]

use super::anon::part_end;
use super::fault::Need;
use super::frame::Dropped;
use super::hal::Format;
use super::leaving::Leaving;
use super::space_pages::UserPages;
use super::spare::Spare;
use super::{PagesError, UserHal};
use crate::addr::{Order, PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::{Entry, EntryFormat, RawEntry};
use crate::hal::level::{ENTRIES, LeafLevel, Level, Run, Slot};
use crate::mm::pgtable::{Count, Table};

/// The part of a range that stays when its pages go.
#[derive(Clone, Copy)]
struct Left {
    /// Guard pages stay.
    guards: bool,
    /// Tables stay that do not lie in it.
    hole: VirtRange,
}

impl Left {
    const TABLES: Self = Self { guards: false, hole: VirtRange::EMPTY };
}

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
        if !self.is_bare(range, hole) {
            self.carve(range, gfp)?;
            self.unmap_cut(range, hole);
        }
        Ok(())
    }

    /// [`Self::unmap`] where the edges of `range` are edges of leaves.
    pub(in crate::mm::user) fn unmap_cut(&self, range: VirtRange, hole: VirtRange) {
        if self.is_bare(range, hole) {
            return;
        }
        let hole = if hole.contains_range(range) { hole } else { range };
        self.zap(range, Left { guards: false, hole });
        self.reap_around(range, hole);
    }

    /// [`Self::unmap_cut`] for a caller that holds the areas of the space for itself. Tables stay, at most three, of the last
    /// 2 MiB that one call made empty: a process that maps and unmaps a buffer again and again finds its tables each time. The
    /// next call that empties others keeps those instead; one over more than 2 MiB keeps none, nor does [`UserPages::unmap`];
    /// [`UserPages::trim`] gives them back.
    pub(in crate::mm::user) fn unmap_keeping(&self, range: VirtRange, hole: VirtRange) {
        let hole = if hole.contains_range(range) { hole } else { range };
        let left = Left { guards: false, hole };
        let place = range.start().align_down(PMD_SIZE);
        let Some(span) = VirtRange::from_size(place, PMD_SIZE).filter(|span| span.contains_range(range)) else {
            if !self.is_bare(range, hole) {
                self.zap(range, left);
                if self.keeps_tables() {
                    self.trim();
                }
                self.reap_around(range, hole);
            }
            return;
        };
        let is_left = if range.size() >= PMD_SIZE / 2 {
            !self.is_bare(range, hole) && self.zap_part(range, left)
        } else {
            let entries = self.lock_entries(range.start());
            let (table, raw, count) = self.tables().lowest_counted(range.start());
            match count.filter(|_| table.level() == Level::Pte) {
                Some(count) => self.zap_entries((table, count), range, false),
                // As in `is_bare`.
                None if raw.is_absent() && !may_be_empty(table.level(), place, hole) => true,
                None => {
                    drop(entries);
                    self.zap_part(range, left)
                }
            }
        };
        if !is_left && hole.contains_range(span) {
            self.keep_tables(place);
        }
    }

    /// Whether nothing is mapped in `range`, and no table can lie in `hole` as a whole that translates some of it: one descent.
    fn is_bare(&self, range: VirtRange, hole: VirtRange) -> bool {
        match self.tables().absent_around(range) {
            Some(level) => !may_be_empty(level, range.start(), hole),
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
        self.discard_cut(range);
        Ok(())
    }

    /// [`Self::discard`] where the edges of `range` are edges of leaves.
    pub(in crate::mm::user) fn discard_cut(&self, range: VirtRange) {
        self.zap(range, Left { guards: true, ..Left::TABLES });
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
            let (mmu, run) = (self.tables().mmu(), run_of(part));
            let _entries = self.lock_entries(at);
            let Some((table, _, count)) = self.tables().last_entry(at) else {
                // Somebody changes this range as well.
                return Err(PagesError::OutOfMemory);
            };
            self.zap_entries((table, count), part, false);
            count.add(mmu, run.count());
            table.fill(mmu, run, Format::<H>::GUARD, 0);
            at = end;
        }
        Ok(())
    }

    fn remove_guards(&self, part: VirtRange) {
        let _entries = self.lock_entries(part.start());
        let mmu = self.tables().mmu();
        if let Some((table, _, count)) = self.tables().last_entry(part.start()) {
            let mut removed = 0;
            for slot in run_of(part).slots().filter(|slot| table.read(mmu, *slot) == Format::<H>::GUARD) {
                table.write(mmu, slot, RawEntry::ABSENT);
                removed += 1;
            }
            count.take(mmu, removed);
        }
    }

    /// Makes sure that there is a table of last entries for `at`: a block is split.
    pub(super) fn table_at(&self, at: VirtAddr, gfp: Gfp) -> Result<(), PagesError> {
        if self.has_last_table(at) {
            return Ok(());
        }
        let spare = Spare::new(self.hal(), gfp, Order::ZERO);
        self.grow(at, LeafLevel::Pte, &spare)?;
        self.split_at(at, &spare)
    }

    /// Whether there is a table of last entries for `at`, for now.
    #[inline]
    pub(super) fn has_last_table(&self, at: VirtAddr) -> bool {
        self.tables().look(|| self.tables().lowest(at)).0.level() == Level::Pte
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
        let mut next = if is_one_part(range) { Some(range) } else { self.tables().next_part(at, range.end()) };
        while let Some(part) = next {
            f(part);
            at = part.end();
            next = if at < range.end() { self.tables().next_part(at, range.end()) } else { None };
        }
    }

    /// Everything in a part of 2 MiB that has a table of last entries.
    pub(super) fn zap_last(&self, part: VirtRange) {
        self.zap_part(part, Left::TABLES);
    }

    /// Everything in `range`, whose edges are edges of leaves.
    pub(super) fn zap_all(&self, range: VirtRange) {
        self.zap(range, Left::TABLES);
    }

    fn zap(&self, range: VirtRange, left: Left) {
        self.each_part(range, |part| {
            self.zap_part(part, left);
        });
    }

    /// Whether something is left in the 2 MiB of the part.
    fn zap_part(&self, part: VirtRange, left: Left) -> bool {
        if part.size() >= PMD_SIZE / 2 && self.zap_table(part, left.hole) {
            return false;
        }
        loop {
            let entries = self.lock_entries(part.start());
            if let Some((table, _, count)) = self.tables().last_entry(part.start()) {
                return self.zap_entries((table, count), part, left.guards);
            }
            drop(entries);
            // One that reaches beyond the part was mapped after the edges were made edges: it stays.
            if part.size() != PMD_SIZE {
                return self.tables().look(|| !self.tables().lowest(part.start()).1.is_absent());
            }
            if self.zap_block(part.start()) {
                return false;
            }
        }
    }

    /// Frees all that a table maps, and the table, if it lies in `hole` and all its entries are those of `part`, which is most
    /// of it: whether it did. No entry is changed. Nobody is kept waiting while the frames are freed.
    fn zap_table(&self, part: VirtRange, hole: VirtRange) -> bool {
        let (tables, run, start) = (self.tables(), run_of(part), part.start().align_down(PMD_SIZE));
        let mmu = tables.mmu();
        if !VirtRange::from_size(start, PMD_SIZE).is_some_and(|span| hole.contains_range(span)) {
            return false;
        }
        let (taken, live) = {
            let _structure = self.lock_structure();
            let _entries = self.lock_entries(start);
            let Some((table, _, count)) = tables.last_entry(start) else { return false };
            let live = count.get(mmu);
            let below = Run::from_slot(Slot::FIRST, run.first().get() as u64);
            let above = Slot::new(run.first().get() + run.count()).map(|slot| Run::from_slot(slot, ENTRIES as u64));
            if live == 0 || !table.is_empty(mmu, below) || above.is_some_and(|above| !table.is_empty(mmu, above)) {
                return false;
            }
            (tables.take_table(start), live)
        };
        let Some((taken, flushed)) = taken else { return false };
        // No CPU reaches the frames any more, nor the table.
        let mut leaving = Leaving::new(self.hal());
        leaving.add_entries(taken.table(), mmu, run, live);
        tables.free_taken(taken, flushed, &self.hal().frames(Gfp::ATOMIC));
        self.count_dropped(leaving.finish());
        true
    }

    /// Frees the block at `start`; whether there is no table. If there is nothing, so be it.
    fn zap_block(&self, start: VirtAddr) -> bool {
        // The entries of a table of blocks are counted under this lock.
        let _structure = self.lock_structure();
        let _entries = self.lock_entries(start);
        let Some((table, count)) = self.tables().block_entries(start) else { return true };
        let (mmu, slot) = (self.tables().mmu(), Level::Pmd.slot(start));
        let leaf = match Format::<H>::decode(Level::Pmd, table.read(mmu, slot)) {
            Entry::Leaf(leaf) | Entry::Parked(leaf) => leaf,
            // A block that has been split since.
            Entry::Table(_) => return false,
            _ => return true,
        };
        table.write(mmu, slot, RawEntry::ABSENT);
        count.take(mmu, 1);
        self.tables().flush_leaf(start, leaf.level);
        let mut leaving = Leaving::new(self.hal());
        leaving.add_block(Pfn::containing(leaf.phys), leaf.level.size() >> PAGE_SHIFT);
        self.count_dropped(leaving.finish());
        true
    }

    /// Frees what the entries of `part` map; whether others of the table are left. Under their lock.
    fn zap_entries(&self, (table, count): (Table, Count), part: VirtRange, keep_guards: bool) -> bool {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let (run, live) = (run_of(part), count.get(mmu));
        if live == 0 || table.is_empty(mmu, run) {
            return live != 0;
        }
        self.cut_groups(table, part);
        let mut leaving = Leaving::new(self.hal());
        if leaving.is_device_row(table, mmu, run) {
            // Nobody counts these frames, so that nothing of the entries is needed after the flush.
            table.clear(mmu, run);
            tables.flush_leaves(part.start(), run.count() as u64, LeafLevel::Pte);
            self.count_dropped(Dropped { anon: 0, mapped: run.count() as u64 });
            return !count.take(mmu, run.count());
        }
        table.invalidate_each(mmu, run);
        tables.flush_leaves(part.start(), run.count() as u64, LeafLevel::Pte);
        // No CPU reaches the frames any more.
        let seen = leaving.add_entries(table, mmu, run, live);
        let mut gone = seen.found;
        if keep_guards && seen.guards != 0 {
            for slot in run.slots() {
                if table.read(mmu, slot) != Format::<H>::GUARD {
                    table.write(mmu, slot, RawEntry::ABSENT);
                }
            }
            gone -= seen.guards;
        } else {
            // No barrier: walkers do not tell invalid entries apart.
            table.clear(mmu, run);
        }
        let is_left = !count.take(mmu, gone);
        self.count_dropped(leaving.finish());
        is_left
    }

    /// Unfolds the groups that an edge of `part` cuts. Under their lock.
    pub(super) fn cut_groups(&self, table: Table, part: VirtRange) {
        let cut = |edge: VirtAddr| {
            let slot = Level::Pte.slot(edge);
            if slot != slot.group_start() {
                self.unfold_if_grouped(table, slot, edge);
            }
        };
        cut(part.start());
        // The first slot, if it is the end of the table.
        cut(part.end());
    }

    /// Unfolds the group that an entry belongs to, if it belongs to one. Under their lock.
    #[inline(always)]
    pub(super) fn unfold_if_grouped(&self, table: Table, slot: Slot, at: VirtAddr) {
        let raw = table.read(self.tables().mmu(), slot);
        if Format::<H>::is_valid(raw) && Format::<H>::is_contiguous(raw) {
            self.unfold(table, slot, at);
        }
    }
}

/// Whether the table of this level for `at` lies in `hole`. The root stays.
#[inline(always)]
fn may_be_empty(level: Level, at: VirtAddr, hole: VirtRange) -> bool {
    let size = level.size() * ENTRIES as u64;
    level != Level::Pgd
        && VirtRange::from_size(at.align_down(size), size).is_none_or(|table| hole.contains_range(table))
}

/// Whether one entry of 2 MiB translates all of a range.
#[inline(always)]
pub(super) const fn is_one_part(range: VirtRange) -> bool {
    let last = VirtAddr::new(range.end().get().wrapping_sub(1));
    range.start().align_down(PMD_SIZE).get() == last.align_down(PMD_SIZE).get()
}

/// The entries of a part of 2 MiB.
pub(super) fn run_of(part: VirtRange) -> Run {
    Run::from_slot(Level::Pte.slot(part.start()), part.size() / PAGE_SIZE)
}
