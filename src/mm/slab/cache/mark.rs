//! The freed mark: a word in a free object by which a second free of it is detected.
//!
//! It is a secret of the cache, exclusive-ored with the address of the object's slot. So no two objects have the same mark, a
//! mark read through a stale pointer is no other object's mark, and marks of one cache reveal nothing about those of another.
//!
//! An object of one word has no room for both mark and link while it is on its slab's list. Its word is the mark then, with
//! the low half of the next one's address in the high half:
//!
//! ```text
//!   63                      35 34  32 31              0
//!  | next object, bits 31..3  |  1   |       0         |   ^ mark       3 in place of 1, and no next: the last one
//! ```
//!
//! So a free object's word holds the low half of the mark on every list, and the fast paths of freeing compare only that half.
//! Once in 2^32 frees they mistake a user's word for a mark and take the slow path, which compares the whole word.
#![forbid(unsafe_code)]

use super::super::SlabHal;
use super::super::object::{MAX_SLAB_BYTES, Object, low};
use super::record::Cache;
use crate::addr::VirtAddr;

/// The lowest bits of a link of one word: there is a next one.
const NEXT: u32 = 1;
/// A link with no next object.
const LAST: u32 = 3;
/// The bits that are zero in every address of an object.
const FLAGS: u32 = 7;

const fn high(word: u64) -> u32 {
    low(word >> 32)
}

impl<H: SlabHal> Cache<H> {
    /// Whether mark and link of its objects are in one word.
    #[inline]
    pub(super) const fn is_one_word(&self) -> bool {
        self.shape.link == self.shape.mark
    }

    /// The mark of an object.
    #[inline(always)]
    pub(in crate::mm::slab) const fn mark_of(&self, slot: Object) -> u64 {
        self.mark_secret ^ slot.addr().get()
    }

    /// Marks a free object.
    #[inline(always)]
    pub(in crate::mm::slab) fn set_mark(&self, slot: Object) {
        slot.store(self.shape.mark, self.mark_of(slot));
    }

    /// Whether an object is marked, and on no slab's list if it has one word.
    #[inline]
    pub(in crate::mm::slab) fn is_marked(&self, slot: Object) -> bool {
        slot.load(self.shape.mark) == self.mark_of(slot)
    }

    /// Whether an object is free, by its mark.
    #[inline]
    pub(in crate::mm::slab) fn is_free(&self, slot: Object) -> bool {
        self.says_free(slot, slot.load(self.shape.mark))
    }

    /// Whether an object is free whose mark's place holds this word.
    #[inline]
    fn says_free(&self, slot: Object, word: u64) -> bool {
        let other = word ^ self.mark_of(slot);
        other == 0 || (self.is_one_word() && low(other) == 0 && is_link(high(other), slot))
    }

    /// Marks an object that is being freed. Returns whether it was in use. If an interrupt or another CPU frees it at the same
    /// time, exactly one of them gets `true`, provided that all of them claim it here.
    #[inline]
    pub(in crate::mm::slab) fn claim(&self, slot: Object) -> bool {
        loop {
            let before = slot.load(self.shape.mark);
            if self.says_free(slot, before) {
                return false;
            }
            // It fails when another CPU frees the object too, or when a user still writes to it, which is a bug.
            if slot.replace(self.shape.mark, before, self.mark_of(slot)) {
                return true;
            }
        }
    }

    /// Makes a free object of one word point to `next`, or to no object.
    #[inline]
    pub(super) fn link_one_word(&self, slot: Object, next: VirtAddr) {
        let link = if next == VirtAddr::ZERO { LAST } else { low(next.get()) | NEXT };
        slot.store(self.shape.link, self.mark_of(slot) ^ u64::from(link) << 32);
    }

    /// The next object after a free object of one word, in the slab that starts at `start`; zero at the end of the list. `None`
    /// if its word was overwritten.
    #[inline]
    pub(super) fn next_one_word(&self, slot: Object, start: VirtAddr) -> Option<VirtAddr> {
        let other = slot.load(self.shape.link) ^ self.mark_of(slot);
        match (low(other), high(other)) {
            (0, LAST) => Some(VirtAddr::ZERO),
            (0, link) if link & FLAGS == NEXT => {
                let distance = (link & !FLAGS).wrapping_sub(low(start.get()));
                Some(VirtAddr::new(start.get().wrapping_add(distance.into())))
            }
            _ => None,
        }
    }
}

/// Whether a free object of one word may have this link: no next object, or one that can be in the same slab.
const fn is_link(link: u32, slot: Object) -> bool {
    let most = MAX_SLAB_BYTES;
    let distance = (link & !FLAGS).wrapping_sub(low(slot.addr().get()));
    link == LAST || (link & FLAGS == NEXT && distance.wrapping_add(most) < 2 * most)
}
