//! The memory of a CPU's arrays: where the header of one lies, what is in it, and the magazines that it points to.
#![forbid(unsafe_code)]

#[cfg(doc)]
use super::super::SlabHal;
use super::super::object::Object;
use crate::addr::VirtAddr;
use core::sync::atomic::{AtomicU64, Ordering};

/// Place of the header of a cache's array: bytes from the start of each CPU's data.
///
/// # Invariants
///
/// - `ARR-3`: each CPU's data have an [`ArrayHeader`] there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct ArrayOffset(u32);

impl ArrayOffset {
    /// The array at this distance from the start of each CPU's data: one that a machine has made with [`ArrayOffset::at`].
    #[inline(always)]
    pub(in crate::mm::slab) const fn from_distance(distance: u32) -> Self {
        Self(distance)
    }

    /// Bytes from the start of a CPU's data.
    #[must_use]
    #[inline(always)]
    pub const fn distance(self) -> u32 {
        self.0
    }

    /// Bits 39 and up of the words of its cache's pages ([`SlabWord`](super::super::SlabWord)).
    #[must_use]
    #[inline(always)]
    pub const fn tag(self) -> u64 {
        (self.0 as u64) << 1 | 1
    }
}

/// The header of an array. Written by its CPU alone, with interrupts masked or in a restartable sequence; others may read it.
///
/// The entries lie elsewhere, in a **magazine**: memory for the number of addresses that the cache's arrays hold. The word
/// below them is zero for good, so that the entry on top of an empty array is null: the test for an empty array needs no
/// comparison. An array that is off has no room: it is empty and full at the same time. All-zero is an array that is off.
///
/// A CPU has a second magazine, the spare, which is full or empty between two calls. When the first is used up or full,
/// the two change places; only then, and if that does not help, is one of them exchanged with the depot (Bonwick and
/// Adams 2001). So a full magazine moves between CPUs without a look at its objects.
///
/// # Invariants
///
/// - `ARR-1`: the words from `base` up to `top`, and those in use from `spare` on, are the addresses of free objects of the
///   cache, each in no other place.
/// - `ARR-2`: `base <= top <= limit`, in steps of eight, with room for as many entries as the cache's arrays hold, or none;
///   or all three are zero. The words below `base` and `spare` are zero.
#[derive(Debug)]
#[repr(C)]
pub struct ArrayHeader {
    /// Allocations that it has served. Exact except for a sequence that was interrupted right after it had counted.
    pub(crate) served: AtomicU64,
    /// The address of the first free entry.
    pub(crate) top: AtomicU64,
    /// The address behind the last entry.
    pub(crate) limit: AtomicU64,
    /// Secret by which the marks of the cache's objects differ from their addresses. The same on every CPU.
    pub(crate) mark: AtomicU64,
    /// The address of the first entry.
    pub(crate) base: AtomicU64,
    /// Address of the first entry of the spare, or zero, in 48 bits; the bits above differ from the address by its count.
    pub(in crate::mm::slab) spare: AtomicU64,
    /// Allocations and frees of this CPU that took the slow path.
    pub(in crate::mm::slab) slow_allocs: AtomicU64,
    pub(in crate::mm::slab) slow_frees: AtomicU64,
}

impl ArrayHeader {
    /// The addresses of the first entry, of the first free one, and behind the last: for tests that damage them.
    #[cfg(feature = "host")]
    #[must_use]
    pub const fn words(&self) -> [&AtomicU64; 3] {
        [&self.base, &self.top, &self.limit]
    }

    /// An array that is off.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            served: AtomicU64::new(0),
            top: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            mark: AtomicU64::new(0),
            base: AtomicU64::new(0),
            spare: AtomicU64::new(0),
            slow_allocs: AtomicU64::new(0),
            slow_frees: AtomicU64::new(0),
        }
    }
}

const _: () =
    assert!(size_of::<ArrayHeader>() == 64, "a cache line: the number of a cache becomes its offset by a shift");

/// An address and a small number in one word.
pub(in crate::mm::slab) const fn pack(at: Magazine, count: u32) -> u64 {
    at.0 ^ (count as u64) << ADDRESS_BITS
}

/// Unpacks the address and the number.
pub(in crate::mm::slab) const fn unpack(word: u64) -> (Magazine, u32) {
    // The highest bit is the address's: the number is small.
    let above = u64::MAX << ADDRESS_BITS;
    let at = if word.cast_signed() < 0 { word | above } else { word & !above };
    (Magazine(at), ((word ^ at) >> ADDRESS_BITS) as u32)
}

/// Bits of an address below those that are all the same.
const ADDRESS_BITS: u32 = 48;

const _: () = {
    let mut rest: &[u64] = &[0, 0x7fff_ffff_fff8, 0xffff_0000_4f87_cc08, 0xffff_8000_0000_0008, 0xffff_ffff_ffff_fff8];
    while let [at, after @ ..] = rest {
        let (found, count) = unpack(pack(Magazine(*at), 127));
        assert!(found.0 == *at && count == 127);
        rest = after;
    }
};

impl Default for ArrayHeader {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory for the addresses of objects: by the address of its first entry, above a word that stays zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(in crate::mm::slab) struct Magazine(pub(in crate::mm::slab) u64);

impl Magazine {
    /// No magazine.
    pub(in crate::mm::slab) const NONE: Self = Self(0);

    /// Zeroed memory for the entries and one word more.
    pub(in crate::mm::slab) const fn new(memory: VirtAddr) -> Self {
        Self(memory.get() + 8)
    }

    /// The memory.
    pub(in crate::mm::slab) const fn memory(self) -> VirtAddr {
        VirtAddr::new(self.0 - 8)
    }

    /// Its first entries.
    #[inline]
    pub(in crate::mm::slab) fn entries(self, count: u32) -> &'static [AtomicU64] {
        match self.0 {
            0 => &[],
            base => Object::of_array(VirtAddr::new(base)).words(count as usize),
        }
    }
}

/// Loads or stores of one CPU's word.
pub(in crate::mm::slab) fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

pub(in crate::mm::slab) fn set(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}
