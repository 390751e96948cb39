//! The augmented red-black tree against a `BTreeMap`, every invariant checked after every step.

mod fit;
mod misuse;
mod model;
mod orders;

use quarry::ds::rbtree::fit::{Gap, MaxSize};
use quarry::ds::rbtree::{Chain, Node, Owned, Payload, RbTree};
use std::sync::atomic::{AtomicU64, Ordering};

/// A range that can be moved and resized while it is in a tree.
#[derive(Debug, Default)]
struct Piece {
    start: AtomicU64,
    end: AtomicU64,
}

impl Piece {
    fn set(&self, start: u64, end: u64) {
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
    }
}

impl Payload for Piece {
    type Key = u64;
    type Summary = u64;
    const NO_SUMMARY: u64 = 0;

    fn key(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }
}

impl Gap for Piece {
    fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }
}

type Tree<'a> = RbTree<'a, Piece, MaxSize>;

fn nodes<'a>(count: usize) -> Vec<Node<'a, Piece>> {
    (0..count).map(|_| Node::new(Piece::default())).collect()
}

fn chain<'a>(nodes: &'a mut [Node<'a, Piece>]) -> Chain<'a, Piece> {
    let mut chain = Chain::new();
    for node in nodes {
        chain.push_back(Owned::new(node));
    }
    chain
}

/// The next node of `spare`, as the piece `start..end`.
fn piece<'a>(spare: &mut Chain<'a, Piece>, start: u64, end: u64) -> Owned<'a, Piece> {
    let node = spare.pop_front().unwrap();
    node.set(start, end);
    node
}

/// Contents of the tree, in order.
fn contents(tree: &Tree<'_>) -> Vec<(u64, u64)> {
    tree.iter().map(|node| (node.key(), node.end())).collect()
}
