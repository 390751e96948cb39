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
    fn alloc<const ORDER: u8>(&mut self) -> Option<PageRange> {
        let bytes = 4096 << ORDER;
        self.list.allocate(PageLayout::from_size_align(bytes, bytes).ok()?).ok()
    }

    #[inline]
    fn free<const ORDER: u8>(&mut self, range: PageRange) -> bool {
        // SAFETY: the range came from `alloc`, and nobody uses it any more.
        unsafe { self.list.deallocate(range) }.is_ok()
    }

    fn start(&self, range: PageRange) -> NonNull<u8> {
        self.arena.pointer(range.start())
    }
}
