//! Reasons why a request for an area, or its free, was refused.
#![forbid(unsafe_code)]

use super::{AreaInfo, VmFlags};
use crate::addr::{VirtAddr, VirtRange};
use crate::hal::prot::Prot;
use crate::mm::pgtable::PgtableError;
use crate::mm::zone::{AllocError, FreeError};
use core::fmt;

/// Reason why an area was not allocated or not freed. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AreaError {
    /// The size is 0.
    Empty,
    /// The size, rounded up to pages and with its guard, is larger than any address range.
    TooLarge(u64),
    /// The alignment is not a power of two.
    BadAlignment(u64),
    /// No part of the requested address range lies in this space.
    OutsideSpace,
    /// No gap of that size and alignment is left, after a purge too.
    Exhausted,
    /// No memory for the area's descriptor.
    NoDescriptor,
    /// The space has not been set up yet.
    NotReady,
    /// The space has been set up: areas can no longer be placed by hand.
    AlreadyReady,
    /// No room for another area before the space is set up.
    TooManyEarly,
    /// It overlaps another early area.
    Overlap(VirtRange),
    /// The address is in no area.
    NoArea(VirtAddr),
    /// The address is inside an area, not its start.
    NotTheStart(VirtAddr, AreaInfo),
    /// The area is under construction, and its builder may not free it yet.
    Uninitialized(AreaInfo),
    /// This call may not free the area: a mapping passed to `vfree`, for example.
    WrongKind(AreaInfo),
}

impl fmt::Display for AreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an area of no bytes"),
            Self::TooLarge(size) => write!(f, "{size:#x} bytes are more than any address range"),
            Self::BadAlignment(align) => write!(f, "an alignment of {align:#x}, which is no power of two"),
            Self::OutsideSpace => f.write_str("addresses outside the space"),
            Self::Exhausted => f.write_str("no gap of that size and alignment"),
            Self::NoDescriptor => f.write_str("no memory for an area's descriptor"),
            Self::NotReady => f.write_str("the address space has not been set up"),
            Self::AlreadyReady => f.write_str("the address space has been set up already"),
            Self::TooManyEarly => f.write_str("too many areas before the address space is set up"),
            Self::Overlap(range) => write!(f, "another early area is at {range}"),
            Self::NoArea(addr) => write!(f, "{addr} is in no area"),
            Self::NotTheStart(addr, area) => write!(f, "{addr} is not the start but inside of the area {area}"),
            Self::Uninitialized(area) => write!(f, "the area {area} is still being built"),
            Self::WrongKind(area) => write!(f, "the area {area} is another kind of area:{}", area.flags),
        }
    }
}

impl core::error::Error for AreaError {}

/// Reason why a space could not be set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VmapSetupError {
    /// It was set up before.
    Twice,
    /// The region is empty or not whole pages.
    BadRegion(VirtRange),
    /// An early area lies outside the region.
    EarlyOutside(VirtRange),
    /// No memory for a descriptor.
    NoDescriptor,
    /// Too many others are registered with the reclaimer.
    Unregistered,
}

impl fmt::Display for VmapSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice => f.write_str("the address space was set up before"),
            Self::BadRegion(range) => write!(f, "{range} is no region of whole pages"),
            Self::EarlyOutside(range) => write!(f, "the early area {range} lies outside the region"),
            Self::NoDescriptor => f.write_str("no memory for an area's descriptor"),
            Self::Unregistered => f.write_str("too many others are registered with the reclaimer"),
        }
    }
}

impl core::error::Error for VmapSetupError {}

/// Reason why nothing was mapped or unmapped. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VmallocError {
    /// The size, or the number of pages, is 0.
    Empty,
    /// More bytes than there is RAM.
    TooLarge(u64),
    /// Flags that record the call that made an area, or that no caller may set.
    Flags(VmFlags),
    /// RAM mapped for execution, for user space, or with another memory type than its linear alias.
    Protection(Prot),
    /// The area is, or was, mapped otherwise than writable: its bytes cannot be changed or moved.
    NotWritable(AreaInfo),
    /// Error of the area.
    Area(AreaError),
    /// Error of allocating pages for it.
    Pages(AllocError),
    /// Error of the tables.
    Tables(PgtableError),
    /// A page that the caller may not map, or give to an area.
    BadPage(FreeError),
    /// No mapping of this number of pages starts there.
    NotMapped(VirtAddr, usize),
}

impl From<AreaError> for VmallocError {
    fn from(error: AreaError) -> Self {
        Self::Area(error)
    }
}

impl fmt::Display for VmallocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a mapping of nothing"),
            Self::TooLarge(size) => write!(f, "{size:#x} bytes are more than there is RAM"),
            Self::Flags(flags) => write!(f, "flags that no caller may set: {:#x}", flags.bits()),
            Self::Protection(prot) => write!(f, "RAM cannot be mapped so: {prot:?}"),
            Self::NotWritable(area) => write!(f, "the area {area} is not writable"),
            Self::Area(error) => error.fmt(f),
            Self::Pages(error) => error.fmt(f),
            Self::Tables(error) => error.fmt(f),
            Self::NotMapped(addr, pages) => write!(f, "no mapping of {pages} pages starts at {addr}"),
            Self::BadPage(error) => write!(f, "a page that cannot be mapped: {error}"),
        }
    }
}

impl core::error::Error for VmallocError {}
