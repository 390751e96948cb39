//! Reasons why the memory subsystem cannot start.
#![forbid(unsafe_code)]

use crate::addr::PhysRange;
use crate::mm::io::IoError;
use crate::mm::memblock::{DiscoverError, MemblockError};
use crate::mm::pgtable::PgtableError;
use crate::mm::slab::CreateError;
use crate::mm::vmalloc;
use crate::mm::zone::{self, RegistryError};
use core::fmt;

/// Error of [`bring_up`](super::bring_up()).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BringUpError {
    /// `MAIR_EL1` does not match the memory types of this crate's page tables: its value, and the value needed.
    Mair(u64, u64),
    /// `TCR_EL1` does not have TTBR1 with 48-bit addresses and 4 KiB pages: its value.
    Tcr(u64),
    /// `SCTLR_EL1` says that the MMU or the caches are off: its value.
    MmuOff(u64),
    /// Interrupts are not masked on the boot CPU.
    NotMasked,
    /// RAM at a place where its page descriptors would overlap other regions of the address map.
    LinearMap(PhysRange),
    /// The device tree's description of memory cannot be used.
    Discover(DiscoverError),
    /// Error in the list of memory.
    Memblock(MemblockError),
    /// Error of the page tables.
    Tables(PgtableError),
    /// Error of the page allocator.
    Pages(zone::SetupError),
    /// Error of the slab allocator.
    Slabs(CreateError),
    /// Error of the vmalloc region.
    Vmalloc(vmalloc::VmapSetupError),
    /// No free place for a shrinker.
    Registry(RegistryError),
    /// Error of device memory.
    Io(IoError),
}

impl fmt::Display for BringUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mair(found, wanted) => write!(f, "MAIR_EL1 is {found:#018x} and must be {wanted:#018x}"),
            Self::Tcr(found) => {
                write!(f, "TCR_EL1 is {found:#x}: TTBR1 must have 48-bit addresses (T1SZ 16) and 4 KiB pages (TG1 2)")
            }
            Self::MmuOff(found) => write!(f, "SCTLR_EL1 is {found:#x}: MMU and caches must be on"),
            Self::NotMasked => f.write_str("interrupts must be masked"),
            Self::LinearMap(range) => {
                write!(f, "linear_offset: RAM at {range} would lie in the regions of the address map")
            }
            Self::Discover(error) => error.fmt(f),
            Self::Memblock(error) => error.fmt(f),
            Self::Tables(error) => write!(f, "page tables: {error}"),
            Self::Pages(error) => write!(f, "page allocator: {error}"),
            Self::Slabs(error) => write!(f, "slab allocator: {error}"),
            Self::Vmalloc(error) => write!(f, "vmalloc: {error}"),
            Self::Registry(error) => error.fmt(f),
            Self::Io(error) => write!(f, "device memory: {error}"),
        }
    }
}

impl core::error::Error for BringUpError {}

macro_rules! from {
    ($($error:ty => $variant:ident,)*) => {
        $(impl From<$error> for BringUpError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from! {
    DiscoverError => Discover,
    MemblockError => Memblock,
    PgtableError => Tables,
    zone::SetupError => Pages,
    CreateError => Slabs,
    vmalloc::VmapSetupError => Vmalloc,
    RegistryError => Registry,
    IoError => Io,
}
