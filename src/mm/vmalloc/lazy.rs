//! Freeing areas: at once, or in a purge that unmaps and invalidates many together, step by step.
//!
//! `vfree` of an area that may still be translated:
//!
//! | step | function | lock | interrupts | if it cannot |
//! |---|---|---|---|---|
//! | 1. out of the busy tree | `do_remove` | the node's | masked | [`AreaError`](super::AreaError) |
//! | 2. 2 MiB or more, outside a handler: unmapped and flushed at once, then 6 | `retire` | none | as the caller has them | 3 |
//! | 3. onto the lazy list of this CPU's node; the end, as long as few pages wait | `retire`, `retire_later` | the node's | masked | - |
//! | 4. the list of the node, and the surplus of its pools, taken out | `purge_node` | the node's | masked | - |
//! | 5. all of the list unmapped, and one invalidation | [`AreaHal::unmap_and_flush`] | none | as the caller has them | - |
//! | 6. the pages freed | [`AreaHal::release`] | the page allocator's | as the caller has them | - |
//! | 7. the addresses into a pool, by size | `purge_node`, `free_pooled` | the node's | masked | 8 |
//! | 8. the addresses into the free tree, merged | `free_addresses` | the free tree's | masked | a damaged area is lost |
//!
//! In a handler step 3 goes on to 4 only if twice the limit waits: the rest is left to `purge_due`. An area that no CPU translates
//! (`vunmap`, `iounmap`, a call that fails) begins with step 6: `do_recycle`. A purge for addresses (`purge_all`) goes through all
//! nodes, and from 6 to 8.
#![forbid(unsafe_code)]

use super::layout::Layout;
use super::node::{Depth, VmapNode};
use super::{Area, AreaHal, AreaRef, Removed, VmapSpace};
use crate::addr::PMD_SIZE;
use crate::ds::rbtree::{Chain, Owned};
use crate::hal::Internal;
use core::sync::atomic::Ordering;

/// Areas of this size and more do not wait: 2 MiB.
const AT_ONCE: u64 = PMD_SIZE;

/// Areas that are handled under one hold of a lock.
const BATCH: usize = 16;

