//! [`Page`]: a frame that has a descriptor.
#![forbid(unsafe_code)]

use core::fmt;

/// A frame of RAM, by its distance from the lowest frame that has a descriptor.
///
/// 32 bits reach 16 TiB; memory that spans more is refused at boot. Pages come from an allocator, or from
/// [`PageMap::find`](super::PageMap::find), which knows the existing frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Page(u32);

impl Page {
    /// Value of links that point to no page.
    pub(in crate::mm) const NIL: u32 = u32::MAX;

    /// The page at this distance. The caller must know whether it has a descriptor.
    #[must_use]
    #[inline]
    pub(in crate::mm) const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Frames between the lowest one that has a descriptor and this one.
    #[must_use]
    #[inline]
    pub const fn index(self) -> u32 {
        self.0
    }

    /// The block of the same order with which a block of `order` at this page forms one of the next order.
    #[must_use]
    #[inline]
    pub const fn buddy(self, order: u8) -> Self {
        Self(self.0 ^ 1 << order)
    }

    /// The page whose block of `order` would contain this one.
    #[must_use]
    #[inline]
    pub const fn align_down(self, order: u8) -> Self {
        Self(self.0 & !((1 << order) - 1))
    }

    /// Whether a block of `order` may start here.
    #[must_use]
    #[inline]
    pub const fn is_aligned(self, order: u8) -> bool {
        self.0 & ((1 << order) - 1) == 0
    }

    /// The page `pages` further on. Stays within the block or range that the caller has.
    #[must_use]
    #[inline]
    pub const fn offset(self, pages: u32) -> Self {
        Self(self.0.wrapping_add(pages))
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {:#x}", self.0)
    }
}
