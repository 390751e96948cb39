//! A counter of which every CPU has a part (Linux: `lib/percpu_counter.c`).
#![forbid(unsafe_code)]

use crate::hal::cpu::Interrupts;
use crate::sync::{LockHal, OrderedLock, class};
use core::sync::atomic::{AtomicI64, Ordering};

/// Part of a counter that all CPUs share. Each CPU adds to a part of its own, and moves that here when it is large.
///
/// # Invariants
///
/// - `CNT-1`: the sum of all additions is the shared part plus the parts of all CPUs, whenever the lock is free and nobody
///   adds.
/// - `CNT-2`: a CPU's part is less than `batch`, either way.
#[derive(Debug)]
pub struct Counter<R> {
    shared: AtomicI64,
    batch: i64,
    folding: OrderedLock<(), class::CounterFold, R>,
}

impl<R: LockHal> Counter<R> {
    /// A counter of `start`, whose CPUs keep less than `batch` each to themselves; at least 1.
    #[must_use]
    pub const fn new(start: i64, batch: u32) -> Self {
        let batch = if batch == 0 { 1 } else { batch as i64 };
        Self { shared: AtomicI64::new(start), batch, folding: OrderedLock::new(()) }
    }

    /// Limit of the part that one CPU may keep to itself.
    #[must_use]
    pub const fn batch(&self) -> i64 {
        self.batch
    }

    /// Adds to the running CPU's part, which `local` is, with interrupts masked from before the CPU was looked at. Saturates.
    #[inline]
    pub fn add(&self, local: &AtomicI64, by: i64) {
        let part = local.load(Ordering::Relaxed).saturating_add(by);
        if part < self.batch && part > -self.batch {
            local.store(part, Ordering::Relaxed);
        } else {
            self.fold(local, part);
        }
    }

    /// Moves `part` to the shared part. Release, so that a reader of it sees the CPU's earlier writes.
    #[cold]
    fn fold(&self, local: &AtomicI64, part: i64) {
        let folding = self.folding.lock();
        // INVARIANT: CNT-1: both change while nobody sums.
        let shared = self.shared.load(Ordering::Relaxed);
        self.shared.store(shared.saturating_add(part), Ordering::Release);
        local.store(0, Ordering::Relaxed);
        drop(folding);
    }

    /// About how much it is: off by less than `batch` for each CPU (Linux: `percpu_counter_read`). Any context; one load.
    #[inline]
    #[must_use]
    pub fn read(&self) -> i64 {
        self.shared.load(Ordering::Acquire)
    }

    /// The sum (Linux: `percpu_counter_sum`): exact if nobody adds meanwhile, and otherwise with or without the additions made
    /// in these moments, nothing twice. `parts` are those of all CPUs. Any context.
    pub fn sum<'l>(&self, interrupts: &impl Interrupts, parts: impl Iterator<Item = &'l AtomicI64>) -> i64 {
        let saved = interrupts.save();
        let folding = self.folding.lock();
        let shared = self.shared.load(Ordering::Relaxed);
        let sum = parts.fold(shared, |sum, part| sum.saturating_add(part.load(Ordering::Relaxed)));
        drop(folding);
        interrupts.restore(saved);
        sum
    }
}
