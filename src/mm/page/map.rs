//! From a page to its descriptor: the one place with unsafe code for it. [`Vmemmap`] is the kernel's virtual array,
//! [`BankMap`] the same interface over ordinary memory.

use super::{PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Page, PageDescriptor};
use crate::addr::{MAX_ORDER, PAGE_SIZE, Pfn, PhysAddr, PhysRange, to_usize};
use core::sync::atomic::AtomicU8;

/// Frames in a section, the unit in which descriptors exist: a block of the highest order, so that the buddy of every
/// block has a descriptor.
pub const SECTION_PAGES: u32 = 1 << MAX_ORDER;

/// Bytes from the lowest RAM on that page numbers reach, wherever in its section the RAM begins.
pub const MAX_SPAN: u64 = ((Page::NIL as u64 - 1) / SECTION_PAGES as u64 - 1) * SECTION_PAGES as u64 * PAGE_SIZE;

/// Pages `first` to `end` (exclusive) that have descriptors; both are multiples of [`SECTION_PAGES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// The first page.
    pub first: u32,
    /// One past the last page.
    pub end: u32,
}

impl Section {
    /// Pages in the section.
    #[must_use]
    pub const fn pages(self) -> u32 {
        self.end - self.first
    }
}

/// Sections of pages that have descriptors for `ram` (sorted, disjoint), in order; adjacent ones are merged. The second value
/// is the frame of page 0. `None` among the sections: RAM spans 16 TiB or more, which is more than page numbers reach.
pub fn sections_of(ram: impl Iterator<Item = PhysRange> + Clone) -> (impl Iterator<Item = Option<Section>>, Pfn) {
    let size = u64::from(SECTION_PAGES) * PAGE_SIZE;
    let lowest = ram.clone().next().map_or(PhysAddr::ZERO, PhysRange::start);
    let origin = Pfn::containing(lowest.align_down(size));
    let section = move |bank: PhysRange| {
        let whole = bank.align_outwards(size)?;
        // One below the number that links use for nowhere.
        let index = |addr| u32::try_from(Pfn::containing(addr).get() - origin.get()).ok().filter(|i| *i < Page::NIL);
        Some(Section { first: index(whole.start())?, end: index(whole.end())? })
    };
    let mut banks = ram.map(section).peekable();
    let merged = core::iter::from_fn(move || {
        let mut merged = banks.next()?;
        while let (Some(below), Some(Some(above))) = (merged, banks.peek())
            && below.end >= above.first
        {
            merged = Some(Section { first: below.first, end: above.end });
            banks.next();
        }
        Some(merged)
    });
    (merged, origin)
}

/// All page descriptors of a machine.
///
/// # Invariants
///
/// - `MAP-1`: the sections are sorted, disjoint, and each page in them has a descriptor and a page block of its own.
/// - `MAP-2`: the origin is a multiple of [`SECTION_PAGES`], so that pages are aligned as their frames are, and the first
///   section starts there.
///
/// # Safety
///
/// `MAP-1` and `MAP-2` hold, and all answers stay the same.
pub unsafe trait PageMap: Copy {
    /// The frame of page 0.
    fn origin(&self) -> Pfn;

    /// Sections of pages that have descriptors.
    fn sections(&self) -> &[Section];

    /// One past the last page of the first section.
    #[inline]
    fn first_end(&self) -> u32 {
        self.sections().first().map_or(0, |section| section.end)
    }

    /// The descriptor of a page, which lies in a section.
    fn get(&self, page: Page) -> &PageDescriptor;

    /// The migrate type of the page block that holds a page, as [`super::MigrateType`] numbers them.
    fn block_type(&self, page: Page) -> &AtomicU8;

    /// The page of a frame, or `None` if the frame has no descriptor: no RAM is near. Cost: O(log sections).
    #[inline]
    fn find(&self, pfn: Pfn) -> Option<Page> {
        let index = u32::try_from(pfn.get().wrapping_sub(self.origin().get())).ok()?;
        // Most machines have one run of RAM, and the others most of it in the first.
        if index < self.first_end() {
            return Some(Page::new(index));
        }
        let sections = self.sections();
        let place = sections.partition_point(|section| section.end <= index);
        sections.get(place).filter(|section| section.first <= index).map(|_| Page::new(index))
    }

