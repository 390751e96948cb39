//! Giving pages back, by page or by address: each call reports an error in the name, and has a sister `try_…` that answers with
//! it instead.

use super::linear::linear;
use super::misuse::refused;
use super::pages::PAGES;
use crate::addr::{Order, Pointer, VirtAddr};
use crate::mm::page::Page;
use crate::mm::zone::{FreeError, PageBatch};
use core::panic::Location;

/// Name of a block: its first page, or a pointer to its first byte in the linear map.
pub trait BlockName: Copy {
    /// The first page.
    ///
    /// # Errors
    ///
    /// [`FreeError`] for an address that belongs to no page.
    fn page(self) -> Result<Page, FreeError>;

    /// The address, for a report.
    fn named(self) -> VirtAddr;
}

impl BlockName for Page {
    #[inline(always)]
    fn page(self) -> Result<Page, FreeError> {
        Ok(self)
    }

    fn named(self) -> VirtAddr {
        linear(super::page_to_phys(self))
    }
}

impl<P: Pointer> BlockName for P {
    #[inline]
    fn page(self) -> Result<Page, FreeError> {
        PAGES.page_at(self.at())
    }

    fn named(self) -> VirtAddr {
        self.at()
    }
}

/// Frees a block, named by its first page or by its address (Linux: `__free_pages` and `free_pages`, told apart by type here).
/// Allocated by [`alloc_pages`](super::alloc_pages) and its kin; owned by [`Pages`](super::Pages). A wrong name is reported,
/// and nothing changes. Any context.
///
/// As a value: [`Pages`](super::Pages).
///
/// # Safety
///
/// The caller owns what it names, alone: it came from this allocator, no owning type ([`Pages`](super::Pages), `KBox`,
/// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name that is
/// wrong in itself is found and refused.
#[inline(always)]
#[track_caller]
pub unsafe fn free_pages(block: impl BlockName, order: Order) {
    if let Err(error) = block.page().and_then(|page| PAGES.do_free_pages(page, order)) {
        refused("free_pages", block.named(), &error, Location::caller());
    }
}

/// As [`free_pages`], but returns an error for a bad name instead of reporting it.
///
/// # Errors
///
/// A variant of [`FreeError`] that names the error; nothing has changed then.
///
/// # Safety
///
/// As for [`free_pages`].
#[inline(always)]
pub unsafe fn try_free_pages(block: impl BlockName, order: Order) -> Result<(), FreeError> {
    block.page().and_then(|page| PAGES.do_free_pages(page, order))
}

/// Frees a page, named by its descriptor or by its address: [`free_pages`] of order zero. A wrong name is reported, and nothing
/// changes. Any context.
///
/// As a value: [`Pages`](super::Pages).
///
/// # Safety
///
/// The caller owns what it names, alone: it came from this allocator, no owning type ([`Pages`](super::Pages), `KBox`,
/// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name that is
/// wrong in itself is found and refused.
#[inline(always)]
#[track_caller]
pub unsafe fn free_page(page: impl BlockName) {
    if let Err(error) = page.page().and_then(|page| PAGES.do_free_pages(page, Order::ZERO)) {
        refused("free_page", page.named(), &error, Location::caller());
    }
}

/// As [`free_page`], but returns an error for a bad name instead of reporting it.
///
/// # Errors
///
/// A variant of [`FreeError`] that names the error; nothing has changed then.
///
/// # Safety
///
/// As for [`free_page`].
#[inline(always)]
pub unsafe fn try_free_page(page: impl BlockName) -> Result<(), FreeError> {
    page.page().and_then(|page| PAGES.do_free_pages(page, Order::ZERO))
}

/// Frees the pages of a batch; see [`PageAllocator::free_pages_bulk`](crate::mm::zone::PageAllocator::free_pages_bulk).
/// A wrong name is reported, and nothing changes. Any context.
///
/// As a value: [`Pages`](super::Pages).
///
/// # Safety
///
/// The caller owns what it names, alone: it came from this allocator, no owning type ([`Pages`](super::Pages), `KBox`,
/// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name that is
/// wrong in itself is found and refused.
#[inline(always)]
#[track_caller]
pub unsafe fn free_pages_bulk<const N: usize>(batch: &mut PageBatch<N>) {
    if let Err(error) = PAGES.do_free_pages_bulk(batch) {
        refused(
            "free_pages_bulk",
            batch.pages().last().map_or(VirtAddr::ZERO, |page| page.named()),
            &error,
            Location::caller(),
        );
    }
}

