//! Finding nodes, and walking from one to its neighbours.
#![forbid(unsafe_code)]

use super::node::Link;
use super::{Augment, Node, Payload, RbTree};
use core::marker::PhantomData;
use core::ops::Deref;

/// A node of a tree, while the tree does not change.
pub struct Cursor<'t, 'a, P: Payload> {
    node: &'a Node<'a, P>,
    tree: PhantomData<&'t ()>,
}

impl<P: Payload> Clone for Cursor<'_, '_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Payload> Copy for Cursor<'_, '_, P> {}

impl<'a, P: Payload> Cursor<'_, 'a, P> {
    /// Only for nodes of the tree that is borrowed for `'t`.
    #[inline(always)]
    const fn at(node: &'a Node<'a, P>) -> Self {
        Self { node, tree: PhantomData }
    }

    /// The node, as a handle that outlives the borrow of the tree.
    #[inline(always)]
    #[must_use]
    pub const fn node(self) -> &'a Node<'a, P> {
        self.node
    }

    /// The node with the next lower key.
    #[inline(always)]
    #[must_use]
    pub fn prev(self) -> Option<Self> {
        self.node.links().prev.get().map(Self::at)
    }

    /// The node with the next higher key.
    #[inline(always)]
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.node.links().next.get().map(Self::at)
    }

    /// The child with lower keys.
    #[inline(always)]
    #[must_use]
    pub fn left(self) -> Option<Self> {
        self.node.links().left.get().map(Self::at)
    }

    /// The child with higher keys.
    #[inline(always)]
    #[must_use]
    pub fn right(self) -> Option<Self> {
        self.node.links().right.get().map(Self::at)
    }

    /// Summary of the subtree from here down.
    #[inline(always)]
    #[must_use]
    pub fn summary(self) -> P::Summary {
        self.node.links().summary.get()
    }
}

impl<P: Payload> Deref for Cursor<'_, '_, P> {
    type Target = P;

    #[inline(always)]
    fn deref(&self) -> &P {
        self.node.payload()
    }
}

impl<'a, P: Payload, A: Augment<P>> RbTree<'a, P, A> {
    /// The topmost node.
    #[inline]
    #[must_use]
    pub fn root(&self) -> Option<Cursor<'_, 'a, P>> {
        self.root.map(Cursor::at)
    }

    /// The node with the lowest key. O(1).
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<Cursor<'_, 'a, P>> {
        self.first.map(Cursor::at)
    }

    /// The node with the highest key. O(1).
    #[inline]
    #[must_use]
    pub fn last(&self) -> Option<Cursor<'_, 'a, P>> {
        self.last.map(Cursor::at)
    }

    /// A node of this tree to walk from, or `None` for a node that is not in it.
    #[inline]
    #[must_use]
    pub fn cursor(&self, node: &'a Node<'a, P>) -> Option<Cursor<'_, 'a, P>> {
        self.contains(node).then_some(Cursor::at(node))
    }

    /// The node with this key. O(log n).
    #[inline]
    #[must_use]
    pub fn find(&self, key: P::Key) -> Option<Cursor<'_, 'a, P>> {
        let mut at = self.root;
        while let Some(node) = at {
            let own = node.key();
            at = if key < own {
                node.links().left.get()
            } else if key == own {
                return Some(Cursor::at(node));
            } else {
                node.links().right.get()
            };
        }
        None
    }

    /// The last node whose key is not above `key`. O(log n).
    #[inline]
    #[must_use]
    pub fn last_at_or_below(&self, key: P::Key) -> Option<Cursor<'_, 'a, P>> {
        let (mut at, mut best): (Link<'a, P>, Link<'a, P>) = (self.root, None);
        while let Some(node) = at {
            at = if key < node.key() {
                node.links().left.get()
            } else {
                best = at;
                node.links().right.get()
            };
        }
        best.map(Cursor::at)
    }

    /// The first node whose key is not below `key`. O(log n).
    #[inline]
    #[must_use]
    pub fn first_at_or_above(&self, key: P::Key) -> Option<Cursor<'_, 'a, P>> {
        let (mut at, mut best): (Link<'a, P>, Link<'a, P>) = (self.root, None);
        while let Some(node) = at {
            at = if node.key() < key {
                node.links().right.get()
            } else {
                best = at;
                node.links().left.get()
            };
        }
        best.map(Cursor::at)
    }

    /// All nodes by rising key.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, 'a, P> {
        Iter { front: self.first, back: self.last, left: self.len, tree: PhantomData }
    }
}

impl<'t, 'a, P: Payload, A: Augment<P>> IntoIterator for &'t RbTree<'a, P, A> {
    type Item = &'a Node<'a, P>;
    type IntoIter = Iter<'t, 'a, P>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The nodes of a tree by rising key, or falling from the other end.
pub struct Iter<'t, 'a, P: Payload> {
    front: Link<'a, P>,
    back: Link<'a, P>,
    left: usize,
    tree: PhantomData<&'t ()>,
}

impl<'a, P: Payload> Iterator for Iter<'_, 'a, P> {
    type Item = &'a Node<'a, P>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let node = self.front?;
        self.front = node.links().next.get();
        Some(node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<P: Payload> DoubleEndedIterator for Iter<'_, '_, P> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let node = self.back?;
        self.back = node.links().prev.get();
        Some(node)
    }
}

impl<P: Payload> ExactSizeIterator for Iter<'_, '_, P> {}
