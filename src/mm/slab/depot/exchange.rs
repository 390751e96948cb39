//! Refilling and emptying a CPU's array: its magazines change places, and if that does not help, one of them is exchanged with
//! the depot, filled from slabs, or emptied into them.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Chain, Node};
use super::super::cpu::Array;
use super::super::object::{Object, low};
use super::super::words::{ArrayOffset, Book, Magazine, SlabWord};
use super::super::{SlabAllocator, SlabHal};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::gfp::Gfp;
use crate::mm::page::{Page, PageMap};
use core::ops::Range;
use core::sync::atomic::Ordering;

/// How a full array gets room. Memory for a magazine comes from `kmalloc`, which may use this very array.
enum Room {
    /// By this empty magazine.
    Magazine(Magazine),
    /// It has some: the memory of the magazine came out of it.
    Made,
    /// There is no memory for a magazine, or the depot would have no place for the full one.
    NoMagazine,
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Takes an object off this CPU's spare, which becomes the magazine in use, if the array is empty and no more is needed;
    /// see [`SlabHal::pop_free`].
    #[inline]
    pub(in crate::mm::slab) fn pop_swapped(&self, offset: ArrayOffset, mark: u32, wait: bool) -> Option<VirtAddr> {
        let saved = self.hal().save();
        let local = self.hal().local();
        let mut taken = None;
        if !wait || self.hal().may_wait(local, saved) {
            let array = Array::new::<H>(local, offset);
            if array.is_empty() && array.spare_count() != 0 {
                array.swap();
                array.count_slow_alloc();
                taken = array.pop();
            }
        }
        self.hal().restore(saved);
        if let Some(object) = taken {
            Object::of_array(object).store(mark, 0);
        }
        taken
    }

    /// Frees an object onto this CPU's spare, which becomes the magazine in use, if `is_right` accepts the array, the array is
    /// full, and no more is needed. Returns whether it was freed. See [`SlabHal::push_free`].
    #[inline]
    pub fn free_to_spare(&self, at: VirtAddr, is_right: impl FnOnce(ArrayOffset) -> bool) -> bool {
        let Some(page) = self.hal().page_number(at.align_down(PAGE_SIZE)).map(Page::new) else { return false };
        let saved = self.hal().save();
        let local = self.hal().local();
        let word = SlabWord::from_raw(H::local_map(local).get(page).aux().load(Ordering::Relaxed));
        let mut freed = false;
        if word.starts_object(at.offset_in(PAGE_SIZE)) && is_right(word.array()) {
            let (array, object) = (Array::new::<H>(local, word.array()), Object::of_array(at));
            let mark = array.mark_of(at);
            if array.has_empty_spare() && array.is_full() && low(object.load(0)) != low(mark) {
                array.swap();
                array.count_slow_free();
                freed = array.push(at);
                object.store(0, mark);
            }
        }
        self.hal().restore(saved);
        freed
    }

    /// Refills an empty array from the spare or with a full magazine of the depot. Returns whether there was one. Interrupts
    /// masked.
    #[inline]
    pub(in crate::mm::slab) fn exchange_empty(&self, cache: &Cache<H>, array: &Array<'_>) -> bool {
        if array.spare_count() != 0 {
            array.swap();
            return true;
        }
        let mut excess = None;
        {
            let mut node = cache.node.lock();
            let Some(full) = node.depot.take_full() else { return false };
            node.events.depot_taken = node.events.depot_taken.wrapping_add(1);
            let used = array.load(full, cache.capacity, cache.capacity);
            let spare = array.set_spare(used, 0);
            if spare != Magazine::NONE && !node.depot.put_empty(spare) {
                excess = Some(spare);
            }
        }
        if let Some(excess) = excess {
            self.free_magazine(excess);
        }
        true
    }