/// As [`free_pages_bulk`], but returns an error for a bad name instead of reporting it.
///
/// # Errors
///
/// A variant of [`FreeError`] that names the error; nothing has changed then.
///
/// # Safety
///
/// As for [`free_pages_bulk`].
#[inline(always)]
pub unsafe fn try_free_pages_bulk<const N: usize>(batch: &mut PageBatch<N>) -> Result<(), FreeError> {
    PAGES.do_free_pages_bulk(batch)
}

/// Frees the pages that [`alloc_pages_exact`](super::alloc_pages_exact) returned for the same number of bytes. A wrong name is
/// reported, and nothing changes. Any context.
///
/// As a value: [`Pages`](super::Pages).
///
/// # Safety
///
/// The caller owns what it names, alone: it came from this allocator, no owning type ([`Pages`](super::Pages), `KBox`,
/// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name that is
/// wrong in itself is found and refused.
#[inline]
#[track_caller]
pub unsafe fn free_pages_exact(start: impl BlockName, bytes: usize) {
    if let Err(error) = start.page().and_then(|page| PAGES.do_free_pages_exact(page, bytes as u64)) {
        refused("free_pages_exact", start.named(), &error, Location::caller());
    }
}

/// As [`free_pages_exact`], but returns an error for a bad name instead of reporting it.
///
/// # Errors
///
/// A variant of [`FreeError`] that names the error; nothing has changed then. Of several pages, those before the bad one are
/// free.
///
/// # Safety
///
/// As for [`free_pages_exact`].
#[inline]
pub unsafe fn try_free_pages_exact(start: impl BlockName, bytes: usize) -> Result<(), FreeError> {
    start.page().and_then(|page| PAGES.do_free_pages_exact(page, bytes as u64))
}

/// Frees contiguous pages, each a block of its own.
/// A wrong name is reported, and nothing changes. Any context.
///
/// As a value: [`Pages`](super::Pages).
///
/// # Safety
///
/// The caller owns what it names, alone: it came from this allocator, no owning type ([`Pages`](super::Pages), `KBox`,
/// `KernelStack`, …) holds it, and after the call nobody uses the memory by any address or mapping of it. A name that is
/// wrong in itself is found and refused.
#[inline]
#[track_caller]
pub unsafe fn free_contig_range(first: Page, pages: u32) {
    if let Err(error) = PAGES.do_free_contig_range(first, pages) {
        refused("free_contig_range", first.named(), &error, Location::caller());
    }
}

/// As [`free_contig_range`], but returns an error for a bad name instead of reporting it.
///
/// # Errors
///
/// A variant of [`FreeError`] that names the error; nothing has changed then. Of several pages, those before the bad one are
/// free.
///
/// # Safety
///
/// As for [`free_contig_range`].
#[inline]
pub unsafe fn try_free_contig_range(first: Page, pages: u32) -> Result<(), FreeError> {
    PAGES.do_free_contig_range(first, pages)
}

/// Drops a reference; the last one frees the block.
/// A wrong name is reported, and nothing changes. Any context.
///
/// As a value: [`Pages`](super::Pages).
///
/// # Safety
///
/// The reference is the caller's to drop: after the last one nobody uses the memory by any address or mapping of it.
#[inline]
#[track_caller]
pub unsafe fn put_page(page: Page) {
    if let Err(error) = PAGES.do_put_page(page) {
        refused("put_page", page.named(), &error, Location::caller());
    }
}

/// As [`put_page`], but returns an error for a bad name instead of reporting it.
///
/// # Errors
///
/// A variant of [`FreeError`] that names the error; nothing has changed then.
///
/// # Safety
///
/// As for [`put_page`].
#[inline]
pub unsafe fn try_put_page(page: Page) -> Result<(), FreeError> {
    PAGES.do_put_page(page)
}
