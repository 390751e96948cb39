//! Putting a node into the tree.
#![forbid(unsafe_code)]

use super::node::{Color, Link, Links, Side};
use super::{Augment, Node, Owned, Payload, RbTree};

/// Place for a key.
pub enum Entry<'t, 'a, P: Payload, A: Augment<P>> {
    /// A node has the key.
    Occupied(&'a Node<'a, P>),
    /// No node has it; this is its place.
    Vacant(Vacant<'t, 'a, P, A>),
}

/// The place of a key that no node has.
pub struct Vacant<'t, 'a, P: Payload, A: Augment<P>> {
    tree: &'t mut RbTree<'a, P, A>,
    key: P::Key,
    parent: Link<'a, P>,
    side: Side,
}

impl<'a, P: Payload, A: Augment<P>> Vacant<'_, 'a, P, A> {
    /// The node with the next lower key.
    #[inline]
    #[must_use]
    pub fn prev(&self) -> Link<'a, P> {
        match self.side {
            Side::Left => self.parent.and_then(|parent| parent.links().prev.get()),
            Side::Right => self.parent,
        }
    }

    /// The node with the next higher key.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Link<'a, P> {
        match self.side {
            Side::Left => self.parent,
            Side::Right => self.parent.and_then(|parent| parent.links().next.get()),
        }
    }

    /// Puts `node` there. O(log n), amortised O(1) except for the summaries.
    ///
    /// # Errors
    ///
    /// The node comes back if it does not have the key of the place.
    #[inline(always)]
    pub fn insert(self, node: Owned<'a, P>) -> Result<&'a Node<'a, P>, Owned<'a, P>> {
        if node.key() != self.key {
            return Err(node);
        }
        let node = node.take();
        self.tree.link(node, self.parent, self.side);
        Ok(node)
    }
}

impl<'a, P: Payload, A: Augment<P>> RbTree<'a, P, A> {
    /// The place of `key`, and whether a node has it. O(log n).
    #[inline]
    pub fn entry(&mut self, key: P::Key) -> Entry<'_, 'a, P, A> {
        let (mut parent, mut side, mut at) = (None, Side::Left, self.root);
        while let Some(node) = at {
            let own = node.key();
            if key < own {
                side = Side::Left;
                at = node.links().left.get();
            } else if key == own {
                return Entry::Occupied(node);
            } else {
                side = Side::Right;
                at = node.links().right.get();
            }
            parent = Some(node);
        }
        Entry::Vacant(Vacant { tree: self, key, parent, side })
    }

    /// Puts `node` at the place of its key. O(log n).
    ///
    /// # Errors
    ///
    /// The node comes back if another has its key.
    #[inline]
    pub fn insert(&mut self, node: Owned<'a, P>) -> Result<&'a Node<'a, P>, Owned<'a, P>> {
        match self.entry(node.key()) {
            Entry::Occupied(_) => Err(node),
            Entry::Vacant(place) => place.insert(node),
        }
    }

    /// Puts `node` directly behind `at` without a search. Its key must lie between that of `at` and the next one's.
    /// Amortised O(1) except for the summaries.
    ///
    /// # Errors
    ///
    /// The node comes back if its key does not lie there, or if `at` is not in this tree.
    pub fn insert_after(&mut self, at: &'a Node<'a, P>, node: Owned<'a, P>) -> Result<&'a Node<'a, P>, Owned<'a, P>> {
        if !self.contains(at) || node.key() <= at.key() {
            return Err(node);
        }
        let next = at.links().next.get();
        if next.is_some_and(|next| next.key() <= node.key()) {
            return Err(node);
        }
        let node = node.take();
        // Of two neighbours one is above the other, and the lower has no child between them.
        match next {
            Some(next) if at.links().right.get().is_some() => self.link(node, Some(next), Side::Left),
            _ => self.link(node, Some(at), Side::Right),
        }
        Ok(node)
    }

    /// Hangs `node` on `side` of `parent`, where nothing hangs.
    #[inline]
    fn link(&mut self, node: &'a Node<'a, P>, parent: Link<'a, P>, side: Side) {
        // INVARIANT: NODE-2, RBT-6: the owned node has come into this tree.
        node.set_tree(self.number());
        self.len += 1;
        let links = node.links();
        links.left.set(None);
        links.right.set(None);
        links.parent.set(parent);
        // INVARIANT: RBT-5: a new leaf is a neighbour of its parent.
        let (prev, next) = match (parent, side) {
            (None, _) => (None, None),
            (Some(parent), Side::Left) => (parent.links().prev.get(), Some(parent)),
            (Some(parent), Side::Right) => (Some(parent), parent.links().next.get()),
        };
        links.prev.set(prev);
        links.next.set(next);
        match prev {
            Some(prev) => prev.links().next.set(Some(node)),
            None => self.first = Some(node),
        }
        match next {
            Some(next) => next.links().prev.set(Some(node)),
            None => self.last = Some(node),
        }
        let summary = if A::KEPT { A::summarize(node.payload(), None, None) } else { P::NO_SUMMARY };
        if A::KEPT {
            links.summary.set(summary);
        }
        let Some(parent) = parent else {
            links.color.set(Color::Black);
            self.root = Some(node);
            return;
        };
        links.color.set(Color::Red);
        parent.links().child(side).set(Some(node));
        if A::KEPT {
            // INVARIANT: RBT-4: a subtree is there that was not, and nothing else has changed.
            Self::grow(Some(parent), summary);
        }
        if parent.links().color.get() == Color::Red {
            self.rebalance_after_insert(node, parent);
        }
    }

    /// Restores `RBT-2`, which a red `node` below a red `parent` breaks and nothing else does.
    fn rebalance_after_insert(&mut self, mut node: &'a Node<'a, P>, mut parent: &'a Node<'a, P>) {
        loop {
            // A red node is not the root, so it has a parent.
            let Some(above) = parent.links().parent.get() else { return };
            let side = above.links().side_of(parent);
            let uncle = above.links().child(side.other()).get();
            if !Links::is_red(uncle) {
                // The node between the other two in order comes up.
                let inner = parent.links().side_of(node) != side;
                let top = if inner { node } else { parent };
                if inner {
                    self.rotate(parent, side);
                }
                self.rotate(above, side.other());
                top.links().color.set(Color::Black);
                above.links().color.set(Color::Red);
                return;
            }
            if let Some(uncle) = uncle {
                uncle.links().color.set(Color::Black);
            }
            parent.links().color.set(Color::Black);
            let Some(next) = above.links().parent.get() else { return };
            above.links().color.set(Color::Red);
            if next.links().color.get() == Color::Black {
                return;
            }
            (node, parent) = (above, next);
        }
    }
}
