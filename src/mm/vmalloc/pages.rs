//! The pages of an area: blocks of the page allocator, chained through their descriptors, so that they need no array.
#![forbid(unsafe_code)]

use super::Pages;
use crate::addr::{MAX_ORDER, Order, PAGE_SIZE, PhysAddr};
use crate::gfp::Gfp;
use crate::mm::page::{Kind, Page, PageMap};
use crate::mm::zone::{AllocError, FreeError, PageAllocator, PageHal};

/// Blocks in the order in which they are mapped.
///
/// # Invariants
///
/// - `CHAIN-2`: from `first` on, each block's descriptor points to the next one's; the last points to [`Page::NIL`]. Each is
///   claimed as [`Kind::Vmalloc`], and together they are `pages` pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    first: u32,
    last: u32,
    pages: u32,
}

impl Blocks {
    pub(super) const NONE: Self = Self { first: Page::NIL, last: Page::NIL, pages: 0 };

    /// Allocates `count` pages in the largest blocks that are free at once; it waits for single pages only (Linux:
    /// `vm_area_alloc_pages`). `owner` is recorded in each block.
    ///
    /// # Errors
    ///
    /// Those of [`PageAllocator::alloc_pages`]; then the pages already allocated are free again.
    #[inline]
    pub(super) fn alloc<H: PageHal>(
        pages: &PageAllocator<H>,
        count: u32,
        gfp: Gfp,
        owner: u64,
    ) -> Result<Self, AllocError> {
        let mut blocks = Self::NONE;
        let mut largest = MAX_ORDER;
        while blocks.pages < count {
            let fitting = (count - blocks.pages).ilog2();
            let order = Order::new(largest.min(u8::try_from(fitting).unwrap_or(MAX_ORDER))).unwrap_or_default();
            // Fast path: these flags are constants.
            let block = if gfp == Gfp::KERNEL {
                Self::alloc_block(pages, Gfp::KERNEL, order)
            } else {
                Self::alloc_other(pages, gfp, order)
            };
            match block {
                Ok(page) => blocks.add(pages, page, order, owner),
                Err(_) if order != Order::ZERO => largest = order.get() - 1,
                Err(error) => {
                    blocks.free(pages);
                    return Err(error);
                }
            }
        }
        Ok(blocks)
    }

    /// A block; several pages only if they are free at once, as larger blocks are an optimisation.
    #[inline(always)]
    fn alloc_block<H: PageHal>(pages: &PageAllocator<H>, gfp: Gfp, order: Order) -> Result<Page, AllocError> {
        let lightly = gfp.difference(Gfp::DIRECT_RECLAIM.union(Gfp::RETRY_MAYFAIL).union(Gfp::NOFAIL));
        let lightly = lightly.union(Gfp::NORETRY).union(Gfp::NOWARN);
        match order {
            Order::ZERO => pages.alloc_pages(gfp, Order::ZERO),
            order => pages.alloc_pages(lightly, order),
        }
    }

    #[inline(never)]
    fn alloc_other<H: PageHal>(pages: &PageAllocator<H>, gfp: Gfp, order: Order) -> Result<Page, AllocError> {
        Self::alloc_block(pages, gfp, order)
    }

    /// Adds a block that has just been allocated.
    #[inline]
    fn add<H: PageHal>(&mut self, pages: &PageAllocator<H>, page: Page, order: Order, owner: u64) {
        // The caller owns it, and it is not claimed; so its descriptor is known, and needs no lookup.
        let claimed = pages.hal().map().get(page).become_kind(Kind::Vmalloc, owner);
        debug_assert!(claimed.is_ok(), "a new block is not claimed");
        self.link(pages, page);
        self.pages += 1 << order.get();
    }

    /// Appends a claimed block.
    #[inline]
    fn link<H: PageHal>(&mut self, pages: &PageAllocator<H>, page: Page) {
        // INVARIANT: CHAIN-2.
        let map = pages.hal().map();
        map.get(page).set_next(Page::NIL);
        match self.last {
            Page::NIL => self.first = page.index(),
            last => map.get(Page::new(last)).set_next(page.index()),
        }
        self.last = page.index();
    }

