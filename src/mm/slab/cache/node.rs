//! State of a cache that the CPUs share, behind one lock: the list of slabs that have free objects, and the depot of free
//! objects outside the CPUs' arrays (Linux: `struct kmem_cache_node`, and its barn).
//!
//! Slabs without free objects are on no list: a free finds its slab by the page. An empty slab stays on the list as long as
//! there are few slabs on it, otherwise its pages are freed.
#![forbid(unsafe_code)]

use super::super::words::{Book, Magazine};
use crate::mm::page::{Page, PageMap};

/// Slabs, chained through their first descriptors, on their way to the page allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "slabs that nobody frees are lost"]
pub(in crate::mm::slab) struct Chain(u32);

impl Chain {
    pub(in crate::mm::slab) const NONE: Self = Self(Page::NIL);

    /// Adds a slab that is on no list.
    pub(super) fn push<M: PageMap>(&mut self, map: M, slab: Page) {
        map.get(slab).set_next(self.0);
        self.0 = slab.index();
    }

    /// Takes one out.
    pub(super) fn pop<M: PageMap>(&mut self, map: M) -> Option<Page> {
        let slab = (self.0 != Page::NIL).then(|| Page::new(self.0))?;
        self.0 = map.get(slab).next();
        Some(slab)
    }
}

/// Magazines that a depot holds of each kind.
const DEPOT: usize = 8;

/// Magazines outside the CPUs: full ones, and empty ones.
#[derive(Debug)]
pub(in crate::mm::slab) struct Depot {
    full: [Magazine; DEPOT],
    empty: [Magazine; DEPOT],
    full_count: usize,
    empty_count: usize,
    /// Limit on full magazines.
    limit: usize,
}

impl Depot {
    const fn new(limit: usize) -> Self {
        let limit = if limit < DEPOT { limit } else { DEPOT };
        Self { full: [Magazine::NONE; DEPOT], empty: [Magazine::NONE; DEPOT], full_count: 0, empty_count: 0, limit }
    }

    /// Whether it takes another full magazine.
    #[inline]
    pub(in crate::mm::slab) const fn has_room(&self) -> bool {
        self.full_count < self.limit
    }

    /// Adds a full magazine. Returns whether there was room.
    #[inline]
    pub(in crate::mm::slab) fn put_full(&mut self, magazine: Magazine) -> bool {
        let Some(place) = self.full.get_mut(self.full_count).filter(|_| self.full_count < self.limit) else {
            return false;
        };
        *place = magazine;
        self.full_count = self.full_count.wrapping_add(1);
        true
    }

    /// Takes a full magazine out.
    #[inline]
    pub(in crate::mm::slab) fn take_full(&mut self) -> Option<Magazine> {
        let last = self.full_count.checked_sub(1)?;
        self.full_count = last;
        self.full.get(last).copied()
    }

    /// Adds an empty magazine. Returns whether there was room.
    #[inline]
    pub(in crate::mm::slab) fn put_empty(&mut self, magazine: Magazine) -> bool {
        let Some(place) = self.empty.get_mut(self.empty_count) else { return false };
        *place = magazine;
        self.empty_count = self.empty_count.wrapping_add(1);
        true
    }

    /// Takes an empty magazine out.
    #[inline]
    pub(in crate::mm::slab) fn take_empty(&mut self) -> Option<Magazine> {
        let last = self.empty_count.checked_sub(1)?;
        self.empty_count = last;
        self.empty.get(last).copied()
    }

    /// Full magazines in it.
    pub(in crate::mm::slab) const fn full_count(&self) -> usize {
        self.full_count
    }

    /// The full magazines.
    pub(in crate::mm::slab) fn full(&self) -> impl Iterator<Item = Magazine> + use<> {
        self.full.into_iter().take(self.full_count)
    }
}

/// Events that a node counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeEvents {
    /// Full magazines that came from the depot.
    pub depot_taken: u64,
    /// Full magazines that went to the depot.
    pub depot_put: u64,
    /// Objects taken from slabs.
    pub slab_taken: u64,
    /// Objects given back to slabs.
    pub slab_given: u64,
    /// Slabs made.
    pub slabs_made: u64,
    /// Slabs whose pages were freed.
    pub slabs_freed: u64,
    /// Slabs made smaller than preferred, for want of memory.
    pub smaller: u64,
    /// Double frees detected.
    pub double_frees: u64,
    /// Free objects that were written to, and that are isolated since.
    pub isolated: u64,
}

