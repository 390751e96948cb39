//! Reasons why a memblock call was refused, and the invariant that a check found broken.
#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, PhysRange};
use core::fmt;

/// Reason why a memblock call was refused. Nothing has changed, except that a list may have grown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MemblockError {
    /// The size is 0.
    ZeroSize,
    /// The alignment is zero or not a power of two.
    BadAlignment {
        /// The alignment requested.
        align: u64,
    },
    /// The range starts at or above [`PHYS_SIZE_MAX`](crate::addr::PHYS_SIZE_MAX), where there can be no memory.
    OutsidePhysicalSpace {
        /// Start of the range.
        base: PhysAddr,
    },
    /// No free range within the limits holds the request.
    OutOfMemory {
        /// Bytes requested.
        size: u64,
        /// Their alignment.
        align: u64,
    },
    /// All slots of a list are in use, and of those that were lent; and [`allow_resize`](super::Memblock::allow_resize)
    /// has not been called.
    ListFull {
        /// `memory` or `reserved`.
        list: &'static str,
        /// Number of slots.
        slots: usize,
    },
    /// A list has to move and no free range holds its array.
    NoRoomForList {
        /// `memory` or `reserved`.
        list: &'static str,
        /// Bytes of the array.
        size: u64,
    },
    /// The range was chosen, but the [`BootMemory`](crate::hal::BootMemory) does not reach it: it is not mapped yet.
    /// Lower the limit ([`set_limit`](super::Memblock::set_limit)), or take the raw variant.
    Unreachable {
        /// The range.
        range: PhysRange,
    },
    /// The range holds an array of the memblock itself.
    HoldsList {
        /// Place of the array.
        storage: PhysRange,
    },
    /// No byte of memory would be left to use.
    NoMemory,
    /// The memory has been handed over; the page allocator is the one to ask.
    Retired,
}

impl fmt::Display for MemblockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("memblock: allocation of 0 bytes"),
            Self::BadAlignment { align } => write!(f, "memblock: alignment {align:#x} is not a power of two"),
            Self::OutsidePhysicalSpace { base } => {
                write!(f, "memblock: {base:#x} lies outside the physical address space")
            }
            Self::OutOfMemory { size, align } => {
                write!(f, "memblock: no free range for {size:#x} bytes aligned to {align:#x}")
            }
            Self::ListFull { list, slots } => {
                write!(f, "memblock: all {slots} slots of the {list} list are in use, and it may not grow yet")
            }
            Self::NoRoomForList { list, size } => {
                write!(f, "memblock: no free range for {size:#x} bytes of the {list} list")
            }
            Self::Unreachable { range } => write!(f, "memblock: {range} is not mapped yet"),
            Self::HoldsList { storage } => write!(f, "memblock: {storage} holds a region list"),
            Self::NoMemory => f.write_str("memblock: no usable memory"),
            Self::Retired => f.write_str("memblock: called after the hand-over"),
        }
    }
}

impl core::error::Error for MemblockError {}

/// An invariant that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemblockBroken {
    /// Which one, by its tag.
    pub tag: &'static str,
    /// `memory` or `reserved`.
    pub list: &'static str,
    /// The slot at which it was seen.
    pub index: usize,
}

impl fmt::Display for MemblockBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {}[{:#x}]", self.tag, self.list, self.index)
    }
}

impl core::error::Error for MemblockBroken {}