    /// The page of a frame that has a descriptor. Cost: a subtraction.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "pages are fewer than 2³²")]
    fn page(&self, pfn: Pfn) -> Page {
        Page::new(pfn.get().wrapping_sub(self.origin().get()) as u32)
    }

    /// The descriptor of a page, if it lies in a section. Cost: O(log sections).
    #[inline]
    fn get_checked(&self, page: Page) -> Option<&PageDescriptor> {
        self.find(self.pfn(page)).map(|page| self.get(page))
    }

    /// The frame of a page.
    #[inline]
    fn pfn(&self, page: Page) -> Pfn {
        Pfn::new(self.origin().get().wrapping_add(u64::from(page.index())))
    }

    /// The physical address of a page's first byte.
    #[inline]
    fn phys(&self, page: Page) -> PhysAddr {
        self.pfn(page).start()
    }
}

/// The kernel's descriptors: an array with one for every frame that the linear map can reach, mapped only for sections.
///
/// # Invariants
///
/// - `VMM-1`: `base` is the address of page 0's descriptor in an array that is mapped, read-write and for good, for
///   every page in a section. The rest of what 32 bits of page number reach, up to
///   [`PAGE_NUMBERS_END`](crate::mm::layout::PAGE_NUMBERS_END), is not mapped, or is descriptors as well, so that a wrong
///   page number meets a fault and not other memory.
/// - `VMM-2`: the same holds for `blocks`, one byte for each page block.
#[derive(Clone, Copy, Debug)]
pub struct Vmemmap {
    base: *const PageDescriptor,
    blocks: *const AtomicU8,
    origin: Pfn,
    first_end: u32,
    /// `None` instead of an empty slice, so that [`Vmemmap::NONE`] is all zero.
    sections: Option<&'static [Section]>,
}

// SAFETY: the value is two addresses of atomics that are there for good (VMM-1, VMM-2).
unsafe impl Send for Vmemmap {}
// SAFETY: the value is two addresses of atomics that are there for good (VMM-1, VMM-2).
unsafe impl Sync for Vmemmap {}

impl Vmemmap {
    /// No descriptors yet.
    pub const NONE: Self =
        Self { base: core::ptr::null(), blocks: core::ptr::null(), origin: Pfn::new(0), first_end: 0, sections: None };

    /// The descriptors in the array `base`, whose first one is that of the frame `origin`.
    ///
    /// # Safety
    ///
    /// `VMM-1`, `VMM-2`, `MAP-1` and `MAP-2` hold from now on, and the memory was zero when it was mapped.
    #[must_use]
    pub const unsafe fn new(
        base: *const PageDescriptor,
        blocks: *const AtomicU8,
        origin: Pfn,
        sections: &'static [Section],
    ) -> Self {
        // INVARIANT: VMM-1, VMM-2, MAP-1, MAP-2 are the caller's promise.
        let first_end = match sections {
            [first, ..] => first.end,
            [] => 0,
        };
        Self { base, blocks, origin, first_end, sections: Some(sections) }
    }
}

// SAFETY: by the promise made to `Vmemmap::new`.
unsafe impl PageMap for Vmemmap {
    #[inline]
    fn origin(&self) -> Pfn {
        self.origin
    }

    #[inline]
    fn sections(&self) -> &[Section] {
        self.sections.unwrap_or_default()
    }

    #[inline]
    fn first_end(&self) -> u32 {
        self.first_end
    }

    #[inline(always)]
    fn get(&self, page: Page) -> &PageDescriptor {
        let descriptor = self.base.wrapping_add(page.index() as usize);
        // SAFETY: VMM-1; all fields are atomics and all-zero is valid.
        unsafe { &*descriptor }
    }

    #[inline(always)]
    fn block_type(&self, page: Page) -> &AtomicU8 {
        let block = self.blocks.wrapping_add((page.index() >> PAGEBLOCK_ORDER) as usize);
        // SAFETY: VMM-2.
        unsafe { &*block }
    }
}

/// [`PageMap::find`] in the first run of RAM alone, where nearly all pages are, for a loop over many frames. Cost: three
/// instructions.
#[inline(always)]
pub(in crate::mm) fn find_near<M: PageMap>(map: &M, pfn: Pfn) -> Option<Page> {
    let index = pfn.get().wrapping_sub(map.origin().get());
    if index < u64::from(map.first_end()) { Some(map.page(pfn)) } else { None }
}

