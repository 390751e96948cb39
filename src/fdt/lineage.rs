//! A node and the nodes above it. The blob holds no way up, so one walk down remembers it.

use super::node::Node;
use super::precheck::MAX_DEPTH;

/// A node and every node above it, of which there are at most [`MAX_DEPTH`]. About 2 KiB: keep few on a small stack.
pub(super) struct Lineage<'t, 'a> {
    /// From the root down.
    nodes: [Option<Node<'t, 'a>>; MAX_DEPTH as usize + 1],
}

impl<'t, 'a> Lineage<'t, 'a> {
    /// Walks down from the root to `node`. Takes time linear in the part of the tree before `node`.
    pub(super) fn of(node: Node<'t, 'a>) -> Self {
        let mut lineage = Self { nodes: [None; MAX_DEPTH as usize + 1] };
        let mut next = Some(node.tree().root());
        for slot in &mut lineage.nodes {
            let Some(here) = next else { break };
            *slot = Some(here);
            next = if here == node { None } else { here.child_around(node.offset()) };
        }
        lineage
    }

    /// The node, its parent, and so on up to the root.
    pub(super) fn upwards(&self) -> impl Iterator<Item = Node<'t, 'a>> + Clone {
        self.nodes.iter().rev().flatten().copied()
    }
}
