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

/// Ranges of memory that one allocator takes: ArceOS gives each bank of RAM, and what firmware has left, for itself.
const RANGES: usize = 16;

/// A range of memory with a heap in it.
#[derive(Clone, Copy)]
struct Range {
    start: usize,
    size: usize,
    heap: &'static Heap,
}

impl Range {
    fn pages(self) -> &'static Pages {
        self.heap.slabs().pages()
    }

    fn free_pages(self) -> usize {
        let pages = self.pages();
        (pages.free_page_count() + pages.pages_on_lists(quarry::addr::CpuId::BOOT)) as usize
    }
}

/// The allocator. It has no memory until [`BaseAllocator::init`]; [`BaseAllocator::add_memory`] gives it more. A block lies in
/// one range: those that touch are not joined.
#[derive(Default)]
pub struct QuarryAllocator {
    ranges: [Option<Range>; RANGES],
    bytes: usize,
    total_pages: usize,
    pages: usize,
}

impl QuarryAllocator {
    /// Without memory.
    pub const fn new() -> Self {
        Self { ranges: [None; RANGES], bytes: 0, total_pages: 0, pages: 0 }
    }

    fn ranges(&self) -> impl Iterator<Item = Range> {
        self.ranges.iter().copied().flatten()
    }

    /// The range that an address is in.
    fn range_of(&self, at: usize) -> Option<Range> {
        self.ranges().find(|range| at.wrapping_sub(range.start) < range.size)
    }

    /// Memory of the first range that has it.
    fn first<T>(&self, take: impl FnMut(Range) -> Option<T>) -> AllocResult<T> {
        self.ranges().find_map(take).ok_or(AllocError::NoMemory)
    }

    fn free_pages(&self) -> usize {
        self.ranges().map(Range::free_pages).sum()
    }
}

impl BaseAllocator for QuarryAllocator {
    /// # Panics
    ///
    /// If the memory is too small: the trait has no way to say so.
    fn init(&mut self, start: usize, size: usize) {
        if let Err(error) = self.add_memory(start, size) {
            panic!("no heap in {size:#x} bytes at {start:#x}: {error:?}");
        }
    }

    /// Fails where the range meets one that is there, is too small for its own descriptors, or is one too many.
    fn add_memory(&mut self, start: usize, size: usize) -> AllocResult {
        let end = start.checked_add(size).ok_or(AllocError::InvalidParam)?;
        if self.ranges().any(|range| start < range.start + range.size && range.start < end) {
            return Err(AllocError::MemoryOverlap);
        }
        let place = self.ranges.iter_mut().find(|range| range.is_none()).ok_or(AllocError::NoMemory)?;
        // SAFETY: ArceOS gives memory that is mapped and nobody else's, and calls from one context at a time: by `&mut`.
        let heap = unsafe { Heap::place(core::ptr::with_exposed_provenance_mut(start), size, 0) };
        let range = Range { start, size, heap: heap.map_err(|_| AllocError::InvalidParam)? };
        *place = Some(range);
        self.total_pages += range.free_pages();
        Ok(())
    }
}

impl ByteAllocator for QuarryAllocator {
    fn alloc(&mut self, layout: Layout) -> AllocResult<NonNull<u8>> {
        if layout.size() == 0 {
            return Err(AllocError::InvalidParam);
        }
        // SAFETY: the layout is not empty.
        let block = self.first(|range| NonNull::new(unsafe { range.heap.alloc(layout) }))?;
        self.bytes += layout.size();
        Ok(block)
    }

    fn dealloc(&mut self, pos: NonNull<u8>, layout: Layout) {
        if let Some(range) = self.range_of(pos.addr().get()) {
            // SAFETY: `dealloc` of the trait: it came from `alloc` with this layout, and from the heap that lies there.
            unsafe { range.heap.dealloc(pos.as_ptr(), layout) };
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

/// Takes pages out of one range, each of which is freed for itself.
fn take_pages(pages: &'static Pages, wanted: u32, align: u32) -> Option<usize> {
    // A block of the buddy system is aligned to its size.
    let order = Order::new(wanted.trailing_zeros() as u8).filter(|_| wanted.is_power_of_two() && align <= wanted);
    let first = match order {
        Some(order) => pages.alloc_pages(Gfp::KERNEL, order).ok().inspect(|page| {
            // SAFETY: allocated by the line above.
            let _ = unsafe { pages.split_page(*page, order) };
        }),
        None => pages.alloc_contig_pages(wanted, align, Gfp::KERNEL).ok(),
    };
    first.map(|page| address(pages, page))
}

impl PageAllocator for QuarryAllocator {
    const PAGE_SIZE: usize = PAGE_SIZE;

    fn alloc_pages(&mut self, num_pages: usize, align: usize) -> AllocResult<usize> {
        let (wanted, align) = (count(num_pages)?, aligned(align)?);
        let at = self.first(|range| take_pages(range.pages(), wanted, align))?;
        self.pages += num_pages;
        Ok(at)
    }

    fn dealloc_pages(&mut self, pos: usize, num_pages: usize) {
        let (Some(Range { heap, .. }), Ok(wanted)) = (self.range_of(pos), count(num_pages)) else { return };
        let Ok(first) = heap.page_at(VirtAddr::new(pos as u64)) else { return };
        // SAFETY: `dealloc_pages` of the trait: the pages are the caller's, who does not use them any more.
        if unsafe { heap.slabs().pages().free_contig_range(first, wanted) }.is_ok() {
            self.pages = self.pages.saturating_sub(num_pages);
        }
    }

    fn alloc_pages_at(&mut self, base: usize, num_pages: usize, align: usize) -> AllocResult<usize> {
        let wanted = count(num_pages)?;
        if !align.is_power_of_two() || !base.is_multiple_of(align.max(PAGE_SIZE)) {
            return Err(AllocError::InvalidParam);
        }
        let heap = self.range_of(base).ok_or(AllocError::InvalidParam)?.heap;
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
