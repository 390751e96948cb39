//! A cache: the properties of its objects, and the places of the free ones.
#![forbid(unsafe_code)]

use super::super::SlabHal;
use super::super::object::{CacheId, Shape, SlabFlags};
use super::super::words::{ArrayOffset, CacheObjects, Divisor, SlabWord};
use super::node::Node;
use crate::sync::{OrderedLock, class};
use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::AtomicBool;

/// Initialises an object to its state between users: called once for each object of a new slab, with its first byte. The
/// object's memory is writable and as large as the cache's objects; its previous contents are undefined. Interrupts are as the
/// caller of the allocation has them; no lock is held.
pub type Constructor = fn(NonNull<u8>);

/// A cache of objects of one size.
pub struct Cache<H: SlabHal> {
    pub(in crate::mm::slab) name: &'static str,
    pub(in crate::mm::slab) id: CacheId,
    pub(in crate::mm::slab) shape: Shape,
    pub(in crate::mm::slab) constructor: Option<Constructor>,
    /// Offset of its array in each CPU's data.
    pub(in crate::mm::slab) array: ArrayOffset,
    /// Objects that an array holds; 0 if the cache has no arrays.
    pub(in crate::mm::slab) capacity: u32,
    /// Empty slabs are kept as long as the list of slabs with free objects is not longer than this.
    pub(in crate::mm::slab) min_partial: u32,
    /// Divisor by the size of its objects.
    pub(in crate::mm::slab) divisor: Divisor,
    /// Mixed into links.
    pub(in crate::mm::slab) secret: u64,
    /// Mixed into marks. Odd, as addresses of objects are not: no mark is one, or zero.
    pub(in crate::mm::slab) mark_secret: u64,
    pub(in crate::mm::slab) node: OrderedLock<Node, class::SlabNode, H::Relax>,
    /// Whether the CPUs' arrays are in use, unless the allocator is careful.
    pub(in crate::mm::slab) arrays_on: AtomicBool,
}

impl<H: SlabHal> fmt::Debug for Cache<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache {} of {} bytes", self.name, self.shape.object_size)
    }
}

impl<H: SlabHal> Cache<H> {
    /// Distance of [`Cache::array`] from the start of the record, for code that does not know the type.
    pub const ARRAY: usize = offset_of!(Self, array);

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes that its users asked for.
    #[must_use]
    pub const fn object_size(&self) -> u32 {
        self.shape.object_size
    }

    /// Bytes from one object to the next.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.shape.size
    }

    /// Its properties.
    #[must_use]
    pub const fn flags(&self) -> SlabFlags {
        self.shape.flags
    }

    /// Where a free object that is on its slab's list keeps its link, in bytes from the start of the object (Linux:
    /// `kmem_cache.offset`). For reports of damaged memory.
    #[must_use]
    pub const fn link_offset(&self) -> u32 {
        self.shape.link - self.shape.object
    }

    /// Offset of its array in each CPU's data.
    #[must_use]
    #[inline(always)]
    pub const fn array(&self) -> ArrayOffset {
        self.array
    }

    /// Word of page number `page` of each of its slabs.
    pub(in crate::mm::slab) const fn word(&self, page: u32) -> SlabWord {
        SlabWord::new(self.shape.size, self.shape.frees_on_slow_path(), page, self.array)
    }

    /// Constants by which a fast path recognises its objects.
    #[inline(always)]
    pub(in crate::mm::slab) const fn objects(&self) -> CacheObjects {
        CacheObjects { array: self.array, size: self.divisor, mark: self.shape.mark, secret: self.mark_secret }
    }

    /// Number of objects that move between an array and slabs at once.
    pub(in crate::mm::slab) const fn batch(&self) -> u32 {
        self.capacity.div_ceil(2)
    }

    /// Distance of a free object's mark from its start.
    #[must_use]
    pub const fn mark(&self) -> u32 {
        self.shape.mark
    }

    /// Whether a constructor makes its objects; they keep its contents while they are free.
    #[must_use]
    pub const fn is_constructed(&self) -> bool {
        self.shape.constructed
    }

    /// Secret by which its objects' marks differ from their addresses.
    #[must_use]
    pub const fn mark_secret(&self) -> u64 {
        self.mark_secret
    }

    /// Word of the first page of each of its slabs.
    #[must_use]
    pub const fn first_word(&self) -> SlabWord {
        self.word(0)
    }

    /// Whether calls are to be debugged: all of them take the slow path then.
    pub(in crate::mm::slab) const fn is_debugged(&self) -> bool {
        !self.shape.flags.intersection(SlabFlags::DEBUG).is_empty()
    }
}

/// Objects of `size` bytes that a CPU keeps in an array: many small ones, few large ones. One less than a power of two,
/// since the word below the entries is a word too.
pub(in crate::mm::slab) const fn array_capacity(size: u32) -> u32 {
    match size {
        0..=256 => 127,
        257..=512 => 63,
        513..=1024 => 31,
        1025..=4096 => 15,
        _ => 7,
    }
}

/// Full magazines that a depot holds: 64 KiB of objects, at most 8.
pub(in crate::mm::slab) const fn depot_magazines(size: u32) -> usize {
    match size {
        0..=64 => 8,
        65..=128 => 4,
        129..=2048 => 2,
        _ => 1,
    }
}

/// Slabs with free objects among which empty ones are kept (Linux: `set_min_partial`, log2 of the size in 5..=10).
pub(in crate::mm::slab) const fn min_partial(size: u32) -> u32 {
    let wanted = size.ilog2() / 2;
    if wanted < 5 {
        5
    } else if wanted > 10 {
        10
    } else {
        wanted
    }
}
