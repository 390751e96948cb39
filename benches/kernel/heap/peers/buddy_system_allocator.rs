//! `buddy_system_allocator`: the buddy heap of rCore, free lists in the free memory.

use crate::heap::{Heap, Memory, Unable};
use core::alloc::Layout;
use core::ptr::NonNull;

pub(crate) struct Buddy(buddy_system_allocator::Heap<32>);

impl Heap for Buddy {
    const NAME: &'static str = "buddy_system_allocator";

    fn new(memory: Memory) -> Result<Self, Unable> {
        let mut heap = buddy_system_allocator::Heap::new();
        // SAFETY: the memory is nobody else's.
        unsafe { heap.init(memory.addr(), memory.size()) };
        Ok(Self(heap))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.alloc(layout).ok()
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { self.0.dealloc(block, layout) }
    }
}
