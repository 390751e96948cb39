//! Calls on pages that somebody names: whether they are the caller's, only the caller knows.
//!
//! Each is declared `unsafe` here for everybody else, and is a `do_…` function inside this crate. Nothing here does anything.

use super::super::{FreeError, Handed, PageAllocator, PageBatch, PageHal, SetupError, WatermarkTuning, ZoneLimits};
use crate::addr::{Order, PhysRange};
use crate::hal::prot::MemoryType;
use crate::mm::page::{Kind, Page};

impl<H: PageHal> PageAllocator<H> {
    /// Gives the allocator its memory: `ram`, of which `free` is free; both sorted and disjoint. The descriptors of
    /// every section are zero. Once, on the boot CPU, while it is the only one; interrupts may be as they are.
    ///
    /// Cost: O(RAM / 4 MiB + ranges), beyond the zeroing of the descriptors.
    ///
    /// # Errors
    ///
    /// [`SetupError`]; the allocator has no memory then.
    ///
    /// # Safety
    ///
    /// `ram` is RAM, mapped as HAL-4 of [`PageHal`] says, and nobody uses what is in `free`.
    pub unsafe fn hand_over(
        &self,
        ram: impl Iterator<Item = PhysRange> + Clone,
        free: impl Iterator<Item = PhysRange>,
        limits: ZoneLimits,
        tuning: WatermarkTuning,
    ) -> Result<Handed, SetupError> {
        self.do_hand_over(ram, free, limits, tuning)
    }

    /// Gives a block back, or drops one of several references to it (Linux: `__free_pages`). Any context.
    ///
    /// Cost: about twenty instructions onto a list of this CPU where the order is constant; else O(orders).
    ///
    /// # Errors
    ///
    /// A variant of [`FreeError`] that names the error; nothing has changed then.
    ///
    /// # Safety
    ///
    /// The caller owns what it names, alone: it came from this allocator, no owning type (`Pages`, `KBox`, `VBox`,
    /// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name
    /// that is wrong in itself (free already, another order, no start) is found and refused.
    #[inline(always)]
    pub unsafe fn free_pages(&self, page: Page, order: Order) -> Result<(), FreeError> {
        self.do_free_pages(page, order)
    }

    /// Gives a block back to the cold end of this CPU's list: its content is in no cache (Linux before 4.15:
    /// `free_cold_page`). Any context. Cost: O(length of the list).
    ///
    /// # Errors
    ///
    /// As for [`PageAllocator::free_pages`].
    ///
    /// # Safety
    ///
    /// The caller owns what it names, alone: it came from this allocator, no owning type (`Pages`, `KBox`, `VBox`,
    /// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name
    /// that is wrong in itself (free already, another order, no start) is found and refused.
    #[inline]
    pub unsafe fn free_pages_cold(&self, page: Page, order: Order) -> Result<(), FreeError> {
        self.do_free_pages_cold(page, order)
    }

    /// Frees the pages of a batch and leaves it empty. Any context. Cost: nine instructions a page onto a list of this
    /// CPU.
    ///
    /// # Errors
    ///
    /// That of the first page that cannot be freed, as for [`PageAllocator::free_pages`]; it and the pages below it are
    /// still in the batch, those above it are free.
    ///
    /// # Safety
    ///
    /// The caller owns what it names, alone: it came from this allocator, no owning type (`Pages`, `KBox`, `VBox`,
    /// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name
    /// that is wrong in itself (free already, another order, no start) is found and refused.
    #[inline(always)]
    pub unsafe fn free_pages_bulk<const N: usize>(&self, batch: &mut PageBatch<N>) -> Result<(), FreeError> {
        self.do_free_pages_bulk(batch)
    }

    /// Gives back what [`PageAllocator::alloc_pages_exact`] returned for the same number of bytes.
    ///
    /// # Errors
    ///
    /// That of the first page that cannot be freed; the pages before it are free.
    ///
    /// # Safety
    ///
    /// The caller owns what it names, alone: it came from this allocator, no owning type (`Pages`, `KBox`, `VBox`,
    /// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name
    /// that is wrong in itself (free already, another order, no start) is found and refused.
    #[inline]
    pub unsafe fn free_pages_exact(&self, page: Page, bytes: u64) -> Result<(), FreeError> {
        self.do_free_pages_exact(page, bytes)
    }