/// The shared part of a cache.
///
/// # Invariants
///
/// - `SLAB-1`: every slab of the cache that has a free object is on the list once; no other is. The list is doubly linked and
///   has `partial` slabs.
/// - `SLAB-2`: a slab's `in_use` is its objects less those on its free list and those that are fresh; each of these is
///   marked free; an object of one word on a free list has its link in the high half of the mark.
/// - `SLAB-3`: `slabs`, `objects` and `pages` are the sums over all slabs of the cache; each page of each carries the cache's
///   word, and the first one is of kind `Slab`.
/// - `SLAB-4`: objects in arrays and in the depot count as in use, are marked free, and are in one place only.
#[derive(Debug)]
pub(in crate::mm::slab) struct Node {
    first: u32,
    last: u32,
    pub(in crate::mm::slab) partial: u32,
    pub(in crate::mm::slab) slabs: u64,
    pub(in crate::mm::slab) objects: u64,
    /// Pages of all slabs.
    pub(in crate::mm::slab) pages: u64,
    pub(in crate::mm::slab) depot: Depot,
    pub(in crate::mm::slab) events: NodeEvents,
}

impl Node {
    pub(in crate::mm::slab) const fn new(depot: usize) -> Self {
        Self {
            first: Page::NIL,
            last: Page::NIL,
            partial: 0,
            slabs: 0,
            objects: 0,
            pages: 0,
            depot: Depot::new(depot),
            events: NodeEvents {
                depot_taken: 0,
                depot_put: 0,
                slab_taken: 0,
                slab_given: 0,
                slabs_made: 0,
                slabs_freed: 0,
                smaller: 0,
                double_frees: 0,
                isolated: 0,
            },
        }
    }

    /// The slab from which to take next.
    #[inline]
    pub(in crate::mm::slab) fn front(&self) -> Option<Page> {
        (self.first != Page::NIL).then(|| Page::new(self.first))
    }

    /// The slab after `slab` on the list.
    pub(in crate::mm::slab) fn after<M: PageMap>(map: M, slab: Page) -> Option<Page> {
        let next = map.get(slab).next();
        (next != Page::NIL).then(|| Page::new(next))
    }

    /// Puts a slab on the list: first, to be used next, or last.
    pub(in crate::mm::slab) fn insert<M: PageMap>(&mut self, map: M, slab: Page, front: bool) {
        let descriptor = map.get(slab);
        let (before, after) = if front { (Page::NIL, self.first) } else { (self.last, Page::NIL) };
        descriptor.set_prev(before);
        descriptor.set_next(after);
        // INVARIANT: SLAB-1.
        match before {
            Page::NIL => self.first = slab.index(),
            before => map.get(Page::new(before)).set_next(slab.index()),
        }
        match after {
            Page::NIL => self.last = slab.index(),
            after => map.get(Page::new(after)).set_prev(slab.index()),
        }
        self.partial += 1;
    }

    /// Takes a slab off the list.
    pub(in crate::mm::slab) fn remove<M: PageMap>(&mut self, map: M, slab: Page) {
        let descriptor = map.get(slab);
        let (before, after) = (descriptor.prev(), descriptor.next());
        // INVARIANT: SLAB-1.
        match before {
            Page::NIL => self.first = after,
            before => map.get(Page::new(before)).set_next(after),
        }
        match after {
            Page::NIL => self.last = before,
            after => map.get(Page::new(after)).set_prev(before),
        }
        self.partial -= 1;
    }

    /// Counts a new slab and puts it on the list.
    pub(in crate::mm::slab) fn add<M: PageMap>(&mut self, map: M, slab: Page, book: Book) {
        // INVARIANT: SLAB-3.
        self.slabs += 1;
        self.objects += u64::from(book.objects);
        self.pages += map.get(slab).state().order().pages();
        self.events.slabs_made += 1;
        self.insert(map, slab, true);
    }

    /// Removes an empty slab from the list and the counts; its pages go to `freed`.
    pub(in crate::mm::slab) fn discard<M: PageMap>(&mut self, map: M, slab: Page, book: Book, freed: &mut Chain) {
        self.remove(map, slab);
        // INVARIANT: SLAB-3.
        self.slabs -= 1;
        self.objects -= u64::from(book.objects);
        self.pages -= map.get(slab).state().order().pages();
        self.events.slabs_freed += 1;
        freed.push(map, slab);
    }
}
