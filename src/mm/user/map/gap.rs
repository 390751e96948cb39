//! Finding free addresses: the lowest and the highest gap that fits, pruned by the largest gap of every subtree.
#![forbid(unsafe_code)]

use super::limits::Placement;
use super::summary::{MANY, start_with_guard};
use super::tree::VmaTree;
use super::vma::{Record, Vma};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::ds::rbtree::{Cursor, Payload};

/// The free addresses that a search looks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Bytes, whole pages, not 0.
    pub(super) size: u64,
    /// Of what the start is a multiple: a power of two, at least a page.
    pub(super) align: u64,
    /// Not below this, a multiple of the page size.
    pub(super) low: u64,
    /// The end not above this, a multiple of the page size.
    pub(super) high: u64,
}

/// A place: where it starts, and the area before it.
pub(super) type Found<'a> = (u64, Option<&'a Record<'a>>);

impl Request {
    /// The place in the free addresses `start..end`, if there is room.
    #[inline]
    fn place_in(&self, start: u64, end: u64, placement: Placement) -> Option<u64> {
        let (start, end) = (start.max(self.low), end.min(self.high));
        let mask = self.align.wrapping_sub(1);
        match placement {
            Placement::TopDown => {
                let place = end.checked_sub(self.size)? & !mask;
                (place >= start).then_some(place)
            }
            Placement::BottomUp => {
                let place = start.checked_add(mask)? & !mask;
                (place.checked_add(self.size)? <= end).then_some(place)
            }
        }
    }

    /// As [`Self::place_in`], below `area`.
    #[inline]
    fn place_below<'a>(&self, area: Cursor<'_, 'a, Vma>, placement: Placement) -> Option<Found<'a>> {
        let prev = area.prev();
        let start = self.place_in(prev.map_or(0, |prev| prev.high()), start_with_guard(&area), placement)?;
        Some((start, prev.map(Cursor::node)))
    }

    /// Pages that a gap surely needs for the size and the worst alignment, and those that it needs at least.
    #[inline]
    fn pages(&self) -> (u32, u32) {
        let pages = |bytes: u64| u32::try_from(bytes >> PAGE_SHIFT).unwrap_or(MANY);
        (pages(self.size.saturating_add(self.align.saturating_sub(PAGE_SIZE))), pages(self.size))
    }
}

