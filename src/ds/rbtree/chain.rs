//! Nodes that wait, in no tree: a queue of them, linked through the same links.
#![forbid(unsafe_code)]

use super::node::Link;
use super::{Owned, Payload};

/// A queue of nodes that are in no tree. Every operation is O(1).
///
/// # Invariants
///
/// - `CHAIN-1`: from `first` along `next` there are `len` nodes, of which `last` is the last.
pub struct Chain<'a, P: Payload> {
    first: Link<'a, P>,
    last: Link<'a, P>,
    len: usize,
}

impl<P: Payload> Default for Chain<'_, P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, P: Payload> Chain<'a, P> {
    /// A chain without nodes.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: None, last: None, len: 0 }
    }

    /// Nodes in the chain.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the chain is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Payload of the first node.
    #[must_use]
    pub fn first(&self) -> Option<&P> {
        self.first.map(|node| node.payload())
    }

    /// Puts a node in front.
    #[inline]
    pub fn push_front(&mut self, node: Owned<'a, P>) {
        let node = node.take();
        node.links().next.set(self.first);
        if self.first.is_none() {
            self.last = Some(node);
        }
        self.first = Some(node);
        self.len += 1;
    }

    /// Puts a node at the end.
    #[inline]
    pub fn push_back(&mut self, node: Owned<'a, P>) {
        let node = node.take();
        node.links().next.set(None);
        match self.last {
            Some(last) => last.links().next.set(Some(node)),
            None => self.first = Some(node),
        }
        self.last = Some(node);
        self.len += 1;
    }

    /// Takes the first node.
    #[inline]
    pub fn pop_front(&mut self) -> Option<Owned<'a, P>> {
        let node = self.first?;
        self.first = node.links().next.get();
        if self.first.is_none() {
            self.last = None;
        }
        self.len -= 1;
        Some(Owned::give(node))
    }

    /// Moves all nodes of `other` to the end.
    #[inline]
    pub fn append(&mut self, other: &mut Self) {
        let Some(first) = other.first.take() else { return };
        match self.last {
            Some(last) => last.links().next.set(Some(first)),
            None => self.first = Some(first),
        }
        self.last = other.last.take();
        self.len += core::mem::take(&mut other.len);
    }

    /// Payloads of the nodes, from the first to the last.
    pub fn iter(&self) -> impl Iterator<Item = &P> {
        core::iter::successors(self.first, |node| node.links().next.get()).map(|node| node.payload())
    }
}
