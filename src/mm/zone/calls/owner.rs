//! Calls of a block's owner on its descriptor: references, claims, memory type.
#![forbid(unsafe_code)]

use super::super::error::FreeError;
use super::super::{PageAllocator, PageHal};
use crate::addr::Order;
use crate::hal::prot::MemoryType;
use crate::mm::page::{Kind, Page, PageDescriptor, PageMap, PageState, find_head};

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

    /// The order of the allocated block that starts at `page`, which nobody has claimed.
    ///
    /// # Errors
    ///
    /// As for [`PageAllocator::get_page`]; [`FreeError::InsideBlock`], [`FreeError::Claimed`].
    pub(in crate::mm) fn block_order(&self, page: Page) -> Result<Order, FreeError> {
        let (head, state) = self.allocated_head(page)?;
        let (page, head) = (self.hal.map().pfn(page), self.hal.map().pfn(head));
        match state.kind() {
            _ if page != head => Err(FreeError::InsideBlock { page, head }),
            Kind::Block => Ok(state.order()),
            kind => Err(FreeError::Claimed { page, kind }),
        }
    }

    /// Claims a block that the caller has just allocated, and nobody else has a reference to: [`PageAllocator::free_claimed`]
    /// gives it back. The owner's word stays zero. Any context.
    #[cfg(all(feature = "global", target_os = "none"))]
    #[inline]
    pub(crate) fn claim_fresh(&self, page: Page, kind: Kind) {
        self.hal.map().get(page).claim_fresh(kind);
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

    /// [`Self::put_page`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_put_page(&self, page: Page) -> Result<(), FreeError> {
        let (head, state) = self.allocated_head(page)?;
        self.do_free_pages(head, state.order())
    }

    /// Holds the block that starts at `page` for one more mapping, so that it cannot be freed, claimed or split until
    /// [`PageAllocator::unhold`]: whether it did. If not, [`PageAllocator::hold_slow`] says why, or does it. The caller owns
    /// the block. `map` is the allocator's. Any context.
    #[inline(always)]
    pub(in crate::mm) fn hold(&self, map: &H::Map, page: Page) -> bool {
        let one_more = |state: PageState| Some((state.with_one_mapping()?, ()));
        let hold = |block: &PageDescriptor| block.try_change(H::load_exclusive, H::store_exclusive, one_more).is_some();
        // Not by `get_checked`, whose answer the compiler would compare with null.
        map.find(map.pfn(page)).is_some_and(|page| hold(map.get(page)))
    }

    /// Holds the block that `page` belongs to. If it is not its first page, and `previous`, the number of the page mapped just
    /// before, belongs to the same block, it is held already.
    ///
    /// # Errors
    ///
    /// [`FreeError::Claimed`] if it has an owner, [`FreeError::MemoryType`] if it is not write-back,
    /// [`FreeError::MappedTooOften`]; otherwise as for [`PageAllocator::get_page`].
    #[cold]
    pub(in crate::mm) fn hold_slow(&self, page: Page, previous: u32) -> Result<(), FreeError> {
        let (head, state) = self.allocated_head(page)?;
        if page != head && spans(head, state, previous) {
            return Ok(());
        }
        self.hal.map().get(head).hold().map_err(|state| self.why_not_mapped(head, state))
    }

    /// Releases the block that starts at `page`, for a mapping that no CPU translates any more: whether it did. If not, that is
    /// for [`PageAllocator::unhold_slow`].
    #[inline(always)]
    pub(in crate::mm) fn unhold(&self, map: &H::Map, page: Page) -> bool {
        let one_less = |state: PageState| Some((state.with_one_mapping_less()?, ()));
        // The flush has ordered what was done through the mapping.
        map.get(page).try_change(H::load_exclusive, H::store_exclusive, one_less).is_some()
    }

    /// Releases what [`PageAllocator::hold_slow`] held.
    #[cold]
    pub(in crate::mm) fn unhold_slow(&self, page: Page, previous: u32) {
        let map = self.hal.map();
        // A block that is held is not split, so it has a head.
        if let Some((head, state)) = find_head(&map, page)
            && (page == head || !spans(head, state, previous))
        {
            map.get(head).release();
        }
    }

    /// Notes that `vm_map_ram` maps pages of the block that `page` belongs to: before it is freed, claimed or given another
    /// memory type, its mappings are looked for. The caller owns the block. Any context.
    ///
    /// # Errors
    ///
    /// As for [`PageAllocator::hold`].
    pub(in crate::mm) fn note_brief(&self, page: Page) -> Result<(), FreeError> {
        let (head, state) = self.allocated_head(page)?;
        if state.is_brief() {
            return Ok(());
        }
        self.hal.map().get(head).note_brief().map_err(|state| self.why_not_mapped(head, state))
    }

    #[cold]
    fn why_not_mapped(&self, head: Page, state: PageState) -> FreeError {
        let page = self.hal.map().pfn(head);
        match state.kind() {
            Kind::Block if state.may_be_mapped() => FreeError::MappedTooOften(page),
            Kind::Block => FreeError::MemoryType { page, memory: state.memory_type() },
            kind => FreeError::Claimed { page, kind },
        }
    }

    /// Refuses a block that areas map.
    pub(super) fn check_unmapped(&self, head: Page, state: PageState) -> Result<(), FreeError> {
        let page = self.hal.map().pfn(head);
        let briefly = || state.is_brief() && self.hal.is_mapped_briefly(page, state.order().pages());
        if state.mappings() != 0 || briefly() { Err(FreeError::Mapped(page)) } else { Ok(()) }
    }

    /// [`Self::claim`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_claim(&self, page: Page, kind: Kind, owner: u64) -> Result<(), FreeError> {
        self.change_kind(page, kind, owner)
    }

    /// [`Self::disown`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_disown(&self, page: Page, kind: Kind) -> Result<(), FreeError> {
        let (_, state) = self.allocated_head(page)?;
        if state.kind() != kind {
            return Err(FreeError::Claimed { page: self.hal.map().pfn(page), kind: state.kind() });
        }
        self.change_kind(page, Kind::Block, 0)
    }

    fn change_kind(&self, page: Page, kind: Kind, owner: u64) -> Result<(), FreeError> {
        let (head, state) = self.allocated_head(page)?;
        self.check_unmapped(head, state)?;
        let map = self.hal.map();
        let claimed = |kind| FreeError::Claimed { page: map.pfn(head), kind };
        map.get(head).become_kind(kind, owner).map_err(claimed)
    }

    /// [`Self::set_memory_type`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_set_memory_type(&self, page: Page, memory: MemoryType) -> Result<(), FreeError> {
        let (head, state) = self.allocated_head(page)?;
        if memory != state.memory_type() {
            self.check_unmapped(head, state)?;
        }
        let map = self.hal.map();
        let set = map.get(head).set_memory_type(memory);
        // Somebody has freed it since.
        if set { Ok(()) } else { Err(FreeError::DoubleFree(map.pfn(head))) }
    }
}

/// Whether the page with this number lies in a block.
const fn spans(head: Page, state: PageState, page: u32) -> bool {
    page.wrapping_sub(head.index()) >> state.raw_order() == 0
}
