//! `ax-allocator`: the heap of ArceOS, here its slabs over a buddy: lists of free blocks, no way back to the buddy.

use crate::heap::{Heap, Memory, Unable};
use ax_allocator::{BaseAllocator, ByteAllocator, SlabByteAllocator};
use core::alloc::Layout;
use core::ptr::NonNull;

pub(crate) struct Slabs(SlabByteAllocator);

impl Heap for Slabs {
    const NAME: &'static str = "ax-allocator";

    fn new(memory: Memory) -> Result<Self, Unable> {
        let mut slabs = SlabByteAllocator::new();
        slabs.init(memory.addr(), memory.size());
        Ok(Self(slabs))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.alloc(layout).ok()
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        self.0.dealloc(block, layout);
    }
}
