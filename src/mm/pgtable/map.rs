//! Mapping: the largest leaves that alignment allows, all or nothing.
#![forbid(unsafe_code)]

use super::table::{FreshTable, Table};
use super::{PageTable, PgtableError, UnmapFlags};
use crate::addr::{PAGE_SIZE, PHYS_SIZE_MAX, PhysAddr, VirtAddr, VirtRange};
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level, Run, Slot};
use crate::hal::mmu::Mmu;
use crate::hal::prot::Prot;

bitflags::bitflags! {
    /// What [`PageTable::map`] must not use.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MapFlags: u32 {
        /// No 2 MiB and 1 GiB blocks: the mapping will be changed page by page.
        const NO_HUGE = 1 << 0;
        /// No contiguous groups.
        const NO_CONT = 1 << 1;
    }
}

/// The rest of a mapping: `end - at` bytes, from `phys` on.
#[derive(Clone, Copy)]
struct Cursor {
    at: VirtAddr,
    end: VirtAddr,
    phys: PhysAddr,
    prot: Prot,
    flags: MapFlags,
}

impl Cursor {
    const fn left(&self) -> u64 {
        self.end.get() - self.at.get()
    }

    /// The largest leaf that may start here.
    #[inline]
    const fn largest(&self) -> LeafLevel {
        if self.flags.contains(MapFlags::NO_HUGE) {
            return LeafLevel::Pte;
        }
        let bits = self.at.get() | self.phys.get();
        if bits & (LeafLevel::Pud.size() - 1) == 0 && self.left() >= LeafLevel::Pud.size() {
            LeafLevel::Pud
        } else if bits & (LeafLevel::Pmd.size() - 1) == 0 && self.left() >= LeafLevel::Pmd.size() {
            LeafLevel::Pmd
        } else {
            LeafLevel::Pte
        }
    }

    /// Goes on by `bytes`, at most what is left.
    const fn advance(&mut self, bytes: u64) {
        self.at = VirtAddr::new(self.at.get() + bytes);
        self.phys = PhysAddr::new(self.phys.get() + bytes);
    }
}

