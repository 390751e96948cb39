//! A node: its payload, its links, and the rule for access to the links.

use super::payload::Payload;
use core::cell::Cell;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering};

/// A link to a node, or to none.
pub(super) type Link<'a, P> = Option<&'a Node<'a, P>>;

/// One of a node's two sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    #[inline(always)]
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// The colour of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Color {
    Red,
    Black,
}

/// The links of a node.
pub(super) struct Links<'a, P: Payload> {
    pub(super) left: Cell<Link<'a, P>>,
    pub(super) right: Cell<Link<'a, P>>,
    pub(super) parent: Cell<Link<'a, P>>,
    pub(super) summary: Cell<P::Summary>,
    pub(super) prev: Cell<Link<'a, P>>,
    pub(super) next: Cell<Link<'a, P>>,
    pub(super) color: Cell<Color>,
}

impl<'a, P: Payload> Links<'a, P> {
    #[inline(always)]
    pub(super) const fn child(&self, side: Side) -> &Cell<Link<'a, P>> {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    /// The side on which `child` hangs, one of the two.
    #[inline(always)]
    pub(super) fn side_of(&self, child: &Node<'a, P>) -> Side {
        match self.left.get() {
            Some(left) if core::ptr::eq(left, child) => Side::Left,
            _ => Side::Right,
        }
    }

    #[inline(always)]
    pub(super) fn is_red(link: Link<'a, P>) -> bool {
        link.is_some_and(|node| node.links.color.get() == Color::Red)
    }
}

/// A payload with the links to be in a tree or a chain.
///
/// # Invariants
///
/// - `NODE-1`: only the node's owner touches the links: the one [`Owned`], or the chain or tree that took it, through `&` to
///   read and `&mut` to write.
/// - `NODE-2`: `tree` is the number of the tree that the node is in, or 0. Only that tree writes it, with `&mut`.
pub struct Node<'a, P: Payload> {
    links: Links<'a, P>,
    tree: AtomicU64,
    payload: P,
}

// SAFETY: by NODE-1 the cells are accessed under the borrow rules of the one value that has the node, so never by two
// threads at once if one writes. The payload is `Sync` by the bound of `Payload`, and summaries may change threads.
unsafe impl<P: Payload> Sync for Node<'_, P> {}

impl<'a, P: Payload> Node<'a, P> {
    /// A node that is in no tree.
    #[must_use]
    pub const fn new(payload: P) -> Self {
        let links = Links {
            left: Cell::new(None),
            right: Cell::new(None),
            parent: Cell::new(None),
            summary: Cell::new(P::NO_SUMMARY),
            prev: Cell::new(None),
            next: Cell::new(None),
            color: Cell::new(Color::Red),
        };
        Self { links, tree: AtomicU64::new(0), payload }
    }

    /// The node's payload.
    #[inline(always)]
    pub const fn payload(&self) -> &P {
        &self.payload
    }

    /// The links, for the one that has the node.
    #[inline(always)]
    pub(super) const fn links(&self) -> &Links<'a, P> {
        &self.links
    }

    /// The number of the tree that the node is in, or 0. A tree that reads its own number here may rely on it: it alone
    /// writes it, so it reads its own last write.
    #[inline(always)]
    pub(super) fn tree(&self) -> u64 {
        self.tree.load(Ordering::Relaxed)
    }

    /// By the tree that takes the node or releases it.
    #[inline(always)]
    pub(super) fn set_tree(&self, number: u64) {
        self.tree.store(number, Ordering::Relaxed);
    }
}

impl<P: Payload> Deref for Node<'_, P> {
    type Target = P;

    #[inline(always)]
    fn deref(&self) -> &P {
        &self.payload
    }
}

impl<P: Payload + fmt::Debug> fmt::Debug for Node<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the links, which are not the reader's to touch.
        self.payload.fmt(f)
    }
}

/// A node that is in no tree and no chain: the only value of its kind for that node.
#[must_use = "a node that is dropped is lost"]
pub struct Owned<'a, P: Payload>(&'a Node<'a, P>);

impl<'a, P: Payload> Owned<'a, P> {
    /// Takes a node that nobody else has, for as long as it lives.
    #[inline]
    pub fn new(node: &'a mut Node<'a, P>) -> Self {
        // INVARIANT: NODE-1, NODE-2: the borrow is the only one, and of a node that is in no tree, since a tree would
        // have it borrowed.
        Self(node)
    }

    /// Gives the node up, in no tree and no chain: for a caller that frees its memory, once nobody looks at it any more.
    #[inline]
    #[must_use]
    pub const fn into_ptr(self) -> *const Node<'a, P> {
        self.0
    }

    /// The node's payload, for as long as the node lives: for reading, no matter where the node is.
    #[inline(always)]
    #[must_use]
    pub const fn payload(&self) -> &'a P {
        &self.0.payload
    }

    /// By a tree or chain that releases a node.
    #[inline(always)]
    pub(super) const fn give(node: &'a Node<'a, P>) -> Self {
        Self(node)
    }

    /// By a tree or chain that takes the node.
    #[inline(always)]
    pub(super) const fn take(self) -> &'a Node<'a, P> {
        self.0
    }
}

impl<P: Payload> Deref for Owned<'_, P> {
    type Target = P;

    #[inline(always)]
    fn deref(&self) -> &P {
        &self.0.payload
    }
}

impl<P: Payload + fmt::Debug> fmt::Debug for Owned<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
