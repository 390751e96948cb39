//! Reason why memory was not mapped for a device, not unmapped, not allocated or not freed.
#![forbid(unsafe_code)]

use super::Misuse;
use crate::addr::{DmaAddr, PhysAddr, PhysRange, VirtAddr};
use crate::mm::vmalloc::SetMemoryError;
use crate::mm::zone::{AllocError, ContigError, FreeError};
use core::fmt;

/// Reason why a call of the DMA interface was refused. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DmaError {
    /// No bytes.
    Empty,
    /// The end of the range wraps.
    Wraps(PhysAddr, u64),
    /// The address is not in the linear map: a stack, vmalloc, the kernel image, or nothing.
    NotLinear(VirtAddr),
    /// No page of RAM has this number, or not so many bytes.
    NotInPage(u64, u64),
    /// No `dma-ranges` of the device covers the memory, or its mask is too narrow, and it cannot be bounced.
    Unreachable(PhysRange),
    /// The device would have to bounce, and there are no slots: none were set up.
    NoBounceSlots,
    /// The device would have to bounce, and so many bytes in a row are not free now.
    BounceFull(u64),
    /// More bytes than are ever bounced as one, [`MAX_BOUNCE`](super::MAX_BOUNCE).
    BounceTooLarge(u64),
    /// The device cannot reach the bounce slots themselves.
    BounceUnreachable(PhysRange),
    /// The device finds no memory at this address.
    NoWindow(DmaAddr),
    /// A bounce slot that is not in use, or not so many bytes of it.
    NotBounced(DmaAddr, u64),
    /// The mask leaves no RAM that the device reaches: the old one stays.
    MaskTooNarrow(u64),
    /// A window of no bytes, or one whose end wraps.
    BadWindow(DmaAddr),
    /// More windows than a device can have, [`MAX_WINDOWS`](super::MAX_WINDOWS).
    TooManyWindows,
    /// No number of bytes that a segment can have, no mask of low bits.
    BadLimit(u64),
    /// RAM, where registers of a device were expected.
    Ram(PhysRange),
    /// More bytes than can be had in one piece.
    TooLarge(u64),
    /// No memory.
    Alloc(AllocError),
    /// No memory in one piece.
    Contiguous(ContigError),
    /// The device's pool has not so many bytes in a row now, or the device does not reach it: it has no other memory.
    PoolFull(u64),
    /// A pool that is not whole pages.
    BadPool(PhysRange),
    /// As many pools as there can be: [`MAX_DEVICE_POOLS`](super::MAX_DEVICE_POOLS), or
    /// [`MAX_RESTRICTED_POOLS`](super::MAX_RESTRICTED_POOLS).
    TooManyPools,
    /// The device has a restricted pool, and no cached memory but its bounce slots.
    Restricted,
    /// As many reserves of uncached memory as there can be are full.
    NoReserve,
    /// No memory to note what is there.
    NoRecords,
    /// It is set up already.
    AlreadySetUp,
    /// A free of memory that was not allocated, or not as a whole, in this size or for this bus address.
    NotAllocated(VirtAddr, DmaAddr, u64),
    /// The checks have found something wrong, and reported it.
    Misused(Misuse),
    /// The page allocator does not take it back.
    Free(FreeError),
    /// The linear map could not be changed.
    Alias(SetMemoryError),
}

impl From<AllocError> for DmaError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

impl From<FreeError> for DmaError {
    fn from(error: FreeError) -> Self {
        Self::Free(error)
    }
}

impl From<SetMemoryError> for DmaError {
    fn from(error: SetMemoryError) -> Self {
        Self::Alias(error)
    }
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a mapping of nothing"),
            Self::Wraps(start, size) => write!(f, "{size:#x} bytes from {start} on wrap"),
            Self::NotLinear(addr) => write!(f, "{addr} is not in the linear map"),
            Self::NotInPage(offset, size) => write!(f, "{size:#x} bytes from {offset:#x} on are not in the block"),
            Self::Unreachable(range) => write!(f, "the device does not reach {range}"),
            Self::NoBounceSlots => f.write_str("there are no bounce slots"),
            Self::BounceFull(size) => write!(f, "no bounce slots are free for {size:#x} bytes"),
            Self::BounceTooLarge(size) => write!(f, "{size:#x} bytes are too many to bounce"),
            Self::BounceUnreachable(range) => write!(f, "the device does not reach the bounce slots at {range}"),
            Self::NoWindow(bus) => write!(f, "the device finds no memory at {bus}"),
            Self::NotBounced(bus, size) => write!(f, "{size:#x} bytes at {bus} are no bounce slots in use"),
            Self::MaskTooNarrow(mask) => write!(f, "with the mask {mask:#x} the device reaches no RAM"),
            Self::BadWindow(bus) => write!(f, "the window at {bus} is empty or wraps"),
            Self::TooManyWindows => f.write_str("the device has too many windows"),
            Self::BadLimit(limit) => write!(f, "{limit:#x} is no limit that a device can have"),
            Self::Ram(range) => write!(f, "there is RAM in {range}"),
            Self::TooLarge(size) => write!(f, "{size:#x} bytes are not had in one piece"),
            Self::Alloc(error) => error.fmt(f),
            Self::Contiguous(error) => error.fmt(f),
            Self::PoolFull(size) => write!(f, "the device's pool has not {size:#x} bytes in one piece"),
            Self::BadPool(range) => write!(f, "a pool at {range} is not whole pages"),
            Self::TooManyPools => f.write_str("there are as many pools as there can be"),
            Self::Restricted => f.write_str("the device is restricted to its pool"),
            Self::NoReserve => f.write_str("all reserves of uncached memory are full"),
            Self::NoRecords => f.write_str("no memory to note it"),
            Self::AlreadySetUp => f.write_str("it is set up already"),
            Self::NotAllocated(addr, bus, size) => write!(f, "{size:#x} bytes at {addr} ({bus}) are not allocated so"),
            Self::Misused(misuse) => misuse.fmt(f),
            Self::Free(error) => error.fmt(f),
            Self::Alias(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DmaError {}
