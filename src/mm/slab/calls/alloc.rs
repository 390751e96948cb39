//! Allocation: the fast path over this CPU's array, and the slow path through depot, slabs and pages, step by step.
//!
//! | step | function | lock | interrupts | if it has no object |
//! |---|---|---|---|---|
//! | 1. this CPU's array | [`SlabHal::pop_free`] | none | restarted, or masked | 2; `kmem_cache_alloc`: 4 |
//! | 2. its spare (`kmalloc`) | `pop_swapped` | none | masked | 3 |
//! | 3. the depot's next full magazine (`kmalloc`) | `pop_exchanged` | the cache's, briefly | masked | 4, by `alloc_for` |
//! | 4. flags, fault injection | `check_flags`, `free_object_for` | none | as the caller has them | the error is returned |
//! | 5. the depot, unless step 3 found it empty; slabs | `refill` | the cache's | masked | 6 |
//! | 6. pages, for a new slab | `new_slab` | the page allocator's | as the caller has them | out of memory |
//! | 7. the new slab, and others' meanwhile | `refill` | the cache's | masked | out of memory |
//! | 8. debugging, tags, zeroes | `alloc_for` | none | as the caller has them | a damaged object: 4 again |
//!
//! Step 1 takes no object where the flags ask for more than it does ([`is_fast`]), or where the array is off: then the first
//! step that knows of it serves the call.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Node};
use super::super::cpu::Array;
use super::super::error::SlabAllocError;
use super::super::object::{Object, below};
use super::super::words::{ArrayOffset, Book};
use super::super::{SlabAllocator, SlabHal};
use crate::addr::{Order, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::page::{Page, PageMap};
use core::sync::atomic::{AtomicU64, Ordering};

/// Whether an earlier step has asked the depot of the cache for a full magazine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Depot {
    /// Not yet.
    Unasked,
    /// It had none.
    Empty,
}

/// Where a refill takes objects from.
enum Source {
    /// A full magazine of the depot, else the slabs.
    DepotAndSlabs,
    /// The slabs: the depot has just been found empty.
    Slabs,
    /// This new slab, and the others.
    NewSlab(Page),
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Allocates an object (Linux: `kmem_cache_alloc`). Zeroed with [`Gfp::ZERO`], otherwise its contents are undefined, or
    /// those that the constructor and its last user left.
    ///
    /// Any context without [`Gfp::DIRECT_RECLAIM`], interrupts included. Cost: a dozen instructions from this CPU's array.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError::OutOfMemory`], [`SlabAllocError::Flags`], [`SlabAllocError::Zone`], [`SlabAllocError::ZeroConstructed`].
    #[inline(always)]
    pub fn alloc_object(&self, cache: &Cache<H>, gfp: Gfp) -> Result<VirtAddr, SlabAllocError> {
        self.alloc_in(cache.array, cache.shape.mark, gfp, || cache)
    }

