//! Mappings that CPUs rely on, and entries that they may have missed.
#![forbid(unsafe_code)]

use super::memory::Word;
use crate::addr::{PhysAddr, VirtAddr};
use rustc_hash::FxHashSet;

/// A page that every CPU may be using.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Promised {
    pub(super) addr: VirtAddr,
    pub(super) phys: PhysAddr,
}

/// The entries that a CPU may still take to be invalid, since it may have walked for its next instructions before they became
/// valid (Arm ARM D8.2.6); empty when it has synchronised.
pub(super) type Missed = FxHashSet<Word>;
