//! Errors of the slab allocator's calls, and the misuse that they report.
#![forbid(unsafe_code)]

use crate::addr::{Tag, VirtAddr};
use crate::gfp::{Gfp, GfpError};
use crate::mm::page::Kind;
use crate::mm::zone::{self, SleepsInAtomic};
use core::fmt;

/// Reason why memory could not be allocated. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SlabAllocError {
    /// No memory that the flags admit is left.
    OutOfMemory,
    /// The flags contradict each other.
    Flags(GfpError),
    /// A flag that only pages can honour: [`Gfp::HIGHMEM`], [`Gfp::DMA32`].
    Zone(Gfp),
    /// [`Gfp::ZERO`] for objects that a constructor has made.
    ZeroConstructed,
    /// The size is more than the largest block.
    TooLarge,
    /// The number of elements times their size does not fit.
    Overflow,
    /// The pointer to be resized is no allocation.
    NotAllocated(VirtAddr),
    /// There is no slab allocator yet.
    NotReady,
}

impl fmt::Display for SlabAllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Flags(error) => write!(f, "contradictory flags: {error}"),
            Self::Zone(flag) => write!(f, "{flag} is for pages alone"),
            Self::ZeroConstructed => f.write_str("ZERO for objects with a constructor"),
            Self::TooLarge => f.write_str("larger than the largest block"),
            Self::Overflow => f.write_str("the size overflows"),
            Self::NotAllocated(at) => write!(f, "{at} is no allocation"),
            Self::NotReady => f.write_str("no slab allocator yet"),
        }
    }
}

impl core::error::Error for SlabAllocError {}

impl From<zone::AllocError> for SlabAllocError {
    fn from(error: zone::AllocError) -> Self {
        match error {
            zone::AllocError::Flags(error) => Self::Flags(error),
            zone::AllocError::TooLarge => Self::TooLarge,
            zone::AllocError::NotReady => Self::NotReady,
            _ => Self::OutOfMemory,
        }
    }
}

/// Error in a pointer that is to be freed. Nothing has changed then, except that the object of a double free may be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Misuse {
    /// The address is outside the linear map: a stack, the image, a vmalloc area, user space.
    NotLinear(VirtAddr),
    /// There is no RAM at the address.
    NoMemory(VirtAddr),
    /// The page is not the slab allocator's.
    Foreign {
        /// The pointer.
        at: VirtAddr,
        /// Use of the page.
        kind: Kind,
    },
    /// The slab has no object that starts there.
    Misaligned {
        /// The pointer.
        at: VirtAddr,
        /// Its cache.
        cache: &'static str,
        /// The object that holds the byte, or the one before it.
        object: VirtAddr,
    },
    /// The object is free already.
    DoubleFree {
        /// The pointer.
        at: VirtAddr,
        /// Its cache.
        cache: &'static str,
    },
    /// The pointer's memory tag is not the object's: it was freed, and may have a new owner since.
    Stale {
        /// The pointer.
        at: VirtAddr,
        /// Its cache.
        cache: &'static str,
        /// The object's tag.
        memory: Tag,
    },
    /// The object belongs to another cache.
    WrongCache {
        /// The pointer.
        at: VirtAddr,
        /// The cache that it was freed to.
        freed_to: &'static str,
        /// Its cache.
        cache: &'static str,
    },
    /// A block was freed with a size that is not its own: found in the checking build.
    WrongSize {
        /// The block.
        at: VirtAddr,
        /// The size that it was freed with.
        size: usize,
        /// The size that it has.
        usable: usize,
    },
    /// The slab's free list is damaged; the objects on it are lost.
    FreeList {
        /// The object with the bad link.
        at: VirtAddr,
        /// Its cache.
        cache: &'static str,
    },
    /// Debugging found bytes that differ from the expected ones.
    Overwritten {
        /// The object.
        object: VirtAddr,
        /// Its cache.
        cache: &'static str,
        /// Name of the expected contents.
        what: &'static str,
        /// The first wrong byte.
        at: VirtAddr,
        /// The byte after the last wrong one.
        end: VirtAddr,
        /// Value of the first wrong byte.
        found: u8,
        /// Its expected value.
        expected: u8,
    },
    /// The slab's free list is circular.
    Cycle {
        /// The object that the list reaches twice.
        at: VirtAddr,
        /// Its cache.
        cache: &'static str,
    },
    /// A slab's count is wrong.
    Count {
        /// Its first byte.
        slab: VirtAddr,
        /// Its cache.
        cache: &'static str,
        /// Name of the count.
        what: &'static str,
        /// The count.
        found: u16,
        /// The correct count.
        counted: u16,
    },
    /// A cache with objects in use was to be destroyed.
    Remaining {
        /// The cache.
        cache: &'static str,
        /// Their number.
        objects: u64,
        /// One of them.
        first: Option<VirtAddr>,
    },
}

