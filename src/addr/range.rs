//! Half-open ranges of addresses that cannot wrap.

use super::{PhysAddr, UserAddr, VirtAddr};
use core::fmt;

/// A half-open range `start..end` of addresses of one kind.
///
/// # Invariants
///
/// - `RNG-1`: `start <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Range<A> {
    start: A,
    end: A,
}

/// A range of physical addresses.
pub type PhysRange = Range<PhysAddr>;
/// A range of kernel virtual addresses.
pub type VirtRange = Range<VirtAddr>;
/// A range of user virtual addresses.
pub type UserRange = Range<UserAddr>;

macro_rules! range {
    ($addr:ident) => {
        impl Range<$addr> {
            /// The range of no byte at address zero.
            // INVARIANT: RNG-1: both ends are the same.
            pub const EMPTY: Self = Self { start: $addr::ZERO, end: $addr::ZERO };

            /// The range of `size` bytes from `start`, or `None` if its end would wrap.
            #[must_use]
            pub const fn from_size(start: $addr, size: u64) -> Option<Self> {
                // INVARIANT: RNG-1 by `checked_add`.
                match start.checked_add(size) {
                    Some(end) => Some(Self { start, end }),
                    None => None,
                }
            }

            /// The range `start..end`, or `None` if `end` lies before `start`.
            #[must_use]
            pub const fn new(start: $addr, end: $addr) -> Option<Self> {
                // INVARIANT: RNG-1 by the comparison.
                if start.get() <= end.get() { Some(Self { start, end }) } else { None }
            }

            /// First address.
            #[must_use]
            pub const fn start(self) -> $addr {
                self.start
            }

            /// One past the last address.
            #[must_use]
            pub const fn end(self) -> $addr {
                self.end
            }

            /// Bytes in the range.
            #[must_use]
            pub const fn size(self) -> u64 {
                self.end.get() - self.start.get()
            }

            /// Whether the range holds no byte.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.start.get() == self.end.get()
            }

            /// Whether `addr` lies in the range.
            #[must_use]
            pub const fn contains(self, addr: $addr) -> bool {
                self.start.get() <= addr.get() && addr.get() < self.end.get()
            }

            /// Whether every byte of `other` lies in the range. An empty range lies in any range that spans its start.
            #[must_use]
            pub const fn contains_range(self, other: Self) -> bool {
                self.start.get() <= other.start.get() && other.end.get() <= self.end.get()
            }

            /// Whether the two ranges share a byte. An empty range shares none.
            #[must_use]
            pub const fn overlaps(self, other: Self) -> bool {
                let apart = self.end.get() <= other.start.get() || other.end.get() <= self.start.get();
                !apart && !self.is_empty() && !other.is_empty()
            }

            /// The bytes that both ranges hold, or `None` if there are none.
            #[must_use]
            pub fn intersection(self, other: Self) -> Option<Self> {
                let start = self.start.max(other.start);
                let end = self.end.min(other.end);
                // INVARIANT: RNG-1 by the comparison.
                (start < end).then_some(Self { start, end })
            }

            /// The smallest range of whole `align` units that holds this one, or `None` past the end of the space.
            #[must_use]
            pub const fn align_outwards(self, align: u64) -> Option<Self> {
                // INVARIANT: RNG-1, as start only moves down and end only up.
                match self.end.align_up(align) {
                    Some(end) => Some(Self { start: self.start.align_down(align), end }),
                    None => None,
                }
            }

            /// The largest range of whole `align` units inside this one, or `None` if there is no whole unit.
            #[must_use]
            pub fn align_inwards(self, align: u64) -> Option<Self> {
                let start = self.start.align_up(align)?;
                let end = self.end.align_down(align);
                // INVARIANT: RNG-1 by the comparison.
                (start < end).then_some(Self { start, end })
            }
        }

        impl fmt::Debug for Range<$addr> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "[{:#x}..{:#x})", self.start, self.end)
            }
        }

        impl fmt::Display for Range<$addr> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "[{:#x}..{:#x})", self.start, self.end)
            }
        }
    };
}

impl Range<VirtAddr> {
    /// The range of `size` bytes from `start`, which are known to lie in the address space: on a path where that has been checked
    /// already.
    #[inline(always)]
    pub(crate) const fn within_space(start: VirtAddr, size: u64) -> Self {
        debug_assert!(start.checked_add(size).is_some());
        // INVARIANT: RNG-1 by the caller's knowledge.
        Self { start, end: VirtAddr::new(start.get().wrapping_add(size)) }
    }
}

range!(PhysAddr);
range!(VirtAddr);
range!(UserAddr);
