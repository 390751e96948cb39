//! This kernel's page allocator, called as a kernel calls it: free functions, flags and order constants.

use crate::arena::Arena;
use crate::meter::Unable;
use crate::pages::{BULK, PageAllocator};
use crate::rows::QUARRY;
use core::hint::black_box;
use core::ptr::NonNull;
use quarry::addr::{Order, VirtAddr};
use quarry::gfp::Gfp;
use quarry::global;
use quarry::mm::page::Page;
use quarry::mm::zone::PageBatch;

/// The machine's own pages; the arena is some of them, and not needed.
pub(crate) struct QuarryPages {
    batch: PageBatch<BULK>,
}

/// An order as a constant.
struct Of<const ORDER: u8>;

impl<const ORDER: u8> Of<ORDER> {
    const ORDER: Order = match Order::new(ORDER) {
        Some(order) => order,
        None => panic!("no such order"),
    };
}

impl PageAllocator for QuarryPages {
    const NAME: &'static str = QUARRY;
    type Block = Page;

    fn new(_: Arena) -> Result<Self, Unable> {
        Ok(Self { batch: PageBatch::new() })
    }

    #[inline]
    fn alloc<const ORDER: u8>(&mut self) -> Option<Page> {
        global::alloc_pages(Gfp::KERNEL, Of::<ORDER>::ORDER).ok()
    }

    #[inline]
    fn free<const ORDER: u8>(&mut self, page: Page) -> bool {
        raw!(global::try_free_pages(page, Of::<ORDER>::ORDER)).is_ok()
    }

    fn start(&self, page: Page) -> NonNull<u8> {
        NonNull::new(global::page_address(page).as_ptr()).unwrap_or(NonNull::dangling())
    }

    fn manages(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let start = start.addr().get();
        let is_ram = |addr: usize| global::virt_to_page(VirtAddr::new(addr as u64)).is_ok();
        start.is_multiple_of(bytes) && is_ram(start) && is_ram(start + bytes - 1)
    }

    #[inline]
    fn alloc_zeroed(&mut self) -> Option<Page> {
        global::alloc_page(Gfp::KERNEL | Gfp::ZERO).ok()
    }

    #[inline]
    fn bulk(&mut self, _: &mut [Option<Page>; BULK]) -> bool {
        let complete = global::alloc_pages_bulk(Gfp::KERNEL, &mut self.batch) == Ok(BULK);
        raw!(global::try_free_pages_bulk(black_box(&mut self.batch))).is_ok() && complete
    }
}
