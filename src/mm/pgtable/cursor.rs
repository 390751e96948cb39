//! A walk that goes on where it was: each look at the tables is short, and nothing is freed meanwhile.
#![forbid(unsafe_code)]

use super::PageTable;
use super::place::Place;
use super::table::Table;
use crate::addr::VirtAddr;
use crate::hal::entry::{Entry, EntryFormat, RawEntry};
use crate::hal::level::{ENTRIES, Level, Run, Slot};
use crate::hal::mmu::Mmu;

/// Entries that are looked at together where there may be none.
const GAP: u64 = 64;

/// Where a walk goes on: with the entries of `depth` and below that translate `at`, then with all behind.
#[derive(Debug)]
pub(super) struct Cursor {
    at: VirtAddr,
    depth: Level,
    last: u64,
    ended: bool,
}

impl Cursor {
    /// For every entry that translates an address of `first..=last`.
    pub(super) const fn new(first: u64, last: u64) -> Self {
        Self { at: VirtAddr::new(first), depth: Level::Pgd, last, ended: first > last }
    }

    /// Goes on behind `size` bytes from `start` on.
    fn pass(&mut self, start: VirtAddr, size: u64) {
        // The last address of the space may be the last of all.
        match start.get().checked_add(size) {
            Some(next) if next <= self.last => {
                self.at = VirtAddr::new(next);
                // Tables that begin here have not been shown.
                self.depth = Level::Pgd;
                while let Some(below) = self.depth.below().filter(|_| !self.at.is_aligned(self.depth.size())) {
                    self.depth = below;
                }
            }
            _ => self.ended = true,
        }
    }
}

impl<M: Mmu> PageTable<M> {
    /// Runs `look` while no table that it can reach is freed. It must be short.
    #[inline]
    pub(in crate::mm) fn look<R>(&self, look: impl FnOnce() -> R) -> R {
        self.mmu.uninterrupted(|| {
            let _inside = self.walkers.enter();
            look()
        })
    }

    /// Shows `f` the next entry that is not absent, in ascending order, a table before what is below it, while nothing is
    /// freed; `None` at the end. `f` says how many entries of the table are done with it: at least one. Cost: a descent,
    /// and the absent entries passed.
    pub(super) fn next_place<R>(&self, cursor: &mut Cursor, mut f: impl FnMut(Place) -> (R, u64)) -> Option<R> {
        while !cursor.ended {
            if let Some(answer) = self.look(|| self.look_at(cursor, &mut f)) {
                return Some(answer);
            }
        }
        None
    }

    /// One descent.
    fn look_at<R>(&self, cursor: &mut Cursor, f: &mut impl FnMut(Place) -> (R, u64)) -> Option<R> {
        let mut table = self.root.table();
        loop {
            let level = table.level();
            let slot = level.slot(cursor.at);
            let start = cursor.at.align_down(level.size());
            let raw = table.read(&self.mmu, slot);
            if is_nothing::<M::Format>(level, raw) {
                cursor.pass(start, self.absent_from(table, slot) * level.size());
                return None;
            }
            let child = table.descend(&self.mmu, slot);
            if level >= cursor.depth {
                let (answer, count) = f(Place { start, table, slot, raw });
                match child.is_ok().then(|| level.below()).flatten() {
                    Some(below) => cursor.depth = below,
                    None => cursor.pass(start, count.max(1) * level.size()),
                }
                return Some(answer);
            }
            match child {
                Ok(child) => table = child,
                // The table that was shown is a leaf by now.
                Err(_) => {
                    cursor.pass(start, level.size());
                    return None;
                }
            }
        }
    }

    /// How many absent entries follow on from `slot`, which is one of them, in its table.
    fn absent_from(&self, table: Table, slot: Slot) -> u64 {
        let (first, end) = (slot.get() as u64, ENTRIES as u64);
        let mut index = first;
        while index < end {
            // Up to the next multiple, so that most gaps are crossed in such steps.
            let gap = GAP - index % GAP;
            if !table.is_empty(&self.mmu, Run::from_slot(Slot::wrapping(index), gap)) {
                break;
            }
            index += gap;
        }
        let rest = Run::from_slot(Slot::wrapping(index), end - index);
        let absent = |slot: &Slot| is_nothing::<M::Format>(table.level(), table.read(&self.mmu, *slot));
        let more = if index < end { rest.slots().take_while(absent).count() as u64 } else { 0 };
        (index - first + more).max(1)
    }
}

/// Whether the entry is absent, or what links a table that has been taken out to the next: a look may still be in such a one.
fn is_nothing<F: EntryFormat>(level: Level, raw: RawEntry) -> bool {
    raw.is_absent() || (Table::is_link(raw) && !matches!(F::decode(level, raw), Entry::Leaf(_) | Entry::Table(_)))
}
