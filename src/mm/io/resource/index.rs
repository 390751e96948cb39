//! The index over the ranges inside one: a treap by address, so that the neighbours of an address are found in O(log n). A list
//! of siblings beside it serves the callers that visit all. A range's priority is drawn when it is entered, so that no order of
//! requests makes the tree deep, except one built for that purpose.
#![forbid(unsafe_code)]

use super::ResourceTree;
use super::slots::Link;
use crate::addr::PhysAddr;

/// A link of an index that may be changed.
#[derive(Clone, Copy)]
enum Hole {
    /// The topmost record of those inside this range.
    Top(Link),
    /// The records below this record's addresses.
    Left(Link),
    /// The records above them.
    Right(Link),
}

/// Place for a record in the index of a range.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    /// The record that it would hang below, if it would not be the topmost.
    above: Link,
    /// The subtree that is there now.
    hanging: Link,
    /// The last range that begins at the record's address or below.
    pub(super) before: Link,
}

impl ResourceTree<'_> {
    /// The last range directly inside `parent` that begins at `at` or below, and the record above it in the index. O(log n).
    #[inline(always)]
    pub(super) fn floor(&self, parent: Link, at: PhysAddr) -> (Link, Link) {
        let (mut found, mut above) = (Link::NONE, Link::NONE);
        let (mut node, mut over) = (self.top(parent), Link::NONE);
        while let Some(slot) = self.slots.inner(node) {
            let here = node;
            if slot.span.start() <= at {
                (found, above, node) = (here, over, slot.right);
                if slot.span.start() == at {
                    break;
                }
            } else {
                node = slot.left;
            }
            over = here;
        }
        (found, above)
    }

    /// The place in the index of `parent` for a record of this priority that begins at `start`. O(log n).
    #[inline(always)]
    pub(super) fn spot(&self, parent: Link, priority: u32, start: PhysAddr) -> Spot {
        let (mut above, mut before, mut node) = (Link::NONE, Link::NONE, self.top(parent));
        while let Some(slot) = self.slots.inner(node)
            && slot.priority >= priority
        {
            above = node;
            if slot.span.start() <= start {
                (before, node) = (node, slot.right);
            } else {
                node = slot.left;
            }
        }
        let hanging = node;
        while let Some(slot) = self.slots.inner(node) {
            if slot.span.start() <= start {
                (before, node) = (node, slot.right);
            } else {
                node = slot.left;
            }
        }
        Spot { above, hanging, before }
    }

    /// The topmost record of those inside `parent`.
    #[inline(always)]
    fn top(&self, parent: Link) -> Link {
        self.slots.get(parent).map_or(Link::NONE, |slot| slot.top)
    }

    #[inline(always)]
    fn put(&mut self, hole: Hole, to: Link) {
        match hole {
            Hole::Top(parent) => {
                if let Some(slot) = self.slots.get_mut(parent) {
                    slot.top = to;
                }
            }
            Hole::Left(link) => {
                if let Some(slot) = self.slots.inner_mut(link) {
                    slot.left = to;
                }
            }
            Hole::Right(link) => {
                if let Some(slot) = self.slots.inner_mut(link) {
                    slot.right = to;
                }
            }
        }
    }

    /// Enters `link`, whose place is `spot` and which begins at `start`, into the index of `parent`. O(1) on average.
    #[inline(always)]
    pub(super) fn index_at(&mut self, parent: Link, spot: Spot, (link, start): (Link, PhysAddr)) {
        let hole = match self.slots.inner(spot.above) {
            None => Hole::Top(parent),
            Some(slot) if slot.span.start() < start => Hole::Right(spot.above),
            Some(_) => Hole::Left(spot.above),
        };
        // INVARIANT: RES-4: the old subtree is split by address below the new record.
        self.put(hole, link);
        // Run by run: inside one the links stay as they are.
        let (mut below, mut above) = (Hole::Left(link), Hole::Right(link));
        let mut node = spot.hanging;
        loop {
            let (first, mut last) = (node, Link::NONE);
            while let Some(slot) = self.slots.inner(node)
                && slot.span.start() < start
            {
                (last, node) = (node, slot.right);
            }
            if last != Link::NONE {
                self.put(below, first);
                below = Hole::Right(last);
            }
            let (first, mut last) = (node, Link::NONE);
            while let Some(slot) = self.slots.inner(node)
                && slot.span.start() >= start
            {
                (last, node) = (node, slot.left);
            }
            if last == Link::NONE {
                break;
            }
            self.put(above, first);
            above = Hole::Left(last);
        }
        self.put(below, Link::NONE);
        self.put(above, Link::NONE);
    }

    /// Enters `link`, which is in no index, into that of `parent`. O(log n).
    pub(super) fn index(&mut self, parent: Link, link: Link) {
        let Some((start, priority)) = self.slots.inner(link).map(|slot| (slot.span.start(), slot.priority)) else {
            return;
        };
        self.index_at(parent, self.spot(parent, priority, start), (link, start));
    }

    /// Takes `link` out of the index of `parent`, in which it hangs below `above`, or is the topmost. O(1) on average.
    #[inline(always)]
    pub(super) fn unindex_at(&mut self, parent: Link, above: Link, link: Link) {
        let Some((mut below, mut over)) = self.slots.inner(link).map(|slot| (slot.left, slot.right)) else { return };
        let mut hole = match self.slots.inner(above) {
            None => Hole::Top(parent),
            Some(slot) if slot.left == link => Hole::Left(above),
            Some(_) => Hole::Right(above),
        };
        // INVARIANT: RES-4: the subtrees below the record are joined, by priority. Behind a record of the same one the link is
        // right as it is.
        let mut is_low = None;
        while let (Some(low), Some(high)) = (self.slots.inner(below), self.slots.inner(over)) {
            let takes_low = low.priority >= high.priority;
            let (node, next) = if takes_low {
                (below, (Hole::Right(below), low.right, over))
            } else {
                (over, (Hole::Left(over), below, high.left))
            };
            if is_low != Some(takes_low) {
                self.put(hole, node);
                is_low = Some(takes_low);
            }
            (hole, below, over) = next;
        }
        self.put(hole, below.some().unwrap_or(over));
    }

    /// Takes `link` out of the index of `parent`, in which it is. O(log n).
    pub(super) fn unindex(&mut self, parent: Link, link: Link) {
        let Some(start) = self.start(link) else { return };
        let (found, above) = self.floor(parent, start);
        if found == link {
            self.unindex_at(parent, above, link);
        }
    }

    fn start(&self, link: Link) -> Option<PhysAddr> {
        self.span(link).map(|span| span.start())
    }

    /// Tests `RES-4` for one parent: whether its index visits exactly its children, in their order, none below one of lower
    /// priority. `all` bounds the walk.
    pub(super) fn is_indexed(&self, parent: Link, all: usize) -> bool {
        let children = self.children(parent).take(all + 1);
        let found = |child| self.start(child).is_some_and(|at| self.floor(parent, at).0 == child);
        let heaped = children.clone().all(|child| {
            self.slots.get(child).is_some_and(|slot| {
                let below = [slot.left, slot.right];
                below.iter().filter_map(|link| self.slots.inner(*link)).all(|below| below.priority <= slot.priority)
            })
        });
        // No more than the children: each but the topmost hangs below one of them.
        let hanging: usize = children
            .clone()
            .filter_map(|child| self.slots.get(child))
            .map(|slot| usize::from(slot.left != Link::NONE) + usize::from(slot.right != Link::NONE))
            .sum();
        let top = usize::from(self.slots.get(parent).is_some_and(|slot| slot.top != Link::NONE));
        heaped && hanging + top == children.clone().count() && children.clone().all(found)
    }
}
