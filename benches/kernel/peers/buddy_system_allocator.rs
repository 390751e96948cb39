//! `buddy_system_allocator`: the buddy heap of rCore, free lists in the free memory.

use super::block_layout;
use crate::arena::Arena;
use crate::meter::Unable;
use crate::pages::PageAllocator;
use buddy_system_allocator::Heap;
use core::ptr::NonNull;

pub(crate) struct Pages(Heap<32>);

impl PageAllocator for Pages {
    const NAME: &'static str = "buddy_system_allocator";
    type Block = NonNull<u8>;

    fn new(arena: Arena) -> Result<Self, Unable> {
        let mut heap = Heap::new();
        // SAFETY: the arena is nobody else's while the row runs.
        unsafe { heap.init(arena.addr(), arena.size()) };
        Ok(Self(heap))
    }

    #[inline]
    fn alloc<const ORDER: u8>(&mut self) -> Option<NonNull<u8>> {
        self.0.alloc(block_layout::<ORDER>()).ok()
    }

    #[inline]
    fn free<const ORDER: u8>(&mut self, block: NonNull<u8>) -> bool {
        // SAFETY: the block came from `alloc` with this order.
        unsafe { self.0.dealloc(block, block_layout::<ORDER>()) };
        true
    }

    fn start(&self, block: NonNull<u8>) -> NonNull<u8> {
        block
    }
}
