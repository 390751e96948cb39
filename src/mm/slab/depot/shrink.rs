//! Freeing memory: depots, empty slabs; and switching arrays on and off.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Chain, Node, Registry};
use super::super::cpu::Array;
use super::super::error::InUse;
use super::super::object::CacheSet;
use super::super::words::Book;
use super::super::{SlabAllocator, SlabHal};
use crate::addr::{CpuId, PAGE_SIZE};
use crate::mm::page::PageMap;
use core::sync::atomic::{Ordering, fence};

/// Slabs that are checked with interrupts masked.
const AT_ONCE: u32 = 32;

/// The most rounds over all caches. Two or three suffice without interrupts.
const ROUNDS: u32 = 16;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Returns all cached free objects of a cache to its slabs, and frees the slabs that are then empty (Linux:
    /// `kmem_cache_shrink`). Returns whether any was freed. Where sleeping is allowed; elsewhere that is reported, and nothing
    /// is done.
    pub fn shrink(&self, cache: &Cache<H>) -> bool {
        if self.pages.might_sleep("SlabAllocator::shrink").is_err() {
            return false;
        }
        self.drain_all(&CacheSet::of(cache.id));
        self.empty_node(cache, u64::MAX) != 0
    }

    /// Shrinks every cache when memory is short. Returns whether any slab was freed. Where sleeping is allowed; elsewhere that
    /// is reported, and nothing is done.
    pub fn shrink_all(&self) -> bool {
        if self.pages.might_sleep("SlabAllocator::shrink_all").is_err() {
            return false;
        }
        let (mut any, mut idle) = (false, 0);
        // A shrunk cache may get memory back when the caches of descriptors are shrunk, so one round is not enough. Interrupt
        // handlers that allocate leave some memory to shrink in every round, so the number of rounds is bounded.
        for _ in 0..ROUNDS {
            if idle == 2 {
                break;
            }
            let mut registry = self.registry.lock();
            self.drain_all(&self.caches());
            let round = self.empty_nodes(&mut registry, u64::MAX) != 0;
            any |= round;
            idle = if round { 0 } else { idle + 1 };
        }
        any
    }

    /// Frees `pages` pages, or as many as it can: for a shrinker, which may be running while a cache is being made or
    /// destroyed. Returns the number freed, or `None` in that case. It starts with the depots; if they are not enough, each CPU
    /// that holds objects is asked once for all of them. If the caller may not wait, as a shrinker may not, the objects that
    /// other CPUs return are there for the next call.
    pub fn try_shrink_all(&self, pages: u64) -> Option<u64> {
        let mut registry = self.registry.try_lock()?;
        let mut freed = self.empty_nodes(&mut registry, pages);
        if freed < pages {
            self.drain_held(&registry);
            freed += self.empty_nodes(&mut registry, pages - freed);
        }
        Some(freed)
    }

    /// Empties the nodes of caches, starting where the last call ended, until `pages` pages are free. Returns the number freed.
    fn empty_nodes(&self, registry: &mut Registry, pages: u64) -> u64 {
        let mut freed = 0;
        for _ in 0..registry.len() {
            if freed >= pages {
                break;
            }
            if let Some(cache) = self.cache(registry.next_in_turn()) {
                freed += self.empty_node(cache, pages - freed);
            }
        }
        freed
    }

    /// Puts the objects of the depot back into their slabs, and frees its magazines and the empty slabs, until `pages` pages
    /// are free. Returns the number freed. Interrupts are open again after each magazine and after a few slabs.
    pub(in crate::mm::slab) fn empty_node(&self, cache: &Cache<H>, pages: u64) -> u64 {
        let mut freed = 0;
        while freed < pages
            && let Some(full) = self.with_node(cache, |node| node.depot.take_full())
        {
            let mut chain = Chain::NONE;
            self.with_node(cache, |node| self.return_magazine(cache, node, full, cache.capacity, &mut chain));
            freed += self.free_slabs(chain);
            self.free_magazine(full);
        }
        while let Some(empty) = self.with_node(cache, |node| node.depot.take_empty()) {
            self.free_magazine(empty);
        }
        // Those that stay go to the end of the list, so that the next call checks others.
        let mut left = self.with_node(cache, |node| node.partial);
        while left != 0 && freed < pages {
            let mut chain = Chain::NONE;
            left = self.with_node(cache, |node| self.discard_empty(node, left, pages - freed, &mut chain));
            freed += self.free_slabs(chain);
        }
        freed
    }

    /// Takes the empty ones of the first few slabs off the list, until they have `pages` pages; puts the others last. `left`
    /// slabs are to be checked. Returns how many of them remain.
    fn discard_empty(&self, node: &mut Node, mut left: u32, pages: u64, freed: &mut Chain) -> u32 {
        let map = self.hal().map();
        let (end, mut found) = (left.saturating_sub(AT_ONCE), 0);
        while left > end && found < pages {
            let Some(slab) = node.front() else { return 0 };
            left -= 1;
            let book = Book::from_raw(map.get(slab).owner());
            if book.in_use == 0 {
                found += map.get(slab).state().order().pages();
                node.discard(map, slab, book, freed);
            } else {
                node.remove(map, slab);
                node.insert(map, slab, false);
            }
        }
        left
    }

    /// Pages in slabs of all caches. Any context.
    #[must_use]
    pub fn pages_in_slabs(&self) -> u64 {
        let mut pages: u64 = 0;
        self.for_each_record(|cache| pages = pages.wrapping_add(self.with_node(cache, |node| node.pages)));
        pages
    }

    /// Pages that shrinking could free, if every cached free object were in a slab with no objects in use. Any context.
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

    /// Runs `f` for every cache, each time with interrupts masked; in between they are as the caller has them. The
    /// registry's lock is not taken: any context.
    fn for_each_record(&self, mut f: impl FnMut(&Cache<H>)) {
        let entries = self.table.iter().map(Some);
        for entry in core::iter::once(None).chain(entries) {
            // GLB-2: from before the record is found until its last use.
            let saved = self.hal().save();
            if let Some(cache) = entry.map_or_else(|| self.boot.get(), |entry| self.cache_of(entry)) {
                f(cache);
            }
            self.hal().restore(saved);
        }
    }

    /// Switches the arrays of a cache off, emptying them, or on again.
    pub(in crate::mm::slab) fn switch_arrays(&self, cache: &Cache<H>, on: bool) {
        cache.arrays_on.store(on && cache.capacity != 0, Ordering::Relaxed);
        self.drain_all(&CacheSet::of(cache.id));
    }

    /// Gives each CPU memory for the entries of a cache's array, and switches the arrays on. A CPU without memory for it has no
    /// array; the cache still works. Only the caller knows the cache yet, or no other CPU runs. `careful` is the allocator's
    /// setting.
    pub(in crate::mm::slab) fn make_arrays(&self, cache: &Cache<H>, careful: bool) {
        if cache.capacity == 0 {
            return;
        }
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            let Some(local) = self.hal().local_of(cpu) else { continue };
            if let Some(magazine) = self.new_magazine(cache) {
                let array = Array::new::<H>(local, cache.array);
                array.load(magazine, 0, if careful { 0 } else { cache.capacity });
            }
        }
        cache.arrays_on.store(true, Ordering::Relaxed);
    }

    /// Whether the arrays of a cache should be in use.
    pub(in crate::mm::slab) fn uses_arrays(&self, cache: &Cache<H>) -> bool {
        cache.arrays_on.load(Ordering::Relaxed) && !self.is_careful()
    }

    /// Frees the memory of a cache's arrays, which are off and unused.
    pub(in crate::mm::slab) fn free_arrays(&self, cache: &Cache<H>) {
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            let Some(local) = self.hal().local_of(cpu) else { continue };
            Array::new::<H>(local, cache.array).release_memory().into_iter().for_each(|each| self.free_magazine(each));
        }
    }

    /// Makes every call take the slow path from now on, where fault injection and zeroing are, or lets calls take the fast path
    /// again.
    pub fn set_careful(&self, careful: bool) {
        let careful = careful || self.zeroes_on_alloc() || self.zeroes_on_free();
        self.careful.store(careful, Ordering::Relaxed);
        // Pairs with the fence in `add`: a cache that is being made is in the table, or sees this setting.
        fence(Ordering::SeqCst);
        self.drain_all(&self.caches());
    }

    /// Makes every call that takes the slow path ask [`SlabHal::should_fail_slab`], and leaves all else as it is. Takes no
    /// lock. Any context.
    pub fn ask_always(&self) {
        self.careful.store(true, Ordering::Relaxed);
    }

    /// Objects in use of a cache, with its arrays and its depot empty.
    pub(in crate::mm::slab) fn in_use(&self, cache: &Cache<H>) -> Option<InUse> {
        let objects = self.active_objects(cache);
        (objects != 0).then(|| InUse { objects, first: self.first_in_use(cache) })
    }

    /// Objects in the CPUs' arrays.
    fn held_objects(&self, cache: &Cache<H>) -> u64 {
        (0..self.hal().cpus())
            .filter_map(|cpu| self.hal().local_of(CpuId::new(cpu)))
            .map(|local| u64::from(Array::new::<H>(local, cache.array).held()))
            .sum()
    }

    /// Objects that users have.
    pub(in crate::mm::slab) fn active_objects(&self, cache: &Cache<H>) -> u64 {
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
