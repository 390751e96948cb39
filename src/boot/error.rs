//! Reasons why the machine cannot be booted.
#![forbid(unsafe_code)]

use super::device_tree::NoTree;
use crate::addr::PhysAddr;
use crate::fdt::Located;
use crate::global::BringUpError;
use crate::mm::memblock::{DiscoverError, MemblockError};
use crate::mm::pgtable::PgtableError;
use crate::mm::slab;
use crate::mm::zone::{FreeError, SetupError};
use core::fmt;

/// Reason why the machine cannot be booted up to the point where memory can be allocated.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum BootError {
    /// There is no device tree.
    NoTree(NoTree),
    /// The device tree breaks a rule of its format.
    Damaged(PhysAddr, Located<'static>),
    /// An error of memory discovery, and the tree that it came from.
    Discover(DiscoverError, &'static [u8]),
    /// Error of the boot-time memory manager.
    Memblock(MemblockError),
    /// Error of page tables.
    Tables(PgtableError),
    /// Error of pages, objects or areas.
    BringUp(BringUpError),
    /// Memory of the image that only booting needed, and that cannot be freed.
    Free(FreeError),
    /// No memory for a list.
    NoMemory(slab::SlabAllocError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTree(error) => error.fmt(f),
            Self::Damaged(at, error) => write!(f, "damaged device tree at {at}: {error}"),
            Self::Discover(DiscoverError::Tree(error), tree) => write!(f, "device tree: {}", error.located(tree)),
            Self::Discover(error, _) => error.fmt(f),
            Self::Memblock(error) => error.fmt(f),
            Self::Tables(error) => write!(f, "page tables: {error}"),
            Self::BringUp(error) => error.fmt(f),
            Self::Free(error) => write!(f, "page allocator: {error}"),
            Self::NoMemory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BootError {}

impl From<MemblockError> for BootError {
    fn from(error: MemblockError) -> Self {
        Self::Memblock(error)
    }
}

impl From<PgtableError> for BootError {
    fn from(error: PgtableError) -> Self {
        Self::Tables(error)
    }
}

impl From<BringUpError> for BootError {
    fn from(error: BringUpError) -> Self {
        Self::BringUp(error)
    }
}

impl From<SetupError> for BootError {
    fn from(error: SetupError) -> Self {
        Self::BringUp(BringUpError::Pages(error))
    }
}