impl<'a, H: AreaHal<'a>> VmapSpace<'a, H> {
    /// Retires an area that may still be mapped and translated, with its pages. A purge frees them: this very call purges if
    /// too many pages wait on this CPU, or if the area has 2 MiB or more. In an interrupt handler it works as
    /// [`VmapSpace::retire_later`]. Any context. Needs no memory. O(1) but for the purge.
    #[inline]
    pub fn retire(&self, area: Removed<'a>) {
        let Some(layout) = self.layout.get() else { return };
        if area.size() >= AT_ONCE {
            if self.hal.in_interrupt() {
                return self.retire_later(area);
            }
            // An invalidation is cheap compared with the rest, and that much memory should not wait. By address: the area may
            // have few leaves.
            self.hal.unmap_and_flush(Internal::CALL, &mut core::iter::once(area.mapped()), 0);
            return self.do_recycle(area);
        }
        let index = VmapNode::of_cpu(self.hal.cpu(), layout.nodes);
        let waiting = self.with_node(index, |node| node.push_lazy(area.into_inner()));
        if waiting >= layout.lazy_share && (waiting >= 2 * layout.lazy_share || !self.hal.in_interrupt()) {
            self.purge_node(index, Depth::Lazy);
        }
    }

    /// [`VmapSpace::retire`] that leaves the purge to others, [`VmapSpace::purge_due`] among them, unless twice the limit
    /// waited before. Any context. Needs no memory. O(1) except for that.
    pub fn retire_later(&self, area: Removed<'a>) {
        let Some(layout) = self.layout.get() else { return };
        let index = VmapNode::of_cpu(self.hal.cpu(), layout.nodes);
        let (before, _) = self.with_node(index, |node| (node.lazy_pages(), node.push_lazy(area.into_inner())));
        if before >= 2 * layout.lazy_share {
            self.purge_node(index, Depth::Lazy);
        }
    }

    /// Purges the nodes above their limit, which interrupt handlers have left. Returns whether there was any. Any context
    /// except a handler.
    pub fn purge_due(&self) -> bool {
        let Some(Layout { nodes, lazy_share, .. }) = self.layout.get() else { return false };
        let mut worked = false;
        for index in 0..*nodes {
            if self.with_node(index, |node| node.lazy_pages()) >= *lazy_share {
                self.purge_node(index, Depth::Lazy);
                worked = true;
            }
        }
        worked
    }

    /// Purges all waiting areas, on behalf of all CPUs, empties the pools, and frees tables that nothing needs any more. Any
    /// context; outside interrupt handlers it also waits for the purges of other CPUs.
    pub fn purge_all(&self) {
        let Some(layout) = self.layout.get() else { return };
        for index in 0..layout.nodes {
            self.purge_node(index, Depth::Full);
        }
        // A caller that finds no addresses meanwhile waits for it as for any purge.
        self.purging.fetch_add(1, Ordering::Relaxed);
        self.trim_tables(layout);
        self.purging.fetch_sub(1, Ordering::Release);
        // In a handler it may be a purge of this CPU that was interrupted.
        if !self.hal.in_interrupt() {
            // Acquire pairs with the release of `purge_node`: areas that other CPUs freed are visible.
            while self.purging.load(Ordering::Acquire) != 0 {
                <H::Relax as crate::sync::LockHal>::relax();
            }
        }
    }

    /// Unmaps and invalidates the waiting areas of one node, then frees the pages, then the addresses.
    #[inline(never)]
    fn purge_node(&self, index: usize, depth: Depth) {
        self.purging.fetch_add(1, Ordering::Relaxed);
        let (pages, mut lazy, mut surplus) =
            self.with_node(index, |node| (node.lazy_pages(), node.take_lazy(), node.drain_pools(depth)));
        if !lazy.is_empty() {
            self.hal.unmap_and_flush(Internal::CALL, &mut lazy.iter().map(Area::mapped), pages);
        }
        while !lazy.is_empty() {
            // No CPU translates them any more: here, and nowhere else, pages come out of areas that were retired.
            let mut clean = Chain::new();
            for _ in 0..BATCH {
                let Some(area) = lazy.pop_front() else { break };
                let pages = area.take_pages();
                if pages.count() != 0 {
                    self.hal.release(Internal::CALL, pages);
                }
                clean.push_back(area);
            }
            if depth == Depth::Full {
                surplus.append(&mut clean);
                continue;
            }
            self.with_node(index, |node| {
                while let Some(area) = clean.pop_front() {
                    if let Some(area) = node.push(area) {
                        surplus.push_back(area);
                    }
                }
            });
        }
        while !surplus.is_empty() {
            self.with_free(|free| {
                for _ in 0..BATCH {
                    let Some(area) = surplus.pop_front() else { break };
                    // An area that cannot be freed is damaged: losing it is safer.
                    let _ = free.free(area);
                }
            });
        }
        self.purging.fetch_sub(1, Ordering::Release);
    }

    /// [`Self::recycle`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_recycle(&self, area: Removed<'a>) {
        let Some(layout) = self.layout.get() else { return };
        let area = area.into_inner();
        if area.page_count() == 0 {
            self.free_pooled(layout, area);
        } else {
            self.free_with_pages(layout, area);
        }
    }

    /// Frees an area under construction in which nothing is mapped: the end of every call that fails after it has one.
    #[cold]
    pub(in crate::mm) fn cancel(&self, area: AreaRef<'a>) {
        // The builder still owns it, so it exists.
        if let Ok(removed) = self.abandon(area) {
            self.do_recycle(removed);
        }
    }

    /// Puts an area without pages into this CPU's pools, or what they have no room for into the free tree.
    #[inline(always)]
    fn free_pooled(&self, layout: &Layout, area: Owned<'a, Area>) {
        let index = VmapNode::of_cpu(self.hal.cpu(), layout.nodes);
        if let Some(surplus) = self.with_node(index, |node| node.push(area)) {
            self.free_addresses(surplus);
        }
    }

    #[inline(never)]
    fn free_with_pages(&self, layout: &Layout, area: Owned<'a, Area>) {
        self.hal.release(Internal::CALL, area.take_pages());
        self.free_pooled(layout, area);
    }

    /// Frees addresses for every size: into the free tree.
    #[inline(never)]
    pub(super) fn free_addresses(&self, area: Owned<'a, Area>) {
        // An area that cannot be freed is damaged: losing it is safer.
        let _ = self.with_free(|free| free.free(area));
    }

    /// Pages whose areas wait for a purge (for `meminfo`).
    #[must_use]
    pub fn lazy_pages(&self) -> u64 {
        let nodes = self.layout.get().map_or(0, |layout| layout.nodes);
        (0..nodes).map(|index| self.with_node(index, |node| node.lazy_pages())).sum()
    }

    /// Limit of pages that wait, on all CPUs together, before they are purged; twice that if all are freed by interrupt
    /// handlers.
    #[must_use]
    pub fn lazy_max_pages(&self) -> u64 {
        self.layout.get().map_or(0, |layout| layout.lazy_share * layout.nodes as u64)
    }
}
