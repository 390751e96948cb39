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
/// `place` is the link's own address, `next` the next object's, or zero at the end of the list.
#[inline(always)]
pub(in crate::mm::slab) const fn encode(next: VirtAddr, secret: u64, place: VirtAddr) -> u64 {
    next.get() ^ secret ^ place.get().swap_bytes()
}

/// Decodes a stored link. An impossible address is damage.
#[inline(always)]
pub(in crate::mm::slab) const fn decode(stored: u64, secret: u64, place: VirtAddr) -> VirtAddr {
    VirtAddr::new(stored ^ secret ^ place.get().swap_bytes())
}

/// Position of the four bits in which a link of a cache with memory tags records a tag: those of a pointer's own.
const PAST: u32 = 56;

/// A link that also records the previous tag of the object that holds it.
pub(in crate::mm::slab) const fn with_past(next: VirtAddr, past: Tag) -> VirtAddr {
    VirtAddr::new(next.get() ^ (past.get() as u64) << PAST)
}

/// Decodes such a link: the next address, and the tag. Bit 55 of an address equals those above it.
pub(in crate::mm::slab) const fn split_past(link: VirtAddr) -> (VirtAddr, Tag) {
    let past = Tag::from_bits((link.get() ^ link.untagged().get()) >> PAST);
    (with_past(link, past), past)
}
