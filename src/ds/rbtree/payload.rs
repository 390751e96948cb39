//! The data of a node, its key, and the summary of the subtree below it: the users of a tree supply them.
#![forbid(unsafe_code)]

/// Data that a node of a tree carries besides its links.
pub trait Payload: Sync {
    /// Sort key of the tree.
    type Key: Copy + Ord;
    /// Data that a node keeps about the subtree below it; `()` for nothing.
    type Summary: Copy + PartialEq + Send;
    /// The summary of a node that is in no tree.
    const NO_SUMMARY: Self::Summary;

    /// The key. It may change while the node is in a tree as long as the order does not.
    fn key(&self) -> Self::Key;
}

/// Rule for computing a summary.
pub trait Augment<P: Payload> {
    /// Whether the payload has a summary at all.
    const KEPT: bool;

    /// The summary of a subtree from its top node and the summaries of the subtrees below, `None` for an empty subtree. It may
    /// depend on nothing else.
    fn summarize(top: &P, left: Option<P::Summary>, right: Option<P::Summary>) -> P::Summary;

    /// The summary of what two summaries stand for together: as if the one was that of a subtree, and a payload or a subtree with
    /// the other was added to it. With it a node that is put in is made known to those above in one load and one comparison each.
    fn join(one: P::Summary, other: P::Summary) -> P::Summary;
}

/// No summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl<P: Payload> Augment<P> for Plain {
    const KEPT: bool = false;

    fn summarize(_: &P, _: Option<P::Summary>, _: Option<P::Summary>) -> P::Summary {
        P::NO_SUMMARY
    }

    fn join(_: P::Summary, _: P::Summary) -> P::Summary {
        P::NO_SUMMARY
    }
}
