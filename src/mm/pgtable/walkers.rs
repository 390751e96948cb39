//! Software walks over tables that other CPUs may free: counting the walkers, and waiting for them before a free.
#![forbid(unsafe_code)]

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
    pub(super) fn enter(&self) -> Inside<'_> {
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

pub(super) struct Inside<'w> {
    count: &'w AtomicU32,
}

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Release);
    }
}
