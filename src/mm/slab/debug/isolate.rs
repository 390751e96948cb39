//! Isolated objects: free, marked, on no list, counted as in use. They are damaged; the cache goes on without them, and gets
//! them back when it is destroyed.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Chain, Node};
use super::super::object::Object;
use super::super::words::{Book, NIL};
use super::super::{SlabAllocator, SlabHal};
use super::pattern::byte_at;
use crate::addr::VirtAddr;
use crate::mm::page::{Page, PageMap};

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Isolates a free object that has just been taken off its list.
    pub(super) fn isolate(&self, cache: &Cache<H>, slot: Object) {
        let object = byte_at(slot, cache.shape.object);
        self.with_node(cache, |node| node.events.isolated += 1);
        self.fixed(cache, format_args!("Isolating object {object}"));
    }

    /// Empties the slabs of a cache all of whose objects are free, though some are on no list. The cache has no users any more,
    /// and its arrays and its depot are empty. Returns the slabs to be freed.
    pub(in crate::mm::slab) fn recover(&self, cache: &Cache<H>) -> Chain {
        let mut freed = Chain::NONE;
        self.each_slab(cache, |head| {
            self.with_node(cache, |node| self.recover_slab(cache, node, head, &mut freed));
        });
        freed
    }

    fn recover_slab(&self, cache: &Cache<H>, node: &mut Node, head: Page, freed: &mut Chain) {
        let map = self.hal().map();
        let descriptor = map.get(head);
        let mut book = Book::from_raw(descriptor.owner());
        if book.cache != cache.id || book.in_use == 0 {
            return;
        }
        let slab = self.slab(cache, head, book);
        let is_free = |index| cache.is_free(slab.object_of(cache, index));
        if !(0..book.objects.into()).all(is_free) {
            return;
        }
        self.fixed(cache, format_args!("Recovering {} isolated objects of slab {}", book.in_use, slab.start));
        if !book.has_free() {
            node.insert(map, head, false);
        }
        // INVARIANT: SLAB-2, until `discard` two lines on: nothing is in use.
        book = Book { in_use: 0, first: NIL, fresh: book.objects, ..book };
        descriptor.set_owner(book.raw());
        node.discard(map, head, book, freed);
    }

    /// Visits the objects in use of a cache that is to be destroyed: the first few.
    pub(super) fn for_each_used(&self, cache: &Cache<H>, mut f: impl FnMut(VirtAddr, Object)) {
        self.each_slab(cache, |head| {
            let book = Book::from_raw(self.hal().map().get(head).owner());
            let slab = self.slab(cache, head, book);
            for index in 0..book.objects.into() {
                let slot = slab.object_of(cache, index);
                if !cache.is_free(slot) {
                    f(slab.start, slot);
                }
            }
        });
    }
}
