//! The two words of a slab in its page descriptors, as values: the [`SlabWord`] that a free reads, and the [`Book`] that
//! the node's lock protects.
//!
//! ```text
//!  descriptor.aux of every page of a slab: SlabWord
//!   63          40 39   38  36 35  32 31                 0
//!  | array offset | 1 |   0   | page | 2^32 / object size |
//!
//!  descriptor.owner of the first page: Book
//!   63    52 51    39 38    26 25    13 12     0
//!  | cache  | fresh  | in use | first  | objects|
//! ```
#![forbid(unsafe_code)]

use super::super::object::CacheId;
use super::array::ArrayOffset;

/// Word that every page of a slab has in the low half of its descriptor's `aux`, which only slabs set. It answers with one
/// multiplication whether an address is the start of one of the slab's objects, and with one addition where the CPU keeps free
/// objects of the cache.
///
/// # Invariants
///
/// - `WORD-1`: zero in the descriptor of a page that belongs to no slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlabWord(u64);

impl SlabWord {
    const PAGE_SHIFT: u32 = 32;
    const ARRAY_SHIFT: u32 = 40;

    /// The word of page number `page` of a slab with objects of `size` bytes, at least 8. `checked` caches have a size that the
    /// fast path of freeing cannot test: they always take the slow path.
    #[must_use]
    pub(in crate::mm::slab) const fn new(size: u32, checked: bool, page: u32, offset: ArrayOffset) -> Self {
        let reciprocal = if checked { 0 } else { Self::reciprocal(size) };
        Self(
            reciprocal as u64
                | (page as u64) << Self::PAGE_SHIFT
                | (offset.distance() as u64) << Self::ARRAY_SHIFT
                | SLAB,
        )
    }

    /// 2^32 / size, rounded up. An offset below 2^15 is a multiple of `size` if and only if their product modulo 2^32 is
    /// less than this (Lemire, Kaser, Kurz 2019: exact while offset × size stays below 2^32).
    const fn reciprocal(size: u32) -> u32 {
        u32::MAX / size + 1
    }

    #[must_use]
    pub(in crate::mm::slab) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The word as a number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether the page belongs to a slab.
    #[must_use]
    pub(in crate::mm::slab) const fn is_slab(self) -> bool {
        self.0 & SLAB != 0
    }

    /// Whether the page belongs to a slab of the cache whose arrays are there.
    #[must_use]
    #[inline(always)]
    pub(in crate::mm::slab) const fn is_of(self, offset: ArrayOffset) -> bool {
        self.0 >> (Self::ARRAY_SHIFT - 1) == offset.tag()
    }

    /// The number of the page in its slab.
    #[must_use]
    #[inline(always)]
    pub(in crate::mm::slab) const fn page(self) -> u32 {
        (self.0 >> Self::PAGE_SHIFT & 0xf) as u32
    }

    /// Whether an object of the slab starts at the byte `offset` of this page, as far as its size tells: the space behind the
    /// last object is not distinguished from one.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub(in crate::mm::slab) const fn starts_object(self, offset: u64) -> bool {
        let within = (offset as u32) | self.page() << 12;
        let reciprocal = self.0 as u32;
        within.wrapping_mul(reciprocal) < reciprocal
    }

    /// Offset of the cache's array.
    #[must_use]
    #[inline(always)]
    pub(in crate::mm::slab) const fn array(self) -> ArrayOffset {
        ArrayOffset::from_distance((self.0 >> Self::ARRAY_SHIFT) as u32)
    }
}

/// Bit that marks a slab's word where the reciprocal is zero.
const SLAB: u64 = 1 << 39;

/// No object.
pub(in crate::mm::slab) const NIL: u16 = 0x1fff;

/// A slab's data in its first page's descriptor. Changed under the lock of the cache's node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mm::slab) struct Book {
    /// The cache.
    pub(in crate::mm::slab) cache: CacheId,
    /// Objects that were never allocated: the last ones in the slab's own order.
    pub(in crate::mm::slab) fresh: u16,
    /// Objects that are not on the slab's free list: with users, in a CPU's array, in the depot.
    pub(in crate::mm::slab) in_use: u16,
    /// The first object of the free list, or [`NIL`].
    pub(in crate::mm::slab) first: u16,
    /// Objects in the slab.
    pub(in crate::mm::slab) objects: u16,
}

impl Book {
    const BITS: u32 = 13;
    const MASK: u64 = (1 << Self::BITS) - 1;

    pub(in crate::mm::slab) const fn from_raw(raw: u64) -> Self {
        Self {
            objects: (raw & Self::MASK) as u16,
            first: (raw >> Self::BITS & Self::MASK) as u16,
            in_use: (raw >> (2 * Self::BITS) & Self::MASK) as u16,
            fresh: (raw >> (3 * Self::BITS) & Self::MASK) as u16,
            cache: CacheId::new((raw >> (4 * Self::BITS)) as u16),
        }
    }

    pub(in crate::mm::slab) const fn raw(self) -> u64 {
        self.objects as u64
            | (self.first as u64) << Self::BITS
            | (self.in_use as u64) << (2 * Self::BITS)
            | (self.fresh as u64) << (3 * Self::BITS)
            | (self.cache.get() as u64) << (4 * Self::BITS)
    }

    /// Whether there is an object to take.
    pub(in crate::mm::slab) const fn has_free(self) -> bool {
        self.in_use < self.objects
    }
}

// Machines take these words apart in the assembly of their fast paths: the fields of both words must stay in place.
const _: () = {
    let offset = ArrayOffset::from_distance(0x12_3450);
    let word = SlabWord::new(256, false, 5, offset);
    assert!(word.is_of(offset) && word.0 >> 39 == offset.tag() && word.0 >> 40 == 0x12_3450);
    assert!(word.0 >> 32 & 0xf == 5 && word.0 >> 20 & 0xf000 == 5 << 12);
    let book = Book { cache: CacheId::new(3), fresh: 1, in_use: 2, first: NIL, objects: 16 };
    assert!(book.raw() & 0x1fff == 16);
};
