//! Reason why a call of the page allocator was refused, and which invariant a check found broken.
#![forbid(unsafe_code)]

use crate::addr::{Order, Pfn, PhysAddr, Tag, VirtAddr};
use crate::gfp::GfpError;
use crate::hal::prot::MemoryType;
#[cfg(doc)]
use crate::mm::page::PageState;
use crate::mm::page::{Kind, Page};
use core::fmt;

/// Reason why pages could not be allocated. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AllocError {
    /// No zone that the flags admit has a block to spare.
    OutOfMemory,
    /// The flags contradict each other.
    Flags(GfpError),
    /// No pages were asked for.
    Empty,
    /// More than the largest block was asked for.
    TooLarge,
    /// A compound page of one page, or one whose pages shall be separate.
    Compound,
    /// There is no page allocator yet.
    NotReady,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Flags(error) => write!(f, "contradictory flags: {error}"),
            Self::Empty => f.write_str("allocation of no pages"),
            Self::TooLarge => f.write_str("larger than the largest block"),
            Self::Compound => f.write_str("a compound page cannot be taken apart"),
            Self::NotReady => f.write_str("no page allocator yet"),
        }
    }
}

impl core::error::Error for AllocError {}

impl From<GfpError> for AllocError {
    fn from(error: GfpError) -> Self {
        Self::Flags(error)
    }
}

/// Reason why pages were not freed, or a reference not taken. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FreeError {
    /// The address lies outside the linear map.
    NotLinear(VirtAddr),
    /// The address is not the first of a page.
    Unaligned(VirtAddr),
    /// The pointer's tag is not the memory's: it was freed, or is somebody else's since.
    Stale {
        /// The pointer.
        at: VirtAddr,
        /// The memory's tag.
        memory: Tag,
    },
    /// The frame has no descriptor: it is no RAM, or RAM that the kernel may not touch.
    NoDescriptor(PhysAddr),
    /// The page has a descriptor and is a hole in memory.
    Hole(Pfn),
    /// The page was never the allocator's: firmware, kernel image, boot-time allocations.
    Reserved(Pfn),
    /// The block is free already.
    DoubleFree(Pfn),
    /// The page lies inside an allocated block.
    InsideBlock {
        /// The page.
        page: Pfn,
        /// The first page of the block.
        head: Pfn,
    },
    /// The block was allocated with another order.
    WrongOrder {
        /// The page.
        page: Pfn,
        /// The block's order.
        allocated: Order,
        /// Order in the call.
        freed: Order,
    },
    /// No block of this order starts at such a page.
    Misaligned {
        /// The page.
        page: Pfn,
        /// Order in the call.
        order: Order,
    },
    /// The block belongs to somebody, who has not let go of it.
    Claimed {
        /// The page.
        page: Pfn,
        /// Its use.
        kind: Kind,
    },
    /// Areas still map pages of the block: `vunmap` or `vm_unmap_ram` comes first.
    Mapped(Pfn),
    /// Areas map pages of the block more often than can be counted ([`PageState::MAX_MAPPINGS`]).
    MappedTooOften(Pfn),
    /// The block is not mapped write-back; the code that changed that has to change it back first.
    MemoryType {
        /// The page.
        page: Pfn,
        /// The type that its mappings have.
        memory: MemoryType,
    },
    /// The block lies outside the zone that its descriptor names: somebody wrote to the descriptor.
    ForeignZone(Pfn),
    /// No contiguous allocation of so many pages starts there.
    NotContiguous {
        /// The first page, as the caller gave it.
        page: Pfn,
        /// How many pages the caller named.
        pages: u32,
    },
    /// The descriptor holds what nobody wrote there on purpose.
    Corrupt(Pfn),
    /// There is no page allocator yet.
    NotReady,
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinear(at) => write!(f, "{at} is no address of the linear map"),
            Self::Unaligned(at) => write!(f, "{at} is not the start of a page"),
            Self::Stale { at, memory } => write!(f, "{at} is stale: the memory has the tag {memory}"),
            Self::NoDescriptor(at) => write!(f, "there is no RAM at {at}"),
            Self::Hole(page) => write!(f, "{page:?} is a hole in memory"),
            Self::Reserved(page) => write!(f, "{page:?} is reserved"),
            Self::DoubleFree(page) => write!(f, "{page:?} is free already"),
            Self::InsideBlock { page, head } => write!(f, "{page:?} lies inside the block at {head:?}"),
            Self::WrongOrder { page, allocated, freed } => {
                write!(f, "{page:?} was allocated with order {} and freed with {}", allocated.get(), freed.get())
            }
            Self::Misaligned { page, order } => write!(f, "no block of order {} starts at {page:?}", order.get()),
            Self::Claimed { page, kind } => write!(f, "{page:?} is in use: {}", kind.name()),
            Self::MappedTooOften(page) => write!(f, "{page:?} is mapped by more areas than can be counted"),
            Self::Mapped(page) => write!(f, "{page:?} is still mapped by an area"),
            Self::MemoryType { page, memory } => write!(f, "{page:?} is still mapped {}", memory.name()),
            Self::ForeignZone(page) => write!(f, "{page:?} belongs to another zone"),
            Self::NotContiguous { page, pages } => {
                write!(f, "no contiguous allocation of {pages} pages starts at {page:?}")
            }
            Self::Corrupt(page) => write!(f, "the descriptor of {page:?} is damaged"),
            Self::NotReady => f.write_str("no page allocator yet"),
        }
    }
}

impl core::error::Error for FreeError {}

/// Reason why a contiguous range could not be had. All pages are as before then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ContigError {
    /// No pages were asked for.
    Empty,
    /// There is no such range, or none that is free, or it leaves its zone.
    NoRange,
    /// A page of the range is in use.
    Busy(Pfn),
    /// A page block of the range reaches beyond the zone, or somebody else is about to take it.
    Isolated,
    /// The flags contradict each other.
    Flags(GfpError),
}

impl fmt::Display for ContigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a contiguous range of no pages"),
            Self::NoRange => f.write_str("no such contiguous range"),
            Self::Busy(page) => write!(f, "{page:?} is in use"),
            Self::Isolated => f.write_str("a page block that cannot be isolated"),
            Self::Flags(error) => write!(f, "contradictory flags: {error}"),
        }
    }
}

impl core::error::Error for ContigError {}

impl From<GfpError> for ContigError {
    fn from(error: GfpError) -> Self {
        Self::Flags(error)
    }
}

/// Reason why memory could not become a page allocator's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SetupError {
    /// The allocator has its memory already.
    Twice,
    /// There is no memory.
    NoMemory,
    /// Memory spans 16 TiB or more, which is what page numbers reach.
    SpanTooLarge,
    /// The descriptors do not cover the memory.
    NoDescriptor(Pfn),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice => f.write_str("the page allocator has its memory already"),
            Self::NoMemory => f.write_str("no memory for the page allocator"),
            Self::SpanTooLarge => f.write_str("memory spans 16 TiB or more"),
            Self::NoDescriptor(page) => write!(f, "{page:?} has no descriptor"),
        }
    }
}

impl core::error::Error for SetupError {}

/// An invariant that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneBroken {
    /// Which one, by its tag.
    pub tag: &'static str,
    /// The page at which it was seen, if there is one.
    pub page: Option<Page>,
    /// The finding, in words.
    pub what: &'static str,
}

impl fmt::Display for ZoneBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken: {}", self.tag, self.what)?;
        self.page.map_or(Ok(()), |page| write!(f, " at {page:?}"))
    }
}

impl core::error::Error for ZoneBroken {}
