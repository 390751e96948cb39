//! Giving memory back: arrays, depots, empty slabs; on request of another CPU too.
#![forbid(unsafe_code)]

use super::cache::Cache;
use super::cpu::{Array, Magazine};
use super::error::InUse;
use super::node::{Chain, Node};
use super::word::Book;
use super::{SlabAllocator, SlabHal};
use crate::addr::{CpuId, PAGE_SIZE};
use crate::mm::page::PageMap;
use core::sync::atomic::{Ordering, fence};

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Puts everything that a cache keeps at hand back into its slabs, and gives up those that are empty (Linux:
    /// `kmem_cache_shrink`). Whether anything was given up. Where sleeping is allowed; elsewhere that is reported, and
    /// nothing is done.
    pub fn shrink(&self, cache: &Cache<H>) -> bool {
        self.pages.might_sleep("SlabAllocator::shrink").is_ok() && self.shrink_anyhow(cache)
    }

    /// The same in any context; where the caller may not wait, what the arrays of other CPUs hold stays there until these
    /// answer.
    fn shrink_anyhow(&self, cache: &Cache<H>) -> bool {
        self.drain_all(Some(cache));
        self.empty_node(cache)
    }

    /// Shrinks every cache: for when memory is short. Whether anything was given up. Where sleeping is allowed; elsewhere
    /// that is reported, and nothing is done.
    pub fn shrink_all(&self) -> bool {
        if self.pages.might_sleep("SlabAllocator::shrink_all").is_err() {
            return false;
        }
        let (mut any, mut idle) = (false, 0);
        // What a cache gives back of its own memory goes to caches that have been shrunk already.
        while idle < 2 {
            let mut round = false;
            self.for_each_in(&self.registry.lock(), |cache| round |= self.shrink_anyhow(cache));
            any |= round;
            idle = if round { 0 } else { idle + 1 };
        }
        any
    }

    /// The same for a shrinker, which may be running while a cache is being made or destroyed: pages given back, or `None`
    /// in that case.
    pub fn try_shrink_all(&self) -> Option<u64> {
        let registry = self.registry.try_lock()?;
        let before = self.pages_in_slabs();
        self.for_each_in(&registry, |cache| {
            self.shrink_anyhow(cache);
        });
        drop(registry);
        Some(before.saturating_sub(self.pages_in_slabs()))
    }

    /// Pages in slabs of all caches. Any context.
    #[must_use]
    pub fn pages_in_slabs(&self) -> u64 {
        let mut pages: u64 = 0;
        self.for_each_record(|cache| pages = pages.wrapping_add(self.with_node(cache, |node| node.pages)));
        pages
    }

    /// Pages that shrinking could give back, if every object at hand had a slab to itself and those like it. Any context.
    #[must_use]
    pub fn pages_at_hand(&self) -> u64 {
        let mut bytes: u64 = 0;
        self.for_each_record(|cache| {
            let held = self.held_objects(cache);
            let at_hand = self.with_node(cache, |node| node.depot.full_count() as u64) * u64::from(cache.capacity);
            bytes = bytes.wrapping_add((held + at_hand) * u64::from(cache.shape.size));
        });
        bytes / PAGE_SIZE
    }

    /// Does what other CPUs have asked of this one. Called by whatever [`PerCpu::kick`](crate::hal::cpu::PerCpu::kick)
    /// causes, and by a CPU that is idle. Any context.
    pub fn answer_requests(&self) {
        let saved = self.hal().save();
        let local = self.hal().local();
        let requests = H::slabs(local).requests();
        if H::slabs(local).owes(requests) {
            self.for_each_record(|cache| self.settle_array(cache, local));
            H::slabs(local).answer(requests);
        }
        self.hal().restore(saved);
    }

    /// Empties the arrays of a cache, or of all, on every CPU: on this one and those that are not online at once, on the
    /// others by asking them. Returns when all have answered where the caller may wait.
    pub(super) fn drain_all(&self, cache: Option<&Cache<H>>) {
        let here = self.hal().cpu();
        let others = || (0..self.hal().cpus()).map(CpuId::new).filter(|cpu| *cpu != here);
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            let Some(local) = self.hal().local_of(cpu) else { continue };
            if cpu == here {
                self.settle_arrays(cache, local);
            } else if self.hal().is_online(cpu)
                || !self.hal().while_offline(cpu, &mut || self.settle_arrays(cache, local))
            {
                H::slabs(local).request();
                self.hal().kick(cpu);
            }
        }
        let saved = self.hal().save();
        let may_wait = self.hal().may_wait(self.hal().local(), saved);
        self.hal().restore(saved);
        if !may_wait {
            return;
        }
        for cpu in others() {
            let Some(local) = self.hal().local_of(cpu) else { continue };
            // Those of this call, and at most some others that came since.
            let requests = H::slabs(local).requests();
            let mut step = 0;
            while H::slabs(local).owes(requests) {
                // It may have gone instead of answering.
                if !self.hal().is_online(cpu) && self.hal().while_offline(cpu, &mut || self.settle_arrays(cache, local))
                {
                    break;
                }
                // Two CPUs may be asking each other.
                self.answer_requests();
                self.hal().waiting_for(cpu, step);
                step += 1;
                H::relax();
            }
        }
    }

    /// Puts what a CPU that is not online has at hand back into its slabs. Whether it was not online. Any context.
    pub fn drain_offline(&self, cpu: CpuId) -> bool {
        let Some(local) = self.hal().local_of(cpu) else { return false };
        self.hal().while_offline(cpu, &mut || self.settle_arrays(None, local))
    }

    /// Settles the array of a cache on a CPU, or all of them. By that CPU, or for one that is not online.
    fn settle_arrays(&self, cache: Option<&Cache<H>>, local: &H::Local) {
        let saved = self.hal().save();
        match cache {
            Some(cache) => self.settle_array(cache, local),
            None => self.for_each_record(|cache| self.settle_array(cache, local)),
        }
        self.hal().restore(saved);
    }

    /// Empties the array of a cache on a CPU, and switches it on or off as the cache wants. By that CPU, or for one that is
    /// not online; interrupts masked.
    fn settle_array(&self, cache: &Cache<H>, local: &H::Local) {
        let array = Array::new::<H>(local, cache.slot);
        // First, as its memory may be an object of this very cache.
        self.give_spare_up(cache, &array);
        let chain = self.drain_array(cache, &array);
        let on = self.wants_arrays(cache);
        if array.has_memory() && (array.capacity() != 0) != on {
            array.set_capacity(if on { cache.capacity } else { 0 });
        }
        self.free_slabs(chain);
    }

    /// Runs `f` for every cache, each time with interrupts masked; in between they are as the caller has them. The
    /// registry's lock is not taken: any context.
    fn for_each_record(&self, mut f: impl FnMut(&Cache<H>)) {
        let entries = self.table.iter().map(Some);
        for entry in core::iter::once(None).chain(entries) {
            // GLB-2: from before the record is found until nothing uses it any more.
            let saved = self.hal().save();
            if let Some(cache) = entry.map_or_else(|| self.boot.get(), |entry| self.cache_of(entry)) {
                f(cache);
            }
            self.hal().restore(saved);
        }
    }

    /// Puts the objects of an array back into their slabs. Interrupts masked.
    fn drain_array(&self, cache: &Cache<H>, array: &Array<'_>) -> Chain {
        let mut freed = Chain::NONE;
        if array.count() == 0 {
            return freed;
        }
        self.give_all(cache, &mut cache.node.lock(), array.magazine(), array.count(), &mut freed);
        array.set_count(0);
        freed
    }

    /// Puts the objects of the spare back into their slabs, and gives its memory up. Interrupts masked.
    fn give_spare_up(&self, cache: &Cache<H>, array: &Array<'_>) {
        let Some(spare) = array.spare() else { return };
        let mut freed = Chain::NONE;
        self.give_all(cache, &mut cache.node.lock(), spare, array.spare_count(), &mut freed);
        array.set_spare(Magazine::NONE, 0);
        self.free_slabs(freed);
        self.free_magazine(spare);
    }

    /// Puts the objects of the depot back into their slabs, and gives its magazines and the empty slabs up; whether there
    /// were any.
    pub(super) fn empty_node(&self, cache: &Cache<H>) -> bool {
        let mut freed = Chain::NONE;
        while let Some(full) = self.with_node(cache, |node| node.depot.take_full()) {
            self.with_node(cache, |node| self.give_all(cache, node, full, cache.capacity, &mut freed));
            self.free_magazine(full);
        }
        while let Some(empty) = self.with_node(cache, |node| node.depot.take_empty()) {
            self.free_magazine(empty);
        }
        self.with_node(cache, |node| self.discard_empty(node, &mut freed));
        let any = freed != Chain::NONE;
        self.free_slabs(freed);
        any
    }

    /// Takes the empty slabs off the list.
    fn discard_empty(&self, node: &mut Node, freed: &mut Chain) {
        let map = self.hal().map();
        let mut at = node.front();
        while let Some(slab) = at {
            at = Node::after(map, slab);
            let book = Book::from_raw(map.get(slab).owner());
            if book.in_use == 0 {
                node.discard(map, slab, book, freed);
            }
        }
    }

    /// Switches the arrays of a cache off, emptying them, or on again.
    pub(super) fn switch_arrays(&self, cache: &Cache<H>, on: bool) {
        cache.arrays_wanted.store(on && cache.capacity != 0, Ordering::Relaxed);
        self.drain_all(Some(cache));
    }

    /// Gives each CPU memory for the entries of a cache's array, and switches the arrays on. A CPU for which there is none
    /// does without; the cache works. Nobody but the caller knows the cache yet, or no other CPU runs. `careful` is
    /// whether the allocator is.
    pub(super) fn make_arrays(&self, cache: &Cache<H>, careful: bool) {
        if cache.capacity == 0 {
            return;
        }
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            let Some(local) = self.hal().local_of(cpu) else { continue };
            if let Some(magazine) = self.new_magazine(cache) {
                let array = Array::new::<H>(local, cache.slot);
                array.load(magazine, 0, if careful { 0 } else { cache.capacity });
            }
        }
        cache.arrays_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether the arrays of a cache are to be in use.
    pub(super) fn wants_arrays(&self, cache: &Cache<H>) -> bool {
        cache.arrays_wanted.load(Ordering::Relaxed) && !self.is_careful()
    }

    /// Gives the memory of the arrays of a cache back, which are off, and which nobody uses.
    pub(super) fn free_arrays(&self, cache: &Cache<H>) {
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            let Some(local) = self.hal().local_of(cpu) else { continue };
            Array::new::<H>(local, cache.slot).take_memory().into_iter().for_each(|each| self.free_magazine(each));
        }
    }

    /// Makes every call take the long way from now on, where fault injection and zeroing are, or lets them take the
    /// short way again.
    pub fn set_careful(&self, careful: bool) {
        let careful = careful || self.zeroes_on_alloc() || self.zeroes_on_free();
        self.careful.store(careful, Ordering::Relaxed);
        // Pairs with the fence in `add`: a cache that is being made is in the table, or sees this.
        fence(Ordering::SeqCst);
        self.drain_all(None);
    }

    /// Makes every call that takes the long way ask [`SlabHal::should_fail_slab`], and leaves all else as it is. Takes
    /// no lock. Any context.
    pub fn ask_always(&self) {
        self.careful.store(true, Ordering::Relaxed);
    }

    /// What of a cache is in use, with its arrays and its depot empty.
    pub(super) fn in_use(&self, cache: &Cache<H>) -> Option<InUse> {
        let objects = self.active_objects(cache);
        (objects != 0).then(|| InUse { objects, first: self.first_in_use(cache) })
    }

    /// Objects in the CPUs' arrays.
    fn held_objects(&self, cache: &Cache<H>) -> u64 {
        (0..self.hal().cpus())
            .filter_map(|cpu| self.hal().local_of(CpuId::new(cpu)))
            .map(|local| u64::from(Array::new::<H>(local, cache.slot).held()))
            .sum()
    }

    /// Objects that users have.
    pub(super) fn active_objects(&self, cache: &Cache<H>) -> u64 {
        let held = self.held_objects(cache);
        let map = self.hal().map();
        let (total, free) = self.with_node(cache, |node| {
            let mut free = node.depot.full_count() as u64 * u64::from(cache.capacity);
            let mut at = node.front();
            while let Some(slab) = at {
                at = Node::after(map, slab);
                let book = Book::from_raw(map.get(slab).owner());
                free += u64::from(book.objects - book.in_use);
            }
            (node.objects, free)
        });
        total.saturating_sub(free + held)
    }
}
