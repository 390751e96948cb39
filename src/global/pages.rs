//! The machine's page allocator, and Linux's names for it as free functions.
//!
//! All functions may be called in any context unless they say otherwise; those that allocate wait only with
//! [`Gfp::DIRECT_RECLAIM`].

use super::cpu::{CpuLocal, KernelPages};
use super::linear::{linear, linear_to_phys, phys_range_to_virt, pointer};
use super::{fault_injection, kernel_tables, movers, tags};
use crate::addr::{Address, Order, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, to_usize};
use crate::arch::aarch64::cpu::{self, Relax};
use crate::arch::aarch64::irq::IrqFlags;
use crate::arch::aarch64::{mem, monitor};
use crate::gfp::{Gfp, ZoneType};
use crate::hal::Internal;
use crate::hal::cpu::PerCpu;
use crate::hal::frame::{FrameSource, NoFrame};
use crate::hal::prot::Prot;
use crate::hal::tags::TagMemory;
use crate::mm::fault_inject::FaultSite;
use crate::mm::layout;
use crate::mm::page::{Kind, Page, PageMap, Vmemmap};
use crate::mm::pgtable::{MapFlags, PgtableError, UnmapFlags};
use crate::mm::zone::{AllocError, ContigError, CpuPages, FreeError, PageAllocator, PageBatch, PageHal};
use crate::sync::Once;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

/// Whether a mapping of `vm_map_ram` points to one of this number of frames.
static BRIEF_MAPPINGS: Once<fn(Pfn, u64) -> bool, Relax> = Once::new();

/// Registers the function that knows the mappings of `vm_map_ram`. Once.
pub(super) fn set_brief_mappings(maps: fn(Pfn, u64) -> bool) {
    BRIEF_MAPPINGS.call_once(|| maps);
}

// SAFETY: HAL-1: the number and the data are in registers of the CPU, and interrupts are masked by `save`; HAL-2: by
// `COMING_AND_GOING`; HAL-3, HAL-4: the map and the linear map are made once, before pages are handed over; HAL-5: by
// LDXR, STXR and STLXR.
unsafe impl PageHal for KernelPages {
    type Map = Vmemmap;
    type Relax = Relax;

    #[inline]
    fn map(&self) -> Vmemmap {
        self.local().map
    }

    #[inline(always)]
    fn local_map(local: &CpuLocal) -> Vmemmap {
        local.map
    }

    #[inline(always)]
    fn pages(local: &CpuLocal) -> &CpuPages {
        &local.pages
    }

    #[inline(always)]
    fn may_wait(&self, local: &CpuLocal, saved: IrqFlags) -> bool {
        saved.bits() & local.scopes.no_wait() == 0
    }

    fn evacuate(&self, _: Internal, page: Page, order: Order) -> bool {
        movers().visit(self, |mover, _| mover.evacuate(page, order).then_some(())).is_some()
    }

    #[inline(always)]
    fn tags(&self, _: Internal) -> Option<&dyn TagMemory> {
        tags::tags()
    }

    #[inline(always)]
    fn caller(&self) -> VirtAddr {
        cpu::return_address()
    }

    #[inline(always)]
    fn load_exclusive(word: &AtomicU64) -> u64 {
        monitor::load(word)
    }

    #[inline(always)]
    fn store_exclusive(word: &AtomicU64, found: u64, new: u64) -> bool {
        monitor::store(word, found, new)
    }

    #[inline(always)]
    fn store_exclusive_release(word: &AtomicU64, found: u64, new: u64) -> bool {
        monitor::store_release(word, found, new)
    }

    fn vmalloc_size(&self) -> u64 {
        layout::VMALLOC_END - layout::VMALLOC_START
    }

    fn set_present(&self, _: Internal, start: PhysAddr, pages: u64, present: bool) {
        if let Err(error) = change_linear_map(start, pages, present) {
            log::error!("debug_pagealloc: {pages} pages at {start} stay as they are: {error}");
        }
    }

    fn is_mapped_briefly(&self, first: Pfn, pages: u64) -> bool {
        BRIEF_MAPPINGS.get().is_some_and(|maps| maps(first, pages))
    }