    /// The same, if the caller has the offset of its array for the fast path.
    ///
    /// # Errors
    ///
    /// As for [`SlabAllocator::alloc_object`].
    #[inline(always)]
    pub fn alloc_in<'c>(
        &self,
        offset: ArrayOffset,
        mark: u32,
        gfp: Gfp,
        cache: impl FnOnce() -> &'c Cache<H>,
    ) -> Result<VirtAddr, SlabAllocError>
    where
        H: 'c,
    {
        if is_fast(gfp)
            && !gfp.contains(Gfp::ZERO)
            && let Some(object) = self.hal().pop_free(Internal::CALL, offset, mark, gfp.may_wait())
        {
            return Ok(object);
        }
        self.alloc_slow(cache(), gfp)
    }

    /// Slow path: the flags ask for more than the fast path does, or this CPU's array is empty.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(&self, cache: &Cache<H>, gfp: Gfp) -> Result<VirtAddr, SlabAllocError> {
        self.alloc_for(cache, gfp, Depot::Unasked, cache.shape.object_size, self.hal().return_address())
    }

    /// Steps 2 and 3 for a cache that is known: takes an object after an exchange, if no more than that is needed.
    #[inline]
    pub(super) fn pop_exchanged(&self, cache: &Cache<H>, gfp: Gfp) -> Result<VirtAddr, Depot> {
        if !is_fast(gfp) || gfp.contains(Gfp::ZERO) || self.is_careful() {
            return Err(Depot::Unasked);
        }
        let saved = self.hal().save();
        let local = self.hal().local();
        let mut popped = Err(Depot::Unasked);
        if !gfp.may_wait() || self.hal().may_wait(local, saved) {
            let array = Array::new::<H>(local, cache.array);
            if !array.is_off() && array.count() == 0 {
                popped = match self.exchange_empty(cache, &array) {
                    true => {
                        array.count_slow_alloc();
                        array.pop().ok_or(Depot::Empty)
                    }
                    false => Err(Depot::Empty),
                };
            }
        }
        self.hal().restore(saved);
        if let Ok(object) = popped {
            Object::of_array(object).store(cache.shape.mark, 0);
        }
        popped
    }

    /// Steps 4 to 8, on behalf of the caller at `caller`, which asks for `asked` bytes of the object.
    pub(super) fn alloc_for(
        &self,
        cache: &Cache<H>,
        gfp: Gfp,
        depot: Depot,
        asked: u32,
        caller: VirtAddr,
    ) -> Result<VirtAddr, SlabAllocError> {
        let gfp = self.check_flags(cache, gfp)?;
        let mut slot = self.free_object_for(cache, gfp, depot)?;
        while cache.is_debugged() && !self.allocated_debugged(cache, slot, caller) {
            slot = self.free_object_for(cache, gfp, Depot::Unasked)?;
        }
        let object = VirtAddr::new(slot.addr().get().wrapping_add(cache.shape.object.into()));
        let past = cache.is_tagged().then(|| self.past_tag(cache, slot));
        slot.store(cache.shape.mark, 0);
        if self.zeroes_on_free() && !cache.shape.constructed && !cache.is_debugged() {
            // An object that was zeroed when it was freed is zero except for its link.
            slot.store(cache.shape.link, 0);
        }
        if gfp.contains(Gfp::ZERO) || (self.zeroes_on_alloc() && !cache.shape.constructed) {
            self.hal().zero_object(Internal::CALL, object, cache.shape.object_size as usize);
        }
        Ok(past.map_or(object, |past| self.tag_object(cache, object, asked, past, caller)))
    }

    /// Refuses flags that are not valid for an object. Returns the rest, without the right to wait where waiting is not legal.
    fn check_flags(&self, cache: &Cache<H>, gfp: Gfp) -> Result<Gfp, SlabAllocError> {
        gfp.check().map_err(SlabAllocError::Flags)?;
        if let Some(flag) = [Gfp::HIGHMEM, Gfp::DMA32].into_iter().find(|flag| gfp.contains(*flag)) {
            return Err(SlabAllocError::Zone(flag));
        }
        if gfp.contains(Gfp::ZERO) && cache.shape.constructed {
            return Err(SlabAllocError::ZeroConstructed);
        }
        Ok(self.without_illegal_wait(gfp))
    }

    /// The flags, without the right to wait where waiting is not legal; that has been reported.
    pub(super) fn without_illegal_wait(&self, gfp: Gfp) -> Gfp {
        if !gfp.may_wait() {
            return gfp;
        }
        if self.may_wait() {
            return gfp;
        }
        self.hal().waits_in_atomic(gfp, Order::ZERO);
        gfp - Gfp::DIRECT_RECLAIM - Gfp::NOFAIL
    }

    /// Whether an allocation with [`Gfp::DIRECT_RECLAIM`] is legal in the caller's context.
    pub fn may_wait(&self) -> bool {
        let saved = self.hal().save();
        let may = self.hal().may_wait(self.hal().local(), saved);
        self.hal().restore(saved);
        may
    }

    /// Steps 4 to 7: takes a free object from the first source that has one.
    fn free_object_for(&self, cache: &Cache<H>, gfp: Gfp, depot: Depot) -> Result<Object, SlabAllocError> {
        if self.is_careful() && self.hal().should_fail_slab(cache.name, gfp) {
            return Err(SlabAllocError::OutOfMemory);
        }
        let found = match depot {
            Depot::Unasked => self.refill(cache, Source::DepotAndSlabs),
            Depot::Empty => self.refill(cache, Source::Slabs),
        };
        if let Some(object) = found {
            return Ok(object);
        }
        match self.new_slab(cache, gfp) {
            Ok(slab) => self.refill(cache, Source::NewSlab(slab)).ok_or(SlabAllocError::OutOfMemory),
            // The caller may have moved to a CPU whose spare has objects, or a CPU may have filled the depot.
            Err(error) if depot == Depot::Empty => self.refill(cache, Source::DepotAndSlabs).ok_or(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Steps 5 and 7: refills this CPU's array from `source`, and takes one object; without an array, takes one from a slab.
    fn refill(&self, cache: &Cache<H>, source: Source) -> Option<Object> {
        let map = self.hal().map();
        let saved = self.hal().save();
        let array = Array::new::<H>(self.hal().local(), cache.array);
        let on = self.uses_arrays(cache) && !array.is_off();
        if matches!(source, Source::DepotAndSlabs) && on && array.count() == 0 && self.exchange_empty(cache, &array) {
            array.count_slow_alloc();
            let object = array.pop().map(Object::of_array);
            self.hal().restore(saved);
            return object;
        }
        let mut node = cache.node.lock();
        if let Source::NewSlab(slab) = source {
            let book = Book::from_raw(map.get(slab).owner());
            if map.get(slab).state().order() < cache.shape.order {
                node.events.smaller += 1;
            }
            node.add(map, slab, book);
        }
        let object = if on {
            if array.count() == 0 {
                self.fill(cache, &mut node, &array);
            }
            drop(node);
            array.pop().map(Object::of_array)
        } else {
            let object = self.take_one(cache, &mut node);
            drop(node);
            object
        };
        if object.is_some() {
            array.count_slow_alloc();
        }
        self.hal().restore(saved);
        object
    }

    /// Takes one object from the slabs of the node.
    fn take_one(&self, cache: &Cache<H>, node: &mut Node) -> Option<Object> {
        let mut found = None;
        if let Some(slab) = node.front() {
            self.take_from_slab(cache, node, slab, 1, |object| found = Some(object));
        }
        found
    }

    /// Refills this CPU's empty array without making a slab. Interrupts masked.
    pub(super) fn fill_empty(&self, cache: &Cache<H>, array: &Array<'_>) {
        if !self.exchange_empty(cache, array) {
            self.fill(cache, &mut cache.node.lock(), array);
        }
    }

    /// Refills an empty array from slabs, up to a batch.
    fn fill(&self, cache: &Cache<H>, node: &mut Node, array: &Array<'_>) {
        let batch = cache.batch();
        let mut count = 0;
        while count < batch
            && let Some(slab) = node.front()
        {
            let room = array.entries().get(count as usize..).unwrap_or_default();
            let mut entries = room.iter();
            let taken = self.take_from_slab(cache, node, slab, batch - count, |object| {
                if let Some(entry) = entries.next() {
                    entry.store(object.addr().get(), Ordering::Relaxed);
                }
            });
            // Shuffles the objects of each slab separately: a caller that takes many at once gets neighbours, though in no
            // order.
            self.shuffle(room.get(..taken as usize).unwrap_or_default());
            count += taken;
        }
        array.set_count(count);
    }

    /// Puts objects into random order.
    fn shuffle(&self, entries: &[AtomicU64]) {
        let mut bits = self.random.next();
        for (index, entry) in entries.iter().enumerate().skip(1) {
            bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            #[expect(clippy::cast_possible_truncation, reason = "the high half, and a small number")]
            let other = below((bits >> 32) as u32, index as u32 + 1) as usize;
            let Some(with) = entries.get(other) else { continue };
            let (one, two) = (entry.load(Ordering::Relaxed), with.load(Ordering::Relaxed));
            entry.store(two, Ordering::Relaxed);
            with.store(one, Ordering::Relaxed);
        }
    }
}

/// Whether the flags ask only for work that the hot path does.
#[inline(always)]
pub(super) const fn is_fast(gfp: Gfp) -> bool {
    gfp.check().is_ok() && !gfp.intersects(Gfp::HIGHMEM.union(Gfp::DMA32))
}
