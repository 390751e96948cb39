//! Many objects at once (Linux: `kmem_cache_alloc_bulk`, `kmem_cache_free_bulk`): one round of masking interrupts, one look
//! at the array, and for objects that lie in one page one look at its descriptor.
#![forbid(unsafe_code)]

use super::alloc::plain;
use super::cache::Cache;
use super::cpu::Array;
use super::error::AllocError;
use super::object::Object;
use super::word::SlabWord;
use super::{SlabAllocator, SlabHal};
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::gfp::Gfp;
use crate::mm::page::PageMap;
use core::sync::atomic::Ordering;

/// Objects that the loops handle in one round.
const ROUND: usize = 8;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Allocates an object for each place of `objects`, which `name` makes of its address and `addr` turns back: all of them or
    /// none. Context as for [`SlabAllocator::alloc_object`]. Cost: some five instructions an object from this CPU's
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
        let mut done =
            if plain(gfp) && !gfp.contains(Gfp::ZERO) { self.take_many(cache, gfp, objects, &name) } else { 0 };
        while let Some(place) = objects.get_mut(done) {
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
        let mut done = 0;
        if (!gfp.may_wait() || self.hal().may_wait(local, saved)) && cache.arrays_on.load(Ordering::Relaxed) {
            let array = Array::new::<H>(local, cache.slot);
            while let Some(left) = places.get_mut(done..).filter(|left| !left.is_empty()) {
                let count = array.count() as usize;
                let taken = count.min(left.len());
                // Each time anew, as magazines are exchanged.
                let entries = array.entries();
                let (Some(hot), Some(left)) = (entries.get(count - taken..count), left.get_mut(..taken)) else { break };
                let take = |place: &mut T, entry: &core::sync::atomic::AtomicU64| {
                    let object = VirtAddr::new(entry.load(Ordering::Relaxed));
                    Object::of_array(object).store(cache.shape.mark, 0);
                    *place = name(object);
                };
                let ((rounds, rest), (hot_rounds, hot_rest)) =
                    (left.as_chunks_mut::<ROUND>(), hot.as_chunks::<ROUND>());
                for (places, entries) in rounds.iter_mut().zip(hot_rounds) {
                    places.iter_mut().zip(entries).for_each(|(place, entry)| take(place, entry));
                }
                rest.iter_mut().zip(hot_rest).for_each(|(place, entry)| take(place, entry));
                // INVARIANT: ARR-1: what was taken is above the count from here on.
                array.take_many(taken);
                done += taken;
                if done == places.len() || !self.fill_empty(cache, &array) {
                    break;
                }
            }
        }
        self.hal().restore(saved);
        done
    }

    /// Frees objects of this cache, which `addr` names, whatever slabs they are in. What is wrong with one is reported, and it is
    /// left out: how many there were. Any context. Cost: some fifteen instructions an object onto this CPU's array.
    #[inline]
    pub fn free_bulk<T>(&self, cache: &Cache<H>, objects: &[T], addr: impl Fn(&T) -> VirtAddr) -> usize {
        let mut wrong = 0;
        let mut rest = objects;
        loop {
            let given = self.give_many(cache, rest, &addr);
            rest = rest.get(given..).unwrap_or_default();
            // The next one is for the long way: its array is full, or something is wrong with it.
            let [next, after @ ..] = rest else { return wrong };
            if let Err(misuse) = self.free_slow(addr(next), Some(cache)) {
                self.report(&misuse);
                wrong += 1;
            }
            rest = after;
        }
    }

    /// Puts the first of `objects` on this CPU's array, as long as there is room and nothing is wrong: how many.
    fn give_many<T>(&self, cache: &Cache<H>, objects: &[T], addr: impl Fn(&T) -> VirtAddr) -> usize {
        let saved = self.hal().save();
        let local = self.hal().local();
        let array = Array::new::<H>(local, cache.slot);
        let map = H::local_map(local);
        let mark = H::slabs(local).mark.load(Ordering::Relaxed);
        let room = array.entries().get(array.count() as usize..).unwrap_or_default();
        let (mut page, mut word) = (VirtAddr::ZERO, SlabWord::from_raw(0));
        let mut given = 0;
        let mut give = |entry: &core::sync::atomic::AtomicU64, object: &T| {
            let at = addr(object);
            if at.align_down(PAGE_SIZE) != page {
                page = at.align_down(PAGE_SIZE);
                let found = self.hal().to_phys(at).and_then(|phys| map.find(Pfn::containing(phys)));
                let raw = found.map_or(0, |page| map.get(page).aux().load(Ordering::Relaxed));
                word = SlabWord::from_raw(raw);
                if word.slot() != cache.slot {
                    word = SlabWord::from_raw(0);
                }
            }
            let object = Object::of_array(at);
            let right = word.starts_object(at.offset_in(PAGE_SIZE)) && object.load(0) != mark;
            if right {
                object.store(0, mark);
                entry.store(at.get(), Ordering::Relaxed);
                given += 1;
            }
            right
        };
        'all: {
            let ((rounds, _), (room_rounds, _)) = (objects.as_chunks::<ROUND>(), room.as_chunks::<ROUND>());
            for (objects, entries) in rounds.iter().zip(room_rounds) {
                for (object, entry) in objects.iter().zip(entries) {
                    if !give(entry, object) {
                        break 'all;
                    }
                }
            }
            let whole = rounds.len().min(room_rounds.len()) * ROUND;
            let rest = objects.get(whole..).unwrap_or_default().iter().zip(room.get(whole..).unwrap_or_default());
            for (object, entry) in rest {
                if !give(entry, object) {
                    break;
                }
            }
        }
        // INVARIANT: ARR-1, ARR-2: marked, and no more than there is room for.
        #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
        array.set_count(array.count() + given as u32);
        self.hal().restore(saved);
        given
    }
}