/// [`PageMap::find`] for what [`find_near`] has not found; by value, so that a loop keeps its map in registers.
#[cold]
#[inline(never)]
pub(in crate::mm) fn find_far<M: PageMap>(map: M, pfn: Pfn) -> Option<Page> {
    map.find(pfn)
}

/// Whether none of `count` frames from `first` on has a descriptor: they are a device's. Cost: O(log sections).
pub(in crate::mm) fn is_undescribed<M: PageMap>(map: &M, first: Pfn, count: u64) -> bool {
    let (sections, origin) = (map.sections(), map.origin().get());
    let place = sections.partition_point(|section| origin + u64::from(section.end) <= first.get());
    let section = sections.get(place);
    section.is_none_or(|section| origin + u64::from(section.first) >= first.get().saturating_add(count))
}

/// The descriptors of one section in ordinary memory.
#[derive(Clone, Copy, Debug)]
pub struct Bank<'m> {
    /// Its pages.
    pub section: Section,
    /// One for each page.
    pub descriptors: &'m [PageDescriptor],
    /// One for each page block.
    pub blocks: &'m [AtomicU8],
}

/// The same interface over ordinary memory, for machines that are simulated: however far apart the sections lie, only
/// they take memory. Reaching a descriptor is a binary search.
#[derive(Clone, Copy, Debug)]
pub struct BankMap<'m> {
    origin: Pfn,
    banks: &'m [Bank<'m>],
    sections: &'m [Section],
}

impl<'m> BankMap<'m> {
    /// A map of no memory.
    pub const NONE: Self = Self { origin: Pfn::new(0), banks: &[], sections: &[] };

    /// The descriptors in `banks`, where page 0 is the frame `origin`. `None` if `MAP-1` or `MAP-2` does not hold, or if
    /// `sections` are not those of the banks.
    #[must_use]
    pub fn new(origin: Pfn, banks: &'m [Bank<'m>], sections: &'m [Section]) -> Option<Self> {
        let whole = |index: u32| index.is_multiple_of(SECTION_PAGES);
        let mut end = 0;
        for (bank, section) in banks.iter().zip(sections) {
            let pages = section.end.checked_sub(section.first)?;
            let sized = bank.descriptors.len() == pages as usize
                && bank.blocks.len() == (pages / PAGEBLOCK_PAGES) as usize
                && bank.section == *section;
            if !sized || section.first < end || !whole(section.first) || !whole(section.end) {
                return None;
            }
            end = section.end;
        }
        let starts = sections.first().is_none_or(|section| section.first == 0);
        let aligned = starts && origin.get().is_multiple_of(u64::from(SECTION_PAGES));
        // INVARIANT: MAP-1 by the loop, MAP-2 by the comparison.
        (aligned && banks.len() == sections.len()).then_some(Self { origin, banks, sections })
    }

    #[expect(clippy::panic, reason = "the kernel's array faults here; a wrong descriptor would be worse")]
    fn bank(&self, page: Page) -> (&Bank<'m>, usize) {
        let place = self.banks.partition_point(|bank| bank.section.end <= page.index());
        match self.banks.get(place) {
            Some(bank) if bank.section.first <= page.index() => {
                (bank, to_usize(u64::from(page.index() - bank.section.first)))
            }
            _ => panic!("{page:?} has no descriptor"),
        }
    }
}

// SAFETY: `BankMap::new` has seen that both hold.
unsafe impl PageMap for BankMap<'_> {
    fn origin(&self) -> Pfn {
        self.origin
    }

    fn sections(&self) -> &[Section] {
        self.sections
    }

    #[expect(clippy::indexing_slicing, reason = "MAP-1")]
    fn get(&self, page: Page) -> &PageDescriptor {
        let (bank, offset) = self.bank(page);
        &bank.descriptors[offset]
    }

    #[expect(clippy::indexing_slicing, reason = "MAP-1")]
    fn block_type(&self, page: Page) -> &AtomicU8 {
        let (bank, offset) = self.bank(page);
        &bank.blocks[offset >> PAGEBLOCK_ORDER]
    }
}
