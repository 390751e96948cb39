//! Reasons why per-CPU memory was not allocated, or not freed.
#![forbid(unsafe_code)]

use crate::addr::VirtAddr;
use crate::gfp::GfpError;
use crate::mm::pgtable::PgtableError;
use crate::mm::vmalloc::AreaError;
use core::fmt;

/// Reason why nothing was allocated or freed. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PerCpuError {
    /// No bytes.
    Empty,
    /// More than a unit has.
    TooLarge(u64),
    /// The alignment is no power of two, or more than a page.
    BadAlignment(u64),
    /// The flags contradict each other.
    Flags(GfpError),
    /// No pages.
    OutOfMemory,
    /// No addresses for a chunk.
    Area(AreaError),
    /// No tables.
    Tables(PgtableError),
    /// No allocation begins there: freed already, the inside of one, or no per-CPU memory at all.
    NotAllocated(VirtAddr),
}

impl fmt::Display for PerCpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("per-CPU memory of no bytes"),
            Self::TooLarge(size) => write!(f, "{size} bytes of per-CPU memory are more than a unit has"),
            Self::BadAlignment(align) => write!(f, "per-CPU memory cannot be aligned to {align:#x}"),
            Self::Flags(error) => error.fmt(f),
            Self::OutOfMemory => f.write_str("no pages for per-CPU memory"),
            Self::Area(error) => error.fmt(f),
            Self::Tables(error) => error.fmt(f),
            Self::NotAllocated(addr) => write!(f, "no per-CPU memory begins at {addr}"),
        }
    }
}

impl core::error::Error for PerCpuError {}

impl From<AreaError> for PerCpuError {
    fn from(error: AreaError) -> Self {
        Self::Area(error)
    }
}
