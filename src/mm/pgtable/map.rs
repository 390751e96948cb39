//! Mapping: the largest leaves that alignment allows, all or nothing.
#![forbid(unsafe_code)]

use super::table::{FreshTable, Table};
use super::{Count, PageTable, PgtableError, UnmapFlags};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PHYS_SIZE_MAX, PMD_SIZE, PhysAddr, VirtAddr, VirtRange};
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{CONTIGUOUS_ENTRIES, LeafLevel, Level, Run, Slot};
use crate::hal::mmu::Mmu;
use crate::hal::prot::Prot;

bitflags::bitflags! {
    /// Restrictions on [`PageTable::map`].
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MapFlags: u32 {
        /// No 2 MiB and 1 GiB blocks: the mapping will be changed page by page.
        const NO_HUGE = 1 << 0;
        /// No contiguous groups.
        const NO_CONT = 1 << 1;
        /// Tables that earlier, smaller mappings left inside the range, empty, give way to the blocks that fit there. Their
        /// entries go with them: the caller knows that nothing in the range is mapped.
        const REPLACE_TABLES = 1 << 2;
    }
}

/// The rest of a mapping: `end - at` bytes, from `phys` on. Handed on by value, to live in registers.
#[derive(Clone, Copy)]
struct Cursor {
    at: VirtAddr,
    end: VirtAddr,
    phys: PhysAddr,
    attributes: RawEntry,
    flags: MapFlags,
}

impl Cursor {
    const fn left(&self) -> u64 {
        self.end.get() - self.at.get()
    }

    /// Whether a leaf of this size may start here.
    #[inline]
    const fn fits(&self, size: u64) -> bool {
        (self.at.get() | self.phys.get()) & (size - 1) == 0 && self.left() >= size
    }

    /// The largest leaf that may start here.
    #[inline]
    const fn largest(&self) -> LeafLevel {
        if self.flags.contains(MapFlags::NO_HUGE) || !self.fits(LeafLevel::Pmd.size()) {
            LeafLevel::Pte
        } else if self.fits(LeafLevel::Pud.size()) {
            LeafLevel::Pud
        } else {
            LeafLevel::Pmd
        }
    }

    /// Whether some of `run`, which starts here, can be contiguous groups: virtual and physical address agree in their
    /// low bits. Blocks of 1 GiB are never joined.
    #[inline]
    const fn groups(&self, run: Run, level: LeafLevel) -> bool {
        run.count() >= CONTIGUOUS_ENTRIES
            && !self.flags.contains(MapFlags::NO_CONT)
            && (self.at.get() ^ self.phys.get()) & (level.contiguous_size() - 1) == 0
            && !matches!(level, LeafLevel::Pud)
    }

    /// The cursor `bytes` further on, at most what is left; so neither address wraps.
    #[inline]
    const fn after(self, bytes: u64) -> Self {
        let at = VirtAddr::new(self.at.get().wrapping_add(bytes));
        let phys = PhysAddr::new(self.phys.get().wrapping_add(bytes));
        Self { at, phys, ..self }
    }
}

