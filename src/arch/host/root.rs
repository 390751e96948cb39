//! The root of a walk.

use crate::addr::PhysAddr;
use crate::hal::mmu::Asid;

/// A root that a TTBR holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Root {
    pub(super) table: PhysAddr,
    /// Tag of entries that are not global; `None` for TTBR1, whose entries all are.
    pub(super) asid: Option<Asid>,
}
