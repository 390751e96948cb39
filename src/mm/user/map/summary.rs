//! The free addresses below an area, as its record and the tree keep them.
#![forbid(unsafe_code)]

use super::VmFlags;
use super::vma::Vma;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::ds::rbtree::Augment;

/// Bytes below a stack in which nothing else is placed, and into which it does not grow if something that can be accessed
/// ends there: 256 pages (Linux: `stack_guard_gap`).
pub const STACK_GUARD_GAP: u64 = 256 * PAGE_SIZE;

/// The summary of the tree: the most free pages below an area of the subtree.
///
/// A gap is what lies between the end of the area before and the start of an area, less the guard gap if that is a stack.
/// It is kept as pages in 32 bits: `u32::MAX` stands for that many and more, of which there are at most 16 in 48 bits of
/// addresses, so that a search for so much looks at each.
#[derive(Clone, Copy, Debug, Default)]
pub struct MaxGap;

/// The largest gap that is told from others.
pub(super) const MANY: u32 = u32::MAX;

impl Augment<Vma> for MaxGap {
    const KEPT: bool = true;

    #[inline(always)]
    fn summarize(top: &Vma, left: Option<u32>, right: Option<u32>) -> u32 {
        top.gap().max(left.unwrap_or(0)).max(right.unwrap_or(0))
    }

    #[inline(always)]
    fn join(one: u32, other: u32) -> u32 {
        one.max(other)
    }
}

/// Where the free addresses below `area` end: at its start, or a guard gap below it if it is a stack (Linux:
/// `vm_start_gap`).
#[inline(always)]
pub(super) fn start_with_guard(area: &Vma) -> u64 {
    let start = area.low();
    if area.flags().contains(VmFlags::GROWSDOWN) { start.saturating_sub(STACK_GUARD_GAP) } else { start }
}

/// Free pages between `end`, where the area before ends, and `area`, as they are kept in its record: those below `clip`, if
/// some are. So the search below the usual limit, which is `clip`, never meets addresses that it may not use in a gap.
#[inline(always)]
pub(super) fn pages_below(area: &Vma, end: u64, clip: u64) -> u32 {
    let start = start_with_guard(area);
    let start = if end < clip { start.min(clip) } else { start };
    u32::try_from(start.saturating_sub(end) >> PAGE_SHIFT).unwrap_or(MANY)
}
