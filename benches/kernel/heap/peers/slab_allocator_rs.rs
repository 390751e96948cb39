//! `slab_allocator_rs`: an eighth of the memory for each of seven sizes, and for what is larger.

use crate::heap::{Heap, Memory, Unable};
use core::alloc::Layout;
use core::ptr::NonNull;

pub(crate) struct Eighths(slab_allocator_rs::Heap);

impl Heap for Eighths {
    const NAME: &'static str = "slab_allocator_rs";

    fn new(memory: Memory) -> Result<Self, Unable> {
        // SAFETY: the memory is nobody else's.
        Ok(Self(unsafe { slab_allocator_rs::Heap::new(memory.addr(), memory.size()) }))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.allocate(layout).ok()
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { self.0.deallocate(block, layout) }
    }
}
