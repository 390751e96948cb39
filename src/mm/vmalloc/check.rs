//! The invariants of an address space as code, by their tags.
#![forbid(unsafe_code)]

use super::layout::Layout;
use super::node::VmapNode;
use super::{Area, AreaHal, VmapSpace};
use crate::addr::PAGE_SIZE;
use crate::ds::Broken;
use crate::ds::rbtree::Payload;
use crate::ds::rbtree::fit::Gap;

const fn ensure(holds: bool, tag: &'static str, what: &'static str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { tag, what }) }
}

impl<'a, H: AreaHal<'a>> VmapSpace<'a, H> {
    /// Tests every invariant. Nothing may be allocated or freed meanwhile, on any CPU. O(n log n).
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        let Some(layout) = self.layout.get() else { return Ok(()) };
        let mut bytes = self.check_free(layout)?;
        for index in 0..layout.nodes {
            bytes += self.with_node(index, |node| self.check_node(layout, index, node))?;
        }
        ensure(bytes == layout.region.size(), "VMAP-1", "the sizes of all areas, and the size of the region")
    }

    /// Tests the free tree, and returns its number of bytes.
    fn check_free(&self, layout: &Layout) -> Result<u64, Broken> {
        self.with_free(|free| {
            free.tree().check()?;
            let (mut end, mut bytes) = (None, 0);
            for gap in free.tree() {
                ensure(gap.key() < gap.end(), "FREE-2", "an empty gap")?;
                ensure(end.is_none_or(|end| end < gap.key()), "FREE-1", "two gaps that touch or overlap")?;
                ensure(layout.region.contains_range(gap.range()), "VMAP-1", "a gap outside the region")?;
                end = Some(gap.end());
                bytes += gap.size();
            }
            Ok(bytes)
        })
    }

    fn check_node(&self, layout: &Layout, index: usize, node: &VmapNode<'a>) -> Result<u64, Broken> {
        node.busy.check()?;
        let mut bytes = 0;
        for area in node.busy.iter() {
            let home = VmapNode::of_address(area.key(), layout.nodes);
            ensure(home == index, "NODE-3", "an area in the wrong node")?;
            bytes += self.check_area(layout, area, (index, node))?;
        }
        let mut lazy_pages = 0;
        for area in node.lazy().iter() {
            lazy_pages += area.mapped_pages();
            bytes += self.check_area(layout, area, (index, node))?;
        }
        ensure(lazy_pages == node.lazy_pages(), "NODE-4", "pages that wait, and their number")?;
        for (size, pool) in node.pools() {
            for area in pool.iter() {
                let fits = area.size() == size && area.page_count() == 0;
                ensure(fits, "NODE-5", "an area in the wrong pool, or with pages")?;
                bytes += self.check_area(layout, area, (index, node))?;
            }
        }
        for area in node.large() {
            ensure(area.page_count() == 0, "NODE-5", "a pooled area with pages")?;
            bytes += self.check_area(layout, area, (index, node))?;
        }
        Ok(bytes)
    }

    /// Tests that an area overlaps no gap and no other area in use, and returns its size. `locked` is the node whose lock is
    /// held; since nothing else happens, those of the others are open.
    fn check_area(&self, layout: &Layout, area: &Area, locked: (usize, &VmapNode<'a>)) -> Result<u64, Broken> {
        let (start, end) = (area.key(), area.end());
        ensure(start < end && (start | end) & (PAGE_SIZE - 1) == 0, "VMAP-1", "an area that is not whole pages")?;
        ensure(layout.region.contains_range(area.range()), "VMAP-1", "an area outside the region")?;
        let gap = self.with_free(|free| free.tree().last_at_or_below(end - 1).is_some_and(|gap| gap.end() > start));
        ensure(!gap, "VMAP-2", "an area over free addresses")?;
        let overlapped = |node: &VmapNode<'a>| {
            // Another area that begins at or below the end, or the one before this one.
            let last = node.busy.last_at_or_below(end - 1);
            let other = last.and_then(|last| match core::ptr::eq(last, area) {
                true => node.busy.last_at_or_below(start.checked_sub(1)?),
                false => Some(last),
            });
            other.is_some_and(|other| other.end() > start)
        };
        let (index, node) = locked;
        let others = (0..layout.nodes).filter(|other| *other != index);
        let overlapped = overlapped(node)
            || others.into_iter().any(|other| self.node(other).try_lock().is_some_and(|node| overlapped(&node)));
        ensure(!overlapped, "VMAP-2", "two areas over the same addresses")?;
        Ok(end - start)
    }
}
