//! The index over the ranges inside one: a treap by address, so that the neighbours of an address are found in O(log n). A list
//! of siblings beside it serves the callers that visit all. A record's priority is a hash of its number, so that no order of
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

impl ResourceTree<'_> {
    /// The last range directly inside `parent` that begins at `at` or below. O(log n).
    pub(super) fn floor(&self, parent: Link, at: PhysAddr) -> Option<Link> {
        let (mut found, mut node) = (None, self.slots.get(parent)?.top);
        while let Some(slot) = self.slots.get(node) {
            if slot.span.start() <= at {
                (found, node) = (Some(node), slot.right);
            } else {
                node = slot.left;
            }
        }
        found
    }

    /// The range directly inside `parent` before `link`. O(log n).
    pub(super) fn before(&self, parent: Link, link: Link) -> Option<Link> {
        self.floor(parent, self.slots.get(link)?.span.start().checked_sub(1)?)
    }

    fn put(&mut self, hole: Hole, to: Link) {
        let (Hole::Top(link) | Hole::Left(link) | Hole::Right(link)) = hole;
        let Some(slot) = self.slots.get_mut(link) else { return };
        match hole {
            Hole::Top(_) => slot.top = to,
            Hole::Left(_) => slot.left = to,
            Hole::Right(_) => slot.right = to,
        }
    }

    /// The side of `node` on which a range that begins at `start` lies, and the subtree there.
    fn side(&self, node: Link, start: PhysAddr) -> (Hole, Link) {
        match self.slots.get(node) {
            Some(slot) if slot.span.start() < start => (Hole::Right(node), slot.right),
            Some(slot) => (Hole::Left(node), slot.left),
            None => (Hole::Left(node), Link::NONE),
        }
    }

    /// Enters `link`, which is in no index, into that of `parent`. O(log n).
    pub(super) fn index(&mut self, parent: Link, link: Link) {
        let (Some(start), Some(top)) = (self.start(link), self.slots.get(parent).map(|slot| slot.top)) else { return };
        let (mut hole, mut node) = (Hole::Top(parent), top);
        while node.some().is_some_and(|node| node.priority() >= link.priority()) {
            (hole, node) = self.side(node, start);
        }
        // INVARIANT: RES-4: the old subtree is split by address below the new record.
        self.put(hole, link);
        let (mut below, mut above) = (Hole::Left(link), Hole::Right(link));
        while let Some(at) = node.some() {
            let (rest, next) = self.side(at, start);
            let side = if matches!(rest, Hole::Right(_)) { &mut below } else { &mut above };
            let place = core::mem::replace(side, rest);
            self.put(place, at);
            node = next;
        }
        self.put(below, Link::NONE);
        self.put(above, Link::NONE);
    }

    /// Takes `link` out of the index of `parent`, in which it is. O(log n).
    pub(super) fn unindex(&mut self, parent: Link, link: Link) {
        let Some((start, mut below, mut above)) =
            self.slots.get(link).map(|slot| (slot.span.start(), slot.left, slot.right))
        else {
            return;
        };
        let (mut hole, mut node) = (Hole::Top(parent), self.slots.get(parent).map_or(Link::NONE, |slot| slot.top));
        while node != link && node != Link::NONE {
            (hole, node) = self.side(node, start);
        }
        // INVARIANT: RES-4: the subtrees below the record are joined, by priority.
        while let (Some(low), Some(high)) = (below.some(), above.some()) {
            if low.priority() >= high.priority() {
                self.put(hole, low);
                (hole, below) = (Hole::Right(low), self.slots.get(low).map_or(Link::NONE, |slot| slot.right));
            } else {
                self.put(hole, high);
                (hole, above) = (Hole::Left(high), self.slots.get(high).map_or(Link::NONE, |slot| slot.left));
            }
        }
        self.put(hole, below.some().unwrap_or(above));
    }

    fn start(&self, link: Link) -> Option<PhysAddr> {
        self.span(link).map(|span| span.start())
    }

    /// Tests `RES-4` for one parent: whether its index visits exactly its children, in their order, none below one of lower
    /// priority. `all` bounds the walk.
    pub(super) fn is_indexed(&self, parent: Link, all: usize) -> bool {
        let children = self.children(parent).take(all + 1);
        let found = |child| self.start(child).and_then(|at| self.floor(parent, at)) == Some(child);
        let heaped = children.clone().all(|child| {
            self.slots.get(child).is_some_and(|slot| {
                let below = [slot.left, slot.right];
                below.iter().filter_map(|link| link.some()).all(|link| link.priority() <= child.priority())
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
