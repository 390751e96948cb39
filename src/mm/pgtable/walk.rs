//! Reading the tables: one address, or every entry in order.
#![forbid(unsafe_code)]

use super::PageTable;
use super::cursor::Cursor;
use super::place::Place;
use super::table::Table;
use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::hal::entry::{Defect, Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::level::{ENTRIES, LeafLevel, Level, Run, Slot};
use crate::hal::mmu::Mmu;
use core::ops::ControlFlow;

/// Translation of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The byte that the address reaches.
    pub phys: PhysAddr,
    /// The entry that maps it.
    pub leaf: Leaf,
}

/// An entry that is not absent, with the first address that it translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visit {
    /// The first address under the entry.
    pub start: VirtAddr,
    /// The level of the table that holds the entry.
    pub level: Level,
    /// Decoded entry.
    pub entry: Entry,
}

impl Visit {
    /// The last address under the entry. There may be none behind it.
    #[must_use]
    pub const fn last(&self) -> VirtAddr {
        VirtAddr::new(self.start.get() + (self.level.size() - 1))
    }

    /// Whether the entry points to a table.
    #[must_use]
    pub const fn is_table(&self) -> bool {
        matches!(self.entry, Entry::Table(_))
    }

    /// Defect of the entry, if it has one.
    #[must_use]
    pub const fn defect(&self) -> Option<Defect> {
        match self.entry {
            Entry::Malformed(defect) => Some(defect),
            _ => None,
        }
    }
}

/// Neighbouring entries of one table that differ in nothing but the memory behind them, which follows on; or one entry
/// that is no leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// The first of them.
    pub(super) first: Visit,
    /// How many.
    pub(super) count: u64,
}

impl Stretch {
    /// The entry with this number, to say where something is wrong.
    pub(super) const fn nth(&self, index: u64) -> Visit {
        Visit { start: VirtAddr::new(self.first.start.get() + index * self.first.level.size()), ..self.first }
    }
}

impl<M: Mmu> PageTable<M> {
    /// Translation of `addr` by the tables, TLBs aside; `None` if it is not mapped. Others may change the tables
    /// meanwhile, and free some of them. Any context. Cost: one read a level, and three atomic operations.
    pub fn translate(&self, addr: VirtAddr) -> Option<Translation> {
        self.look(|| self.do_translate(addr))
    }

    /// [`PageTable::translate`] for a caller whose own address it is: nobody frees a table there.
    #[inline]
    pub(crate) fn do_translate(&self, addr: VirtAddr) -> Option<Translation> {
        match self.find(addr) {
            Some(Place { start, table, raw, .. }) => match M::Format::decode(table.level(), raw) {
                Entry::Leaf(leaf) => {
                    let phys = leaf.phys.checked_add(addr.offset_from(start)?)?;
                    Some(Translation { phys, leaf })
                }
                _ => None,
            },
            None => None,
        }
    }

    /// The table of last-level entries for `addr`, if there is one: the shortest walk to a page.
    #[inline(always)]
    pub(in crate::mm) fn last_level(&self, addr: VirtAddr) -> Option<Table> {
        self.block_level(addr)?.descend(&self.mmu, Level::Pmd.slot(addr)).ok()
    }

    /// The table of the entries that span 2 MiB for `addr`, if there is one.
    #[inline(always)]
    pub(in crate::mm) fn block_level(&self, addr: VirtAddr) -> Option<Table> {
        let pud = self.root.table().descend(&self.mmu, Level::Pgd.slot(addr)).ok()?;
        pud.descend(&self.mmu, Level::Pud.slot(addr)).ok()
    }

    /// Whether every leaf of `level` that lies in `range` can be mapped: no leaf and no table stands there. Cost: one
    /// descent for each table touched, and a third of an instruction an entry.
    pub(super) fn has_room(&self, range: VirtRange, level: LeafLevel) -> bool {
        let (mut at, end) = (range.start().align_up(level.size()), range.end());
        while let Some(start) = at.filter(|start| *start < end) {
            let mut table = self.root.table();
            while table.level() < level.level() {
                match table.descend(&self.mmu, table.level().slot(start)) {
                    Ok(child) => table = child,
                    Err(raw) if raw.is_absent() => break,
                    Err(_) => return false,
                }
            }
            let size = table.level().size();
            if table.level() != level.level() {
                // Nothing at all under this entry.
                at = start.align_down(size).checked_add(size);
                continue;
            }
            let whole = (end.get() - start.get()) >> level.shift();
            if whole == 0 {
                break;
            }
            let run = Run::from_slot(table.level().slot(start), whole);
            if !table.is_empty(&self.mmu, run) {
                return false;
            }
            at = start.checked_add((run.count() as u64) << level.shift());
        }
        true
    }

    /// The entry at which the descent for `addr` ends, absent or not; `None` outside the space.
    pub(super) fn find(&self, addr: VirtAddr) -> Option<Place> {
        if addr.get() < self.space.start() || addr.get() > self.space.last() {
            return None;
        }
        let mut table = self.root.table();
        loop {
            let level = table.level();
            let slot = level.slot(addr);
            match table.descend(&self.mmu, slot) {
                Ok(child) => table = child,
                Err(raw) => return Some(Place { start: addr.align_down(level.size()), table, slot, raw }),
            }
        }
    }

