//! Reason why a call on a map of areas was refused.
#![forbid(unsafe_code)]

use super::VmFlags;
use crate::addr::{UserAddr, UserRange};
use core::fmt;

/// Reason why a call was refused. The map is as it was then, but where the call's own documentation says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MapError {
    /// No bytes were asked for.
    Empty,
    /// An address or an offset that is no multiple of the page size.
    Unaligned(u64),
    /// More bytes than the address space has.
    TooLarge(u64),
    /// A range that is not inside the address space.
    OutsideSpace(UserAddr),
    /// A range to change that is not inside the address space.
    BadRange(UserAddr),
    /// An address below the lowest that may be mapped.
    BelowMinimum(UserAddr),
    /// No gap of that size is left.
    NoGap(u64),
    /// Something is mapped there already.
    Exists(UserRange),
    /// Nothing is mapped there.
    NotMapped(UserAddr),
    /// The range to move or to grow is not inside one area.
    NotOneArea(UserAddr),
    /// The area never grows.
    NotExpandable(UserRange),
    /// Source and destination overlap.
    Overlap(UserRange),
    /// Flags that do not belong together, or that the call does not know.
    BadFlags(VmFlags),
    /// Writable and executable at once.
    WriteExec,
    /// Access that the area may not have.
    Access(VmFlags),
    /// The area is sealed.
    Sealed(UserRange),
    /// The call does not apply to this kind of area.
    WrongKind(UserRange),
    /// More areas than a process may have.
    MapCount(u32),
    /// More pages than a process may map.
    AddressSpaceLimit(u64),
    /// More pages of data than a process may have.
    DataLimit(u64),
    /// A stack larger than a process may have.
    StackLimit(u64),
    /// A stack would come too close to the area below it.
    GuardGap(UserRange),
    /// More locked or pinned pages than a process may have.
    LockedLimit(u64),
    /// An offset that does not fit beside the size.
    OffsetTooLarge(u64),
    /// The call sleeps, and its caller may not, which has been reported.
    Atomic,
    /// No memory for an area's record, or for page tables.
    NoMemory,
    /// The file refused, with this error number of Linux.
    File(i32),
}

impl MapError {
    /// Linux's error number for it, positive (`include/uapi/asm-generic/errno.h`).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::BelowMinimum(_) | Self::Sealed(_) => 1, // EPERM
            Self::LockedLimit(_) | Self::Atomic => 11,    // EAGAIN
            Self::TooLarge(_)
            | Self::OutsideSpace(_)
            | Self::NoGap(_)
            | Self::NotMapped(_)
            | Self::MapCount(_)
            | Self::AddressSpaceLimit(_)
            | Self::DataLimit(_)
            | Self::StackLimit(_)
            | Self::GuardGap(_)
            | Self::NoMemory => 12, // ENOMEM
            Self::WriteExec | Self::Access(_) => 13,      // EACCES
            Self::NotOneArea(_) | Self::NotExpandable(_) => 14, // EFAULT
            Self::Exists(_) => 17,                        // EEXIST
            Self::Empty
            | Self::Unaligned(_)
            | Self::BadRange(_)
            | Self::Overlap(_)
            | Self::BadFlags(_)
            | Self::WrongKind(_) => 22, // EINVAL
            Self::OffsetTooLarge(_) => 75,                // EOVERFLOW
            Self::File(errno) => errno,
        }
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a range of no bytes"),
            Self::Unaligned(value) => write!(f, "{value:#x} is no multiple of the page size"),
            Self::TooLarge(size) => write!(f, "{size:#x} bytes are more than the address space has"),
            Self::OutsideSpace(addr) | Self::BadRange(addr) => {
                write!(f, "a range at {addr} that is not inside the address space")
            }
            Self::BelowMinimum(addr) => write!(f, "{addr} is below the lowest address that may be mapped"),
            Self::NoGap(size) => write!(f, "no gap of {size:#x} bytes"),
            Self::Exists(range) => write!(f, "{range} is mapped already"),
            Self::NotMapped(addr) => write!(f, "nothing is mapped at {addr}"),
            Self::NotOneArea(addr) => write!(f, "the range at {addr} is not inside one area"),
            Self::NotExpandable(range) => write!(f, "the area {range} never grows"),
            Self::Overlap(range) => write!(f, "the destination overlaps the source {range}"),
            Self::BadFlags(flags) => write!(f, "flags that do not go together: {:#x}", flags.bits()),
            Self::WriteExec => f.write_str("writable and executable memory (W^X)"),
            Self::Access(flags) => write!(f, "access that the area may not have: {flags}"),
            Self::Sealed(range) => write!(f, "the area {range} is sealed"),
            Self::WrongKind(range) => write!(f, "the call does not apply to the area {range}"),
            Self::MapCount(limit) => write!(f, "more than {limit} areas"),
            Self::AddressSpaceLimit(limit) => write!(f, "more than {limit} pages of addresses"),
            Self::DataLimit(limit) => write!(f, "more than {limit} pages of data"),
            Self::StackLimit(limit) => write!(f, "a stack of more than {limit} pages"),
            Self::Atomic => f.write_str("the call sleeps, and sleeping is not allowed here"),
            Self::GuardGap(below) => write!(f, "a stack too close to the area {below}"),
            Self::LockedLimit(limit) => write!(f, "more than {limit} locked pages"),
            Self::OffsetTooLarge(offset) => write!(f, "an offset of {offset:#x} bytes does not fit"),
            Self::NoMemory => f.write_str("no memory"),
            Self::File(errno) => write!(f, "the file refused: error {errno}"),
        }
    }
}

impl core::error::Error for MapError {}