    /// Makes room in a full array. Returns the slabs that have become empty and are to be freed. Interrupts masked.
    #[inline]
    pub(in crate::mm::slab) fn exchange_full(&self, cache: &Cache<H>, array: &Array<'_>) -> Chain {
        let mut freed = Chain::NONE;
        match array.spare() {
            Some(_) if array.spare_count() == 0 => array.swap(),
            Some(full) => {
                let mut node = cache.node.lock();
                if node.depot.has_room()
                    && let Some(empty) = node.depot.take_empty()
                {
                    node.events.depot_put = node.events.depot_put.wrapping_add(1);
                    // There is room.
                    let _ = node.depot.put_full(full);
                    let used = array.load(empty, 0, cache.capacity);
                    array.set_spare(used, cache.capacity);
                    return freed;
                }
                let has_room = node.depot.has_room();
                drop(node);
                match if has_room { self.magazine_for(cache, array) } else { Room::NoMagazine } {
                    Room::Magazine(empty) => {
                        let put = cache.node.lock().depot.put_full(full);
                        if put {
                            let used = array.load(empty, 0, cache.capacity);
                            array.set_spare(used, cache.capacity);
                        } else {
                            self.free_magazine(empty);
                        }
                    }
                    Room::Made => {}
                    Room::NoMagazine => freed = self.empty_spare(cache, array),
                }
            }
            None => match self.magazine_for(cache, array) {
                Room::Magazine(empty) => {
                    let used = array.load(empty, 0, cache.capacity);
                    array.set_spare(used, cache.capacity);
                }
                Room::Made => {}
                Room::NoMagazine => freed = self.drain(cache, array, cache.batch()),
            },
        }
        freed
    }

    /// An empty magazine for a full array.
    fn magazine_for(&self, cache: &Cache<H>, array: &Array<'_>) -> Room {
        let Some(magazine) = self.new_magazine(cache) else {
            return if array.count() < cache.capacity { Room::Made } else { Room::NoMagazine };
        };
        if array.count() == cache.capacity {
            return Room::Magazine(magazine);
        }
        if !cache.node.lock().depot.put_empty(magazine) {
            self.free_magazine(magazine);
        }
        Room::Made
    }

    /// Frees an object whose array is full, if it is valid and an exchange is enough. Returns whether it was freed. `page`
    /// holds it.
    #[inline(never)]
    pub(in crate::mm::slab) fn push_exchanged(&self, at: VirtAddr, page: Page) -> bool {
        let map = self.hal().map();
        let word = SlabWord::from_raw(map.get(page).aux().load(Ordering::Relaxed));
        if !word.starts_object(at.offset_in(PAGE_SIZE)) {
            return false;
        }
        let head = Page::new(page.index().wrapping_sub(word.page()));
        let Some(cache) = self.cache(Book::from_raw(map.get(head).owner()).cache) else { return false };
        let saved = self.hal().save();
        let array = Array::new::<H>(self.hal().local(), cache.array);
        let object = Object::of_array(at);
        let (mut freed, mut pushed) = (Chain::NONE, false);
        // With interrupts masked: a handler may free it as well.
        if !array.is_off() && array.count() >= array.capacity() && !cache.is_free(object) {
            freed = self.exchange_full(cache, &array);
            pushed = array.count() < array.capacity() && cache.claim(object) && array.push(at);
            if pushed {
                array.count_slow_free();
            }
        }
        self.hal().restore(saved);
        self.free_slabs(freed);
        pushed
    }

    /// Puts half of the objects of the spare back into their slabs, and uses the spare: half of them, as one call must not take
    /// long.
    fn empty_spare(&self, cache: &Cache<H>, array: &Array<'_>) -> Chain {
        let mut freed = Chain::NONE;
        let Some(spare) = array.spare() else { return freed };
        let count = array.spare_count();
        let kept = count / 2;
        self.return_range(cache, &mut cache.node.lock(), spare, kept..count, &mut freed);
        array.set_spare(spare, kept);
        array.swap();
        freed
    }

    /// Puts the first objects of a magazine back into their slabs. With the node locked.
    pub(in crate::mm::slab) fn return_magazine(
        &self,
        cache: &Cache<H>,
        node: &mut Node,
        magazine: Magazine,
        count: u32,
        freed: &mut Chain,
    ) {
        self.return_range(cache, node, magazine, 0..count, freed);
    }

    fn return_range(
        &self,
        cache: &Cache<H>,
        node: &mut Node,
        magazine: Magazine,
        range: Range<u32>,
        freed: &mut Chain,
    ) {
        for entry in magazine.entries(range.end).iter().skip(range.start as usize) {
            self.return_object(cache, node, VirtAddr::new(entry.load(Ordering::Relaxed)), freed);
        }
    }

    /// An empty magazine for a cache, if there is memory for one. Any context.
    pub(super) fn new_magazine(&self, cache: &Cache<H>) -> Option<Magazine> {
        let bytes = (cache.capacity as usize).wrapping_add(1).wrapping_mul(8);
        self.kmalloc(bytes, Gfp::NOWAIT | Gfp::NOMEMALLOC | Gfp::ZERO).ok().map(Magazine::new)
    }

    /// Frees the memory of a magazine.
    pub(super) fn free_magazine(&self, magazine: Magazine) {
        if magazine != Magazine::NONE
            && let Err(misuse) = self.do_kfree(magazine.memory())
        {
            self.report(&misuse);
        }
    }
}
