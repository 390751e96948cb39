//! The machine trait of per-CPU memory.

use super::Chunk;
use crate::addr::VirtRange;
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::vmalloc::VmallocHal;

/// Interface of per-CPU memory to a machine, beyond that of vmalloc.
///
/// # Safety
///
/// - `HAL-11`: when [`PerCpuHal::clear`] returns, the range is zero. [`PerCpuHal::row`] returns memory that nobody else has.
pub unsafe trait PerCpuHal<'a>: VmallocHal<'a> {
    /// Memory for `count` records, or `None`; `gfp` says how it may be looked for.
    fn row(&self, count: usize, gfp: Gfp) -> Option<&'a mut [Chunk<'a>]>;

    /// Frees records of [`PerCpuHal::row`].
    fn free_row(&self, row: &'a mut [Chunk<'a>]);

    /// Zeroes memory that the allocator has mapped and that nobody uses.
    fn clear(&self, _: Internal, range: VirtRange);
}
