//! Counters that every CPU adds to by itself (Linux: `struct percpu_counter`).
#![forbid(unsafe_code)]

use super::cpu::KernelPages;
use super::percpu::PerCpu;
use crate::arch::aarch64::cpu::Relax;
use crate::gfp::Gfp;
use crate::hal::cpu::PerCpu as _;
use crate::mm::percpu::{Counter, PerCpuError};
use core::cmp::Ordering;
use core::fmt;
use core::sync::atomic::AtomicI64;

/// Smallest batch of a CPU (Linux: `percpu_counter_batch`).
const BATCH_MIN: u32 = 32;

/// A number that all CPUs add to, each to a part of its own, so that they do not contend for a cache line; each moves its part
/// to the shared part when it reaches the batch.
pub struct PerCpuCounter {
    shared: Counter<Relax>,
    parts: PerCpu<AtomicI64>,
}

impl PerCpuCounter {
    /// A counter that starts at `start`. The part that a CPU keeps to itself is less than twice the number of CPUs, and 32 at
    /// least. Context as `gfp` says.
    ///
    /// # Errors
    ///
    /// [`PerCpuError`].
    pub fn new(start: i64, gfp: Gfp) -> Result<Self, PerCpuError> {
        Self::with_batch(start, (2 * KernelPages(()).cpus()).max(BATCH_MIN), gfp)
    }

    /// The same with a batch of `batch`: each CPU keeps less than that to itself; at least 1.
    ///
    /// # Errors
    ///
    /// [`PerCpuError`].
    pub fn with_batch(start: i64, batch: u32, gfp: Gfp) -> Result<Self, PerCpuError> {
        Ok(Self { shared: Counter::new(start, batch), parts: PerCpu::new(gfp, |_| AtomicI64::new(0))? })
    }

    /// Limit of the part that one CPU may keep to itself.
    #[must_use]
    pub const fn batch(&self) -> i64 {
        self.shared.batch()
    }

    /// Adds, on this CPU (Linux: `percpu_counter_add`). Any context. Cost: a dozen instructions; once a batch a lock.
    #[inline]
    pub fn add(&self, by: i64) {
        self.parts.with_this_cpu(|part| self.shared.add(part, by));
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Subtracts one.
    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }

    /// Approximate value, off by less than the batch for each CPU (Linux: `percpu_counter_read`). Any context; one load.
    #[inline]
    #[must_use]
    pub fn read(&self) -> i64 {
        self.shared.read()
    }

    /// The same for a counter that is never negative: a part that has not been moved yet may make it look so (Linux:
    /// `percpu_counter_read_positive`).
    #[inline]
    #[must_use]
    pub fn read_positive(&self) -> u64 {
        u64::try_from(self.read()).unwrap_or(0)
    }

    /// Value, exact if nobody adds meanwhile (Linux: `percpu_counter_sum`). Any context; O(CPUs).
    #[must_use]
    pub fn sum(&self) -> i64 {
        self.shared.sum(&KernelPages(()), self.parts.iter().map(|(_, part)| part))
    }

    /// The same for a counter that is never negative (Linux: `percpu_counter_sum_positive`).
    #[must_use]
    pub fn sum_positive(&self) -> u64 {
        u64::try_from(self.sum()).unwrap_or(0)
    }

    /// Compares it with `other`: by the shared part if that decides, and exactly otherwise (Linux: `percpu_counter_compare`).
    #[must_use]
    pub fn compare(&self, other: i64) -> Ordering {
        let about = self.read();
        let most = self.batch().saturating_mul(i64::from(KernelPages(()).cpus()));
        if about.abs_diff(other) > most.unsigned_abs() { about.cmp(&other) } else { self.sum().cmp(&other) }
    }
}

impl fmt::Debug for PerCpuCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuCounter").field("sum", &self.sum()).finish_non_exhaustive()
    }
}
