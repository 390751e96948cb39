//! Reason why a page-table call was refused.

use crate::addr::VirtAddr;
use crate::hal::frame::NoFrame;
use crate::hal::prot::ProtError;
use core::fmt;

/// Reason why a page-table call was refused. The mappings are as before the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PgtableError {
    /// The range holds no byte.
    Empty,
    /// A start, an end or a physical address is not a multiple of the page size.
    Unaligned,
    /// The range leaves the half of the address space that these tables translate, or is not canonical.
    OutsideSpace,
    /// The physical memory ends beyond what an entry can hold.
    PhysOutOfRange,
    /// A user mapping in kernel tables, or a kernel or global mapping in user tables.
    WrongPrivilege,
    /// Something is mapped here already.
    Overlap(VirtAddr),
    /// Nothing is mapped here.
    NotMapped(VirtAddr),
    /// The edge of the range lies inside a block or a contiguous group; `carve` the range first.
    WouldSplit(VirtAddr),
    /// The change at this address needs break-before-make, which the policy rules out.
    NeedsBreak(VirtAddr),
    /// The policy asks for live changes of block size, and the CPUs cannot do them.
    BbmUnsupported,
    /// An entry at this address that this code did not write.
    Malformed(VirtAddr),
    /// No frame was left for a table.
    NoFrame,
    /// A protection that no mapping may have.
    Prot(ProtError),
}

impl From<NoFrame> for PgtableError {
    fn from(_: NoFrame) -> Self {
        Self::NoFrame
    }
}

impl From<ProtError> for PgtableError {
    fn from(error: ProtError) -> Self {
        Self::Prot(error)
    }
}

impl fmt::Display for PgtableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty range"),
            Self::Unaligned => f.write_str("address not a multiple of the page size"),
            Self::OutsideSpace => f.write_str("range outside the half of the address space that the tables translate"),
            Self::PhysOutOfRange => f.write_str("physical memory beyond what an entry can hold"),
            Self::WrongPrivilege => f.write_str("privilege or scope that these tables do not hold"),
            Self::Overlap(at) => write!(f, "{at:#x} is mapped already"),
            Self::NotMapped(at) => write!(f, "{at:#x} is not mapped"),
            Self::WouldSplit(at) => write!(f, "{at:#x} lies inside a block or contiguous group"),
            Self::NeedsBreak(at) => write!(f, "change at {at:#x} needs break-before-make"),
            Self::BbmUnsupported => f.write_str("the CPUs cannot change block sizes of live mappings"),
            Self::Malformed(at) => write!(f, "malformed entry at {at:#x}"),
            Self::NoFrame => f.write_str("no frame for a page table"),
            Self::Prot(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PgtableError {}
