//! An augmented red-black tree, intrusive, threaded on a list (Linux: `rb_root_cached`, `rbtree_augmented.h`).
//!
//! The links are part of the nodes, so that putting one into a tree needs no memory. Every node also knows its neighbours
//! in key order, and a **summary** of the subtree below it, which an [`Augment`] computes: the largest free size for
//! areas, nothing for a plain index. With it the lowest gap that fits is found in one way down ([`fit`]).
//!
//! # Owner of a node
//!
//! A node lives as long as `'a` and is never moved; the code that makes the reference provides its memory. It is at any time
//! either
//!
//! - **owned**, as an [`Owned`]: the only one there is, which cannot be copied; or
//! - in a [`Chain`], which has taken that; or
//! - in one [`RbTree`], which has taken it and gives it back by [`RbTree::erase`].
//!
//! So no node can be in two places, and what others have is a shared reference to the payload: it can be read, and
//! handed back to the tree as a handle. A tree recognises its own nodes by its number, which they carry, and refuses
//! others.
//!
//! No operation recurses; all but [`RbTree::check`] and iteration are O(log n) or O(1).

mod chain;
mod check;
mod erase;
pub mod fit;
mod insert;
mod node;
mod payload;
mod search;

pub use super::broken::Broken;
pub use chain::Chain;
pub use insert::{Entry, Vacant};
pub use node::{Node, Owned};
pub use payload::{Augment, Payload, Plain};
pub use search::{Cursor, Iter};

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};
use node::{Link, Side};

/// A red-black tree of nodes that live for `'a`.
///
/// # Invariants
///
/// - `RBT-1`: keys rise strictly in tree order.
/// - `RBT-2`: the root is black, and no red node has a red child.
/// - `RBT-3`: every path from the root to a missing child passes the same number of black nodes.
/// - `RBT-4`: every node's summary is [`Augment::summarize`] of its payload and its children's summaries.
/// - `RBT-5`: parent and child, previous and next, first and last agree, and the list is the tree in order.
/// - `RBT-6`: the nodes that carry the tree's number are those that it reaches, `len` of them.
pub struct RbTree<'a, P: Payload, A: Augment<P> = Plain> {
    root: Link<'a, P>,
    first: Link<'a, P>,
    last: Link<'a, P>,
    len: usize,
    /// The tree's number; [`UNNUMBERED`] before the first insertion.
    number: u64,
    augment: PhantomData<fn() -> A>,
}

/// The number of a tree that never had a node. No node carries it.
const UNNUMBERED: u64 = u64::MAX;

/// The number of the next tree: 2^64 of them are more than can be counted.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

impl<P: Payload, A: Augment<P>> Default for RbTree<'_, P, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, P: Payload, A: Augment<P>> RbTree<'a, P, A> {
    /// A tree without nodes.
    #[must_use]
    pub const fn new() -> Self {
        Self { root: None, first: None, last: None, len: 0, number: UNNUMBERED, augment: PhantomData }
    }

    /// Nodes in the tree.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the tree is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `node` is in this tree.
    #[inline]
    #[must_use]
    pub fn contains(&self, node: &Node<'_, P>) -> bool {
        node.tree() == self.number
    }

    /// Recomputes the summary of `node` after its payload has changed, and those above it, up to the first that stays as
    /// it was (Linux: `rb_propagate`). A node of another tree is left alone. O(log n).
    #[inline]
    pub fn propagate(&mut self, node: &'a Node<'a, P>) {
        if self.contains(node) {
            Self::refresh(Some(node), None);
        }
    }

    /// [`RbTree::propagate`] where the payload has grown: nothing but itself has to be looked at to know the new summary, nor at
    /// each node above. O(log n).
    #[inline]
    pub fn propagate_growth(&mut self, node: &'a Node<'a, P>) {
        if A::KEPT && self.contains(node) {
            Self::grow(Some(node), A::summarize(node.payload(), None, None));
        }
    }

    /// Adds to the summaries from `at` upwards, as far as they change, what is new below.
    #[inline]
    fn grow(mut at: Link<'a, P>, new: P::Summary) {
        while let Some(node) = at {
            let before = node.links().summary.get();
            let after = A::join(before, new);
            // INVARIANT: RBT-4: where nothing changed, nothing above did.
            if after == before {
                return;
            }
            node.links().summary.set(after);
            at = node.links().parent.get();
        }
    }

    /// Recomputes summaries from `at` upwards, as far as they change, but not `end` nor the nodes above it.
    #[inline]
    fn refresh(mut at: Link<'a, P>, end: Link<'a, P>) {
        if !A::KEPT {
            return;
        }
        while let Some(node) = at {
            if end.is_some_and(|end| core::ptr::eq(node, end)) {
                return;
            }
            let summary = Self::summary_of(node);
            // INVARIANT: RBT-4: where nothing changed, nothing above did.
            if node.links().summary.replace(summary) == summary {
                return;
            }
            at = node.links().parent.get();
        }
    }

    /// Computes the summary of `node`.
    #[inline]
    fn summary_of(node: &Node<'a, P>) -> P::Summary {
        let below = |side| node.links().child(side).get().map(|child: &Node<'a, P>| child.links().summary.get());
        A::summarize(node.payload(), below(Side::Left), below(Side::Right))
    }

    /// Puts `new` where `old` hangs from its parent. Their own links are the caller's to set.
    #[inline]
    fn replace_child(&mut self, parent: Link<'a, P>, old: &Node<'a, P>, new: Link<'a, P>) {
        match parent {
            Some(parent) => parent.links().child(parent.links().side_of(old)).set(new),
            None => self.root = new,
        }
    }

    /// Turns the edge between `top` and its child away from `side`, so that the child comes up and `top` goes down on
    /// `side`. The child exists; without it nothing happens.
    #[inline]
    fn rotate(&mut self, top: &'a Node<'a, P>, side: Side) {
        let links = top.links();
        let Some(up) = links.child(side.other()).get() else { return };
        let middle = up.links().child(side).get();
        links.child(side.other()).set(middle);
        if let Some(middle) = middle {
            middle.links().parent.set(Some(top));
        }
        let parent = links.parent.get();
        self.replace_child(parent, top, Some(up));
        up.links().parent.set(parent);
        up.links().child(side).set(Some(top));
        links.parent.set(Some(up));
        if A::KEPT {
            // INVARIANT: RBT-4: the same nodes are below as were before.
            up.links().summary.set(links.summary.get());
            links.summary.set(Self::summary_of(top));
        }
    }

    /// The tree's number, made at the first call.
    #[inline]
    fn number(&mut self) -> u64 {
        if self.number == UNNUMBERED {
            // Relaxed: the numbers need only differ.
            self.number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        }
        self.number
    }
}
