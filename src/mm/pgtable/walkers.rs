//! Software walks over tables that other CPUs may free: counting the walkers, and waiting for them before a free.
#![forbid(unsafe_code)]

use super::PageTable;
use super::table::Table;
use super::walk::Place;
use crate::addr::VirtAddr;
use crate::hal::entry::{Entry, EntryFormat, RawEntry};
use crate::hal::level::{ENTRIES, Level, Run, Slot};
use crate::hal::mmu::Mmu;
use core::hint;
use core::sync::atomic::{AtomicU32, Ordering, fence};

/// Counts the looks that are under way, in two halves, so that new looks cannot keep a CPU waiting that frees a table.
///
/// A look is short: interrupts are masked, it reads no more than a table of each level, and what was read is worked on
/// after it. So a CPU that frees a table waits for at most that long, in any context.
///
/// # Invariants
///
/// - `WALK-1`: a table is freed only after [`Walkers::wait`], called when nothing in memory points to the table any more. A
///   look that began before is counted, and has ended then. One that begins later does not find the table: its count and the
///   removal are both before and after sequentially consistent fences.
#[derive(Debug)]
pub(super) struct Walkers {
    half: AtomicU32,
    inside: [AtomicU32; 2],
}

impl Walkers {
    pub(super) const fn new() -> Self {
        Self { half: AtomicU32::new(0), inside: [AtomicU32::new(0), AtomicU32::new(0)] }
    }

    fn of(&self, half: u32) -> &AtomicU32 {
        let [even, odd] = &self.inside;
        if half.is_multiple_of(2) { even } else { odd }
    }

    /// Begins a look; it lasts until the answer is dropped.
    #[inline]
    fn enter(&self) -> Inside<'_> {
        let count = self.of(self.half.load(Ordering::Relaxed));
        count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Inside { count }
    }

    /// Returns when every look has ended that may have met what the caller took out of the tables. Cost: a barrier and
    /// four accesses where nobody looks.
    pub(super) fn wait(&self) {
        fence(Ordering::SeqCst);
        // Those who came late to the half that nobody enters any more, then those of the half that is entered now, after it
        // has become the other.
        let half = self.half.load(Ordering::Relaxed);
        self.wait_for(half.wrapping_add(1));
        self.half.store(half.wrapping_add(1), Ordering::Relaxed);
        self.wait_for(half);
    }

    fn wait_for(&self, half: u32) {
        // Acquire: what the look read, it read before.
        while self.of(half).load(Ordering::SeqCst) != 0 {
            hint::spin_loop();
        }
    }
}

struct Inside<'w> {
    count: &'w AtomicU32,
}

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Release);
    }
}

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