    #[inline(always)]
    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        linear(phys)
    }

    #[inline(always)]
    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        linear_to_phys(virt)
    }

    #[inline]
    fn zero(&self, _: Internal, start: PhysAddr, pages: u64) {
        let first = linear(start).as_ptr::<mem::Page>();
        if let Some(first) = NonNull::new(first).filter(|_| pages != 0) {
            // SAFETY: the allocator has just taken these pages of RAM for its caller, and the linear map maps them.
            unsafe { mem::clear_pages(first, pages) };
        }
    }

    fn fill(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) {
        let first = linear(start).as_ptr::<u8>();
        // SAFETY: pages of RAM that the allocator is about to put on its lists, or has there under the zone's lock.
        unsafe { first.write_bytes(byte, to_usize(pages * PAGE_SIZE)) };
    }

    fn find_other(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) -> Option<(PhysAddr, u8)> {
        let first = linear(start).as_ptr::<u64>();
        // SAFETY: pages of RAM that the allocator has just taken for its caller; this check looks for a writer that uses them
        // all the same, and such a writer writes no more than bytes.
        let words = unsafe { core::slice::from_raw_parts(first, to_usize(pages * PAGE_SIZE / 8)) };
        let expected = u64::from_ne_bytes([byte; 8]);
        let (index, word) = words.iter().enumerate().find(|(_, word)| **word != expected)?;
        let (place, found) = word.to_ne_bytes().into_iter().enumerate().find(|(_, found)| *found != byte)?;
        Some((PhysAddr::new(start.get() + (index * 8 + place) as u64), found))
    }
}

pub(super) static PAGES: PageAllocator<KernelPages> = PageAllocator::new(KernelPages(()));

/// The page allocator, for reports and checks.
#[must_use]
pub fn page_allocator() -> &'static PageAllocator<KernelPages> {
    &PAGES
}

/// Mapping flags of pages that enter and leave the linear map: those of the first page that was taken out.
static LINEAR_PROT: Once<Prot, Relax> = Once::new();

/// Maps pages in the linear map, or takes them out of it, if it has an entry for each.
fn change_linear_map(start: PhysAddr, pages: u64, present: bool) -> Result<(), PgtableError> {
    let range = PhysRange::from_size(start, pages.saturating_mul(PAGE_SIZE)).and_then(phys_range_to_virt);
    let (Some(tables), Some(range)) = (kernel_tables(), range) else { return Err(PgtableError::OutsideSpace) };
    // The tables stay, so that no table is needed in the middle of an allocation.
    let frames = BuddyFrames::ATOMIC;
    if present {
        let prot = *LINEAR_PROT.get().ok_or(PgtableError::OutsideSpace)?;
        return tables.do_map(&frames, range, start, prot, MapFlags::NO_HUGE | MapFlags::NO_CONT);
    }
    let found = tables.translate(range.start()).ok_or(PgtableError::OutsideSpace)?;
    LINEAR_PROT.call_once(|| found.leaf.prot);
    tables.do_unmap_and_flush(&frames, range, UnmapFlags::KEEP_TABLES)
}

/// Page frames for page tables, allocated with its flags.
#[derive(Clone, Copy, Debug)]
pub struct BuddyFrames(Gfp);

impl BuddyFrames {
    /// For any context.
    pub const ATOMIC: Self = Self(Gfp::ATOMIC);

    /// Allocated with the part of `gfp` that [`Gfp::effort`] keeps.
    #[inline]
    #[must_use]
    pub const fn new(gfp: Gfp) -> Self {
        Self(gfp.effort())
    }
}

// SAFETY: the page allocator gives whole pages of RAM that nothing else uses, which the linear map reaches.
unsafe impl FrameSource for BuddyFrames {
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        if fault_injection::should_fail(FaultSite::PageTable, self.0, 1) {
            return Err(NoFrame);
        }
        // The caller gets the error, and reports it or uses a fallback. Tables are reclaimable, and lie close together until
        // then.
        let page = alloc_page(self.0 | Gfp::NOWARN | Gfp::RECLAIMABLE).map_err(|_| NoFrame)?;
        PAGES.claim_fresh(page, Kind::PageTable);
        Ok(page_to_phys(page))
    }

    unsafe fn free_table(&self, table: PhysAddr) {
        let Some(page) = pfn_to_page(Pfn::containing(table)) else { return };
        // A table from before the hand-over is reserved memory, which becomes the allocator's here.
        let freed = match PAGES.free_claimed(page, Kind::PageTable) {
            // SAFETY: the caller says that this is a table to which nothing points any more.
            Err(_) => unsafe { PAGES.free_reserved(page, 1) }.map(|_| ()),
            freed => freed,
        };
        if let Err(error) = freed {
            log::error!("page table at {table} is lost: {error}");
        }
    }
}

