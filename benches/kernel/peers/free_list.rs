//! `free-list`: Hermit's sorted list of free page ranges; beyond 16 ranges it grows on the early heap.

use crate::arena::Arena;
use crate::meter::Unable;
use crate::pages::PageAllocator;
use core::ptr::NonNull;
use free_list::{FreeList, PageLayout, PageRange};

pub(crate) struct Pages {
    list: FreeList<16>,
    arena: Arena,
}

impl PageAllocator for Pages {
    const NAME: &'static str = "free-list";
    type Block = PageRange;

    fn new(arena: Arena) -> Result<Self, Unable> {
        let mut list = FreeList::new();
        let whole = PageRange::from_start_len(arena.addr(), arena.size()).map_err(|_| "it refuses the arena")?;
        // SAFETY: the arena is nobody else's while the row runs.
        unsafe { list.deallocate(whole) }.map_err(|_| "it refuses the arena")?;
        Ok(Self { list, arena })
    }

    #[inline]
    fn alloc(&mut self, order: u8) -> Option<PageRange> {
        let bytes = 4096 << order;
        self.list.allocate(PageLayout::from_size_align(bytes, bytes).ok()?).ok()
    }

    #[inline]
    fn free(&mut self, range: PageRange, _: u8) {
        // SAFETY: the range came from `alloc`, and nobody uses it any more.
        let freed = unsafe { self.list.deallocate(range) };
        debug_assert!(freed.is_ok(), "it takes back what it gave");
    }

    fn start(&self, range: PageRange) -> NonNull<u8> {
        self.arena.pointer(range.start())
    }
}
