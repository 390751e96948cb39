//! Memory tags, as an allocator asks a machine for them. A machine without them, or with tags switched off, has no value
//! of this trait at all, so that every question is one branch.

use crate::addr::{PhysAddr, PhysRange, Tag, TagSet, VirtAddr};

/// Memory that was allocated, or freed.
#[derive(Clone, Copy, Debug)]
pub struct TagEvent {
    /// The pointer, with its tag.
    pub pointer: VirtAddr,
    /// Bytes behind it that its owner may use.
    pub bytes: u64,
    /// Return address of the caller, or zero.
    pub caller: VirtAddr,
    /// Whether it was freed.
    pub freed: bool,
}

/// Tags of memory.
///
/// All ranges and addresses are those of RAM that the page allocator manages, and the caller that sets tags owns the memory
/// alone. Any context.
pub trait TagMemory: Sync {
    /// Gives every granule that lies in `range`, a multiple of the granule at both ends, this tag. Cost: O(bytes).
    fn set(&self, range: PhysRange, tag: Tag);

    /// The tag of the granule at an address.
    fn get(&self, at: PhysAddr) -> Tag;

    /// A random one of `choices`, which are not empty.
    fn random(&self, choices: TagSet) -> Tag;

    /// Every CPU sees the tags set before, ahead of tags read afterwards.
    fn fence(&self);

    /// Records the callers that allocate and free memory, for reports.
    fn note(&self, _event: &TagEvent) {}
}
