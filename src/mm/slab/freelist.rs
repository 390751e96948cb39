//! The free list of a slab: each free object on it holds a hardened pointer to the next (Linux:
//! `CONFIG_SLAB_FREELIST_HARDENED`).
//!
//! A link holds the address of the next object, exclusive-ored with a secret of the cache and the byte-swapped address of the
//! link itself. A writer that knows neither turns it into an address that is no object of the slab; this is found when the
//! object is taken.
#![forbid(unsafe_code)]

use crate::addr::{Tag, VirtAddr};

/// A stored link.
///
/// `place` is where it stands, `next` where it leads, or zero at the end of the list.
#[inline(always)]
pub(super) const fn encode(next: VirtAddr, secret: u64, place: VirtAddr) -> u64 {
    next.get() ^ secret ^ place.get().swap_bytes()
}

/// Where a stored link leads. An address that makes no sense is damage.
#[inline(always)]
pub(super) const fn decode(stored: u64, secret: u64, place: VirtAddr) -> VirtAddr {
    VirtAddr::new(stored ^ secret ^ place.get().swap_bytes())
}

/// Where the four bits are in which a link of a cache with memory tags remembers a tag: those of a pointer's own.
const PAST: u32 = 56;

/// A link that remembers the tag that the object had which it stands in.
pub(super) const fn with_past(next: VirtAddr, past: Tag) -> VirtAddr {
    VirtAddr::new(next.get() ^ (past.get() as u64) << PAST)
}

/// Where such a link leads, and the tag. Bit 55 of an address is as those above it.
pub(super) const fn split_past(link: VirtAddr) -> (VirtAddr, Tag) {
    let past = Tag::from_bits((link.get() ^ link.untagged().get()) >> PAST);
    (with_past(link, past), past)
}
