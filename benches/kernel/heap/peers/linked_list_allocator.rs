//! `linked_list_allocator`: the first-fit list that most teaching kernels start with.

use crate::heap::{Heap, Memory, Unable};
use core::alloc::Layout;
use core::ptr::NonNull;

pub(crate) struct List(linked_list_allocator::Heap);

impl Heap for List {
    const NAME: &'static str = "linked_list_allocator";

    fn new(memory: Memory) -> Result<Self, Unable> {
        // SAFETY: the memory is nobody else's.
        Ok(Self(unsafe { linked_list_allocator::Heap::new(memory.start().as_ptr(), memory.size()) }))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.allocate_first_fit(layout).ok()
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { self.0.deallocate(block, layout) }
    }
}
