//! Moving what a range maps to other addresses.
#![forbid(unsafe_code)]

use super::anon::part_end;
use super::hal::Format;
use super::space_pages::UserPages;
use super::spare::Spare;
use super::zap::{is_one_part, run_of};
use super::{PagesError, UserHal};
use crate::addr::{Order, PAGE_SIZE, PMD_SIZE, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::level::{LeafLevel, Level, Run};
use crate::hal::mmu::Mmu;
use crate::mm::pgtable::PgtableError;

/// Entries that are moved with one flush.
const MOVED: usize = 64;

impl<H: UserHal> UserPages<H> {
    /// Moves everything that `from` maps to the addresses from `to` on, where nothing is (Linux: `move_page_tables`): frames,
    /// protections and guard pages. Whole tables and blocks move where both addresses agree in their offset in 2 MiB. The
    /// caller keeps faults of both ranges out. May sleep if `gfp` says so. Cost: one flush for 64 pages, or for a table.
    ///
    /// # Errors
    ///
    /// [`PagesError::Overlap`], [`PagesError::Occupied`], [`PagesError::Range`], [`PagesError::OutOfMemory`]. Everything is
    /// where it was then.
    pub fn relocate(&self, from: VirtRange, to: VirtAddr, gfp: Gfp) -> Result<(), PagesError> {
        let target = self.admit_move(from, to)?;
        self.check_vacant(target)?;
        self.carve(from, gfp)?;
        self.prepare_target(from, target, gfp)?;
        self.move_all(from, target)
    }

    /// As [`UserPages::relocate`], in place of what the target maps, which is unmapped as [`UserPages::unmap`] does. All
    /// tables come first: where one cannot be had, both ranges are as they were.
    ///
    /// # Errors
    ///
    /// Those of [`UserPages::relocate`] but [`PagesError::Occupied`].
    pub fn relocate_over(&self, from: VirtRange, to: VirtAddr, gfp: Gfp) -> Result<(), PagesError> {
        let target = self.admit_move(from, to)?;
        self.carve(from, gfp)?;
        self.carve(target, gfp)?;
        self.relocate_cut(from, to, gfp)
    }

    /// [`Self::relocate_over`] where the edges of both ranges are edges of leaves.
    pub(in crate::mm::user) fn relocate_cut(&self, from: VirtRange, to: VirtAddr, gfp: Gfp) -> Result<(), PagesError> {
        let target = self.admit_move(from, to)?;
        self.prepare_target(from, target, gfp)?;
        self.zap_all(target);
        self.move_all(from, target)?;
        // Tables of what was there, where nothing came.
        self.reap(target);
        Ok(())
    }

    /// The target of a move.
    fn admit_move(&self, from: VirtRange, to: VirtAddr) -> Result<VirtRange, PagesError> {
        self.admit(from)?;
        let outside = PagesError::Range(PgtableError::OutsideSpace);
        let target = VirtRange::from_size(to, from.size()).ok_or(outside)?;
        self.admit(target)?;
        if target.overlaps(from) { Err(PagesError::Overlap) } else { Ok(target) }
    }

    /// Moves to a target where nothing is and all tables are.
    fn move_all(&self, from: VirtRange, target: VirtRange) -> Result<(), PagesError> {
        if is_one_part(from) && !is_whole(from, target.start()) {
            self.move_entries(from, target.start())?;
            self.reap(from);
            return Ok(());
        }
        let mut at = from.start();
        while let Some(part) = self.tables().next_part(at, from.end()) {
            at = part.end();
            let there = counterpart(from, target.start(), part.start());
            if is_whole(part, there) {
                // An empty table that stands in the place.
                self.reap(VirtRange::from_size(there, part.size()).unwrap_or_default());
                if self.move_whole(part, there) {
                    continue;
                }
            }
            self.move_entries(part, there)?;
        }
        self.reap(from);
        Ok(())
    }

    /// Refuses a range with something in it.
    fn check_vacant(&self, range: VirtRange) -> Result<(), PagesError> {
        let mut at = range.start();
        while let Some(part) = self.tables().next_part(at, range.end()) {
            let _entries = self.lock_entries(part.start());
            let (table, raw) = self.tables().lowest(part.start());
            let empty = match table.level() {
                Level::Pte => table.is_empty(self.tables().mmu(), run_of(part)),
                _ => raw.is_absent(),
            };
            if !empty {
                return Err(PagesError::Occupied(part.start()));
            }
            at = part.end();
        }
        Ok(())
    }

    /// Makes all tables that the move needs. Mappings of the target stay, but that blocks there may be split.
    fn prepare_target(&self, from: VirtRange, target: VirtRange, gfp: Gfp) -> Result<(), PagesError> {
        if is_one_part(from) && !is_whole(from, target.start()) && self.has_last_table(from.start()) {
            return self.tables_at(target, gfp);
        }
        let mut at = from.start();
        while let Some(part) = self.tables().next_part(at, from.end()) {
            at = part.end();
            let there = counterpart(from, target.start(), part.start());
            let moved = VirtRange::from_size(there, part.size()).unwrap_or_default();
            if is_whole(part, there) {
                self.grow(there, LeafLevel::Pmd, &Spare::new(self.hal(), gfp, Order::ZERO))?;
                continue;
            }
            self.table_at(part.start(), gfp)?;
            self.tables_at(moved, gfp)?;
        }
        Ok(())
    }

    /// Makes sure that there are tables of last entries for all of `range`.
    fn tables_at(&self, range: VirtRange, gfp: Gfp) -> Result<(), PagesError> {
        let mut place = range.start();
        while place < range.end() {
            self.table_at(place, gfp)?;
            place = part_end(place, range.end());
        }
        Ok(())
    }

    /// Moves a table or a block as it is; whether it could.
    fn move_whole(&self, part: VirtRange, there: VirtAddr) -> bool {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let (slot, target) = (Level::Pmd.slot(part.start()), Level::Pmd.slot(there));
        // Nothing is linked meanwhile, and upper tables stay.
        let _structure = self.lock_structure();
        let vacant = tables.block_entries(there).filter(|(table, _)| table.read(mmu, target).is_absent());
        let (Some((place, more)), Some((source, fewer))) = (vacant, tables.block_entries(part.start())) else {
            return false;
        };
        if source.descend(mmu, slot).is_ok() {
            let taken = {
                let _entries = self.lock_entries(part.start());
                tables.take_table(part.start())
            };
            let Some((taken, flushed)) = taken else { return true };
            let given = {
                let _entries = self.lock_entries(there);
                tables.give_table(there, taken, &flushed)
            };
            if let Err(taken) = given {
                // The place was vacant, and nobody else fills it.
                let back = tables.give_table(part.start(), taken, &flushed);
                debug_assert!(back.is_ok(), "a table goes back where it was");
                return false;
            }
            return true;
        }
        let block = {
            let _entries = self.lock_entries(part.start());
            let raw = source.read(mmu, slot);
            if raw.is_absent() {
                return true;
            }
            source.write(mmu, slot, RawEntry::ABSENT);
            fewer.take(mmu, 1);
            if Format::<H>::is_valid(raw) {
                tables.flush_leaf(part.start(), LeafLevel::Pmd);
            }
            raw
        };
        let _entries = self.lock_entries(there);
        more.add(mmu, 1);
        place.write(mmu, target, block);
        mmu.publish();
        true
    }

    /// Moves entries of the last level.
    fn move_entries(&self, part: VirtRange, there: VirtAddr) -> Result<(), PagesError> {
        let mut at = part.start();
        while at < part.end() {
            let target = VirtAddr::new(there.get() + (at.get() - part.start().get()));
            let room = (part_end(target, VirtAddr::new(u64::MAX)).get() - target.get()) / PAGE_SIZE;
            let pages = ((part.end().get() - at.get()) / PAGE_SIZE).min(room).min(MOVED as u64);
            let Some(chunk) = VirtRange::from_size(at, pages * PAGE_SIZE) else { break };
            at = chunk.end();
            let mut taken = [RawEntry::ABSENT; MOVED];
            let entries = self.take_entries(chunk, &mut taken);
            if entries == 0 {
                continue;
            }
            let whole = VirtRange::from_size(target, chunk.size()).unwrap_or_default();
            if !self.give_entries(whole, &taken, entries) {
                // Somebody has freed the tables that were made for this.
                let back = self.give_entries(chunk, &taken, entries);
                debug_assert!(back, "entries go back where they were");
                return Err(PagesError::OutOfMemory);
            }
        }
        Ok(())
    }

    /// Takes the entries of a chunk out, flushed; how many there were.
    fn take_entries(&self, chunk: VirtRange, taken: &mut [RawEntry; MOVED]) -> usize {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let _entries = self.lock_entries(chunk.start());
        let run = run_of(chunk);
        let found = tables.last_entry(chunk.start()).filter(|(table, ..)| !table.is_empty(mmu, run));
        let Some((table, _, count)) = found else { return 0 };
        let mut at = chunk.start();
        for slot in run.slots() {
            self.unfold_if_grouped(table, slot, at);
            at = VirtAddr::new(at.get() + PAGE_SIZE);
        }
        table.invalidate_each(mmu, run);
        tables.flush_leaves(chunk.start(), run.count() as u64, LeafLevel::Pte);
        let (mut places, mut entries) = (taken.iter_mut(), 0);
        table.read_each(mmu, run, |raw| {
            if let Some(place) = places.next() {
                entries += usize::from(!raw.is_absent());
                let stays = raw.is_absent() || raw == Format::<H>::GUARD || Format::<H>::is_parked(raw);
                *place = if stays { raw } else { Format::<H>::revalidate(raw) };
            }
        });
        table.clear(mmu, run);
        count.take(mmu, entries);
        entries
    }

    /// Writes so many entries, and absent ones between them, where nothing is; whether there is a table for them.
    fn give_entries(&self, chunk: VirtRange, taken: &[RawEntry; MOVED], entries: usize) -> bool {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let _entries = self.lock_entries(chunk.start());
        let run: Run = run_of(chunk);
        let found = tables.last_entry(chunk.start()).filter(|(table, ..)| table.is_empty(mmu, run));
        let Some((table, _, count)) = found else { return false };
        count.add(mmu, entries);
        table.write_each(mmu, run, taken.get(..run.count()).unwrap_or_default(), Some);
        mmu.publish();
        true
    }
}

/// Whether a part is all that an entry of 2 MiB translates, and so is its place.
const fn is_whole(part: VirtRange, there: VirtAddr) -> bool {
    part.size() == PMD_SIZE && there.is_aligned(PMD_SIZE)
}

/// Where an address of `from` comes to.
const fn counterpart(from: VirtRange, to: VirtAddr, at: VirtAddr) -> VirtAddr {
    VirtAddr::new(to.get() + (at.get() - from.start().get()))
}
