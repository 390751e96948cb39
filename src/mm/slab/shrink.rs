//! Giving memory back: arrays, depots, empty slabs; on request of another CPU too.
#![forbid(unsafe_code)]

use super::cache::Cache;
use super::cpu::Array;
use super::error::InUse;
use super::node::{Chain, Node};
use super::word::Book;
use super::{SlabAllocator, SlabHal};
use crate::addr::{CpuId, VirtAddr};
use crate::mm::page::PageMap;
use core::sync::atomic::Ordering;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Puts everything that a cache keeps at hand back into its slabs, and gives up those that are empty (Linux:
    /// `kmem_cache_shrink`). Whether anything was given up. Any context in which no other CPU uses the cache; what the
    /// arrays of CPUs hold that are online and not this one stays there until [`SlabAllocator::answer_requests`] runs on
    /// them.
    pub fn shrink(&self, cache: &Cache<H>) -> bool {
        self.drain_cpus(cache);
        let mut chain = self.with_node(cache, |node| self.empty_node(cache, node));
        let any = chain != Chain::NONE;
        self.free_slabs(core::mem::replace(&mut chain, Chain::NONE));
        any
    }

    /// Shrinks every cache: for when memory is short. Where sleeping is allowed.
    pub fn shrink_all(&self) -> bool {
        let mut any = false;
        self.for_each(|cache| any |= self.shrink(cache));
        any
    }

    /// Drains the arrays of this CPU, at another's request or because it has nothing better to do. Interrupts may be in
    /// any state.
    pub fn drain_local(&self) {
        for record in &self.table {
            // A cache that goes away has no array in use, and its record is only read here.
            let Some(cache) = self.cache_of(record) else { continue };
            let saved = self.hal().save();
            let chain = self.drain_array(cache, &Array::new(self.hal().local(), cache.slot));
            self.hal().restore(saved);
            self.free_slabs(chain);
        }
    }

    /// Empties the arrays that may be emptied from here: this CPU's, and those of CPUs that are not online.
    fn drain_cpus(&self, cache: &Cache<H>) {
        let here = self.hal().cpu();
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            let Some(local) = self.hal().local_of(cpu) else { continue };
            if cpu != here && self.hal().is_online(cpu) {
                continue;
            }
            let saved = self.hal().save();
            let chain = self.drain_array(cache, &Array::new(local, cache.slot));
            self.hal().restore(saved);
            self.free_slabs(chain);
        }
    }

    /// Puts the objects of an array back into their slabs. Interrupts masked.
    fn drain_array(&self, cache: &Cache<H>, array: &Array<'_, H>) -> Chain {
        let mut freed = Chain::NONE;
        let held = array.count() as usize;
        if held == 0 {
            return freed;
        }
        let mut node = cache.node.lock();
        for entry in array.entries().iter().take(held) {
            self.give_back(cache, &mut node, VirtAddr::new(entry.load(Ordering::Relaxed)), &mut freed);
        }
        array.set_count(0);
        freed
    }

    /// Empties the depot and takes the empty slabs off the list.
    pub(super) fn empty_node(&self, cache: &Cache<H>, node: &mut Node) -> Chain {
        let mut freed = Chain::NONE;
        while let Some(objects) = node.depot.take(usize::MAX) {
            for object in objects {
                self.give_back(cache, node, VirtAddr::new(object.load(Ordering::Relaxed)), &mut freed);
            }
        }
        let map = self.hal().map();
        let mut at = node.front();
        while let Some(slab) = at {
            at = Node::after(map, slab);
            let book = Book::from_raw(map.get(slab).owner());
            if book.in_use == 0 {
                node.discard(map, slab, book, &mut freed);
            }
        }
        freed
    }

    /// Switches the arrays of a cache off, emptying them, or on again.
    pub(super) fn switch_arrays(&self, cache: &Cache<H>, on: bool) {
        let on = on && cache.capacity != 0 && !self.is_careful();
        cache.arrays_on.store(on, Ordering::Relaxed);
        if cache.slot == H::NO_ARRAY {
            return;
        }
        self.drain_cpus(cache);
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            let Some(local) = self.hal().local_of(cpu) else { continue };
            let saved = self.hal().save();
            let array = Array::<H>::new(local, cache.slot);
            let other = cpu != self.hal().cpu() && self.hal().is_online(cpu);
            if !other && (array.capacity() != 0) != on {
                array.set_capacity(if on { cache.capacity } else { 0 });
            }
            self.hal().restore(saved);
        }
    }

    /// Makes every call take the long way from now on, where fault injection and zeroing are, or lets them take the
    /// short way again.
    pub fn set_careful(&self, careful: bool) {
        let careful = careful || self.zeroes_on_alloc() || self.zeroes_on_free();
        self.careful.store(careful, Ordering::Relaxed);
        self.for_each(|cache| self.switch_arrays(cache, !careful));
    }

    /// What of a cache is in use, with its arrays and its depot empty.
    pub(super) fn in_use(&self, cache: &Cache<H>) -> Option<InUse> {
        let objects = self.active_objects(cache);
        (objects != 0).then(|| InUse { objects, first: self.first_in_use(cache) })
    }

    /// Objects that users have.
    pub(super) fn active_objects(&self, cache: &Cache<H>) -> u64 {
        let held: u64 = (0..self.hal().cpus())
            .filter_map(|cpu| self.hal().local_of(CpuId::new(cpu)))
            .map(|local| u64::from(Array::<H>::new(local, cache.slot).count()))
            .sum();
        let map = self.hal().map();
        let (total, free) = self.with_node(cache, |node| {
            let mut free = node.depot.count() as u64;
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