impl<M: Mmu> PageTable<M> {
    /// [`Self::map`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    pub(crate) fn do_map<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        phys: PhysAddr,
        prot: Prot,
        flags: MapFlags,
    ) -> Result<(), PgtableError> {
        // Here, so that a protection known to the caller costs nothing.
        if !self.space.admits(prot) {
            return Err(PgtableError::WrongPrivilege);
        }
        self.map_leaves(frames, range, phys, M::Format::attributes(prot), flags)
    }

    /// [`PageTable::map`] once the protection is encoded.
    fn map_leaves<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        phys: PhysAddr,
        attributes: RawEntry,
        flags: MapFlags,
    ) -> Result<(), PgtableError> {
        self.admit(range)?;
        if !phys.is_aligned(PAGE_SIZE) {
            return Err(PgtableError::Unaligned);
        }
        if phys.get() > PHYS_SIZE_MAX || range.size() > PHYS_SIZE_MAX - phys.get() {
            return Err(PgtableError::PhysOutOfRange);
        }
        if self.map_unit(range, phys, attributes, flags) {
            return Ok(());
        }
        self.map_runs(frames, range, phys, attributes, flags)
    }

    /// Maps `range` table by table; undoes all of it if that fails.
    #[inline(never)]
    fn map_runs<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        phys: PhysAddr,
        attributes: RawEntry,
        flags: MapFlags,
    ) -> Result<(), PgtableError> {
        let mut cursor = Cursor { at: range.start(), end: range.end(), phys, attributes, flags };
        let blocks = range.size() >= PMD_SIZE && !flags.contains(MapFlags::NO_HUGE);
        if blocks && (range.start().get() ^ phys.get()) & (PMD_SIZE - 1) == 0 {
            if self.map_blocks(cursor) {
                return Ok(());
            }
            if flags.contains(MapFlags::REPLACE_TABLES) {
                self.make_room(frames, range)?;
            }
        }
        while cursor.at < cursor.end {
            cursor = match self.map_pages(cursor) {
                Some(next) => next,
                None => match self.map_run(frames, cursor) {
                    Ok(next) => next,
                    Err(error) => return self.undo(frames, range, cursor.at, error),
                },
            };
        }
        self.mmu.publish();
        Ok(())
    }

    /// The usual case of blocks: nothing but blocks of 2 MiB, whose table is there and has room. Whether it was that.
    fn map_blocks(&self, cursor: Cursor) -> bool {
        let Some(run) = super::blocks_of_one_table(cursor.at, cursor.left()) else { return false };
        let Some(table) = self.block_level(cursor.at).filter(|table| table.is_empty(&self.mmu, run)) else {
            return false;
        };
        self.fill_run(table, run, LeafLevel::Pmd, cursor);
        self.mmu.publish();
        true
    }

    /// Takes tables out that stand where blocks of `range` fit. They lie in it whole.
    #[cold]
    fn make_room<F: FrameSource>(&self, frames: &F, range: VirtRange) -> Result<(), PgtableError> {
        let crowded = |level: LeafLevel| range.size() >= level.size() && !self.has_room(range, level);
        if crowded(LeafLevel::Pmd) || crowded(LeafLevel::Pud) {
            // A block that reaches beyond the range is no table.
            return self.do_unmap_and_flush(frames, range, UnmapFlags::empty()).map_err(|error| match error {
                PgtableError::WouldSplit(at) => PgtableError::Overlap(at),
                other => other,
            });
        }
        Ok(())
    }

    /// Makes sure that mapping a leaf of `level` anywhere in `range` needs no further table: so that a later call
    /// cannot run out of them, or so that the tables exist before they are shared.
    ///
    /// # Errors
    ///
    /// Those of [`PageTable::map`]. Tables made until then stay.
    pub fn populate<F: FrameSource>(&self, frames: &F, range: VirtRange, level: LeafLevel) -> Result<(), PgtableError> {
        self.admit(range)?;
        let (mut at, mut result) = (range.start(), Ok(()));
        while at < range.end() && result.is_ok() {
            result = match self.table_for(frames, at, level) {
                Ok(table) if table.level() == level.level() => Ok(()),
                Ok(_) => Err(PgtableError::Overlap(at)),
                Err(error) => Err(error),
            };
            at = super::entry_end(at, level.size() << 9, range.end());
        }
        self.mmu.publish();
        result
    }

    /// The usual case of [`PageTable::map_run`]: pages, whose table is there and has room. `None` if it is another.
    #[inline(always)]
    fn map_pages(&self, cursor: Cursor) -> Option<Cursor> {
        if cursor.largest() != LeafLevel::Pte {
            return None;
        }
        let table = self.last_level(cursor.at)?;
        let run = Run::from_slot(Level::Pte.slot(cursor.at), cursor.left() >> PAGE_SHIFT);
        if !table.is_empty(&self.mmu, run) {
            return None;
        }
        if cursor.groups(run, LeafLevel::Pte) {
            self.fill_run(table, run, LeafLevel::Pte, cursor);
        } else {
            let first = M::Format::leaf_with(cursor.attributes, LeafLevel::Pte, cursor.phys, false);
            table.fill(&self.mmu, run, first, PAGE_SIZE);
        }
        Some(cursor.after((run.count() as u64) << PAGE_SHIFT))
    }

    /// Maps as much as one table takes. Returns the cursor behind it.
    #[cold]
    fn map_run<F: FrameSource>(&self, frames: &F, cursor: Cursor) -> Result<Cursor, PgtableError> {
        let wanted = cursor.largest();
        let mut table = self.table_for(frames, cursor.at, wanted)?;
        let blocked = table.level() != wanted.level();
        // A table may stand where a block would fit.
        while let Ok(child) = table.descend(&self.mmu, table.level().slot(cursor.at)) {
            table = child;
        }
        let Some(level) = table.level().leaf().filter(|_| !blocked) else {
            return Err(PgtableError::Overlap(cursor.at));
        };
        let slot = table.level().slot(cursor.at);
        let mut run = Run::from_slot(slot, cursor.left() >> level.shift());
        if !table.is_empty(&self.mmu, run) {
            // Among blocks there may be tables: one entry at a time.
            run = Run::from_slot(slot, 1);
            if level == LeafLevel::Pte || !table.is_empty(&self.mmu, run) {
                return Err(PgtableError::Overlap(self.first_mapped(table, cursor)));
            }
        }
        self.fill_run(table, run, level, cursor);
        Ok(cursor.after((run.count() as u64) << level.shift()))
    }

    /// Writes the leaves of a run, those in the middle as contiguous groups where there can be some.
    fn fill_run(&self, table: Table, run: Run, level: LeafLevel, cursor: Cursor) {
        let (first, count) = (run.first().get(), run.count());
        let (head, grouped) = if cursor.groups(run, level) {
            let head = first.wrapping_neg() % CONTIGUOUS_ENTRIES;
            (head, (count - head) & !(CONTIGUOUS_ENTRIES - 1))
        } else {
            (count, 0)
        };
        let mut done = 0;
        for (length, contiguous) in [(head, false), (grouped, true), (count - head - grouped, false)] {
            if length > 0 {
                let phys = PhysAddr::new(cursor.phys.get() + ((done as u64) << level.shift()));
                let part = Run::from_slot(Slot::wrapping((first + done) as u64), length as u64);
                let leaf = M::Format::leaf_with(cursor.attributes, level, phys, contiguous);
                table.fill(&self.mmu, part, leaf, level.size());
                done += length;
            }
        }
    }

    /// The table whose entries for `at` are of `level`, made if need be. If a leaf stands in the way, the table that
    /// holds it.
    pub(in crate::mm) fn table_for<F: FrameSource>(
        &self,
        frames: &F,
        at: VirtAddr,
        level: LeafLevel,
    ) -> Result<Table, PgtableError> {
        let (mut table, mut count) = (self.root.table(), None);
        while table.level() < level.level() {
            let slot = table.level().slot(at);
            match table.descend(&self.mmu, slot) {
                Ok(child) => (table, count) = (child, Some(Count::of(table, slot))),
                Err(raw) if raw.is_absent() => self.grow(frames, (table, count), at, level)?,
                Err(_) => break,
            }
        }
        Ok(table)
    }

    /// Adds the tables that are missing below `table` on the way to `level`. They are joined before the uppermost is
    /// linked: if one cannot be had, nothing has changed. Somebody else may be quicker; then theirs serves.
    #[cold]
    fn grow<F: FrameSource>(
        &self,
        frames: &F,
        (table, count): (Table, Option<Count>),
        at: VirtAddr,
        level: LeafLevel,
    ) -> Result<(), PgtableError> {
        let mut lowest = level.level();
        let mut chain: Option<FreshTable> = None;
        let mut taken = 0;
        while lowest > table.level() {
            let below = usize::from(self.counted && chain.is_some());
            let parent = match FreshTable::new(&self.mmu, frames, lowest) {
                Ok(parent) => parent.with_live(below),
                Err(error) => {
                    if let Some(chain) = chain {
                        chain.discard(&self.mmu, frames);
                    }
                    return Err(error.into());
                }
            };
            taken += 1;
            if let Some(child) = chain
                && let Err((child, _)) = parent.table().link(&self.mmu, lowest.slot(at), RawEntry::ABSENT, child)
            {
                // A fresh table is empty; this cannot be.
                child.discard(&self.mmu, frames);
            }
            chain = Some(parent);
            lowest = match lowest {
                Level::Pte => Level::Pmd,
                Level::Pmd => Level::Pud,
                Level::Pud | Level::Pgd => Level::Pgd,
            };
        }
        if let Some(top) = chain {
            match table.link(&self.mmu, table.level().slot(at), RawEntry::ABSENT, top) {
                Ok(_) => {
                    self.count_taken(taken);
                    if let Some(count) = count.filter(|_| self.counted) {
                        count.add(&self.mmu, 1);
                    }
                }
                Err((top, _)) => {
                    top.discard(&self.mmu, frames);
                }
            }
        }
        Ok(())
    }

    /// The first address at or behind the cursor that is mapped, for the error.
    #[cold]
    fn first_mapped(&self, table: Table, cursor: Cursor) -> VirtAddr {
        let size = table.level().size();
        let first = table.level().slot(cursor.at);
        let ahead = Run::from_slot(first, cursor.left() / size)
            .slots()
            .position(|slot| !table.read(&self.mmu, slot).is_absent())
            .unwrap_or(0);
        VirtAddr::new(cursor.at.get() + ahead as u64 * size)
    }

    /// Takes back what a failed call mapped, `range` up to `reached`, and returns the call's error. Walkers may have
    /// seen it, so it is flushed.
    #[cold]
    pub(super) fn undo<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        reached: VirtAddr,
        error: PgtableError,
    ) -> Result<(), PgtableError> {
        if let Some(done) = VirtRange::new(range.start(), reached)
            && !done.is_empty()
        {
            // The mapped part ends where a leaf ends, so nothing needs a split.
            let undone = self.do_unmap_and_flush(frames, done, UnmapFlags::empty());
            debug_assert!(undone.is_ok(), "what was just mapped can be unmapped");
        }
        // Tables may have been added beyond what is unmapped.
        self.mmu.publish();
        Err(error)
    }
}
