//! Debugging of one cache or of all: red zones, poison, requested sizes, the last user. Caches that are debugged have no
//! arrays, so every call comes here, and no other call pays anything.
//!
//! All damage found is reported and repaired: bytes are restored, a free object that was written to is never given out again, a
//! free list with a bad link is cut there. The kernel goes on, unless it was asked to stop.
#![forbid(unsafe_code)]

mod choice;
mod dump;
mod findings;
mod isolate;
mod pattern;
mod report;
mod shape_for;
mod track;
mod validate;

pub(super) use choice::DebugChoice;
pub use findings::Findings;

use super::cache::{Cache, Place, Slab};
use super::object::{Object, SlabFlags, below};
use super::words::{Book, NIL};
use super::{SlabAllocator, SlabHal};
use crate::addr::{Order, VirtAddr};
use pattern::{State, fill, tail_stretch};
use track::{Event, Track};

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Makes the objects of a new slab free objects, and puts them all on the slab's list in random order, so that none is
    /// fresh.
    pub(super) fn prepare_debugged(&self, cache: &Cache<H>, slab: Slab, book: Book, order: Order) -> Book {
        let shape = &cache.shape;
        let count = u32::from(book.objects);
        // The order is a permutation, shuffled as it is made (Durstenfeld's, inside out). Until the list is made from it, each
        // object's mark word holds one number of it.
        let place = |index| slab.object_of(cache, index);
        for index in 0..count {
            let slot = place(index);
            fill(shape, slot, State::Free);
            Track::clear(shape, slot);
            self.note_asked(cache, slot, shape.object_size);
            let other = below((self.random.next() >> 32) as u32, index + 1);
            slot.store(shape.mark, place(other).load(shape.mark));
            place(other).store(shape.mark, index.into());
        }
        let mut next = NIL;
        for index in (0..count).rev() {
            #[expect(clippy::cast_possible_truncation, reason = "the number of an object")]
            let number = place(index).load(shape.mark) as u16;
            let to = if next == NIL { VirtAddr::ZERO } else { place(next.into()).addr() };
            self.store_link(cache, place(number.into()), to);
            next = number;
        }
        for index in 0..count {
            cache.set_mark(place(index));
        }
        if shape.flags.contains(SlabFlags::POISON) {
            let tail = tail_stretch(shape.tail(order));
            slab.object_of(cache, count).fill(0, tail.byte, tail.end as usize);
        }
        // INVARIANT: SLAB-2: all are on the list.
        Book { fresh: 0, first: next, ..book }
    }

    /// Tests a free object and makes it one in use. If it was written to, it is isolated for good, and the caller needs another
    /// one: the writer may write again.
    pub(super) fn allocated_debugged(&self, cache: &Cache<H>, slot: Object, caller: VirtAddr) -> bool {
        let mut findings = self.check_slot(cache, slot, State::Free, caller);
        findings += self.check_mark(cache, slot, caller);
        if findings.bugs != 0 {
            self.isolate(cache, slot);
            return false;
        }
        fill(&cache.shape, slot, State::Used(cache.shape.object_size));
        self.note_asked(cache, slot, cache.shape.object_size);
        Track::now(self.hal(), caller).store(&cache.shape, slot, Event::Alloc);
        true
    }

    /// Whether an object that is not marked is free all the same, because its mark was overwritten.
    pub(super) fn is_known_free(&self, place: &Place<'_, H>) -> bool {
        place.cache.shape.flags.contains(SlabFlags::CONSISTENCY_CHECKS) && self.is_on_list(place)
    }

    /// Tests an object in use and makes it a free one. Overwritten bytes are reported and restored, and the object is freed all
    /// the same.
    pub(super) fn freed_debugged(&self, place: &Place<'_, H>, caller: VirtAddr) {
        let (cache, slot) = (place.cache, place.object);
        self.check_slot(cache, slot, State::Used(self.asked(cache, slot)), caller);
        Track::now(self.hal(), caller).store(&cache.shape, slot, Event::Free);
        fill(&cache.shape, slot, State::Free);
    }

    /// Tests an object in use whose size is about to change.
    pub(super) fn check_used(&self, place: &Place<'_, H>, caller: VirtAddr) {
        if place.cache.is_debugged() {
            let state = State::Used(self.asked(place.cache, place.object));
            self.check_slot(place.cache, place.object, state, caller);
        }
    }

    /// Whether an object is on its slab's free list.
    fn is_on_list(&self, place: &Place<'_, H>) -> bool {
        use crate::mm::page::PageMap;
        let cache = place.cache;
        self.with_node(cache, |_| {
            let book = Book::from_raw(self.hal().map().get(place.head).owner());
            let slab = self.slab(cache, place.head, book);
            let mut at = book.first;
            // A circular list ends here too.
            for _ in 0..book.objects {
                if at == place.index || at == NIL {
                    return at == place.index;
                }
                let object = slab.object_of(cache, at.into());
                at = self.next_free(cache, slab, book, object).unwrap_or(NIL);
            }
            false
        })
    }

    /// Records the real caller for an object, in place of the function that called on its behalf.
    pub(super) fn note_caller(&self, at: VirtAddr, caller: VirtAddr) {
        if let Some(place) = self.place(at).filter(|place| place.cache.is_debugged()) {
            Track::now(self.hal(), caller).store(&place.cache.shape, place.object, Event::Alloc);
        }
    }

    /// Records that `size` bytes of an object were requested: the bytes behind are red zone.
    pub(super) fn note_request(&self, cache: &Cache<H>, object: VirtAddr, size: usize) {
        let object = self.untag(object);
        let slot = Object::of_array(VirtAddr::new(object.get().wrapping_sub(cache.shape.object.into())));
        let asked = u32::try_from(size).unwrap_or(u32::MAX).min(cache.shape.object_size);
        self.note_asked(cache, slot, asked);
        fill(&cache.shape, slot, State::Used(asked));
    }

    fn note_asked(&self, cache: &Cache<H>, slot: Object, asked: u32) {
        if cache.shape.asked != 0 {
            slot.store(cache.shape.asked, asked.into());
        }
    }

    /// Bytes requested, if they are recorded.
    pub(super) fn requested(&self, cache: &Cache<H>, slot: Object) -> Option<u32> {
        (cache.shape.asked != 0).then(|| self.asked(cache, slot))
    }

    /// Bytes requested, or the largest possible request. An impossible number was overwritten.
    fn asked(&self, cache: &Cache<H>, slot: Object) -> u32 {
        let most = cache.shape.object_size;
        match cache.shape.asked {
            0 => most,
            place => u32::try_from(slot.load(place)).unwrap_or(most).min(most),
        }
    }
}
