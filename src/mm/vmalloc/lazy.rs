//! Freeing areas: at once, or in a purge that unmaps and invalidates many together.
#![forbid(unsafe_code)]

use super::layout::Layout;
use super::node::VmapNode;
use super::{Area, AreaHal, Removed, VmapSpace};
use crate::addr::PMD_SIZE;
use crate::ds::rbtree::{Chain, Owned};
use crate::hal::Internal;
use core::sync::atomic::Ordering;

/// Areas of this size and more do not wait: 2 MiB.
const AT_ONCE: u64 = PMD_SIZE;

/// Areas that are handled under one hold of a lock.
const BATCH: usize = 16;

/// Extent of a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Depth {
    /// Waiting areas, and those in the pools that nobody needed.
    Lazy,
    /// All areas in the pools too, so that gaps merge.
    Full,
}

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
        let waiting = self.with_node(index, |node| node.defer(area.into_inner()));
        if waiting >= layout.lazy_share && (waiting >= 2 * layout.lazy_share || !self.hal.in_interrupt()) {
            self.purge_node(index, Depth::Lazy);
        }
    }

    /// [`VmapSpace::retire`] that leaves the purge to others, [`VmapSpace::purge_due`] among them, unless twice the limit
    /// waited before. Any context. Needs no memory. O(1) except for that.
    pub fn retire_later(&self, area: Removed<'a>) {
        let Some(layout) = self.layout.get() else { return };
        let index = VmapNode::of_cpu(self.hal.cpu(), layout.nodes);
        let (before, _) = self.with_node(index, |node| (node.lazy_pages(), node.defer(area.into_inner())));
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

    /// [`Self::recycle`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_recycle(&self, area: Removed<'a>) {
        let Some(layout) = self.layout.get() else { return };
        let area = area.into_inner();
        if area.page_count() == 0 {
            self.keep(layout, area);
        } else {
            self.release_and_keep(layout, area);
        }
    }

    /// Keeps an area without pages in this CPU's pools.
    #[inline(always)]
    fn keep(&self, layout: &Layout, area: Owned<'a, Area>) {
        let index = VmapNode::of_cpu(self.hal.cpu(), layout.nodes);
        if let Some(surplus) = self.with_node(index, |node| node.keep(area)) {
            self.give(surplus);
        }
    }

    #[inline(never)]
    fn release_and_keep(&self, layout: &Layout, area: Owned<'a, Area>) {
        self.hal.release(Internal::CALL, area.take_pages());
        self.keep(layout, area);
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
            // Acquire pairs with the release of `purge_node`: areas that other CPUs gave back are visible.
            while self.purging.load(Ordering::Acquire) != 0 {
                <H::Relax as crate::sync::LockHal>::relax();
            }
        }
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

    /// Unmaps and invalidates the waiting areas of one node, then frees the pages, then the addresses.
    #[inline(never)]
    fn purge_node(&self, index: usize, depth: Depth) {
        self.purging.fetch_add(1, Ordering::Relaxed);
        let (pages, mut lazy, mut surplus) =
            self.with_node(index, |node| (node.lazy_pages(), node.take_lazy(), node.shrink(depth == Depth::Full)));
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
                    if let Some(area) = node.keep(area) {
                        surplus.push_back(area);
                    }
                }
            });
        }
        while !surplus.is_empty() {
            self.with_free(|free| {
                for _ in 0..BATCH {
                    let Some(area) = surplus.pop_front() else { break };
                    // An area that cannot be given back is damaged: losing it is safer.
                    let _ = free.give(area);
                }
            });
        }
        self.purging.fetch_sub(1, Ordering::Release);
    }

    /// Returns addresses to the free tree.
    #[inline(never)]
    pub(super) fn give(&self, area: Owned<'a, Area>) {
        // An area that cannot be given back is damaged: losing it is safer.
        let _ = self.with_free(|free| free.give(area));
    }
}
