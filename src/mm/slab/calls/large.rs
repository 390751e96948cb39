//! Blocks of `kmalloc` that are too large for a cache: whole pages, marked as such.
#![forbid(unsafe_code)]

use super::super::error::{Misuse, SlabAllocError};
use super::super::{SlabAllocator, SlabHal};
use super::kmalloc::KMALLOC_MAX_SIZE;
use crate::addr::{Order, PAGE_SIZE, VirtAddr};
use crate::gfp::Gfp;
use crate::mm::page::{Kind, Page, PageMap};
use crate::mm::zone::FreeError;

/// Name of large blocks in reports.
const LARGE: &str = "large kmalloc";

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Allocates the smallest block that holds `size` bytes, not zero.
    #[inline(always)]
    pub(super) fn alloc_large(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, SlabAllocError> {
        if size > KMALLOC_MAX_SIZE {
            return Err(SlabAllocError::TooLarge);
        }
        let Some(order) = Order::for_bytes(size as u64) else { return Err(SlabAllocError::TooLarge) };
        if let Some(flag) = [Gfp::HIGHMEM, Gfp::DMA32].into_iter().find(|flag| gfp.contains(*flag)) {
            return Err(SlabAllocError::Zone(flag));
        }
        let plain = |page| self.claim_large(page);
        Ok(self.pages.alloc_pages_as(gfp, order, plain, |page| self.alloc_tagged(page, order, size))?)
    }

    #[inline(always)]
    fn claim_large(&self, page: Page) -> VirtAddr {
        let map = self.hal().map();
        // The block is fresh from the allocator and has no other owner, so nobody else changes the state.
        map.get(page).claim_fresh(Kind::LargeKmalloc);
        self.hal().to_virt(map.phys(page))
    }

    /// Slow path: with memory tags on, the block gets a tag.
    #[cold]
    #[inline(never)]
    fn alloc_tagged(&self, page: Page, order: Order, size: usize) -> VirtAddr {
        let at = self.claim_large(page);
        self.tag_large(at, order.bytes(), size as u64, self.hal().return_address())
    }

    /// The large block that starts at an address; `None` if the page belongs to none.
    fn large_at(&self, at: VirtAddr) -> Option<(Page, Order)> {
        let page = self.page_of(at)?;
        let state = self.hal().map().get(page).state();
        (state.kind() == Kind::LargeKmalloc).then_some((page, state.order()))
    }

    /// [`Self::free_large_fast`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    pub(crate) fn do_free_large_fast(&self, at: VirtAddr) -> bool {
        let page = self.hal().page_number(at).map(Page::new);
        page.is_some_and(|page| self.pages.free_claimed_fast(page, Kind::LargeKmalloc))
    }

    /// Frees a large block, of which `page` is the first page.
    #[inline]
    pub(super) fn free_large(&self, at: VirtAddr, page: Page, caller: VirtAddr) -> Result<(), Misuse> {
        self.check_tag(at, LARGE)?;
        if !at.is_aligned(PAGE_SIZE) {
            let object = at.align_down(PAGE_SIZE);
            return Err(Misuse::Misaligned { at, cache: LARGE, object });
        }
        self.note_free(at, self.hal().map().get(page).state().order().bytes(), caller);
        let freed = self.pages.free_claimed(page, Kind::LargeKmalloc);
        freed.map_err(|error| match error {
            // Another CPU has freed it first.
            FreeError::DoubleFree(_) => Misuse::DoubleFree { at, cache: LARGE },
            _ => Misuse::Foreign { at, kind: Kind::LargeKmalloc },
        })
    }

    /// Bytes of the large block that starts at an address.
    pub(super) fn large_size(&self, at: VirtAddr) -> Option<usize> {
        let (_, order) = self.large_at(at).filter(|_| at.is_aligned(PAGE_SIZE))?;
        Some(crate::addr::to_usize(order.bytes()))
    }
}
