//! Reason why an access or a change was refused.

use crate::addr::{Pfn, VirtAddr};
use crate::hal::frame::NoFrame;
use crate::hal::prot::MemoryType;
use crate::mm::pgtable::PgtableError;
use crate::mm::zone::AllocError;
use core::fmt;

/// Reason why a fault cannot be resolved. The tables are as before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FaultError {
    /// The address is not in the area that was named for it.
    Outside(VirtAddr),
    /// The area does not permit the access (Linux: `SEGV_ACCERR`).
    Denied(VirtAddr),
    /// A guard page (Linux: `MADV_GUARD_INSTALL`).
    Guard(VirtAddr),
    /// No page, or no frame for a table.
    OutOfMemory,
    /// A frame that cannot be pinned: it has no descriptor, or has no owner that counts references (Linux: `EFAULT` for
    /// `VM_PFNMAP`).
    NotPinnable(VirtAddr),
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside(at) => write!(f, "{at:#x} is not in the area"),
            Self::Denied(at) => write!(f, "the area does not permit the access to {at:#x}"),
            Self::Guard(at) => write!(f, "guard page at {at:#x}"),
            Self::OutOfMemory => f.write_str("no memory for a page or a page table"),
            Self::NotPinnable(at) => write!(f, "the memory at {at:#x} cannot be pinned"),
        }
    }
}

impl core::error::Error for FaultError {}

impl From<AllocError> for FaultError {
    fn from(_: AllocError) -> Self {
        Self::OutOfMemory
    }
}

impl From<NoFrame> for FaultError {
    fn from(_: NoFrame) -> Self {
        Self::OutOfMemory
    }
}

/// Reason why a change of a range was refused. Unless the call says otherwise, nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PagesError {
    /// The range is empty, unaligned, or not in user space.
    Range(PgtableError),
    /// No page, or no frame for a table.
    OutOfMemory,
    /// Something is mapped here already.
    Occupied(VirtAddr),
    /// Two ranges that must be apart overlap.
    Overlap,
    /// Memory that is shared cannot be executable: another mapping could write it (promise 4).
    SharedExecutable,
    /// A page that is not the caller's to map: free, of another owner, or of user space.
    BadPage(Pfn),
    /// The frame has another memory type (promise 9).
    MemoryType(Pfn, MemoryType),
    /// A page of the range cannot be brought in.
    Fault(FaultError),
}

impl fmt::Display for PagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => error.fmt(f),
            Self::OutOfMemory => f.write_str("no memory for a page or a page table"),
            Self::Occupied(at) => write!(f, "{at:#x} is mapped already"),
            Self::Overlap => f.write_str("the ranges overlap"),
            Self::SharedExecutable => f.write_str("shared memory cannot be executable: W^X"),
            Self::BadPage(pfn) => write!(f, "{pfn:?} is not the caller's to map"),
            Self::MemoryType(pfn, memory) => write!(f, "{pfn:?} is mapped as {}", memory.name()),
            Self::Fault(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PagesError {}

impl From<PgtableError> for PagesError {
    fn from(error: PgtableError) -> Self {
        match error {
            PgtableError::NoFrame => Self::OutOfMemory,
            PgtableError::Overlap(at) => Self::Occupied(at),
            other => Self::Range(other),
        }
    }
}

impl From<NoFrame> for PagesError {
    fn from(_: NoFrame) -> Self {
        Self::OutOfMemory
    }
}

impl From<AllocError> for PagesError {
    fn from(_: AllocError) -> Self {
        Self::OutOfMemory
    }
}

impl From<FaultError> for PagesError {
    fn from(error: FaultError) -> Self {
        match error {
            FaultError::OutOfMemory => Self::OutOfMemory,
            other => Self::Fault(other),
        }
    }
}