/// Allocates 2^order pages, aligned to their size. See [`PageAllocator::alloc_pages`].
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn alloc_pages(gfp: Gfp, order: Order) -> Result<Page, AllocError> {
    PAGES.alloc_pages(gfp, order)
}

/// Allocates a page.
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn alloc_page(gfp: Gfp) -> Result<Page, AllocError> {
    PAGES.alloc_pages(gfp, Order::ZERO)
}

/// Allocates 2^order pages and returns their address in the linear map (Linux: `__get_free_pages`).
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn get_free_pages(gfp: Gfp, order: Order) -> Result<NonNull<u8>, AllocError> {
    // A page from a list of this CPU has no tag.
    PAGES.alloc_pages_as(gfp, order, |page| pointer(linear_address(page)), |page| pointer(page_address(page)))
}

/// Allocates a zeroed page and returns its address.
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn get_zeroed_page(gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    get_free_pages(gfp | Gfp::ZERO, Order::ZERO)
}

/// Allocates 2^order pages that every device reaches, and returns their address (Linux: `__get_dma_pages`).
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// [`AllocError`]; flags for another zone contradict these.
#[inline(always)]
pub fn get_dma_pages(gfp: Gfp, order: Order) -> Result<NonNull<u8>, AllocError> {
    get_free_pages(gfp | Gfp::DMA, order)
}

/// Fills a batch with single pages; see [`PageAllocator::alloc_pages_bulk`].
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// [`AllocError`] if there was not even one.
#[inline(always)]
pub fn alloc_pages_bulk<const N: usize>(gfp: Gfp, batch: &mut PageBatch<N>) -> Result<usize, AllocError> {
    PAGES.alloc_pages_bulk(gfp, batch)
}

/// Allocates the fewest contiguous pages that hold `bytes`; see [`PageAllocator::alloc_pages_exact`].
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// [`AllocError`].
pub fn alloc_pages_exact(gfp: Gfp, bytes: usize) -> Result<NonNull<u8>, AllocError> {
    PAGES.alloc_pages_exact(gfp, bytes as u64).map(|page| pointer(page_address(page)))
}

/// Splits an allocated block into single pages; see [`PageAllocator::split_page`].
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// As for [`free_pages`](super::free_pages).
///
/// # Safety
///
/// The caller owns the block, alone, and no owning type holds it.
pub unsafe fn split_page(page: Page, order: Order) -> Result<(), FreeError> {
    PAGES.do_split_page(page, order)
}

/// Allocates `pages` contiguous pages, any number, from a multiple of `align` on; see [`PageAllocator::alloc_contig_pages`].
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// [`ContigError`] if there is no such run of free pages.
pub fn alloc_contig_pages(pages: u32, align: u32, gfp: Gfp) -> Result<Page, ContigError> {
    PAGES.alloc_contig_pages(pages, align, gfp)
}

/// Allocates the pages from `first` on; see [`PageAllocator::alloc_contig_range`].
///
/// As a value: [`Pages`].
///
/// # Errors
///
/// [`ContigError`] if one of them is in use.
pub fn alloc_contig_range(first: Page, pages: u32, gfp: Gfp) -> Result<(), ContigError> {
    PAGES.alloc_contig_range(first, pages, gfp)
}

/// Takes another reference to an allocated block; see [`PageAllocator::get_page`].
///
/// # Errors
///
/// [`FreeError`] if the block is not allocated.
pub fn get_page(page: Page) -> Result<(), FreeError> {
    PAGES.get_page(page)
}

/// References to the block that holds `page`; 0 if it is free.
#[must_use]
pub fn page_count(page: Page) -> u32 {
    PAGES.page_count(page)
}

/// The address of a page's first byte in the linear map. Every page has one on a 64-bit machine. Where memory is tagged it
/// carries the tag of the page's owner, if the owner is one.
#[must_use]
#[inline(always)]
pub fn page_address(page: Page) -> VirtAddr {
    if tags::tags_are_on() { tags::tagged_page(page) } else { linear_address(page) }
}

