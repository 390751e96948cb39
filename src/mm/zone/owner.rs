//! What the holder of a block may do with its descriptor: references, claims, memory type.
#![forbid(unsafe_code)]

use super::error::FreeError;
use super::{PageAllocator, PageHal};
use crate::addr::Order;
use crate::hal::prot::MemoryType;
use crate::mm::page::{Kind, Page, PageMap, PageState, find_head};

impl<H: PageHal> PageAllocator<H> {
    /// The first page of the block that holds `page`, with its state: of an allocated block, a free one, whatever it is.
    /// Cost: one load for a compound page, at most eleven otherwise.
    ///
    /// # Errors
    ///
    /// [`FreeError::NoDescriptor`], [`FreeError::Corrupt`].
    pub fn head(&self, page: Page) -> Result<(Page, PageState), FreeError> {
        let map = self.hal.map();
        if map.get_checked(page).is_none() {
            return Err(FreeError::NoDescriptor(map.phys(page)));
        }
        find_head(&map, page).ok_or(FreeError::Corrupt(map.pfn(page)))
    }

    /// The head of the allocated block that holds `page`.
    fn allocated_head(&self, page: Page) -> Result<(Page, PageState), FreeError> {
        let (head, state) = self.head(page)?;
        let pfn = self.hal.map().pfn(page);
        match state.kind() {
            kind if kind.is_allocated() => Ok((head, state)),
            Kind::Reserved => Err(FreeError::Reserved(pfn)),
            Kind::Hole => Err(FreeError::Hole(pfn)),
            _ => Err(FreeError::DoubleFree(pfn)),
        }
    }

    /// References to the block that holds `page`; 0 if it is free (Linux: `page_count`). Any context.
    #[must_use]
    pub fn page_count(&self, page: Page) -> u32 {
        self.allocated_head(page).map_or(0, |(_, state)| state.references())
    }

    /// The order of the allocated block that holds `page` (Linux: `compound_order`, for any block).
    ///
    /// # Errors
    ///
    /// As for [`PageAllocator::get_page`].
    pub fn page_order(&self, page: Page) -> Result<Order, FreeError> {
        self.allocated_head(page).map(|(_, state)| state.order())
    }

    /// Takes another reference to the allocated block that holds `page`: it stays until each has been dropped (Linux:
    /// `get_page`). By somebody who has one. Any context.
    ///
    /// # Errors
    ///
    /// [`FreeError::DoubleFree`] if the block is free, [`FreeError::Reserved`], [`FreeError::Hole`],
    /// [`FreeError::NoDescriptor`], [`FreeError::Corrupt`] if the references cannot be counted.
    pub fn get_page(&self, page: Page) -> Result<(), FreeError> {
        let (head, _) = self.allocated_head(page)?;
        let map = self.hal.map();
        if map.get(head).get() { Ok(()) } else { Err(FreeError::Corrupt(map.pfn(head))) }
    }

    /// [`Self::put_page`], on what this crate knows to be its own, or passes on for who said so.
    pub(crate) fn do_put_page(&self, page: Page) -> Result<(), FreeError> {
        let (head, state) = self.allocated_head(page)?;
        self.do_free_pages(head, state.order())
    }

    /// [`Self::claim`], on what this crate knows to be its own, or passes on for who said so.
    pub(crate) fn do_claim(&self, page: Page, kind: Kind, owner: u64) -> Result<(), FreeError> {
        self.change_kind(page, kind, owner)
    }

    /// [`Self::disown`], on what this crate knows to be its own, or passes on for who said so.
    pub(crate) fn do_disown(&self, page: Page, kind: Kind) -> Result<(), FreeError> {
        let (_, state) = self.allocated_head(page)?;
        if state.kind() != kind {
            return Err(FreeError::Claimed { page: self.hal.map().pfn(page), kind: state.kind() });
        }
        self.change_kind(page, Kind::Block, 0)
    }

    fn change_kind(&self, page: Page, kind: Kind, owner: u64) -> Result<(), FreeError> {
        let (head, _) = self.allocated_head(page)?;
        let map = self.hal.map();
        let claimed = |kind| FreeError::Claimed { page: map.pfn(head), kind };
        map.get(head).become_kind(kind, owner).map_err(claimed)
    }

    /// [`Self::set_memory_type`], on what this crate knows to be its own, or passes on for who said so.
    pub(crate) fn do_set_memory_type(&self, page: Page, memory: MemoryType) -> Result<(), FreeError> {
        let (head, _) = self.allocated_head(page)?;
        let map = self.hal.map();
        let set = map.get(head).set_memory_type(memory);
        // Somebody has freed it since.
        if set { Ok(()) } else { Err(FreeError::DoubleFree(map.pfn(head))) }
    }
}
