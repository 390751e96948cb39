//! The free tree: gaps that are split by an allocation and merged again.
#![forbid(unsafe_code)]

use super::Area;
use crate::ds::rbtree::fit::{Gap, MaxSize, Request};
use crate::ds::rbtree::{Chain, Entry, Owned, Payload, RbTree};

/// Descriptors that a split may need: one for the area, one for the second part of a gap.
const SPLIT: usize = 2;
/// Descriptors that are kept: those of one split, and those of another split at a time when there is no memory.
pub(super) const RESERVE: usize = 2 * SPLIT;

/// All free addresses, and the unused descriptors.
///
/// # Invariants
///
/// - `FREE-1`: no two gaps overlap or touch.
/// - `FREE-2`: no gap is empty.
pub(super) struct FreeSpace<'a> {
    tree: RbTree<'a, Area, MaxSize>,
    spare: Chain<'a, Area>,
}

/// Gaps that are checked under one hold of the lock.
const LOOKS: usize = 64;

/// Result of [`FreeSpace::alloc_unit`].
pub(super) enum Unit<'a> {
    /// A unit, allocated.
    Found(Owned<'a, Area>),
    /// No unit below this address.
    After(u64),
    /// No unit.
    None,
}

/// Addresses that are free already; they, or the tree, are damaged.
#[derive(Debug)]
pub(super) struct NotFree;

impl<'a> FreeSpace<'a> {
    pub(super) const fn new() -> Self {
        Self { tree: RbTree::new(), spare: Chain::new() }
    }

    /// Whether the reserve of descriptors is below its target, and should be filled while there is memory.
    #[inline]
    pub(super) const fn is_short(&self) -> bool {
        self.spare.len() < RESERVE
    }

    /// Keeps an unused descriptor.
    #[inline]
    pub(super) fn add_spare(&mut self, descriptor: Owned<'a, Area>) {
        self.spare.push_front(descriptor);
    }

    /// Allocates the lowest fit: it is cut out of its gap (Linux: `va_alloc`, `va_clip`). `Ok(None)` if nothing fits.
    ///
    /// # Errors
    ///
    /// [`NoSpare`], if descriptors are missing; nothing has changed.
    #[inline]
    pub(super) fn alloc(&mut self, request: &Request) -> Result<Option<Owned<'a, Area>>, NoSpare> {
        let Some((gap, start)) = self.tree.lowest_fit(request) else { return Ok(None) };
        let gap = gap.node();
        let (gap_start, gap_end, end) = (gap.key(), gap.end(), start.wrapping_add(request.size));
        // INVARIANT: FREE-1, FREE-2 in each case: the remaining gap is not empty, and is smaller than before.
        match (start == gap_start, end == gap_end) {
            // The whole gap: its descriptor becomes the area's.
            (true, true) => Ok(self.tree.erase(gap)),
            (true, false) => {
                let area = self.spare.pop_front().ok_or(NoSpare)?;
                gap.set_start(end);
                self.tree.propagate(gap);
                area.set_start(start);
                area.set_end(end);
                Ok(Some(area))
            }
            (false, true) => {
                let area = self.spare.pop_front().ok_or(NoSpare)?;
                gap.set_end(start);
                self.tree.propagate(gap);
                area.set_start(start);
                area.set_end(end);
                Ok(Some(area))
            }
            (false, false) => {
                if self.spare.len() < SPLIT {
                    return Err(NoSpare);
                }
                let area = self.spare.pop_front().ok_or(NoSpare)?;
                let rest = self.spare.pop_front().ok_or(NoSpare)?;
                gap.set_end(start);
                self.tree.propagate(gap);
                rest.set_start(end);
                rest.set_end(gap_end);
                if let Err(rest) = self.tree.insert_after(gap, rest) {
                    // Impossible: the rest begins where the gap ended.
                    self.spare.push_front(rest);
                }
                area.set_start(start);
                area.set_end(end);
                Ok(Some(area))
            }
        }
    }

    /// Frees addresses, merged with the gaps that they touch (Linux: `merge_or_add_vmap_area`).
    ///
    /// # Errors
    ///
    /// Returns the area if some of it is free: the area, or the tree, is damaged.
    pub(super) fn free(&mut self, area: Owned<'a, Area>) -> Result<(), (NotFree, Owned<'a, Area>)> {
        let (start, end) = (area.key(), area.end());
        let Entry::Vacant(place) = self.tree.entry(start) else { return Err((NotFree, area)) };
        let (prev, next) = (place.prev(), place.next());
        if start >= end || prev.is_some_and(|prev| prev.end() > start) || next.is_some_and(|next| next.key() < end) {
            return Err((NotFree, area));
        }
        let prev = prev.filter(|prev| prev.end() == start);
        let next = next.filter(|next| next.key() == end);
        // INVARIANT: FREE-1: merged with the gaps that it touches.
        match (prev, next) {
            (Some(prev), Some(next)) => {
                let end = next.end();
                if let Some(next) = self.tree.erase(next) {
                    self.spare.push_front(next);
                }
                prev.set_end(end);
                self.tree.propagate(prev);
            }
            (Some(prev), None) => {
                prev.set_end(end);
                self.tree.propagate(prev);
            }
            (None, Some(next)) => {
                next.set_start(start);
                self.tree.propagate(next);
            }
            (None, None) => return place.insert(area).map(|_| ()).map_err(|area| (NotFree, area)),
        }
        self.spare.push_front(area);
        Ok(())
    }

    /// Allocates the lowest unit that begins at `min` or above, below `end`, and is free as a whole: a multiple of
    /// `large`, or else of `small`. It checks few gaps, so that the lock is not held for long.
    pub(super) fn alloc_unit(&mut self, min: u64, end: u64, (small, large): (u64, u64)) -> Unit<'a> {
        let mut at = min;
        let mut gap = self.tree.last_at_or_below(min).filter(|gap| gap.end() > min);
        if gap.is_none() {
            gap = self.tree.first_at_or_above(min);
        }
        for _ in 0..LOOKS {
            let Some(found) = gap else { return Unit::None };
            let fits = |size: u64, start: u64| start.is_multiple_of(size) && start.saturating_add(size) <= found.end();
            let start = found.key().max(min).checked_next_multiple_of(small).filter(|start| *start < end);
            let Some(start) = start else { return Unit::None };
            let size = if fits(large, start) { large } else { small };
            if fits(size, start) {
                let exact = Request { size, align: size, granule: small, min: start, max: start.saturating_add(size) };
                return match self.alloc(&exact) {
                    Ok(Some(area)) => Unit::Found(area),
                    // Without a spare descriptor no unit can be cut out.
                    Ok(None) | Err(NoSpare) => Unit::None,
                };
            }
            at = found.end();
            gap = found.next();
        }
        Unit::After(at)
    }

    /// The gaps, with their summaries.
    pub(super) const fn tree(&self) -> &RbTree<'a, Area, MaxSize> {
        &self.tree
    }
}

/// A gap has to be split, and there is no descriptor for the parts.
#[derive(Debug)]
pub(super) struct NoSpare;
