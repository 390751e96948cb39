//! A node: areas in use, areas that wait for a purge, and pools of small areas. There is about one for each CPU (Linux:
//! `struct vmap_node`).
//!
//! An area in use is in the node that its address names, since the call that frees it has only the address. A freed area stays
//! with the CPU that freed it.
#![forbid(unsafe_code)]

use super::busy::Busy;
use super::{Area, NODES};
use crate::addr::{CpuId, PAGE_SHIFT, PAGE_SIZE, to_usize};
use crate::ds::rbtree::fit::Gap;
use crate::ds::rbtree::{Chain, Owned, Payload};

/// Areas of up to this many pages, guard page included, are kept in pools: 256 KiB.
const POOL_CLASSES: usize = 64;
/// Number of larger areas that are kept.
const LARGE_AREAS: usize = 4;
/// log2 of the bytes of addresses after which the next node follows: 64 KiB (Linux: `vmap_zone_size`).
const STRIPE_SHIFT: u32 = PAGE_SHIFT + 4;

/// Extent of a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Depth {
    /// Waiting areas, and those in the pools that nobody needed.
    Lazy,
    /// All areas in the pools too, so that gaps merge.
    Full,
}

/// Free areas of one size.
pub(super) struct Pool<'a> {
    areas: Chain<'a, Area>,
    /// Lowest number since the last purge: that many were not needed.
    idle: usize,
}

impl<'a> Pool<'a> {
    const fn new() -> Self {
        Self { areas: Chain::new(), idle: 0 }
    }

    /// An area at a multiple of `align`; only the first one is checked.
    #[inline]
    fn pop(&mut self, align: u64) -> Option<Owned<'a, Area>> {
        if align > PAGE_SIZE && self.areas.first()?.key() & (align - 1) != 0 {
            return None;
        }
        let area = self.areas.pop_front()?;
        self.idle = self.idle.min(self.areas.len());
        Some(area)
    }

    /// Moves the areas that nobody needed since the last time to `surplus`.
    fn decay(&mut self, surplus: &mut Chain<'a, Area>) {
        for _ in 0..self.idle {
            let Some(area) = self.areas.pop_front() else { break };
            surplus.push_back(area);
        }
        self.idle = self.areas.len();
    }
}

/// A share of an address space, under one lock.
///
/// # Invariants
///
/// - `NODE-3`: every area in `busy` has an address that names this node.
/// - `NODE-4`: `lazy_pages` is the sum of the sizes of the areas in `lazy`, without guard pages.
/// - `NODE-5`: every area in a pool has the pool's size, those in `large` are larger; none has pages.
#[repr(align(64))]
pub(super) struct VmapNode<'a> {
    pub(super) busy: Busy<'a>,
    lazy: Chain<'a, Area>,
    lazy_pages: u64,
    pools: [Pool<'a>; POOL_CLASSES],
    /// The last few of the areas that are too large for the pools.
    large: [Option<Owned<'a, Area>>; LARGE_AREAS],
    /// The slot in `large` that is overwritten next.
    oldest: usize,
}

/// Pool for areas of `bytes`.
#[inline]
const fn class(bytes: u64) -> usize {
    to_usize((bytes >> PAGE_SHIFT).wrapping_sub(1))
}

impl<'a> VmapNode<'a> {
    pub(super) const fn new() -> Self {
        Self {
            busy: Busy::new(),
            lazy: Chain::new(),
            lazy_pages: 0,
            pools: [const { Pool::new() }; POOL_CLASSES],
            large: [const { None }; LARGE_AREAS],
            oldest: 0,
        }
    }

    /// The node of an area in use.
    #[inline]
    pub(super) const fn of_address(start: u64, nodes: usize) -> usize {
        to_usize(start >> STRIPE_SHIFT) & nodes.wrapping_sub(1) & (NODES - 1)
    }

    /// The node of a CPU.
    #[inline]
    pub(super) const fn of_cpu(cpu: CpuId, nodes: usize) -> usize {
        to_usize(cpu.get() as u64) & nodes.wrapping_sub(1) & (NODES - 1)
    }

    /// Takes an area of exactly `bytes` out of its pool.
    #[inline]
    pub(super) fn pop(&mut self, bytes: u64, align: u64) -> Option<Owned<'a, Area>> {
        match self.pools.get_mut(class(bytes)) {
            Some(pool) => pool.pop(align),
            None => self.pop_large(bytes, align),
        }
    }

    fn pop_large(&mut self, bytes: u64, align: u64) -> Option<Owned<'a, Area>> {
        let fits = |area: &Area| area.size() == bytes && area.key() & align.wrapping_sub(1) == 0;
        self.large.iter_mut().find(|place| place.as_deref().is_some_and(fits))?.take()
    }

    /// Puts an area that no CPU translates into its pool. Returns an area for which there is no room, this one or another.
    #[inline]
    pub(super) fn push(&mut self, area: Owned<'a, Area>) -> Option<Owned<'a, Area>> {
        // INVARIANT: NODE-5.
        match self.pools.get_mut(class(area.size())) {
            Some(pool) => {
                pool.areas.push_front(area);
                None
            }
            None => self.push_large(area),
        }
    }

    fn push_large(&mut self, area: Owned<'a, Area>) -> Option<Owned<'a, Area>> {
        if let Some(place) = self.large.iter_mut().find(|place| place.is_none()) {
            return place.replace(area);
        }
        self.oldest = (self.oldest + 1) % LARGE_AREAS;
        match self.large.get_mut(self.oldest) {
            Some(place) => place.replace(area),
            None => Some(area),
        }
    }

    /// Adds an area that waits for the next purge. Returns the number of waiting pages.
    #[inline]
    pub(super) fn push_lazy(&mut self, area: Owned<'a, Area>) -> u64 {
        // INVARIANT: NODE-4.
        self.lazy_pages += area.mapped_pages();
        self.lazy.push_back(area);
        self.lazy_pages
    }

    /// Takes all waiting areas.
    pub(super) fn take_lazy(&mut self) -> Chain<'a, Area> {
        // INVARIANT: NODE-4.
        self.lazy_pages = 0;
        core::mem::take(&mut self.lazy)
    }

    /// Waiting pages.
    pub(super) const fn lazy_pages(&self) -> u64 {
        self.lazy_pages
    }

    /// Waiting areas.
    pub(super) const fn lazy(&self) -> &Chain<'a, Area> {
        &self.lazy
    }

    /// Takes pooled areas out: those that nobody needed since the last purge, or all of them.
    pub(super) fn drain_pools(&mut self, depth: Depth) -> Chain<'a, Area> {
        let mut surplus = Chain::new();
        for pool in &mut self.pools {
            if depth == Depth::Full {
                surplus.append(&mut pool.areas);
            }
            pool.decay(&mut surplus);
        }
        for area in self.large.iter_mut().filter(|_| depth == Depth::Full).filter_map(Option::take) {
            surplus.push_back(area);
        }
        surplus
    }

    /// The large areas that are kept.
    pub(super) fn large(&self) -> impl Iterator<Item = &Area> {
        self.large.iter().filter_map(Option::as_deref)
    }

    /// The pools, each with the bytes of its areas.
    pub(super) fn pools(&self) -> impl Iterator<Item = (u64, &Chain<'a, Area>)> {
        (1..).map(|pages: u64| pages << PAGE_SHIFT).zip(self.pools.iter().map(|pool| &pool.areas))
    }
}
