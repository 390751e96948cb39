//! `buddy-slab-allocator`: the page allocator of ArceOS, a buddy with a descriptor for each page.

use crate::arena::Arena;
use crate::heap::peers::buddy_slab_allocator::aligned_buddy;
use crate::meter::Unable;
use crate::pages::PageAllocator;
use buddy_slab_allocator::BuddyAllocator;
use core::ptr::NonNull;

/// Bytes of the largest block that is asked for.
const LARGEST: usize = 4096 << 10;

pub(crate) struct Pages {
    buddy: BuddyAllocator,
    arena: Arena,
}

impl PageAllocator for Pages {
    const NAME: &'static str = "buddy-slab-allocator";
    type Block = usize;

    fn new(arena: Arena) -> Result<Self, Unable> {
        let buddy = aligned_buddy(arena.memory(), LARGEST)?;
        Ok(Self { buddy, arena })
    }

    #[inline]
    fn alloc<const ORDER: u8>(&mut self) -> Option<usize> {
        self.buddy.alloc_pages(1 << ORDER, 4096 << ORDER).ok()
    }

    #[inline]
    fn free<const ORDER: u8>(&mut self, block: usize) -> bool {
        self.buddy.dealloc_pages(block, 1 << ORDER);
        true
    }

    fn start(&self, block: usize) -> NonNull<u8> {
        self.arena.pointer(block)
    }
}