impl Misuse {
    /// The cache that it is about, if any.
    #[must_use]
    pub const fn cache(&self) -> Option<&'static str> {
        match *self {
            Self::Misaligned { cache, .. }
            | Self::DoubleFree { cache, .. }
            | Self::Stale { cache, .. }
            | Self::WrongCache { cache, .. }
            | Self::FreeList { cache, .. }
            | Self::Overwritten { cache, .. }
            | Self::Cycle { cache, .. }
            | Self::Count { cache, .. }
            | Self::Remaining { cache, .. } => Some(cache),
            Self::NotLinear(_) | Self::NoMemory(_) | Self::Foreign { .. } | Self::WrongSize { .. } => None,
        }
    }

    /// The address that it is about: that of an object if there is one.
    #[must_use]
    pub const fn at(&self) -> Option<VirtAddr> {
        match *self {
            Self::NotLinear(at)
            | Self::NoMemory(at)
            | Self::Foreign { at, .. }
            | Self::Misaligned { at, .. }
            | Self::DoubleFree { at, .. }
            | Self::Stale { at, .. }
            | Self::WrongCache { at, .. }
            | Self::WrongSize { at, .. }
            | Self::FreeList { at, .. }
            | Self::Overwritten { object: at, .. }
            | Self::Cycle { at, .. }
            | Self::Count { slab: at, .. } => Some(at),
            Self::Remaining { first, .. } => first,
        }
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cache) = self.cache() {
            write!(f, "{cache}: ")?;
        }
        match self {
            Self::NotLinear(at) => write!(f, "invalid free: {at} is no address of the linear map"),
            Self::NoMemory(at) => write!(f, "invalid free: there is no RAM at {at}"),
            Self::Foreign { at, kind } => write!(f, "invalid free: {at} lies in a page that is {}", kind.name()),
            Self::Misaligned { at, object, .. } => {
                write!(f, "invalid free: {at} is not the start of an object; {object} is")
            }
            Self::DoubleFree { at, .. } => write!(f, "double free of {at}"),
            Self::Stale { at, memory, .. } => {
                write!(f, "invalid free: {at} is stale, with tag {} where the memory has {memory}", at.tag())
            }
            Self::WrongCache { at, freed_to, .. } => write!(f, "object {at} was freed to {freed_to}"),
            Self::WrongSize { at, size, usable } => {
                write!(f, "invalid free: {at} is freed as {size} bytes, and has {usable}")
            }
            Self::FreeList { at, .. } => write!(f, "free list damaged at {at}"),
            Self::Overwritten { object, what, at, .. } => write!(f, "{what} overwritten at {at}, object {object}"),
            Self::Cycle { at, .. } => write!(f, "free list leads in a circle at {at}"),
            Self::Count { slab, what, found, counted, .. } => {
                write!(f, "wrong {what} in slab {slab}: {found}, but there are {counted}")
            }
            Self::Remaining { objects, .. } => write!(f, "cannot be destroyed, objects in use: {objects}"),
        }
    }
}

impl core::error::Error for Misuse {}

/// Reason why a cache could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CreateError {
    /// An empty name, or one with blanks, which would make `slabinfo` unreadable.
    Name,
    /// Another cache has this name. A cache that serves several has the name of the first.
    Duplicate,
    /// The size is 0.
    Empty,
    /// The size is more than the largest slab.
    TooLarge,
    /// The alignment is not a power of two, or more than a page.
    Align,
    /// A flag that this allocator does not have.
    Unsupported,
    /// The maximum number of caches exists already.
    TooMany,
    /// No memory for the cache.
    OutOfMemory,
    /// There is no slab allocator yet.
    NotReady,
    /// Sleeping is not legal in the caller's context.
    Atomic(SleepsInAtomic),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "a cache needs a name without blanks",
            Self::Duplicate => "another cache has the name",
            Self::Empty => "objects without a size",
            Self::TooLarge => "objects larger than the largest slab",
            Self::Align => "an alignment that is no power of two, or more than a page",
            Self::Unsupported => "a flag that this allocator does not have",
            Self::TooMany => "too many caches",
            Self::OutOfMemory => "out of memory",
            Self::NotReady => "no slab allocator yet",
            Self::Atomic(error) => return error.fmt(f),
        })
    }
}

impl core::error::Error for CreateError {}

/// Reason why a cache was not destroyed. It stays unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DestroyError {
    /// It still has objects.
    InUse(InUse),
    /// Sleeping is not legal in the caller's context.
    Atomic(SleepsInAtomic),
    /// It belongs to another allocator.
    Foreign,
}

impl DestroyError {
    /// The objects in use, if they are the reason.
    #[must_use]
    pub const fn in_use(&self) -> Option<InUse> {
        match self {
            Self::InUse(left) => Some(*left),
            Self::Atomic(_) | Self::Foreign => None,
        }
    }
}

impl fmt::Display for DestroyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(left) => left.fmt(f),
            Self::Atomic(error) => error.fmt(f),
            Self::Foreign => f.write_str("a cache of another allocator"),
        }
    }
}

impl core::error::Error for DestroyError {}

/// Reason why a cache stays: it still has objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InUse {
    /// Their number.
    pub objects: u64,
    /// One of them.
    pub first: Option<VirtAddr>,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects remain", self.objects)?;
        match self.first {
            Some(first) => write!(f, ", one of them at {first}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for InUse {}

/// An invariant that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlabBroken {
    /// Its tag.
    pub tag: &'static str,
    /// The cache.
    pub cache: &'static str,
    /// The place.
    pub at: Option<VirtAddr>,
    /// The rule that is broken.
    pub what: &'static str,
}

impl fmt::Display for SlabBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} in {}", self.tag, self.what, self.cache)?;
        match self.at {
            Some(at) => write!(f, " at {at}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for SlabBroken {}
