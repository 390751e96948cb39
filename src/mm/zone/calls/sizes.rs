//! Blocks that are not powers of two: splitting, and allocating by bytes.
#![forbid(unsafe_code)]

use super::super::error::{AllocError, FreeError};
use super::super::{PageAllocator, PageHal};
use crate::addr::{Order, PAGE_SIZE};
use crate::gfp::Gfp;
use crate::mm::page::{Kind, Page, PageMap, PageState};

impl<H: PageHal> PageAllocator<H> {
    /// [`Self::split_page`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_split_page(&self, page: Page, order: Order) -> Result<(), FreeError> {
        let map = self.hal.map();
        let descriptor = map.get_checked(page).ok_or(FreeError::NoDescriptor(map.phys(page)))?;
        let state = descriptor.state();
        self.diagnose(map, page, order, state)?;
        if state.is_compound() || state.references() != 1 {
            return Err(FreeError::Claimed { page: map.pfn(page), kind: Kind::Block });
        }
        // The state says "on a list" meanwhile, so that a free of the block at the same time is refused.
        let busy = PageState::on_pcp(state.pcp_list(), order);
        map.get(page).exchange(state, busy).map_err(|_| FreeError::DoubleFree(map.pfn(page)))?;
        // INVARIANT: PAGE-1: the last page first, so that each block that a reader meets is one.
        for index in (0..1_u32 << order.get()).rev() {
            map.get(page.offset(index)).set_state(state.with_order(Order::ZERO));
        }
        Ok(())
    }

    /// Allocates the fewest pages that hold `bytes`, each one separately freed by [`PageAllocator::free_pages_exact`]: the
    /// rest of the block goes back at once (Linux: `alloc_pages_exact`). They are physically contiguous.
    ///
    /// # Errors
    ///
    /// [`AllocError::Empty`], [`AllocError::TooLarge`], [`AllocError::Compound`] with [`Gfp::COMP`]; otherwise as for
    /// [`PageAllocator::alloc_pages`].
    pub fn alloc_pages_exact(&self, gfp: Gfp, bytes: u64) -> Result<Page, AllocError> {
        if bytes == 0 {
            return Err(AllocError::Empty);
        }
        if gfp.contains(Gfp::COMP) {
            return Err(AllocError::Compound);
        }
        let order = Order::for_bytes(bytes).ok_or(AllocError::TooLarge)?;
        let page = self.alloc_pages(gfp, order)?;
        // The block is the caller's own, fresh and plain, so neither can fail.
        let split = self.do_split_page(page, order);
        debug_assert!(split.is_ok(), "a fresh block does not split");
        for index in pages_for(bytes)..1 << order.get() {
            let freed = self.do_free_pages(page.offset(index), Order::ZERO);
            debug_assert!(freed.is_ok(), "a fresh page is not freed");
        }
        Ok(page)
    }

    /// [`Self::free_pages_exact`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_free_pages_exact(&self, page: Page, bytes: u64) -> Result<(), FreeError> {
        (0..pages_for(bytes)).try_for_each(|index| {
            let page = page.offset(index);
            let map = self.hal.map();
            map.get_checked(page).ok_or(FreeError::NoDescriptor(map.phys(page)))?;
            self.do_free_pages(page, Order::ZERO)
        })
    }
}

/// Pages that hold `bytes`.
const fn pages_for(bytes: u64) -> u32 {
    let pages = bytes.div_ceil(PAGE_SIZE);
    #[expect(clippy::cast_possible_truncation, reason = "cut at the limit first")]
    if pages > u32::MAX as u64 { u32::MAX } else { pages as u32 }
}
