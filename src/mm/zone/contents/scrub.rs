//! Contents of memory that changes hands: zeroes on allocation or on free, or a pattern that shows writes to memory
//! that was free, or no mapping at all (Linux: `init_on_alloc=`, `init_on_free=`, `page_poison=`, `debug_pagealloc=`).
//!
//! All of it lives on the slow path, which every call takes while any of it is on, so that it costs nothing where it is off.
#![forbid(unsafe_code)]

use crate::addr::PhysAddr;
use bitflags::bitflags;

/// Value of every byte of a free page while pages are poisoned (Linux: `PAGE_POISON`).
pub const PAGE_POISON: u8 = 0xaa;

bitflags! {
    /// Treatment of pages that change hands.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Scrub: u8 {
        /// Pages are zeroed when they are allocated, whatever the flags.
        const ZERO_ON_ALLOC = 1 << 0;
        /// Pages are zeroed when they are freed. [`Scrub::POISON`] takes precedence.
        const ZERO_ON_FREE = 1 << 1;
        /// Free pages hold [`PAGE_POISON`], and a write to one is reported when it is allocated.
        const POISON = 1 << 2;
        /// Pages carry memory tags, on a machine that has them.
        const TAG = 1 << 3;
        /// Free pages are unmapped, so a read or write of one faults (Linux: `debug_pagealloc=`). The linear map has
        /// an entry for each page.
        const UNMAP = 1 << 4;
    }
}

impl Scrub {
    /// Value of every byte of a free page.
    pub(super) const fn of_free(self) -> Option<u8> {
        if self.contains(Self::POISON) {
            Some(PAGE_POISON)
        } else if self.contains(Self::ZERO_ON_FREE) {
            Some(0)
        } else {
            None
        }
    }
}

/// Says that a page was written to while it was free.
#[cold]
pub(in crate::mm::zone) fn report_overwritten(at: PhysAddr, found: u8) {
    log::error!("page poisoning: {at} was written to while it was free: {found:#04x} instead of {PAGE_POISON:#04x}");
}