    /// Takes over single pages that a caller allocated: they are freed with the area.
    ///
    /// # Errors
    ///
    /// The error of the first page that is not an unclaimed block of its own; the others are unchanged.
    pub(super) fn adopt<H: PageHal>(pages: &PageAllocator<H>, list: &[Page], owner: u64) -> Result<Self, FreeError> {
        for (index, page) in list.iter().enumerate() {
            let pfn = pages.hal().map().pfn(*page);
            let claimed = match pages.head(*page) {
                Ok((_, state)) if state.kind() == Kind::Block && !state.may_be_mapped() => {
                    Err(FreeError::MemoryType { page: pfn, memory: state.memory_type() })
                }
                Ok((_, state)) if state.order() != Order::ZERO && state.kind() == Kind::Block => {
                    Err(FreeError::Corrupt(pfn))
                }
                Ok(_) => pages.do_claim(*page, Kind::Vmalloc, owner),
                Err(error) => Err(error),
            };
            if let Err(error) = claimed {
                Self::disown(pages, list.get(..index).unwrap_or_default());
                return Err(error);
            }
        }
        let mut blocks = Self::NONE;
        for page in list {
            blocks.link(pages, *page);
            blocks.pages += 1;
        }
        Ok(blocks)
    }

    /// Returns pages that were just taken over to the caller.
    #[cold]
    pub(super) fn disown<H: PageHal>(pages: &PageAllocator<H>, list: &[Page]) {
        for page in list {
            // Claimed a moment ago.
            let _ = pages.do_disown(*page, Kind::Vmalloc);
        }
    }

    /// The runs of memory: blocks that are adjacent in memory are merged.
    pub(super) fn runs<H: PageHal>(self, pages: &PageAllocator<H>) -> impl Iterator<Item = (PhysAddr, u64)> {
        let mut at = self.first;
        core::iter::from_fn(move || {
            let map = pages.hal().map();
            let (start, mut bytes) = (map.phys(Page::new((at != Page::NIL).then_some(at)?)), 0);
            while at != Page::NIL && map.phys(Page::new(at)).offset_from(start) == Some(bytes) {
                let descriptor = map.get(Page::new(at));
                bytes += descriptor.state().order().pages() * PAGE_SIZE;
                at = descriptor.next();
            }
            Some((start, bytes))
        })
    }

    /// Number of pages of the first blocks that have at least `wanted` together.
    pub(super) fn pages_up_to<H: PageHal>(self, pages: &PageAllocator<H>, wanted: u64) -> u64 {
        let map = pages.hal().map();
        let (mut at, mut sum) = (self.first, 0);
        while at != Page::NIL && sum < wanted {
            let descriptor = map.get(Page::new(at));
            sum += descriptor.state().order().pages();
            at = descriptor.next();
        }
        sum
    }

    /// The first blocks, which have `count` pages together, and the rest.
    #[expect(clippy::cast_possible_truncation, reason = "no more than there are")]
    pub(super) fn split<H: PageHal>(self, pages: &PageAllocator<H>, count: u64) -> (Self, Self) {
        let map = pages.hal().map();
        let (mut at, mut last, mut sum) = (self.first, Page::NIL, 0);
        while at != Page::NIL && sum < count {
            let descriptor = map.get(Page::new(at));
            sum += descriptor.state().order().pages();
            (last, at) = (at, descriptor.next());
        }
        if last != Page::NIL {
            // INVARIANT: CHAIN-2.
            map.get(Page::new(last)).set_next(Page::NIL);
        }
        let first = Self { first: self.first, last, pages: sum as u32 };
        (first, Self { first: at, last: self.last, pages: self.pages - sum as u32 })
    }

    /// These blocks, and `others` behind them.
    pub(super) fn followed_by<H: PageHal>(self, pages: &PageAllocator<H>, others: Self) -> Self {
        let map = pages.hal().map();
        let mut last = self.first;
        while last != Page::NIL {
            match map.get(Page::new(last)).next() {
                Page::NIL => break,
                next => last = next,
            }
        }
        if last == Page::NIL {
            return others;
        }
        // INVARIANT: CHAIN-2.
        map.get(Page::new(last)).set_next(others.first);
        Self { first: self.first, last: others.last, pages: self.pages + others.pages }
    }

    /// Frees all blocks.
    #[inline]
    pub(super) fn free<H: PageHal>(self, pages: &PageAllocator<H>) {
        let map = pages.hal().map();
        let mut at = self.first;
        while at != Page::NIL {
            let page = Page::new(at);
            let descriptor = map.get(page);
            at = descriptor.next();
            // By CHAIN-2 the block belongs to this chain. If its descriptor says otherwise, it stays as it is.
            if descriptor.state().kind() == Kind::Vmalloc {
                descriptor.set_owner(0);
                let freed = pages.free_claimed(page, Kind::Vmalloc);
                debug_assert!(freed.is_ok(), "a block of an area is freed once");
            }
        }
    }

    /// Converts into the value that an area keeps.
    #[inline]
    pub(super) const fn into_pages(self) -> Pages {
        Pages::new(self.first as u64, self.pages)
    }

    /// Converts from the value that an area kept.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the word was made of a u32")]
    pub(super) const fn from_pages(pages: &Pages) -> Self {
        Self { first: pages.word() as u32, last: Page::NIL, pages: pages.count() }
    }
}
