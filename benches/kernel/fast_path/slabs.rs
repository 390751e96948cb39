//! State of the candidate's slabs that all CPUs share, by page number, and the list of slabs with free objects that no CPU
//! owns.

use super::short::{CompareExchange, Pair};
use crate::heap::Unable;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use quarry::addr::{Address, PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr, to_usize};
use quarry::global;
use quarry::mm::layout::{PAGE_DESCRIPTOR_SIZE, PAGE_OFFSET, VMEMMAP_START};
use quarry::mm::page::{Page, PageDescriptor, PageMap};
use quarry::mm::zone::PageHal;

/// Bytes of an object.
pub(crate) const SIZE: u64 = 64;
/// Objects of a slab, which is one page.
pub(crate) const OBJECTS: usize = to_usize(PAGE_SIZE / SIZE);
/// The number of no page.
pub(super) const NONE: u32 = u32::MAX;

/// Where the descriptor of the page at address zero would lie. The top byte of an address, where a tag may be, does not
/// count.
pub(super) const DESCRIPTORS: u64 =
    VMEMMAP_START.wrapping_sub((PAGE_OFFSET << 8 >> (8 + PAGE_SHIFT)).wrapping_mul(PAGE_DESCRIPTOR_SIZE));

/// State of a slab that all CPUs share (Linux: `struct slab`).
#[derive(Debug)]
#[repr(C, align(32))]
pub(super) struct Shared {
    /// The first free object that no CPU has, or zero; and [`Counts`].
    pair: [AtomicU64; 2],
    /// Neighbours on the list of slabs, which has a lock.
    next: AtomicU32,
    prev: AtomicU32,
}

impl Shared {
    pub(super) fn get(&self) -> (u64, Counts) {
        let [first, counts] = &self.pair;
        // If somebody replaces them meanwhile, they are not what `replace` finds.
        (first.load(Relaxed), Counts(counts.load(Relaxed)))
    }

    pub(super) fn replace<E: CompareExchange>(&self, from: (u64, Counts), to: (u64, Counts)) -> bool {
        let place: *const Pair = self.pair.as_ptr().cast();
        // SAFETY: two words, at a multiple of 32.
        unsafe { E::replace(place, [from.0, from.1.0], [to.0, to.1.0]) }
    }

    /// A slab that nobody else has seen yet.
    pub(super) fn set(&self, counts: Counts) {
        let [first, place] = &self.pair;
        first.store(0, Relaxed);
        place.store(counts.0, Relaxed);
    }
}

/// Objects in use in the low half; above it, whether a CPU has the slab ("frozen").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counts(u64);

impl Counts {
    const FROZEN: u64 = 1 << 32;
    /// All free objects are a CPU's, and count as in use.
    pub(super) const TAKEN: Self = Self(Self::FROZEN | OBJECTS as u64);

    pub(super) const fn in_use(self) -> u64 {
        self.0 & (Self::FROZEN - 1)
    }

    pub(super) const fn is_frozen(self) -> bool {
        self.0 & Self::FROZEN != 0
    }

    pub(super) const fn thawed(self) -> Self {
        Self(self.in_use())
    }

    /// With one object less in use.
    pub(super) const fn less_one(self) -> Self {
        Self(self.0 - 1)
    }
}

/// Slabs with free objects that no CPU has, chained through the table.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Partial {
    pub(super) const EMPTY: Self = Self { first: NONE, count: 0 };
}

/// A row for each page of the machine.
#[derive(Debug)]
pub(super) struct Table {
    start: VirtAddr,
    origin: Pfn,
}

impl Table {
    pub(super) fn new() -> Result<Self, Unable> {
        let map = global::page_allocator().hal().map();
        let pages = map.sections().last().map_or(0, |section| section.end);
        let bytes = u64::from(pages) * size_of::<Shared>() as u64;
        let start = global::vzalloc(to_usize(bytes)).map_err(|_| "no room for the table of slabs")?.at();
        Ok(Self { start, origin: map.origin() })
    }

    pub(super) fn row(&self, number: u32) -> &Shared {
        let at = self.start.as_ptr::<Shared>().wrapping_add(number as usize);
        // SAFETY: the table has a row for each page, zeroed at first, as long as this lives.
        unsafe { &*at }
    }

    /// The descriptor of a page.
    pub(super) fn descriptor(&self, number: u32) -> &PageDescriptor {
        let place = (self.origin.get() + u64::from(number)) * PAGE_DESCRIPTOR_SIZE;
        // SAFETY: each page has one, mapped for good.
        unsafe { &*VirtAddr::new(VMEMMAP_START + place).as_ptr() }
    }

    /// The page whose descriptor lies at an address.
    pub(super) fn page_at(&self, descriptor: u64) -> Option<Page> {
        global::pfn_to_page(Pfn::new(descriptor.checked_sub(VMEMMAP_START)? / PAGE_DESCRIPTOR_SIZE))
    }

    /// The page of a number.
    pub(super) fn page(&self, number: u32) -> Option<Page> {
        global::pfn_to_page(Pfn::new(self.origin.get() + u64::from(number)))
    }

    /// The slab after one on the list.
    pub(super) fn next(&self, number: u32) -> u32 {
        self.row(number).next.load(Relaxed)
    }

    pub(super) fn insert(&self, partial: &mut Partial, number: u32) {
        let row = self.row(number);
        row.prev.store(NONE, Relaxed);
        row.next.store(partial.first, Relaxed);
        if partial.first != NONE {
            self.row(partial.first).prev.store(number, Relaxed);
        }
        partial.first = number;
        partial.count += 1;
    }

    pub(super) fn remove(&self, partial: &mut Partial, number: u32) {
        let row = self.row(number);
        let (prev, next) = (row.prev.load(Relaxed), row.next.load(Relaxed));
        match prev {
            NONE => partial.first = next,
            prev => self.row(prev).next.store(next, Relaxed),
        }
        if next != NONE {
            self.row(next).prev.store(prev, Relaxed);
        }
        partial.count -= 1;
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Err(error) = raw!(global::try_vfree(self.start)) {
            panic!("the table of slabs: {error}");
        }
    }
}
