//! `buddy-slab-allocator`: the page allocator of ArceOS, a buddy with a descriptor for each page.

use crate::arena::Arena;
use crate::meter::Unable;
use crate::pages::PageAllocator;
use buddy_slab_allocator::BuddyAllocator;
use core::ptr::NonNull;

pub(crate) struct Pages {
    buddy: BuddyAllocator,
    arena: Arena,
}

impl PageAllocator for Pages {
    const NAME: &'static str = "buddy-slab-allocator";
    type Block = usize;

    fn new(arena: Arena) -> Result<Self, Unable> {
        let mut buddy = BuddyAllocator::new();
        let mut region = NonNull::slice_from_raw_parts(arena.start(), arena.size());
        // SAFETY: the arena is nobody else's while the row runs; bytes of it are initialised as far as RAM is.
        let region = unsafe { region.as_mut() };
        // SAFETY: as above.
        unsafe { buddy.init(region) }.map_err(|_| "it refuses the arena")?;
        Ok(Self { buddy, arena })
    }

    #[inline]
    fn alloc(&mut self, order: u8) -> Option<usize> {
        self.buddy.alloc_pages(1 << order, 4096 << order).ok()
    }

    #[inline]
    fn free(&mut self, block: usize, order: u8) {
        self.buddy.dealloc_pages(block, 1 << order);
    }

    fn start(&self, block: usize) -> NonNull<u8> {
        self.arena.pointer(block)
    }
}
