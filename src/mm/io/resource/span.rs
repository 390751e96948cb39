//! Ranges of physical addresses that include their last address.
#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, PhysRange};
use core::fmt;

/// The addresses from `start` to `last`, both included: never empty, and the whole address space is one.
///
/// # Invariants
///
/// - `SPAN-1`: `start <= last`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Span {
    start: PhysAddr,
    last: PhysAddr,
}

impl Span {
    /// All addresses.
    // INVARIANT: SPAN-1.
    pub const ALL: Self = Self { start: PhysAddr::ZERO, last: PhysAddr::MAX };

    /// `start` to `last`, or `None` if `last` lies before `start`.
    #[must_use]
    pub const fn new(start: PhysAddr, last: PhysAddr) -> Option<Self> {
        // INVARIANT: SPAN-1 by the comparison.
        if start.get() <= last.get() { Some(Self { start, last }) } else { None }
    }

    /// `size` bytes from `start` on, or `None` for 0 bytes and for a range that wraps. The last byte of the address space may
    /// be the last.
    #[must_use]
    pub const fn from_size(start: PhysAddr, size: u64) -> Option<Self> {
        let Some(more) = size.checked_sub(1) else { return None };
        match start.checked_add(more) {
            // INVARIANT: SPAN-1 by `checked_add`.
            Some(last) => Some(Self { start, last }),
            None => None,
        }
    }

    /// The bytes of `range`, or `None` if it has none.
    #[must_use]
    pub const fn of(range: PhysRange) -> Option<Self> {
        Self::from_size(range.start(), range.size())
    }

    /// First address.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        self.start
    }

    /// Last address.
    #[must_use]
    pub const fn last(self) -> PhysAddr {
        self.last
    }

    /// Bytes, or `None` for the whole address space, whose size no `u64` holds.
    #[must_use]
    pub const fn size(self) -> Option<u64> {
        (self.last.get() - self.start.get()).checked_add(1)
    }

    /// Whether all of `other` lies in it (Linux: `resource_contains`).
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start.get() <= other.start.get() && other.last.get() <= self.last.get()
    }

    /// Whether they share an address (Linux: `resource_overlaps`).
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.get() <= other.last.get() && other.start.get() <= self.last.get()
    }

    /// From the first address of both to the last, or `None` if they share none: spans that touch have no union (Linux:
    /// `resource_union`).
    #[must_use]
    pub fn union(self, other: Self) -> Option<Self> {
        let (start, last) = (self.start.min(other.start), self.last.max(other.last));
        // INVARIANT: SPAN-1: the bounds only move apart.
        self.overlaps(other).then_some(Self { start, last })
    }

    /// The addresses that are in both, or `None` if there are none (Linux: `resource_intersection`).
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.last.min(other.last))
    }

    /// The lowest `size` bytes in it that start at a multiple of `align`, a power of two.
    #[must_use]
    pub(super) fn lowest(self, size: u64, align: u64) -> Option<Self> {
        Self::from_size(self.start.align_up(align)?, size).filter(|fit| self.contains(*fit))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}-{:#x}]", self.start, self.last)
    }
}
