//! Frame numbers, block orders and CPU numbers.

use super::{PAGE_SHIFT, PAGE_SIZE, PhysAddr};
use core::fmt;

/// The highest order of a buddy block: 2^10 pages, 4 MiB (Linux: `MAX_PAGE_ORDER`).
pub const MAX_ORDER: u8 = 10;

/// A page frame number: a physical address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Pfn(u64);

impl Pfn {
    /// Names `raw` as a frame number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The frame that holds the byte at `addr`.
    #[must_use]
    pub const fn containing(addr: PhysAddr) -> Self {
        Self(addr.get() >> PAGE_SHIFT)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address of the frame's first byte. Frame numbers above 2^52 have none and are cut.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        PhysAddr::new(self.0 << PAGE_SHIFT)
    }

    /// The frame `frames` further on, or `None` if that wraps.
    #[must_use]
    pub const fn checked_add(self, frames: u64) -> Option<Self> {
        match self.0.checked_add(frames) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

/// log2 of the number of pages in a block.
///
/// # Invariants
///
/// - `ORD-1`: at most [`MAX_ORDER`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Order(u8);

impl Order {
    /// One page.
    pub const ZERO: Self = Self(0);
    /// The largest block.
    pub const MAX: Self = Self(MAX_ORDER);

    /// The order `raw`, or `None` above [`MAX_ORDER`].
    #[must_use]
    pub const fn new(raw: u8) -> Option<Self> {
        // INVARIANT: ORD-1 by the comparison.
        if raw <= MAX_ORDER { Some(Self(raw)) } else { None }
    }

    /// The smallest order whose block holds `bytes`, or `None` if no block does (Linux: `get_order`). Zero bytes have
    /// no order.
    #[must_use]
    pub const fn for_bytes(bytes: u64) -> Option<Self> {
        if bytes == 0 {
            return None;
        }
        let order = u64::BITS - ((bytes - 1) >> PAGE_SHIFT).leading_zeros();
        #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
        Self::new(order as u8)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Pages in a block of this order.
    #[must_use]
    pub const fn pages(self) -> u64 {
        1 << self.0
    }

    /// Bytes in a block of this order.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        PAGE_SIZE << self.0
    }
}

/// A logical CPU number: 0 is the boot CPU, the others follow the device tree's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct CpuId(u32);

impl CpuId {
    /// The CPU that booted.
    pub const BOOT: Self = Self(0);

    /// Names `raw` as a logical CPU number.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {}", self.0)
    }
}
