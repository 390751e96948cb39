//! Freeing: the fast path onto this CPU's array, and the slow path with its checks, step by step.
//!
//! | step | function | lock | interrupts | if it cannot |
//! |---|---|---|---|---|
//! | 1. onto this CPU's array | [`SlabHal::push_free`], `push_free_to` | none | restarted, or masked | 2 |
//! | 2. `kfree`: null, large blocks | `free_slow_for` | the page allocator's | as the caller has them | 3 |
//! | 3. `kfree`: onto the array after an exchange | `push_exchanged` | the cache's, briefly | masked | 4 |
//! | 4. the pointer, its tag, the mark | `free_checked` | none | as the caller has them | [`Misuse`] |
//! | 5. debugging, zeroes | `free_claimed` | the cache's, if it is debugged | as the caller has them | - |
//! | 6. onto the array after an exchange, else into its slab | `put_back` | the cache's | masked | - |
//! | 7. slabs that became empty, to the page allocator | `free_slabs` | the page allocator's | as the caller has them | - |
//!
//! The raw `kfree` of an image tries large blocks and the spare between 1 and 2, each by a tail call, so that a free that needs
//! no more than that saves no registers. From step 4 on the object is marked, so that a second free of it finds the mark.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Chain, Node, Place};
use super::super::cpu::Array;
use super::super::error::Misuse;
use super::super::object::{MAX_SLAB_ORDER, copy_words};
use super::super::words::SlabWord;
use super::super::{SlabAllocator, SlabHal};
use crate::addr::{Pfn, VirtAddr};
use crate::hal::Internal;
use crate::mm::page::{Kind, Page, PageMap, find_head};
use core::sync::atomic::Ordering;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// [`Self::free_object`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    pub(crate) fn do_free_object(&self, cache: &Cache<H>, at: VirtAddr) -> Result<(), Misuse> {
        if self.hal().push_free_to(Internal::CALL, at, cache.array) { Ok(()) } else { self.free_slow(at, Some(cache)) }
    }

    /// [`Self::kfree`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    pub(crate) fn do_kfree(&self, at: VirtAddr) -> Result<(), Misuse> {
        if self.hal().push_free(Internal::CALL, at) { Ok(()) } else { self.free_slow(at, None) }
    }

    /// Slow path: this CPU's array cannot serve the free. `expected` is the cache that the object must be of, if the caller
    /// names one.
    ///
    /// # Errors
    ///
    /// As for [`SlabAllocator::free_object`].
    #[cold]
    #[inline(never)]
    pub(crate) fn free_slow(&self, at: VirtAddr, expected: Option<&Cache<H>>) -> Result<(), Misuse> {
        let caller = self.hal().return_address();
        match expected {
            Some(cache) => self.free_checked(at, Some(cache), caller),
            None => self.free_slow_for(at, caller),
        }
    }

    /// Steps 2 to 7, on behalf of the caller at `caller`.
    ///
    /// # Errors
    ///
    /// As for [`SlabAllocator::kfree`].
    pub(crate) fn free_slow_for(&self, at: VirtAddr, caller: VirtAddr) -> Result<(), Misuse> {
        if at == VirtAddr::ZERO || at == Self::ZERO_SIZE {
            return Ok(());
        }
        if let Some(page) = self.page_of(self.untag(at)) {
            if self.hal().map().get(page).state().kind() == Kind::LargeKmalloc {
                return self.free_large(at, page, caller);
            }
            if self.push_exchanged(at, page) {
                return Ok(());
            }
        }
        self.free_checked(at, None, caller)
    }

    /// Steps 4 to 7, on behalf of the caller at `caller`.
    ///
    /// # Errors
    ///
    /// As for [`SlabAllocator::free_object`].
    pub(crate) fn free_checked(
        &self,
        at: VirtAddr,
        expected: Option<&Cache<H>>,
        caller: VirtAddr,
    ) -> Result<(), Misuse> {
        let pointer = at;
        let at = self.untag(pointer);
        let Some(place) = self.place(at) else { return Err(self.foreign(at)) };
        let cache = place.cache;
        if place.offset != cache.shape.object {
            let object = place.object.addr().get().wrapping_add(cache.shape.object.into());
            return Err(Misuse::Misaligned { at, cache: cache.name, object: VirtAddr::new(object) });
        }
        if let Some(expected) = expected.filter(|expected| expected.id != cache.id) {
            return Err(Misuse::WrongCache { at, freed_to: expected.name, cache: cache.name });
        }
        if !cache.is_free(place.object) {
            if cache.is_tagged() {
                self.check_tag(pointer, cache.name)?;
            }
            if !self.is_known_free(&place) && cache.claim(place.object) {
                self.free_claimed(&place, at, caller);
                return Ok(());
            }
        }
        self.with_node(cache, |node| node.events.double_frees += 1);
        Err(Misuse::DoubleFree { at, cache: cache.name })
    }

    /// Step 5: frees an object that is marked but not yet in a place for free ones, so nobody else frees it.
    fn free_claimed(&self, place: &Place<'_, H>, at: VirtAddr, caller: VirtAddr) {
        let cache = place.cache;
        if cache.is_tagged() {
            self.note_free(at, cache.shape.object_size.into(), caller);
        }
        if cache.is_debugged() {
            self.freed_debugged(place, caller);
        } else if self.zeroes_on_free() && !cache.shape.constructed {
            // The mark is in the first word, and stays.
            let kept = 8.min(cache.shape.object_size);
            let rest = VirtAddr::new(at.get().wrapping_add(kept.into()));
            self.hal().zero_object(Internal::CALL, rest, cache.shape.object_size.wrapping_sub(kept) as usize);
        }
        self.put_back(place);
    }

    /// Steps 6 and 7: puts a free, marked object into this CPU's array, or into its slab.
    fn put_back(&self, place: &Place<'_, H>) {
        let cache = place.cache;
        let saved = self.hal().save();
        let array = Array::new::<H>(self.hal().local(), cache.array);
        array.count_slow_free();
        let mut freed = Chain::NONE;
        let on = self.uses_arrays(cache) && !array.is_off();
        if on && array.count() >= array.capacity() {
            freed = self.exchange_full(cache, &array);
        }
        if !on || !array.push(place.object.addr()) {
            let mut node = cache.node.lock();
            self.return_to_slab(cache, &mut node, place.head, place.index, &mut freed);
        }
        self.hal().restore(saved);
        self.free_slabs(freed);
    }

    /// Moves the coldest `count` objects of an array to their slabs. Returns the slabs to be freed. Interrupts masked.
    pub(in crate::mm::slab) fn drain(&self, cache: &Cache<H>, array: &Array<'_>, count: u32) -> Chain {
        let held = array.count();
        let count = count.min(held);
        let mut freed = Chain::NONE;
        let entries = array.entries();
        let (Some(_), Some(rest)) = (entries.get(..count as usize), entries.get(count as usize..held as usize)) else {
            return freed;
        };
        self.return_magazine(cache, &mut cache.node.lock(), array.magazine(), count, &mut freed);
        copy_words(entries, rest);
        array.set_count(held.wrapping_sub(count));
        freed
    }

    /// Puts an object back into its slab. With the node locked.
    pub(in crate::mm::slab) fn return_object(
        &self,
        cache: &Cache<H>,
        node: &mut Node,
        slot: VirtAddr,
        freed: &mut Chain,
    ) {
        let map = self.hal().map();
        let Some(page) = self.page_of(slot) else { return };
        let word = SlabWord::from_raw(map.get(page).aux().load(Ordering::Relaxed));
        let head = Page::new(page.index().wrapping_sub(word.page()));
        let start = self.hal().to_virt(map.phys(head));
        #[expect(clippy::cast_possible_truncation, reason = "a slab is small")]
        let index = (slot.get().wrapping_sub(start.get()) as u32 / cache.shape.size) as u16;
        self.return_to_slab(cache, node, head, index, freed);
    }

    /// The page that holds an address of the linear map.
    #[inline]
    pub(in crate::mm::slab) fn page_of(&self, at: VirtAddr) -> Option<Page> {
        self.hal().map().find(Pfn::containing(self.hal().to_phys(at)?))
    }

    /// Whether an object of `cache` that is in use starts at an address. Any context.
    ///
    /// # Errors
    ///
    /// The error that a free would report, except for a mark that is there by accident.
    pub(crate) fn verify_object(&self, cache: &Cache<H>, at: VirtAddr) -> Result<(), Misuse> {
        let pointer = at;
        let at = self.untag(pointer);
        let Some(place) = self.place(at) else { return Err(self.foreign(at)) };
        let own = place.cache;
        if place.offset != own.shape.object {
            let object = place.object.addr().get().wrapping_add(own.shape.object.into());
            return Err(Misuse::Misaligned { at, cache: own.name, object: VirtAddr::new(object) });
        }
        if own.id != cache.id {
            return Err(Misuse::WrongCache { at, freed_to: cache.name, cache: own.name });
        }
        if own.is_free(place.object) && self.is_known_free(&place) {
            return Err(Misuse::DoubleFree { at, cache: own.name });
        }
        if own.is_tagged() { self.check_tag(pointer, own.name) } else { Ok(()) }
    }

    /// Describes a pointer that lies in no slab.
    pub(super) fn foreign(&self, at: VirtAddr) -> Misuse {
        let Some(phys) = self.hal().to_phys(at) else { return Misuse::NotLinear(at) };
        let map = self.hal().map();
        let Some(page) = map.find(Pfn::containing(phys)) else { return Misuse::NoMemory(at) };
        let kind = find_head(&map, page).map_or(Kind::Hole, |(_, state)| state.kind());
        match kind {
            Kind::Hole => Misuse::NoMemory(at),
            kind => Misuse::Foreign { at, kind },
        }
    }
}

const _: () = assert!(MAX_SLAB_ORDER <= 3, "four bits hold the number of a page in a slab");
