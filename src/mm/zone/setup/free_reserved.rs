//! Reserved memory that becomes the allocator's: what only booting needed (Linux: `free_reserved_area`).

use super::super::contiguous::{CmaArea, page_blocks};
use super::super::error::{ContigError, FreeError};
use super::super::{PageAllocator, PageHal};
use crate::addr::{Order, VirtAddr};
use crate::gfp::{Mobility, ZoneType};
use crate::mm::page::{
    Kind, MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Page, PageMap, PageState, ZoneId, find_head,
};

impl<H: PageHal> PageAllocator<H> {
    /// Takes `pages` reserved pages from `first` on: they are free from now on, and managed. Answers how many there were.
    /// Any context. Cost: O(orders) a page.
    ///
    /// Nothing in a descriptor says whether reserved memory is needed no longer: the kernel's text is reserved as the memory
    /// is that only booting needed. So it takes somebody who knows:
    ///
    /// ```compile_fail,E0133
    /// # use quarry::mm::{page::Page, zone::{FreeError, PageAllocator, PageHal}};
    /// fn give<H: PageHal>(pages: &PageAllocator<H>, text: Page) -> Result<u32, FreeError> {
    ///     pages.free_reserved(text, 1)
    /// }
    /// ```
    ///
    /// # Safety
    ///
    /// The pages that are reserved were so for the caller, and are no longer needed: no code runs in them, no device reaches
    /// them, nobody has a pointer into them, and they are mapped nowhere but in the linear map, writable.
    ///
    /// # Errors
    ///
    /// [`FreeError::NoDescriptor`], [`FreeError::Hole`], [`FreeError::Claimed`] if one of the pages is allocated,
    /// [`FreeError::DoubleFree`] if one is free already; nothing has changed then.
    pub unsafe fn free_reserved(&self, first: Page, pages: u32) -> Result<u32, FreeError> {
        for index in 0..pages {
            self.reserved_block(first.offset(index))?;
        }
        for index in 0..pages {
            let page = first.offset(index);
            let (_, _, zone) = self.reserved_block(page)?;
            self.with_zone(zone, |zone, map| {
                // Once more, under the lock: nobody else changes reserved memory but under it.
                let Some((head, state)) = find_head(&map, page).filter(|(_, state)| state.kind() == Kind::Reserved)
                else {
                    return;
                };
                cut_out(map, head, state, page);
                self.scrub_freed(page, 1, || VirtAddr::ZERO);
                zone.managed += 1;
                zone.free_block(map, page, 0);
            });
        }
        self.announce();
        Ok(pages)
    }

    /// Makes reserved memory the allocator's that is kept for contiguous allocations (Linux:
    /// `init_cma_reserved_pageblock`), [`PageAllocator::cma_alloc`]: movable allocations borrow it meanwhile. Whole page blocks
    /// only. Any context.
    ///
    /// # Safety
    ///
    /// As for [`PageAllocator::free_reserved`].
    ///
    /// # Errors
    ///
    /// [`ContigError::Isolated`] if the range is no whole page blocks of one zone, [`ContigError::NoRange`] if it is not
    /// reserved; nothing has changed then.
    pub unsafe fn add_cma(&self, first: Page, pages: u32) -> Result<CmaArea, ContigError> {
        let zone = self.contig_zone(first, pages)?;
        if !first.is_aligned(PAGEBLOCK_ORDER) || !pages.is_multiple_of(PAGEBLOCK_PAGES) {
            return Err(ContigError::Isolated);
        }
        for index in 0..pages {
            self.head(first.offset(index))
                .ok()
                .filter(|(_, state)| state.kind() == Kind::Reserved)
                .ok_or(ContigError::NoRange)?;
        }
        let _ = self.with_zone(zone, |zone, map| {
            page_blocks(first, pages).for_each(|block| zone.retype(map, block, MigrateType::Cma));
        });
        // SAFETY: this function's `# Safety` is that of `free_reserved`.
        unsafe { self.free_reserved(first, pages) }.map_err(|_| ContigError::NoRange)?;
        // INVARIANT: CMA-1: what is reserved is free now.
        Ok(CmaArea::new(first, pages))
    }

