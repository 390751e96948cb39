//! Many objects at once (Linux: `kmem_cache_alloc_bulk`, `kmem_cache_free_bulk`): interrupts are masked once for a burst, the
//! array is looked at once for as many objects as it has or has room for, and a slab once for objects of it in a row.
#![forbid(unsafe_code)]

use super::alloc::plain;
use super::cache::Cache;
use super::cpu::Array;
use super::error::AllocError;
use super::member::Members;
use super::node::Chain;
use super::object::{Object, load_words, store_words};
use super::word::{Book, SlabWord};
use super::{SlabAllocator, SlabHal};
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::gfp::Gfp;
use crate::mm::page::{Page, PageMap};
use core::sync::atomic::{AtomicU64, Ordering};

/// Objects that the loop of allocations handles in one round.
const ROUND: usize = 8;
/// Objects for which interrupts stay masked.
const BURST: usize = 128;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Allocates an object for each place of `objects`, which `name` makes of its address and `addr` turns back: all of them or
    /// none. Context as for [`SlabAllocator::alloc_object`]. Cost: some three instructions an object from this CPU's
    /// array.
    ///
    /// # Errors
    ///
    /// Those of [`SlabAllocator::alloc_object`].
    #[inline]
    pub fn alloc_bulk<T>(
        &self,
        cache: &Cache<H>,
        gfp: Gfp,
        objects: &mut [T],
        name: impl Fn(VirtAddr) -> T,
        addr: impl Fn(&T) -> VirtAddr,
    ) -> Result<(), AllocError> {
        let short = plain(gfp) && !gfp.contains(Gfp::ZERO);
        let mut done = 0;
        while let Some(left) = objects.get_mut(done..).filter(|left| !left.is_empty()) {
            if short {
                let burst = left.len().min(BURST);
                done += self.take_many(cache, gfp, left.get_mut(..burst).unwrap_or_default(), &name);
            }
            let Some(place) = objects.get_mut(done) else { break };
            match self.alloc_object(cache, gfp) {
                Ok(object) => *place = name(object),
                Err(error) => {
                    self.free_bulk(cache, objects.get(..done).unwrap_or_default(), addr);
                    return Err(error);
                }
            }
            done += 1;
        }
        Ok(())
    }

    /// Fills `places` from this CPU's array and what is behind it, as far as that goes without new slabs: how many.
    fn take_many<T>(&self, cache: &Cache<H>, gfp: Gfp, places: &mut [T], name: impl Fn(VirtAddr) -> T) -> usize {
        let saved = self.hal().save();
        let local = self.hal().local();
        let mut left = places;
        let mut done = 0;
        if (!gfp.may_wait() || self.hal().may_wait(local, saved)) && cache.arrays_on.load(Ordering::Relaxed) {
            let array = Array::new::<H>(local, cache.slot);
            loop {
                let hot = array.hot(left.len());
                let Some((places, after)) = left.split_at_mut_checked(hot.len()) else { break };
                take_all(places, hot, cache.shape.mark, &name);
                // INVARIANT: ARR-1: what was taken is above the top from here on.
                array.take_many(hot.len());
                done = hot.len().wrapping_add(done);
                left = after;
                if left.is_empty() || !self.fill_empty(cache, &array) {
                    break;
                }
            }
        }
        self.hal().restore(saved);
        done
    }

    /// Frees objects of this cache, which `addr` names, whatever slabs they are in. What is wrong with one is reported, and it is
    /// left out: how many there were. Any context. Cost: some eleven instructions an object onto this CPU's array, and two
    /// dozen for each time that the next one is of another slab.
    #[inline]
    pub fn free_bulk<T>(&self, cache: &Cache<H>, objects: &[T], addr: impl Fn(&T) -> VirtAddr) -> usize {
        let mut wrong = 0;
        let mut rest = objects;
        while !rest.is_empty() {
            let burst = rest.len().min(BURST);
            let given = self.give_many(cache, rest.get(..burst).unwrap_or_default(), &addr);
            rest = rest.get(given..).unwrap_or_default();
            if given == burst {
                continue;
            }
            // The next one is for the long way: something is wrong with it, or its array is off.
            let [next, after @ ..] = rest else { break };
            if let Err(misuse) = self.free_slow(addr(next), Some(cache)) {
                self.report(&misuse);
                wrong += 1;
            }
            rest = after;
        }
        wrong
    }

    /// Puts the first of `objects` on this CPU's array, as long as there is room to be had and nothing is wrong: how many.
    fn give_many<T>(&self, cache: &Cache<H>, objects: &[T], addr: impl Fn(&T) -> VirtAddr) -> usize {
        let saved = self.hal().save();
        let local = self.hal().local();
        let array = Array::new::<H>(local, cache.slot);
        let mut freed = Chain::NONE;
        let mut given = 0;
        let mut left = objects;
        loop {
            let room = array.room();
            let count = self.give_into(cache, local, left, room, &addr);
            // INVARIANT: ARR-1, ARR-2: marked, and no more than there is room for.
            array.give_many(count);
            given = count.wrapping_add(given);
            left = left.get(count..).unwrap_or_default();
            // Slabs that have become empty are given up before more can.
            if left.is_empty() || count < room.len() || array.capacity() == 0 || freed != Chain::NONE {
                break;
            }
            freed = self.exchange_full(cache, &array);
        }
        self.hal().restore(saved);
        if freed != Chain::NONE {
            self.free_slabs(freed);
        }
        given
    }

    /// Marks the first of `objects` as free and writes their addresses to `room`, as long as there is some and nothing is
    /// wrong: how many.
    #[inline(always)]
    fn give_into<T>(
        &self,
        cache: &Cache<H>,
        local: &H::Local,
        objects: &[T],
        room: &[AtomicU64],
        addr: &impl Fn(&T) -> VirtAddr,
    ) -> usize {
        let map = H::local_map(local);
        let (place, mark) = (cache.shape.mark, H::slabs(local).mark.load(Ordering::Relaxed));
        let mut slab = Members::NONE;
        let mut give = |at: VirtAddr| {
            if !slab.has(at) {
                match self.members(cache, map, at).filter(|slab| slab.has(at)) {
                    Some(found) => slab = found,
                    None => return false,
                }
            }
            let object = Object::of_array(at);
            if object.load(place) == mark {
                return false;
            }
            object.store(place, mark);
            true
        };
        let mut given: usize = 0;
        let ((rounds, _), (room_rounds, _)) = (objects.as_chunks(), room.as_chunks());
        for (objects, entries) in rounds.iter().zip(room_rounds) {
            // Written out, as the loop over four would be kept as one.
            let round @ [one, two, three, four] = objects.each_ref().map(addr);
            // Entries above the top are nothing to anybody: those of objects that turn out to be wrong stay there.
            store_words(entries, round.map(VirtAddr::get));
            if !give(one) {
                return given;
            }
            if !give(two) {
                return given.wrapping_add(1);
            }
            if !give(three) {
                return given.wrapping_add(2);
            }
            if !give(four) {
                return given.wrapping_add(3);
            }
            given = given.wrapping_add(4);
        }
        let (objects, room) = (objects.get(given..).unwrap_or_default(), room.get(given..).unwrap_or_default());
        for (object, entry) in objects.iter().zip(room) {
            let at = addr(object);
            if !give(at) {
                break;
            }
            entry.store(at.get(), Ordering::Relaxed);
            given = given.wrapping_add(1);
        }
        given
    }

    /// The objects of the slab that an address lies in, if that is one of the cache's and its frees may take the short way.
    #[inline(always)]
    fn members(&self, cache: &Cache<H>, map: H::Map, at: VirtAddr) -> Option<Members> {
        let page = map.find(Pfn::containing(self.hal().to_phys(at)?))?;
        let word = SlabWord::from_raw(map.get(page).aux().load(Ordering::Relaxed));
        if !word.is_of(cache.slot) {
            return None;
        }
        let number = word.page();
        let book = Book::from_raw(map.get(Page::new(page.index().wrapping_sub(number))).owner());
        let before = u64::from(number).wrapping_mul(PAGE_SIZE);
        let start = VirtAddr::new(at.align_down(PAGE_SIZE).get().wrapping_sub(before));
        Some(Members::new(cache.divisor, start, book.objects))
    }
}

/// Gives the objects of `entries`, as many as there are places, their new owner.
#[inline(always)]
fn take_all<T>(places: &mut [T], entries: &[AtomicU64], mark: u32, name: &impl Fn(VirtAddr) -> T) {
    let take = |object: u64| {
        let object = VirtAddr::new(object);
        Object::of_array(object).store(mark, 0);
        name(object)
    };
    let ((rounds, rest), (entry_rounds, entry_rest)) = (places.as_chunks_mut::<ROUND>(), entries.as_chunks::<ROUND>());
    for (places, entries) in rounds.iter_mut().zip(entry_rounds) {
        *places = load_words(entries).map(take);
    }
    rest.iter_mut().zip(entry_rest).for_each(|(place, entry)| *place = take(entry.load(Ordering::Relaxed)));
}