impl<'a> VmaTree<'a> {
    /// Free addresses for `request`. O(log n); with an alignment of more than a page, O(log n) for each gap of at least the
    /// size, if none has room for the worst alignment too.
    #[inline]
    pub(super) fn find_gap(&self, request: &Request, placement: Placement) -> Option<Found<'a>> {
        match placement {
            Placement::TopDown => self.highest_gap(request),
            Placement::BottomUp => self.lowest_gap(request),
        }
    }

    #[inline]
    fn highest_gap(&self, request: &Request) -> Option<Found<'a>> {
        let placement = Placement::TopDown;
        let (sure, least) = request.pages();
        // The free addresses behind the last area have no record.
        let last = self.last();
        if let Some(start) = request.place_in(last.map_or(0, |last| last.high()), u64::MAX, placement) {
            return Some((start, last.map(Cursor::node)));
        }
        // Fast path for the common limit and alignment: the summaries count only addresses below that limit, so the search
        // follows them. A gap that lies above it as a whole is the one exception.
        if request.high == self.clip() && sure == least && sure != MANY {
            let area = highest_under(self.root().filter(|root| root.summary() >= sure)?, sure)?;
            let prev = area.prev();
            if prev.is_none_or(|prev| prev.high() < request.high) {
                let start = start_with_guard(&area).min(request.high).wrapping_sub(request.size);
                return (start >= request.low).then_some((start, prev.map(Cursor::node)));
            }
        }
        self.highest_gap_by_address(request)
    }

    /// As [`Self::highest_gap`], for any limit and alignment.
    #[inline(never)]
    fn highest_gap_by_address(&self, request: &Request) -> Option<Found<'a>> {
        let placement = Placement::TopDown;
        let (sure, least) = request.pages();
        let last = self.last();
        // The gap that the upper limit cuts, if there is one.
        let mut below = u64::MAX;
        if let Some(last) = last.filter(|last| last.low() > request.high) {
            // Often the stack alone lies above the limit.
            let alone = last.prev().is_none_or(|prev| prev.low() < request.high);
            let cut = if alone { last } else { self.first_at_or_above(request.high)? };
            if let Some(found) = request.place_below(cut, placement) {
                return Some(found);
            }
            below = cut.low();
        }
        // Without alignment the highest gap with the size is the one, or none is.
        let area = self.highest_with(sure, below);
        if let Some(found) = area.and_then(|area| request.place_below(area, placement)) {
            return Some(found);
        }
        if sure == least && sure != MANY {
            return None;
        }
        // Gaps that may lie right by chance, and those too large to be told apart.
        loop {
            let area = self.highest_with(least, below)?;
            if start_with_guard(&area) <= request.low {
                return None;
            }
            if let Some(found) = request.place_below(area, placement) {
                return Some(found);
            }
            below = area.low();
        }
    }

    #[inline(never)]
    fn lowest_gap(&self, request: &Request) -> Option<Found<'a>> {
        let placement = Placement::BottomUp;
        let (sure, least) = request.pages();
        let behind_last = || {
            let last = self.last();
            let start = request.place_in(last.map_or(0, |last| last.high()), u64::MAX, placement)?;
            Some((start, last.map(Cursor::node)))
        };
        // The gap that the lower limit cuts.
        let Some(cut) = self.first_at_or_above(request.low) else { return behind_last() };
        if let Some(found) = request.place_below(cut, placement) {
            return Some(found);
        }
        let mut above = cut.low();
        if let Some(found) = self.lowest_with(sure, above).and_then(|area| request.place_below(area, placement)) {
            return Some(found);
        }
        if sure != least || sure == MANY {
            while let Some(area) = self.lowest_with(least, above).filter(|area| area.low() < request.high) {
                if let Some(found) = request.place_below(area, placement) {
                    return Some(found);
                }
                above = area.low();
            }
            // The last gap below the limit may be cut by it.
        }
        self.cut_by_upper_limit(request).or_else(behind_last)
    }

    /// The place in the gap that the upper limit cuts, going up.
    fn cut_by_upper_limit(&self, request: &Request) -> Option<Found<'a>> {
        request.place_below(self.first_at_or_above(request.high)?, Placement::BottomUp)
    }

    /// The highest area that starts below `below` and has at least `pages` free below it. O(log n).
    #[inline]
    fn highest_with(&self, pages: u32, below: u64) -> Option<Cursor<'_, 'a, Vma>> {
        // On the way down to `below`, every node that lies below it is preceded by its left subtree; the last such node that
        // has something to offer offers the highest.
        let (mut at, mut best) = (self.root(), None);
        if below == u64::MAX {
            best = at.filter(|root| root.summary() >= pages);
            return highest_under(best?, pages);
        }
        while let Some(node) = at {
            if node.key() >= below {
                at = node.left();
                continue;
            }
            if node.gap() >= pages || node.left().is_some_and(|left| left.summary() >= pages) {
                best = Some(node);
            }
            at = node.right();
        }
        let best = best?;
        if best.gap() >= pages { Some(best) } else { highest_under(best.left()?, pages) }
    }

    /// The lowest area that starts above `above` and has at least `pages` free below it. O(log n).
    #[inline]
    fn lowest_with(&self, pages: u32, above: u64) -> Option<Cursor<'_, 'a, Vma>> {
        let (mut at, mut best) = (self.root(), None);
        while let Some(node) = at {
            if node.key() <= above {
                at = node.right();
                continue;
            }
            if node.gap() >= pages || node.right().is_some_and(|right| right.summary() >= pages) {
                best = Some(node);
            }
            at = node.left();
        }
        let best = best?;
        if best.gap() >= pages { Some(best) } else { lowest_under(best.right()?, pages) }
    }
}

/// The highest area in the subtree of `top` with at least `pages` free below it.
#[inline]
fn highest_under<'t, 'a>(top: Cursor<'t, 'a, Vma>, pages: u32) -> Option<Cursor<'t, 'a, Vma>> {
    let mut node = top;
    loop {
        match node.right() {
            Some(right) if right.summary() >= pages => node = right,
            _ if node.gap() >= pages => return Some(node),
            // By RBT-4 it is on the left then.
            _ => node = node.left()?,
        }
    }
}

/// The lowest area in the subtree of `top` with at least `pages` free below it.
#[inline]
fn lowest_under<'t, 'a>(top: Cursor<'t, 'a, Vma>, pages: u32) -> Option<Cursor<'t, 'a, Vma>> {
    let mut node = top;
    loop {
        match node.left() {
            Some(left) if left.summary() >= pages => node = left,
            _ if node.gap() >= pages => return Some(node),
            _ => node = node.right()?,
        }
    }
}
