//! The fixed state of a space, once it is set up.
#![forbid(unsafe_code)]

#[cfg(doc)]
use super::NODES;
use crate::addr::VirtRange;

/// State of a space after its setup: it never changes, so it is read without a lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) region: VirtRange,
    /// Nodes in use: a power of two, at most [`NODES`].
    pub(super) nodes: usize,
    /// Pages that may wait for a purge in one node.
    pub(super) lazy_share: u64,
    /// Pages of RAM.
    pub(super) ram_pages: u64,
}
