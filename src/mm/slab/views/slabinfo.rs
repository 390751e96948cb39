//! `slabinfo` in Linux's format, and the figures behind it.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, NodeEvents};
use super::super::cpu::Array;
use super::super::{SlabAllocator, SlabHal};
use crate::addr::CpuId;
use core::fmt;

/// Size and counters of a cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheInfo {
    /// Objects in use.
    pub active_objects: u64,
    /// Objects in all slabs.
    pub objects: u64,
    /// Slabs.
    pub slabs: u64,
    /// Their pages.
    pub pages: u64,
    /// Slabs with free objects.
    pub partial: u64,
    /// Objects in arrays and in the depot.
    pub at_hand: u64,
    /// Allocations that took the fast path.
    pub fast_allocs: u64,
    /// Allocations that took the slow path.
    pub slow_allocs: u64,
    /// Frees that took the fast path.
    pub fast_frees: u64,
    /// Frees that took the slow path, those with a report included.
    pub slow_frees: u64,
    /// Events behind the arrays.
    pub events: NodeEvents,
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// The figures of a cache. Any context; they may change at any moment.
    #[must_use]
    pub fn info(&self, cache: &Cache<H>) -> CacheInfo {
        let locals = || (0..self.hal().cpus()).filter_map(|cpu| self.hal().local_of(CpuId::new(cpu)));
        let arrays = || locals().map(|local| Array::new::<H>(local, cache.array));
        let held: u64 = arrays().map(|array| u64::from(array.held())).sum();
        let (mut served, mut slow_allocs, mut slow_frees) = (0, 0, 0);
        for (fast, allocs, frees) in arrays().map(|array| array.events()) {
            served += fast;
            slow_allocs += allocs;
            slow_frees += frees;
        }
        let active_objects = self.active_objects(cache);
        let (objects, slabs, pages, partial, depot, events) = self.with_node(cache, |node| {
            (node.objects, node.slabs, node.pages, u64::from(node.partial), node.depot.full_count() as u64, node.events)
        });
        // The slow path takes its object from the array that it has filled, if the cache has one.
        let fast_allocs = if cache.capacity == 0 { 0 } else { served.saturating_sub(slow_allocs) };
        // Allocations minus objects in use are frees: frees need no counter of their own.
        let freed = (fast_allocs + slow_allocs).saturating_sub(active_objects);
        CacheInfo {
            active_objects,
            objects,
            slabs,
            pages,
            partial,
            at_hand: held + depot * u64::from(cache.capacity),
            fast_allocs,
            slow_allocs,
            fast_frees: freed.saturating_sub(slow_frees),
            slow_frees,
            events,
        }
    }

    /// All caches as `/proc/slabinfo` prints them, version 2.1, with the counters of fast and slow paths. Print it where
    /// sleeping is allowed; elsewhere an error is printed instead of the caches.
    pub const fn slabinfo(&self) -> SlabInfo<'_, H> {
        SlabInfo(self)
    }
}

/// Prints `/proc/slabinfo`.
pub struct SlabInfo<'s, H: SlabHal>(&'s SlabAllocator<'s, H>);

impl<H: SlabHal> fmt::Display for SlabInfo<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "slabinfo - version: 2.1 (statistics)")?;
        writeln!(
            f,
            "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> \
             <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail> : cpustat <allochit> \
             <allocmiss> <freehit> <freemiss>"
        )?;
        let mut result = Ok(());
        let each = |cache: &Cache<H>| {
            let info = self.0.info(cache);
            let shape = &cache.shape;
            let line = write!(
                f,
                "{:<17} {:>6} {:>6} {:>6} {:>4} {:>4}",
                cache.name,
                info.active_objects,
                info.objects,
                shape.size,
                shape.objects(shape.order),
                shape.order.pages()
            );
            let rest = line.and_then(|()| {
                write!(f, " : tunables {:>4} {:>4} {:>4}", cache.capacity, cache.batch(), self.0.hal().cpus())
            });
            let rest =
                rest.and_then(|()| write!(f, " : slabdata {:>6} {:>6} {:>6}", info.slabs, info.slabs, info.at_hand));
            let rest = rest.and_then(|()| {
                writeln!(
                    f,
                    " : cpustat {:>6} {:>6} {:>6} {:>6}",
                    info.fast_allocs, info.slow_allocs, info.fast_frees, info.slow_frees
                )
            });
            if result.is_ok() {
                result = rest;
            }
        };
        match self.0.for_each(each) {
            Ok(()) => result,
            Err(error) => writeln!(f, "{error}"),
        }
    }
}