    /// Shows `f` every entry that is not absent and translates an address of `range`, in ascending order, a table before
    /// what is below it, until `f` breaks. Others may change the tables meanwhile, and free some of them: what was shown has
    /// been there, and `f` runs without any claim on it. Any context. Cost: about fifty instructions a run of leaves that
    /// follow on, and about ten an entry.
    pub fn walk<B>(&self, range: VirtRange, f: impl FnMut(Visit) -> ControlFlow<B>) -> ControlFlow<B> {
        match range.is_empty() {
            true => ControlFlow::Continue(()),
            false => self.visit_each(range.start().get(), range.end().get() - 1, f),
        }
    }

    /// [`PageTable::walk`] over the whole space, its last page included.
    pub fn walk_all<B>(&self, f: impl FnMut(Visit) -> ControlFlow<B>) -> ControlFlow<B> {
        self.visit_each(self.space.start(), self.space.last(), f)
    }

    fn visit_each<B>(&self, first: u64, last: u64, mut f: impl FnMut(Visit) -> ControlFlow<B>) -> ControlFlow<B> {
        self.walk_stretches(first, last, &mut |stretch| {
            for index in 0..stretch.count {
                // Each maps what follows the memory of the one before.
                let visit = stretch.nth(index);
                let entry = match visit.entry {
                    Entry::Leaf(leaf) => {
                        let phys = PhysAddr::new(leaf.phys.get() + index * visit.level.size());
                        Entry::Leaf(Leaf { phys, ..leaf })
                    }
                    other => other,
                };
                f(Visit { entry, ..visit })?;
            }
            ControlFlow::Continue(())
        })
    }

    /// [`PageTable::walk`] for a caller whose own range it is: nobody frees a table there. Cost: O(entries of the tables
    /// passed).
    pub(crate) fn do_walk<B>(&self, range: VirtRange, mut f: impl FnMut(Visit) -> ControlFlow<B>) -> ControlFlow<B> {
        if range.is_empty() {
            return ControlFlow::Continue(());
        }
        self.walk_places(range.start().get(), range.end().get() - 1, &mut |place: Place| {
            let level = place.table.level();
            f(Visit { start: place.start, level, entry: M::Format::decode(level, place.raw) })
        })
    }

    /// The walk by place, for addresses `first` to `last` inclusive.
    pub(super) fn walk_places<B>(
        &self,
        first: u64,
        last: u64,
        f: &mut impl FnMut(Place) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let (first, last) = (first.max(self.space.start()), last.min(self.space.last()));
        if first > last {
            return ControlFlow::Continue(());
        }
        self.walk_table(self.root.table(), self.space.start(), first, last, f)
    }

    /// The walk through one table, whose first entry translates `base`; `first..=last` lies within what it spans. The
    /// recursion is as deep as the tables: four.
    fn walk_table<B>(
        &self,
        table: Table,
        base: u64,
        first: u64,
        last: u64,
        f: &mut impl FnMut(Place) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let level = table.level();
        let (low, high) = (level.slot(VirtAddr::new(first)), level.slot(VirtAddr::new(last)));
        let run = Run::from_slot(low, (high.get() - low.get()) as u64 + 1);
        for slot in run.slots() {
            let raw = table.read(&self.mmu, slot);
            if raw.is_absent() {
                continue;
            }
            let start = base + ((slot.get() as u64) << level.shift());
            f(Place { start: VirtAddr::new(start), table, slot, raw })?;
            if let Ok(child) = table.descend(&self.mmu, slot) {
                let end = start + (level.size() - 1);
                self.walk_table(child, start, first.max(start), last.min(end), f)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Shows `f` every entry of `first..=last` that is not absent as [`PageTable::walk`] does, but leaves that follow on
    /// together, so that what is true of all of them is found out once.
    pub(super) fn walk_stretches<B>(
        &self,
        first: u64,
        last: u64,
        f: &mut impl FnMut(Stretch) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let (first, last) = (first.max(self.space.start()), last.min(self.space.last()));
        let mut cursor = Cursor::new(first, last);
        while let Some(stretch) = self.next_place(&mut cursor, |place| {
            let stretch = self.stretch_at(&place, last);
            (stretch, stretch.count)
        }) {
            f(stretch)?;
        }
        ControlFlow::Continue(())
    }

    /// The entry at `place`, with the leaves that follow on as far as `last`.
    fn stretch_at(&self, place: &Place, last: u64) -> Stretch {
        let Place { start, table, slot, raw } = *place;
        let level = table.level();
        let entry = M::Format::decode(level, raw);
        let count = match entry {
            Entry::Leaf(leaf) => {
                // No further than output addresses reach: the addition that follows stays within the address.
                let reached = (M::Format::OUTPUT_END - leaf.phys.get()) >> level.shift();
                let wanted = ((last - start.get()) >> level.shift()) + 1;
                let most = reached.min(wanted).min((ENTRIES - slot.get()) as u64);
                let mut next = raw;
                let follows = |slot: &Slot| {
                    next = RawEntry::new(next.get().wrapping_add(level.size()));
                    table.read(&self.mmu, *slot) == next
                };
                let behind = Slot::new(slot.get() + 1).filter(|_| most > 1).map(|next| Run::from_slot(next, most - 1));
                1 + behind.map_or(0, |run| run.slots().take_while(follows).count() as u64)
            }
            _ => 1,
        };
        Stretch { first: Visit { start, level, entry }, count }
    }
}
