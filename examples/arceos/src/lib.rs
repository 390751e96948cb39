//! Quarry as an allocator of ArceOS: a type for its traits `ByteAllocator` and `PageAllocator`, so that its kernels can take
//! it where they take a TLSF, slab or buddy allocator now.
//!
//! Bytes come from `kmalloc`, pages from the buddy system; both share the memory.
#![no_std]

use ax_allocator::{AllocError, AllocResult, BaseAllocator, ByteAllocator, PageAllocator};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use quarry::addr::{Order, VirtAddr};
use quarry::gfp::Gfp;
use quarry::mm::page::{Page, PageMap};
use quarry::mm::zone::PageHal;
use quarry::single::{Heap, Pages};

const PAGE_SIZE: usize = quarry::addr::PAGE_SIZE as usize;

/// The allocator. It has no memory until [`BaseAllocator::init`], and takes no more later.
#[derive(Default)]
pub struct QuarryAllocator {
    heap: Option<&'static Heap>,
    bytes: usize,
    total_pages: usize,
    pages: usize,
}

impl QuarryAllocator {
    /// Without memory.
    pub const fn new() -> Self {
        Self { heap: None, bytes: 0, total_pages: 0, pages: 0 }
    }

    fn heap(&self) -> AllocResult<&'static Heap> {
        self.heap.ok_or(AllocError::NoMemory)
    }

    fn free_pages(&self) -> usize {
        self.heap.map_or(0, |heap| {
            let pages = heap.slabs().pages();
            (pages.free_page_count() + pages.pages_on_lists(quarry::addr::CpuId::BOOT)) as usize
        })
    }
}

impl BaseAllocator for QuarryAllocator {
    /// # Panics
    ///
    /// If the memory is too small: the trait has no way to say so.
    fn init(&mut self, start: usize, size: usize) {
        // SAFETY: ArceOS gives memory that is mapped and nobody else's, and calls from one context at a time: by `&mut`.
        let heap = unsafe { Heap::place(core::ptr::with_exposed_provenance_mut(start), size, 0) };
        self.heap = Some(heap.unwrap_or_else(|error| panic!("{error}")));
        self.total_pages = self.free_pages();
    }

    fn add_memory(&mut self, _: usize, _: usize) -> AllocResult {
        // Page descriptors are made once, for one range.
        Err(AllocError::InvalidParam)
    }
}

impl ByteAllocator for QuarryAllocator {
    fn alloc(&mut self, layout: Layout) -> AllocResult<NonNull<u8>> {
        if layout.size() == 0 {
            return Err(AllocError::InvalidParam);
        }
        // SAFETY: the layout is not empty.
        let block = NonNull::new(unsafe { self.heap()?.alloc(layout) }).ok_or(AllocError::NoMemory)?;
        self.bytes += layout.size();
        Ok(block)
    }

    fn dealloc(&mut self, pos: NonNull<u8>, layout: Layout) {
        if let Some(heap) = self.heap {
            // SAFETY: the trait's contract: it came from `alloc` with this layout.
            unsafe { heap.dealloc(pos.as_ptr(), layout) };
            self.bytes = self.bytes.saturating_sub(layout.size());
        }
    }

    fn total_bytes(&self) -> usize {
        self.total_pages * PAGE_SIZE
    }

    fn used_bytes(&self) -> usize {
        self.bytes
    }

    fn available_bytes(&self) -> usize {
        self.free_pages() * PAGE_SIZE
    }
}

fn count(pages: usize) -> AllocResult<u32> {
    u32::try_from(pages).ok().filter(|count| *count != 0).ok_or(AllocError::InvalidParam)
}

/// The alignment in pages.
fn aligned(align: usize) -> AllocResult<u32> {
    if !align.is_power_of_two() {
        return Err(AllocError::InvalidParam);
    }
    count(align.div_ceil(PAGE_SIZE))
}

fn address(pages: &Pages, page: Page) -> usize {
    pages.hal().to_virt(pages.hal().map().phys(page)).get() as usize
}

impl PageAllocator for QuarryAllocator {
    const PAGE_SIZE: usize = PAGE_SIZE;

    fn alloc_pages(&mut self, num_pages: usize, align: usize) -> AllocResult<usize> {
        let (pages, wanted, align) = (self.heap()?.slabs().pages(), count(num_pages)?, aligned(align)?);
        // A block of the buddy system is aligned to its size; of its pages each is freed for itself.
        let order = Order::new(wanted.trailing_zeros() as u8).filter(|_| wanted.is_power_of_two() && align <= wanted);
        let first = match order {
            Some(order) => pages.alloc_pages(Gfp::KERNEL, order).ok().inspect(|page| {
                // SAFETY: allocated by the line above.
                let _ = unsafe { pages.split_page(*page, order) };
            }),
            None => pages.alloc_contig_pages(wanted, align, Gfp::KERNEL).ok(),
        };
        let first = first.ok_or(AllocError::NoMemory)?;
        self.pages += num_pages;
        Ok(address(pages, first))
    }

    fn dealloc_pages(&mut self, pos: usize, num_pages: usize) {
        let (Some(heap), Ok(wanted)) = (self.heap, count(num_pages)) else { return };
        let Ok(first) = heap.page_at(VirtAddr::new(pos as u64)) else { return };
        // SAFETY: the trait's contract: the pages are the caller's, who does not use them any more.
        if unsafe { heap.slabs().pages().free_contig_range(first, wanted) }.is_ok() {
            self.pages = self.pages.saturating_sub(num_pages);
        }
    }

    fn alloc_pages_at(&mut self, base: usize, num_pages: usize, align: usize) -> AllocResult<usize> {
        let (heap, wanted) = (self.heap()?, count(num_pages)?);
        if !align.is_power_of_two() || !base.is_multiple_of(align.max(PAGE_SIZE)) {
            return Err(AllocError::InvalidParam);
        }
        let first = heap.page_at(VirtAddr::new(base as u64)).map_err(|_| AllocError::InvalidParam)?;
        heap.slabs().pages().alloc_contig_range(first, wanted, Gfp::KERNEL).map_err(|_| AllocError::NoMemory)?;
        self.pages += num_pages;
        Ok(base)
    }

    fn total_pages(&self) -> usize {
        self.total_pages
    }

    fn used_pages(&self) -> usize {
        self.pages
    }

    fn available_pages(&self) -> usize {
        self.free_pages()
    }
}
