//! Reasons why device memory was not mapped, not unmapped, or not accessed.
#![forbid(unsafe_code)]

use super::{Mapping, ReservedRange};
use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::hal::io::Width;
use crate::hal::prot::MemoryType;
use crate::mm::pgtable::PgtableError;
use crate::mm::vmalloc::{AreaError, AreaInfo};
use core::fmt;

/// Reason why nothing was mapped or unmapped. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IoError {
    /// The size is 0.
    Empty,
    /// The end of the range wraps.
    Wraps(PhysAddr, u64),
    /// The range exceeds the CPU's physical addresses.
    BeyondPhysical(PhysRange, PhysAddr),
    /// RAM in the range: the kernel has it mapped already, as write-back memory.
    Ram(PhysRange),
    /// Some of these pages are `no-map`, and the call names no owner: see
    /// [`IoSpace::memory_region`](super::IoSpace::memory_region).
    NoMap(PhysRange, ReservedRange),
    /// The range is not inside the region that the call names.
    OutsideRegion(PhysRange, ReservedRange),
    /// A live mapping of some of the range has another memory type.
    Conflict(MemoryType, Mapping),
    /// `memremap` with a Device type.
    NotMemory(MemoryType),
    /// Executable device memory, or a mapping for user space.
    BadProt,
    /// The space has not been set up yet.
    NotReady,
    /// No memory to record the mapping.
    NoClaim,
    /// Error of the area.
    Area(AreaError),
    /// Error of the tables.
    Tables(PgtableError),
    /// The address lies in a mapping, and is not the one that was returned for it.
    NotThePointer(VirtAddr, AreaInfo),
}

impl From<AreaError> for IoError {
    fn from(error: AreaError) -> Self {
        Self::Area(error)
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a mapping of nothing"),
            Self::Wraps(start, size) => write!(f, "{size:#x} bytes from {start} on wrap"),
            Self::BeyondPhysical(range, end) => write!(f, "{range} goes beyond {end}, where physical addresses end"),
            Self::Ram(range) => write!(f, "there is RAM in {range}"),
            Self::NoMap(pages, region) => {
                write!(f, "{pages} touches {region}, which only a device maps whose memory-region names it")
            }
            Self::OutsideRegion(range, region) => write!(f, "{range} is not inside {region}"),
            Self::Conflict(wanted, other) => {
                write!(f, "{} for what is mapped otherwise: {other}", wanted.name())
            }
            Self::NotMemory(memory) => write!(f, "{} is no type of memory", memory.name()),
            Self::BadProt => f.write_str("device memory is neither executable nor for user space"),
            Self::NotReady => f.write_str("device memory cannot be mapped yet"),
            Self::NoClaim => f.write_str("no memory to note the mapping"),
            Self::Area(error) => error.fmt(f),
            Self::Tables(error) => error.fmt(f),
            Self::NotThePointer(addr, area) => {
                write!(f, "{addr} is not the address that mapping it returned, but lies in the area {area}")
            }
        }
    }
}

impl core::error::Error for IoError {}

/// Reason why an access was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AccessError {
    /// The access exceeds the region.
    Outside {
        /// Its offset in the region.
        offset: u64,
        /// Number of bytes requested.
        bytes: u64,
        /// Number of bytes of the region.
        size: u64,
    },
    /// The address is not a multiple of the access's width, which Device memory does not allow.
    Unaligned(VirtAddr, Width),
    /// The start of the region is not a multiple of the alignment that the registers need.
    Misplaced(VirtAddr, u64),
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { offset, bytes, size } => {
                write!(f, "{bytes} bytes at offset {offset:#x} of a region of {size:#x} bytes")
            }
            Self::Unaligned(addr, width) => write!(f, "an access of {} bytes to {addr}", width.bytes()),
            Self::Misplaced(addr, align) => write!(f, "registers at {addr}, which is no multiple of {align}"),
        }
    }
}

impl core::error::Error for AccessError {}
