//! Reasons why a pool refused a call, and the misuse that it met.
#![forbid(unsafe_code)]

use crate::addr::{Order, VirtAddr};
use crate::gfp::GfpError;
use crate::mm::slab::{CreateError, Misuse, SlabAllocError};
use crate::mm::zone::{FreeError, SleepsInAtomic};
use core::fmt;

/// Reason why there is no element. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolEmpty {
    /// [`Gfp::ZERO`](crate::gfp::Gfp::ZERO): an element of the reserve holds anything.
    Zero,
    /// The flags contradict each other.
    Flags(GfpError),
    /// Backing and reserve have none, and the caller may not wait.
    Empty,
    /// Backing and reserve are empty, and no CPU is left that could free an element.
    WouldNeverWake,
}

impl fmt::Display for PoolEmpty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("ZERO for elements of a memory pool"),
            Self::Flags(error) => write!(f, "contradictory flags: {error}"),
            Self::Empty => f.write_str("the memory pool is empty, and the caller may not wait"),
            Self::WouldNeverWake => {
                f.write_str("the memory pool is empty, and nobody is left who could free an element")
            }
        }
    }
}

impl core::error::Error for PoolEmpty {}

/// Reason why a pool was not made. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolCreateError {
    /// A pool without elements promises nothing.
    NoElements,
    /// An element of no bytes, or larger than the largest block.
    Size,
    /// The backing, or the list of the reserve, has no memory.
    OutOfMemory,
    /// The pool's own error.
    Cache(CreateError),
    /// Called where sleeping is not allowed.
    Atomic(SleepsInAtomic),
}

impl fmt::Display for PoolCreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoElements => f.write_str("a memory pool without elements"),
            Self::Size => f.write_str("no element of a memory pool has this size"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Cache(error) => error.fmt(f),
            Self::Atomic(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PoolCreateError {}

impl From<SlabAllocError> for PoolCreateError {
    fn from(_: SlabAllocError) -> Self {
        Self::OutOfMemory
    }
}

/// Reason why a pool kept its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolResizeError {
    /// A pool without elements promises nothing.
    NoElements,
    /// The list of the reserve cannot grow.
    OutOfMemory,
    /// Called where sleeping is not allowed.
    Atomic(SleepsInAtomic),
}

impl fmt::Display for PoolResizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoElements => f.write_str("a memory pool without elements"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Atomic(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PoolResizeError {}

/// Reason why a pool stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolDestroyError {
    /// Elements are in use.
    InUse {
        /// Their number, as far as the pool knows: in the checking build all, otherwise those that the reserve lacks.
        missing: u32,
    },
    /// Called where sleeping is not allowed.
    Atomic(SleepsInAtomic),
}

impl fmt::Display for PoolDestroyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { missing } => write!(f, "{missing} elements of the memory pool are missing"),
            Self::Atomic(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PoolDestroyError {}

/// Reason why a pointer is not an element in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NotElement {
    /// No object, or a free one, or one of another cache.
    Object(Misuse),
    /// An allocation that is too small.
    Small {
        /// Bytes that it has.
        usable: usize,
        /// Bytes of an element.
        size: usize,
    },
    /// No block of pages, or a free one.
    Pages(FreeError),
    /// A block of another order.
    Order {
        /// Its order.
        block: Order,
        /// The error of the elements.
        element: Order,
    },
}

impl fmt::Display for NotElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(misuse) => misuse.fmt(f),
            Self::Small { usable, size } => write!(f, "it has {usable} bytes, and an element {size}"),
            Self::Pages(error) => error.fmt(f),
            Self::Order { block, element } => {
                write!(f, "it is a block of order {}, and an element of order {}", block.get(), element.get())
            }
        }
    }
}

/// Reason why an element was not freed. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NotFreed {
    /// It is in the reserve: it was freed already.
    InReserve(VirtAddr),
    /// It is no element of this pool.
    Foreign {
        /// The pointer.
        at: VirtAddr,
        /// Reason for it.
        why: NotElement,
    },
    /// The pool is no more.
    Destroyed(VirtAddr),
}

impl fmt::Display for NotFreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InReserve(at) => write!(f, "element freed twice: {at} is in the pool's reserve"),
            Self::Foreign { at, why } => write!(f, "{at} is no element of the pool: {why}"),
            Self::Destroyed(at) => write!(f, "element freed to a destroyed pool: {at}"),
        }
    }
}

impl core::error::Error for NotFreed {}
