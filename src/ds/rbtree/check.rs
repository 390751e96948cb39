//! The invariants of a tree as code, by their tags.
#![forbid(unsafe_code)]

use super::node::{Color, Link, Links};
use super::{Augment, Node, Payload, RbTree};
use crate::ds::Broken;

const fn broken<T>(tag: &'static str, what: &'static str) -> Result<T, Broken> {
    Err(Broken { tag, what })
}

fn same<'a, P: Payload>(a: Link<'a, P>, b: Link<'a, P>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => core::ptr::eq(a, b),
        _ => false,
    }
}

impl<'a, P: Payload, A: Augment<P>> RbTree<'a, P, A> {
    /// Tests every invariant. Ends on any damage, circles included. O(n).
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        if self.root.is_some_and(|root| root.links().parent.get().is_some()) {
            return broken("RBT-5", "a root with a parent");
        }
        if Links::is_red(self.root) {
            return broken("RBT-2", "a red root");
        }
        let mut walk = Walk { blacks: None, threaded: self.first, before: None, seen: 0 };
        self.walk(&mut walk)?;
        if walk.threaded.is_some() || !same(walk.before, self.last) {
            return broken("RBT-5", "a list that goes on where the tree ends");
        }
        if walk.seen != self.len {
            return broken("RBT-6", "nodes in the tree, and their number");
        }
        Ok(())
    }

    /// Visits the nodes in order without a stack: down by children, up by parents, which it has compared before.
    fn walk(&self, walk: &mut Walk<'a, P>) -> Result<(), Broken> {
        // Black nodes from the root down to `at`, itself included.
        let (mut at, mut blacks) = (self.root, 0);
        // The child that the walk has just come up from.
        let mut from: Link<'a, P> = None;
        let mut arrived_from_above = true;
        // Every node is passed three times.
        let mut steps = self.len.saturating_mul(3).saturating_add(1);
        while let Some(node) = at {
            steps = steps.saturating_sub(1);
            if steps == 0 {
                return broken("RBT-6", "more nodes in the tree than it counts");
            }
            let links = node.links();
            let (left, right) = (links.left.get(), links.right.get());
            if arrived_from_above {
                blacks += usize::from(links.color.get() == Color::Black);
                self.check_node(node)?;
            }
            let from_left = !arrived_from_above && same(from, left) && left.is_some();
            let from_right = !arrived_from_above && !from_left;
            if arrived_from_above && let Some(left) = left {
                at = Some(left);
                continue;
            }
            if !from_right {
                if left.is_none() {
                    walk.end_of_path(blacks)?;
                }
                walk.in_order(node)?;
                if let Some(right) = right {
                    (at, arrived_from_above) = (Some(right), true);
                    continue;
                }
                walk.end_of_path(blacks)?;
            }
            blacks -= usize::from(links.color.get() == Color::Black);
            (from, at, arrived_from_above) = (at, links.parent.get(), false);
        }
        Ok(())
    }

    /// Checks one node and its children.
    fn check_node(&self, node: &'a Node<'a, P>) -> Result<(), Broken> {
        let links = node.links();
        let children = [links.left.get(), links.right.get()];
        if !self.contains(node) {
            return broken("RBT-6", "a node that carries another tree's number");
        }
        if children.iter().flatten().any(|child| !same(child.links().parent.get(), Some(node))) {
            return broken("RBT-5", "a child that does not lead to its parent");
        }
        if same(children[0], children[1]) && children[0].is_some() {
            return broken("RBT-5", "a node on both sides of another");
        }
        if links.color.get() == Color::Red && children.iter().any(|child| Links::is_red(*child)) {
            return broken("RBT-2", "a red node below a red node");
        }
        if A::KEPT && links.summary.get() != Self::summary_of(node) {
            return broken("RBT-4", "a summary that is not that of the subtree");
        }
        Ok(())
    }
}

/// State of a walk over the whole tree.
struct Walk<'a, P: Payload> {
    /// Black nodes on a path to a missing child.
    blacks: Option<usize>,
    /// The node that should come next by the list.
    threaded: Link<'a, P>,
    before: Link<'a, P>,
    seen: usize,
}

impl<'a, P: Payload> Walk<'a, P> {
    fn end_of_path(&mut self, blacks: usize) -> Result<(), Broken> {
        if *self.blacks.get_or_insert(blacks) != blacks {
            return broken("RBT-3", "two paths with different numbers of black nodes");
        }
        Ok(())
    }

    fn in_order(&mut self, node: &'a Node<'a, P>) -> Result<(), Broken> {
        if self.before.is_some_and(|before| before.key() >= node.key()) {
            return broken("RBT-1", "keys that do not rise");
        }
        if !same(self.threaded, Some(node)) || !same(node.links().prev.get(), self.before) {
            return broken("RBT-5", "a list that is not the tree in order");
        }
        self.threaded = node.links().next.get();
        self.before = Some(node);
        self.seen += 1;
        Ok(())
    }
}