    /// Makes an allocated block into single pages, each with a reference of its own, to be freed one by one (Linux:
    /// `split_page`). By the one holder of the block. Cost: one store a page.
    ///
    /// # Errors
    ///
    /// A variant of [`FreeError`] if this is no block of `order` that could be freed; [`FreeError::Claimed`] as well if
    /// it is compound, since its pages point to their head. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the block, alone, and no owning type holds it.
    #[inline]
    pub unsafe fn split_page(&self, page: Page, order: Order) -> Result<(), FreeError> {
        self.do_split_page(page, order)
    }

    /// Frees the `pages` pages from `first` on, each a block of its own.
    ///
    /// # Errors
    ///
    /// That of the first page that cannot be freed; those before it are free.
    ///
    /// # Safety
    ///
    /// The caller owns what it names, alone: it came from this allocator, no owning type (`Pages`, `KBox`, `VBox`,
    /// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name
    /// that is wrong in itself (free already, another order, no start) is found and refused.
    #[inline]
    pub unsafe fn free_contig_range(&self, first: Page, pages: u32) -> Result<(), FreeError> {
        self.do_free_contig_range(first, pages)
    }

    /// Frees a contiguous allocation whole (Linux: `cma_release`): movable allocations may borrow the pages again. Any context.
    /// Cost: O(pages).
    ///
    /// # Errors
    ///
    /// [`FreeError::NotContiguous`] if no contiguous allocation of so many pages starts there, its pages are not write-back, or
    /// somebody else holds one of them (`get_page`); [`FreeError::DoubleFree`] if it is free already. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// As for [`PageAllocator::free_contig_range`].
    #[inline]
    pub unsafe fn cma_release(&self, first: Page, pages: u32) -> Result<(), FreeError> {
        self.do_cma_release(first, pages)
    }

    /// Drops a reference to the block that holds `page`; the last one frees it (Linux: `put_page`). Any context.
    ///
    /// # Errors
    ///
    /// As for [`PageAllocator::free_pages`].
    ///
    /// # Safety
    ///
    /// The reference is the caller's to drop: after the last one nobody uses the memory by any address or mapping of
    /// it.
    #[inline]
    pub unsafe fn put_page(&self, page: Page) -> Result<(), FreeError> {
        self.do_put_page(page)
    }

    /// Notes what an allocated block is used for, and a word of its new owner. From then on nobody can free it, nor
    /// claim it, until the owner has let go with [`PageAllocator::disown`]. Any context.
    ///
    /// # Errors
    ///
    /// [`FreeError::Claimed`] if the block has an owner, [`FreeError::Mapped`] if an area maps it; otherwise as for
    /// [`PageAllocator::get_page`].
    ///
    /// # Safety
    ///
    /// The caller owns the block, alone, and no owning type holds it.
    #[inline]
    pub unsafe fn claim(&self, page: Page, kind: Kind, owner: u64) -> Result<(), FreeError> {
        self.do_claim(page, kind, owner)
    }

    /// Makes a block ordinary again that the caller had claimed as `kind`.
    ///
    /// # Errors
    ///
    /// [`FreeError::Claimed`] if it is claimed as something else; otherwise as for [`PageAllocator::get_page`].
    ///
    /// # Safety
    ///
    /// The caller owns the block, alone, and no owning type holds it.
    #[inline]
    pub unsafe fn disown(&self, page: Page, kind: Kind) -> Result<(), FreeError> {
        self.do_disown(page, kind)
    }

    /// Notes that every mapping of an allocated block has this memory type from now on; the block cannot be freed until
    /// it is write-back again (promise 9). Whether the mappings agree is the caller's affair; areas of `vmap` do not.
    ///
    /// # Errors
    ///
    /// [`FreeError::Mapped`] if an area maps it; otherwise as for [`PageAllocator::get_page`].
    ///
    /// # Safety
    ///
    /// Every mapping of the block that there is, and every one made later, has that memory type.
    #[inline]
    pub unsafe fn set_memory_type(&self, page: Page, memory: MemoryType) -> Result<(), FreeError> {
        self.do_set_memory_type(page, memory)
    }
}
