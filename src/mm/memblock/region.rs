//! A region: a range of physical addresses and its properties.
#![forbid(unsafe_code)]

use crate::addr::{PHYS_SIZE_MAX, PhysAddr, PhysRange};
use bitflags::bitflags;
use core::num::NonZeroU32;

bitflags! {
    /// Properties of a region. The values are Linux's, so that a dump reads the same.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct RegionFlags: u32 {
        /// Not in the linear map and never handed out: the memory belongs to firmware or to one device (Linux:
        /// `MEMBLOCK_NOMAP`).
        const NOMAP = 0x4;
    }
}

/// Owner of a reservation: the offset of a node in the device tree, by [`Node::offset`](crate::fdt::Node::offset), or
/// [`BOOT_ONLY`].
pub type RegionOwner = NonZeroU32;

/// Owner of the image's memory that only booting needs, and nothing else reserves: free when booting is over. No tree is so
/// large that a node has this offset.
pub const BOOT_ONLY: RegionOwner = NonZeroU32::MAX;

/// A range of physical addresses, and its properties.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// The bytes of the region.
    pub range: PhysRange,
    /// Their properties.
    pub flags: RegionFlags,
    /// Owner of a reservation that the memblock placed; memory has none.
    pub owner: Option<RegionOwner>,
}

impl Region {
    /// Contents of an unused slot.
    pub const EMPTY: Self = Self { range: PhysRange::EMPTY, flags: RegionFlags::empty(), owner: None };

    /// First address.
    #[must_use]
    pub const fn start(&self) -> PhysAddr {
        self.range.start()
    }

    /// One past the last address.
    #[must_use]
    pub const fn end(&self) -> PhysAddr {
        self.range.end()
    }

    /// Whether the two differ in nothing but where they are, so that they are one region where they touch.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.flags == other.flags && self.owner == other.owner
    }

    /// Whether the linear map holds the region.
    #[must_use]
    pub const fn is_mapped(&self) -> bool {
        !self.flags.contains(RegionFlags::NOMAP)
    }
}

/// One past the highest address that memory can have.
pub(super) const PHYS_END: PhysAddr = PhysAddr::new(PHYS_SIZE_MAX);

/// The range `start..end`, or `None` if it would hold no byte.
pub(super) fn span(start: PhysAddr, end: PhysAddr) -> Option<PhysRange> {
    PhysRange::new(start, end).filter(|range| !range.is_empty())
}
