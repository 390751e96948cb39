//! The free list of a slab: each free object on it holds a hardened pointer to the next (Linux:
//! `CONFIG_SLAB_FREELIST_HARDENED`).
//!
//! What is stored is the address of the next object, exclusive-ored with a secret of the cache and the byte-swapped
//! address of the place itself. Whoever overwrites it without knowing both makes an address that is no object of the
//! slab, and is found out when the object is taken.
#![forbid(unsafe_code)]

use crate::addr::VirtAddr;

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