#[inline(always)]
fn linear_address(page: Page) -> VirtAddr {
    linear(page_to_phys(page))
}

/// The physical address of a page's first byte.
#[must_use]
#[inline(always)]
pub fn page_to_phys(page: Page) -> PhysAddr {
    PAGES.hal().local().map.phys(page)
}

/// The frame of a page.
#[must_use]
pub fn page_to_pfn(page: Page) -> Pfn {
    PAGES.hal().local().map.pfn(page)
}

/// The page of a frame, or `None` if the frame has no descriptor.
#[must_use]
pub fn pfn_to_page(pfn: Pfn) -> Option<Page> {
    PAGES.hal().local().map.find(pfn)
}

/// The page that holds the byte at an address of the linear map.
///
/// # Errors
///
/// [`FreeError::NotLinear`] for an address outside the linear map, [`FreeError::NoDescriptor`] where there is no RAM.
pub fn virt_to_page(addr: impl Address) -> Result<Page, FreeError> {
    PAGES.page_at(addr.at().align_down(1 << PAGE_SHIFT))
}

/// The physical address behind an address of the linear map, with any memory tag, or `None` for any other.
#[must_use]
pub fn virt_to_phys(virt: impl Address) -> Option<PhysAddr> {
    linear_to_phys(tags::untag(virt.at()))
}

/// Pages that the allocator manages, free or not.
#[must_use]
pub fn totalram_pages() -> u64 {
    PAGES.total_pages()
}

/// Free pages in all zones, those on per-CPU lists not counted.
#[must_use]
pub fn nr_free_pages() -> u64 {
    PAGES.free_page_count()
}

/// Returns the pages on every CPU's lists to their zones; see [`PageAllocator::drain_all`].
pub fn drain_all_pages() {
    PAGES.drain_all();
}

/// Maps a page into the kernel's address space. All RAM is in the linear map of a 64-bit machine, so this is
/// [`page_address`], never fails and costs nothing; it exists so that code which ran where memory is high runs here.
#[must_use]
pub fn kmap(page: Page) -> NonNull<u8> {
    pointer(page_address(page))
}

/// As [`kmap`], for contexts that may not sleep. Here neither does.
#[must_use]
pub fn kmap_atomic(page: Page) -> NonNull<u8> {
    pointer(page_address(page))
}

/// Undoes [`kmap`] and [`kmap_atomic`]: a no-op on a 64-bit machine.
pub fn kunmap(_page: Page) {}

/// A block of pages that is freed when it is dropped.
///
/// Raw: [`alloc_pages`], [`alloc_page`],
/// [`get_free_pages`], [`get_zeroed_page`],
/// [`get_dma_pages`], [`alloc_pages_bulk`],
/// [`alloc_pages_exact`], [`split_page`],
/// [`alloc_contig_pages`], [`alloc_contig_range`],
/// [`free_pages`](super::free_pages), [`free_page`](super::free_page), [`free_pages_bulk`](super::free_pages_bulk),
/// [`free_pages_exact`](super::free_pages_exact), [`free_contig_range`](super::free_contig_range),
/// [`put_page`](super::put_page).
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/pages.rs"), "```")]
#[derive(Debug)]
#[must_use = "the pages are freed at once if nobody keeps them"]
pub struct Pages {
    page: Page,
    order: Order,
}

impl Pages {
    /// Allocates 2^order pages.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    #[inline(always)]
    pub fn new(gfp: Gfp, order: Order) -> Result<Self, AllocError> {
        Ok(Self { page: alloc_pages(gfp, order)?, order })
    }

    /// The first page.
    #[must_use]
    pub const fn page(&self) -> Page {
        self.page
    }

    /// The order.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// The address of the first byte.
    #[must_use]
    pub fn address(&self) -> VirtAddr {
        page_address(self.page)
    }

    /// The block as raw pages, which the caller frees.
    pub fn into_raw(self) -> Page {
        let page = self.page;
        core::mem::forget(self);
        page
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Err(error) = PAGES.do_free_pages(self.page, self.order) {
            log::error!("a block that was owned cannot be freed: {error}");
        }
    }
}

/// The zone that a page belongs to.
#[must_use]
pub fn page_zone(page: Page) -> Option<ZoneType> {
    PAGES.zone_of_page(page)
}
