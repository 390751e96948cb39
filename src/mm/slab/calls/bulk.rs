//! Many objects at once (Linux: `kmem_cache_alloc_bulk`, `kmem_cache_free_bulk`): interrupts are masked once for a burst, the
//! array is looked at once for as many objects as it has or has room for, and a slab once for all objects taken from it.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Chain};
use super::super::cpu::Array;
use super::super::error::SlabAllocError;
use super::super::object::{Object, load_words};
use super::super::{SlabAllocator, SlabHal};
use super::alloc::is_fast;
use crate::addr::VirtAddr;
use crate::gfp::Gfp;
use crate::hal::Internal;
use core::sync::atomic::{AtomicU64, Ordering};

/// Objects that the loop of allocations handles in one round.
const ROUND: usize = 8;
/// Objects for which interrupts stay masked.
const BURST: usize = 128;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Allocates an object for each place of `objects`: all of them or none. Context as for
    /// [`SlabAllocator::alloc_object`]. Cost: two and a half instructions an object from this CPU's array.
    ///
    /// # Errors
    ///
    /// Those of [`SlabAllocator::alloc_object`].
    #[inline]
    pub fn alloc_bulk(&self, cache: &Cache<H>, gfp: Gfp, objects: &mut [VirtAddr]) -> Result<(), SlabAllocError> {
        let done = self.pop_many(cache, gfp, objects);
        if done == objects.len() { Ok(()) } else { self.alloc_rest(cache, gfp, objects, done) }
    }

    /// Allocates all but the first `done` objects, which exist already.
    #[inline(never)]
    fn alloc_rest(
        &self,
        cache: &Cache<H>,
        gfp: Gfp,
        objects: &mut [VirtAddr],
        mut done: usize,
    ) -> Result<(), SlabAllocError> {
        while let Some(left @ [_, ..]) = objects.get_mut(done..) {
            self.fill_used_up(cache);
            let taken = self.pop_many(cache, gfp, left);
            done += taken;
            let Some(place) = objects.get_mut(done).filter(|_| taken == 0) else { continue };
            match self.alloc_object(cache, gfp) {
                Ok(object) => *place = object,
                Err(error) => {
                    self.do_free_bulk(cache, objects.get(..done).unwrap_or_default());
                    return Err(error);
                }
            }
            done += 1;
        }
        Ok(())
    }

    /// Refills this CPU's array if it is empty and that needs no new slab.
    fn fill_used_up(&self, cache: &Cache<H>) {
        let saved = self.hal().save();
        let array = Array::new::<H>(self.hal().local(), cache.array);
        if self.uses_arrays(cache) && !array.is_off() && array.is_empty() {
            self.fill_empty(cache, &array);
        }
        self.hal().restore(saved);
    }

    /// Fills the first of `places` from this CPU's array. Returns the number filled.
    #[inline(always)]
    fn pop_many(&self, cache: &Cache<H>, gfp: Gfp, places: &mut [VirtAddr]) -> usize {
        if !is_fast(gfp) || gfp.contains(Gfp::ZERO) {
            return 0;
        }
        let saved = self.hal().save();
        let local = self.hal().local();
        let mut taken = 0;
        if !gfp.may_wait() || self.hal().may_wait(local, saved) {
            // An array that is off is empty.
            let array = Array::new::<H>(local, cache.array);
            let hot = array.hot(places.len().min(BURST));
            taken = hot.len();
            claim_all(places.get_mut(..taken).unwrap_or_default(), hot, cache.shape.mark);
            // INVARIANT: ARR-1: the objects taken are above the top from here on.
            array.drop_top(taken);
        }
        self.hal().restore(saved);
        taken
    }

    /// [`Self::free_bulk`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_free_bulk(&self, cache: &Cache<H>, objects: &[VirtAddr]) -> usize {
        let given = self.push_many(cache, objects);
        if given == objects.len() { 0 } else { self.free_rest(cache, objects.get(given..).unwrap_or_default()) }
    }

    /// Slow path: this CPU's array has no room for the first object, or the object is bad.
    #[inline(never)]
    fn free_rest(&self, cache: &Cache<H>, objects: &[VirtAddr]) -> usize {
        let mut wrong = 0;
        let mut rest = objects;
        while let [next, after @ ..] = rest {
            self.make_room(cache);
            let given = self.push_many(cache, rest);
            rest = rest.get(given..).unwrap_or_default();
            if given != 0 {
                continue;
            }
            if let Err(misuse) = self.free_slow(*next, Some(cache)) {
                self.report(&misuse);
                wrong += 1;
            }
            rest = after;
        }
        wrong
    }

    /// Makes room in this CPU's array if it is full.
    fn make_room(&self, cache: &Cache<H>) {
        let saved = self.hal().save();
        let array = Array::new::<H>(self.hal().local(), cache.array);
        let freed = if array.is_full() { self.exchange_full(cache, &array) } else { Chain::NONE };
        self.hal().restore(saved);
        self.free_slabs(freed);
    }

    /// Puts the first of `objects` on this CPU's array, as long as there is room and the objects are valid. Returns their
    /// number.
    #[inline(always)]
    fn push_many(&self, cache: &Cache<H>, objects: &[VirtAddr]) -> usize {
        let saved = self.hal().save();
        let local = self.hal().local();
        let array = Array::new::<H>(local, cache.array);
        let burst = objects.get(..BURST).unwrap_or(objects);
        let given = self.hal().push_free_many(Internal::CALL, local, &cache.objects(), burst, array.room());
        // INVARIANT: ARR-1, ARR-2: marked, and no more than there was room for.
        array.grow(given);
        self.hal().restore(saved);
        given
    }
}

/// Gives the objects of `entries` their new owner. Both have the same length.
#[inline(always)]
fn claim_all(places: &mut [VirtAddr], entries: &[AtomicU64], mark: u32) {
    let take = |object: u64| {
        let object = VirtAddr::new(object);
        Object::of_array(object).store(mark, 0);
        object
    };
    let ((rounds, rest), (entry_rounds, entry_rest)) = (places.as_chunks_mut::<ROUND>(), entries.as_chunks::<ROUND>());
    for (places, entries) in rounds.iter_mut().zip(entry_rounds) {
        *places = load_words(entries).map(take);
    }
    rest.iter_mut().zip(entry_rest).for_each(|(place, entry)| *place = take(entry.load(Ordering::Relaxed)));
}
