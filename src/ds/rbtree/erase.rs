//! Taking a node out of the tree.
#![forbid(unsafe_code)]

use super::node::{Color, Link, Links, Side};
use super::{Augment, Node, Owned, Payload, RbTree};

impl<'a, P: Payload, A: Augment<P>> RbTree<'a, P, A> {
    /// Takes `node` out, or returns `None` if it is not in this tree. O(log n), amortised O(1) except for the summaries.
    #[inline]
    pub fn erase(&mut self, node: &'a Node<'a, P>) -> Option<Owned<'a, P>> {
        if !self.contains(node) {
            return None;
        }
        let links = node.links();
        let (left, right, parent) = (links.left.get(), links.right.get(), links.parent.get());
        let next = links.next.get();
        match (left, right) {
            (Some(left), Some(right)) => {
                // There is something on the right, so the next node is there, with nothing on its left.
                if let Some(next) = next {
                    self.erase_inner(node, next, (left, right));
                }
            }
            (Some(child), None) | (None, Some(child)) => {
                // By RBT-3 an only child is red and has none; black in its parent's place it keeps all paths as they were.
                self.replace_child(parent, node, Some(child));
                child.links().parent.set(parent);
                child.links().color.set(Color::Black);
                Self::refresh(parent, None);
            }
            (None, None) => {
                let black = links.color.get() == Color::Black;
                let side = parent.map(|parent| parent.links().side_of(node));
                self.replace_child(parent, node, None);
                Self::refresh(parent, None);
                if let (true, Some(parent), Some(side)) = (black, parent, side) {
                    self.rebalance_after_erase(parent, side);
                }
            }
        }
        self.unthread(node, next);
        // INVARIANT: NODE-2, RBT-6: the node leaves the tree.
        node.set_tree(0);
        self.len -= 1;
        Some(Owned::give(node))
    }

    /// Takes out a node with two children: `next` leaves its place, and takes the node's.
    fn erase_inner(
        &mut self,
        node: &'a Node<'a, P>,
        next: &'a Node<'a, P>,
        (left, right): (&'a Node<'a, P>, &'a Node<'a, P>),
    ) {
        let links = next.links();
        let child = links.right.get();
        let black = links.color.get() == Color::Black;
        let mut lowest = next;
        if !core::ptr::eq(next, right) {
            // Below `right`, so it has a parent, on whose left it hangs.
            let Some(above) = links.parent.get() else { return };
            above.links().left.set(child);
            if let Some(child) = child {
                child.links().parent.set(Some(above));
            }
            links.right.set(Some(right));
            right.links().parent.set(Some(next));
            lowest = above;
        }
        let parent = node.links().parent.get();
        self.replace_child(parent, node, Some(next));
        links.parent.set(parent);
        links.left.set(Some(left));
        left.links().parent.set(Some(next));
        links.color.set(node.links().color.get());
        if A::KEPT {
            // INVARIANT: RBT-4: first what lay on the way to the old place, then the new place, which begins with what was
            // known of it, so that the way up ends where nothing changes.
            links.summary.set(node.links().summary.get());
            Self::refresh(Some(lowest), Some(next));
            Self::refresh(Some(next), None);
        }
        match child {
            _ if !black => {}
            // An only child, and so red.
            Some(child) => child.links().color.set(Color::Black),
            None => {
                let side = if core::ptr::eq(lowest, next) { Side::Right } else { Side::Left };
                self.rebalance_after_erase(lowest, side);
            }
        }
    }

    /// Takes a node out of the list.
    #[inline]
    fn unthread(&mut self, node: &Node<'a, P>, next: Link<'a, P>) {
        let prev = node.links().prev.get();
        match prev {
            Some(prev) => prev.links().next.set(next),
            None => self.first = next,
        }
        match next {
            Some(next) => next.links().prev.set(prev),
            None => self.last = prev,
        }
    }

    /// Restores `RBT-3`, where the paths through `side` of `parent` have a black node less than all others.
    fn rebalance_after_erase(&mut self, mut parent: &'a Node<'a, P>, mut side: Side) {
        loop {
            // The other side has a black node more, so there is one.
            let Some(mut sibling) = parent.links().child(side.other()).get() else { return };
            if sibling.links().color.get() == Color::Red {
                self.rotate(parent, side);
                sibling.links().color.set(Color::Black);
                parent.links().color.set(Color::Red);
                let Some(nephew) = parent.links().child(side.other()).get() else { return };
                sibling = nephew;
            }
            let inner = sibling.links().child(side).get();
            let outer = sibling.links().child(side.other()).get();
            let outer_is_red = Links::is_red(outer);
            if outer_is_red || Links::is_red(inner) {
                // One of the sibling's family comes up and takes the parent's colour; both below it are black.
                let top = if outer_is_red { Some(sibling) } else { inner };
                if !outer_is_red {
                    self.rotate(sibling, side.other());
                }
                self.rotate(parent, side);
                if let Some(top) = top {
                    top.links().color.set(parent.links().color.get());
                }
                let below = if outer_is_red { outer } else { Some(sibling) };
                if let Some(below) = below {
                    below.links().color.set(Color::Black);
                }
                parent.links().color.set(Color::Black);
                return;
            }
            sibling.links().color.set(Color::Red);
            if parent.links().color.get() == Color::Red {
                parent.links().color.set(Color::Black);
                return;
            }
            let Some(above) = parent.links().parent.get() else { return };
            side = above.links().side_of(parent);
            parent = above;
        }
    }
}