    /// Makes reserved pages allocated pages of the caller's, each a block of its own with one reference: all or none. Any
    /// context. Cost: O(pages).
    ///
    /// # Safety
    ///
    /// The pages are reserved for the caller.
    ///
    /// # Errors
    ///
    /// As for [`PageAllocator::free_reserved`].
    pub unsafe fn adopt_reserved(&self, first: Page, pages: u32) -> Result<(), FreeError> {
        for index in 0..pages {
            self.reserved_block(first.offset(index))?;
        }
        for index in 0..pages {
            let page = first.offset(index);
            let adopted = self.reserved_block(page).and_then(|(_, _, zone)| {
                let taken = self.with_zone(zone, |zone, map| {
                    // Once more, under the lock.
                    let (head, state) = find_head(&map, page).filter(|(_, state)| state.kind() == Kind::Reserved)?;
                    cut_out(map, head, state, page);
                    let list = PageState::list_number(zone.id, Mobility::Unmovable);
                    map.get(page).set_state(PageState::allocated(list, Order::ZERO));
                    zone.managed += 1;
                    Some(())
                });
                taken.flatten().ok_or(FreeError::DoubleFree(self.hal.map().pfn(page)))
            });
            if let Err(error) = adopted {
                // Somebody else has adopted the rest.
                self.do_reserve_again(first, index);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes back what [`PageAllocator::adopt_reserved`] did; pages that somebody has claimed stay what they are. Any context.
    ///
    /// # Safety
    ///
    /// The pages were adopted by the caller, and nobody else has them.
    pub unsafe fn reserve_again(&self, first: Page, pages: u32) {
        self.do_reserve_again(first, pages);
    }

    fn do_reserve_again(&self, first: Page, pages: u32) {
        for page in (0..pages).map(|index| first.offset(index)) {
            let Ok((_, state)) = self.head(page) else { continue };
            let Some(id) = state.zone().filter(|_| state.kind() == Kind::Block) else { continue };
            let _ = self.with_zone(id, |zone, map| {
                map.get(page).set_state(PageState::outside(zone.id, Order::ZERO, Kind::Reserved));
                zone.managed -= 1;
            });
        }
    }

    /// The reserved block that holds a page, and its zone.
    fn reserved_block(&self, page: Page) -> Result<(Page, PageState, ZoneId), FreeError> {
        let (head, state) = self.head(page)?;
        let pfn = self.hal.map().pfn(page);
        match (state.kind(), state.zone()) {
            (Kind::Reserved, Some(zone)) => Ok((head, state, zone)),
            (Kind::Hole, _) => Err(FreeError::Hole(pfn)),
            (Kind::Free | Kind::Pcp, _) => Err(FreeError::DoubleFree(pfn)),
            (Kind::Reserved, None) => Err(FreeError::Corrupt(pfn)),
            (kind, _) => Err(FreeError::Claimed { page: pfn, kind }),
        }
    }

    /// The zone that a page belongs to; `None` for a hole.
    #[must_use]
    pub fn zone_of_page(&self, page: Page) -> Option<ZoneType> {
        let (_, state) = self.head(page).ok().filter(|(_, state)| state.kind() != Kind::Hole)?;
        self.layout()?.kind(state.zone()?)
    }
}

/// Halves a reserved block until `page` is a block of its own.
fn cut_out<M: PageMap>(map: M, head: Page, state: PageState, page: Page) {
    let mut head = head;
    for order in (0..state.raw_order()).rev().filter_map(Order::new) {
        // INVARIANT: PAGE-1: both halves are blocks; the loop goes on with the one that holds the page.
        let other = head.buddy(order.get());
        map.get(other).set_state(state.with_order(order));
        map.get(head).set_state(state.with_order(order));
        if page >= other {
            head = other;
        }
    }
}