impl<M: Mmu> PageTable<M> {
    /// Maps `range` to the physical memory from `phys` on, with 1 GiB and 2 MiB blocks and contiguous groups wherever
    /// both addresses and the length allow. When it returns, every CPU can use the mapping; nothing is invalidated,
    /// since an absent entry is never in a TLB. A table that stands where a block would fit stays, even an empty one, and
    /// is mapped into: [`PageTable::unmap`] leaves none inside its range unless told to.
    ///
    /// Whether `phys` may be mapped with that memory type is for the caller to know. May be called in any context that
    /// `frames` allows. Cost: one descent for each table touched, and about three instructions a page.
    ///
    /// # Errors
    ///
    /// [`PgtableError::Unaligned`], [`Empty`](PgtableError::Empty), [`OutsideSpace`](PgtableError::OutsideSpace),
    /// [`PhysOutOfRange`](PgtableError::PhysOutOfRange) or [`WrongPrivilege`](PgtableError::WrongPrivilege) for
    /// arguments that no mapping can have; [`Overlap`](PgtableError::Overlap) if anything is mapped in `range`, which
    /// stays as it is; [`NoFrame`](PgtableError::NoFrame). What was mapped until then is unmapped again and flushed.
    /// Empty tables that reach beyond `range` stay, to be used by the next mapping there.
    pub fn map<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        phys: PhysAddr,
        prot: Prot,
        flags: MapFlags,
    ) -> Result<(), PgtableError> {
        self.admit(range)?;
        if !phys.is_aligned(PAGE_SIZE) {
            return Err(PgtableError::Unaligned);
        }
        if phys.get() > PHYS_SIZE_MAX || range.size() > PHYS_SIZE_MAX - phys.get() {
            return Err(PgtableError::PhysOutOfRange);
        }
        if !self.space.admits(prot) {
            return Err(PgtableError::WrongPrivilege);
        }
        let mut cursor = Cursor { at: range.start(), end: range.end(), phys, prot, flags };
        let mut result = Ok(());
        while cursor.at < cursor.end && result.is_ok() {
            result = self.map_run(frames, &mut cursor);
        }
        if result.is_err() {
            self.undo(frames, range, cursor.at);
        }
        self.mmu.publish();
        result
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

    /// Maps as much as one table takes, and moves the cursor behind it.
    fn map_run<F: FrameSource>(&self, frames: &F, cursor: &mut Cursor) -> Result<(), PgtableError> {
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
        let mut run = Run::from_slot(slot, cursor.left() / level.size());
        if !table.is_empty(&self.mmu, run) {
            // Among blocks there may be tables: one entry at a time.
            run = Run::from_slot(slot, 1);
            if level == LeafLevel::Pte || !table.is_empty(&self.mmu, run) {
                return Err(PgtableError::Overlap(self.first_mapped(table, cursor)));
            }
        }
        self.fill_run(table, run, level, cursor);
        cursor.advance(run.count() as u64 * level.size());
        Ok(())
    }

    /// Writes the leaves of a run, those in the middle as contiguous groups where virtual and physical address agree
    /// in their low bits.
    #[inline]
    fn fill_run(&self, table: Table, run: Run, level: LeafLevel, cursor: &Cursor) {
        let (at, phys) = (cursor.at.get(), cursor.phys.get());
        let group = level.contiguous_size();
        let step = level.size();
        let bytes = run.count() as u64 * step;
        let aligned = (at ^ phys) & (group - 1) == 0 && bytes >= group && level != LeafLevel::Pud;
        let (head, middle) = if aligned && !cursor.flags.contains(MapFlags::NO_CONT) {
            let head = at.wrapping_neg() & (group - 1);
            if bytes < head { (bytes, 0) } else { (head, (bytes - head) & !(group - 1)) }
        } else {
            (bytes, 0)
        };
        let mut from = 0;
        for (length, contiguous) in [(head, false), (middle, true), (bytes - head - middle, false)] {
            if length > 0 {
                let first = M::Format::leaf(level, PhysAddr::new(phys + from), cursor.prot, contiguous);
                let slot = Slot::wrapping((run.first().get() as u64) + from / step);
                table.fill(&self.mmu, Run::from_slot(slot, length / step), first, step);
                from += length;
            }
        }
    }

    /// The table whose entries for `at` are of `level`, made if need be. If a leaf stands in the way, the table that
    /// holds it.
    pub(super) fn table_for<F: FrameSource>(
        &self,
        frames: &F,
        at: VirtAddr,
        level: LeafLevel,
    ) -> Result<Table, PgtableError> {
        let mut table = self.root;
        while table.level() < level.level() {
            let slot = table.level().slot(at);
            match table.descend(&self.mmu, slot) {
                Ok(child) => table = child,
                Err(raw) if raw.is_absent() => self.grow(frames, table, at, level)?,
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
        table: Table,
        at: VirtAddr,
        level: LeafLevel,
    ) -> Result<(), PgtableError> {
        let mut lowest = level.level();
        let mut chain: Option<FreshTable> = None;
        let mut taken = 0;
        while lowest > table.level() {
            let parent = match FreshTable::new(&self.mmu, frames, lowest) {
                Ok(parent) => parent,
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
                Ok(_) => self.count_taken(taken),
                Err((top, _)) => {
                    top.discard(&self.mmu, frames);
                }
            }
        }
        Ok(())
    }

    /// The first address at or behind the cursor that is mapped, for the error.
    #[cold]
    fn first_mapped(&self, table: Table, cursor: &Cursor) -> VirtAddr {
        let size = table.level().size();
        let first = table.level().slot(cursor.at);
        let ahead = Run::from_slot(first, cursor.left() / size)
            .slots()
            .position(|slot| !table.read(&self.mmu, slot).is_absent())
            .unwrap_or(0);
        VirtAddr::new(cursor.at.get() + ahead as u64 * size)
    }

    /// Takes back what a failed call mapped, `range` up to `reached`. Walkers may have seen it, so it is flushed.
    #[cold]
    fn undo<F: FrameSource>(&self, frames: &F, range: VirtRange, reached: VirtAddr) {
        if let Some(done) = VirtRange::new(range.start(), reached)
            && !done.is_empty()
        {
            let mut gather = self.gather(frames);
            // The mapped part ends where a leaf ends, so nothing needs a split.
            let undone = self.unmap(done, UnmapFlags::empty(), &mut gather);
            debug_assert!(undone.is_ok(), "what was just mapped can be unmapped");
        }
    }
}
