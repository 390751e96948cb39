//! Trees of gaps: finding the lowest that fits, by size and alignment.
#![forbid(unsafe_code)]

use super::{Augment, Cursor, Payload, RbTree};

/// Payloads that are ranges of some space of numbers, `start..end`, ordered by their start and not overlapping.
pub trait Gap: Payload<Key = u64, Summary = u64> {
    /// One past the last number.
    fn end(&self) -> u64;

    /// Numbers in the range.
    #[inline(always)]
    fn size(&self) -> u64 {
        // No range ends before it starts; one that did would be large and then fail to hold anything.
        self.end().wrapping_sub(self.key())
    }
}

/// The summary of a tree of gaps: the size of the largest (Linux: `subtree_max_size`).
#[derive(Clone, Copy, Debug, Default)]
pub struct MaxSize;

impl<P: Gap> Augment<P> for MaxSize {
    const KEPT: bool = true;

    #[inline(always)]
    fn summarize(top: &P, left: Option<u64>, right: Option<u64>) -> u64 {
        top.size().max(left.unwrap_or(0)).max(right.unwrap_or(0))
    }

    #[inline(always)]
    fn join(one: u64, other: u64) -> u64 {
        one.max(other)
    }
}

/// Size, alignment and range to search for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Size to find; not 0.
    pub size: u64,
    /// Alignment of the start: a power of two.
    pub align: u64,
    /// Granule of every gap's start and size: a power of two. It only saves slack.
    pub granule: u64,
    /// Lowest start.
    pub min: u64,
    /// Highest end.
    pub max: u64,
}

impl Request {
    /// Whether its own limits leave room for it.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let mask = self.align.wrapping_sub(1);
        let start = self.min.checked_add(mask).map(|start| start & !mask);
        start.and_then(|start| start.checked_add(self.size)).is_some_and(|end| end <= self.max)
    }

    /// The lowest aligned start in `gap`, if the request fits there.
    #[inline]
    #[must_use]
    pub fn place_in(&self, gap: &impl Gap) -> Option<u64> {
        let mask = self.align.wrapping_sub(1);
        let start = gap.key().max(self.min).checked_add(mask)? & !mask;
        let end = start.checked_add(self.size)?;
        (end <= gap.end().min(self.max)).then_some(start)
    }
}

type Found<'t, 'a, P> = Option<(Cursor<'t, 'a, P>, u64)>;

impl<'a, P: Gap> RbTree<'a, P, MaxSize> {
    /// The lowest gap that surely fits, and where in it; if none surely does, the lowest that fits at all.
    ///
    /// A gap surely fits if it has the size and, beyond it, the most that aligning can take. The lowest of these is found
    /// in O(log n). A gap without that slack fits if it happens to lie right, which its summary does not say; such a gap
    /// is looked for only when there is none with the slack, in O(log n) for each gap of at least the size. Without
    /// alignment the two are the same, and the answer is the lowest fit.
    #[inline]
    #[must_use]
    pub fn lowest_fit(&self, request: &Request) -> Found<'_, 'a, P> {
        let slack = request.align.saturating_sub(request.granule);
        let sure = request.size.saturating_add(slack);
        if let Some(found) = self.lowest_of(sure, request) {
            return Some(found);
        }
        if slack == 0 { None } else { self.lowest_by_chance(request) }
    }

    /// The lowest gap of at least `size` where the request fits, if the lowest of them does.
    #[inline]
    fn lowest_of(&self, size: u64, request: &Request) -> Found<'_, 'a, P> {
        let found = match self.first {
            // All gaps begin where they may, so that no start need be looked at.
            Some(first) if first.key() >= request.min => lowest_below(self.root()?, size)?,
            _ => {
                // The gap that begins below the limit, and goes beyond it perhaps.
                let straddling = request.min.checked_sub(1).and_then(|below| self.last_at_or_below(below));
                if let Some((gap, start)) = straddling.and_then(|gap| Some((gap, request.place_in(&*gap)?))) {
                    return Some((gap, start));
                }
                self.lowest_from(request.min, size)?
            }
        };
        Some((found, request.place_in(&*found)?))
    }

    /// The lowest gap of at least `size` that begins at or above `min`. O(log n).
    fn lowest_from(&self, min: u64, size: u64) -> Option<Cursor<'_, 'a, P>> {
        // On the way down to `min`, every node that it lies below is followed by the node's right subtree; the last
        // such node that has something to offer offers the lowest.
        let (mut at, mut best) = (self.root(), None);
        while let Some(node) = at {
            if node.key() < min {
                at = node.right();
                continue;
            }
            if node.size() >= size || node.right().is_some_and(|right| right.summary() >= size) {
                best = Some(node);
            }
            at = node.left();
        }
        let best = best?;
        if best.size() >= size { Some(best) } else { lowest_below(best.right()?, size) }
    }

    /// The lowest gap in which the request fits, tried one after the other.
    fn lowest_by_chance(&self, request: &Request) -> Found<'_, 'a, P> {
        let mut at = self.last_at_or_below(request.min).or_else(|| self.first());
        while let Some(gap) = at {
            if gap.key() >= request.max {
                return None;
            }
            if let Some(start) = request.place_in(&*gap) {
                return Some((gap, start));
            }
            at = self.lowest_from(gap.end(), request.size);
        }
        None
    }
}

/// The lowest gap of at least `size` in the subtree of `top`.
#[inline]
fn lowest_below<'t, 'a, P: Gap>(top: Cursor<'t, 'a, P>, size: u64) -> Option<Cursor<'t, 'a, P>> {
    if top.summary() < size {
        return None;
    }
    let mut node = top;
    loop {
        match node.left() {
            Some(left) if left.summary() >= size => node = left,
            _ if node.size() >= size => return Some(node),
            // By RBT-4 it is on the right then.
            _ => node = node.right()?,
        }
    }
}
