//! `dlmalloc`: Doug Lea's malloc, with the memory as a system that gives all of it once.

use crate::heap::{Heap, Memory, Unable};
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::{NonNull, null_mut};

struct System(Cell<Option<Memory>>);

// SAFETY: the heap that has it is used by one thread.
unsafe impl Send for System {}

// SAFETY: the memory is nobody else's, and handed out once.
unsafe impl dlmalloc::Allocator for System {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        match self.0.take() {
            Some(memory) if size <= memory.size() => (memory.start().as_ptr(), memory.size(), 0),
            _ => (null_mut(), 0, 0),
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        false
    }

    fn page_size(&self) -> usize {
        4096
    }
}

pub(crate) struct Dlmalloc(dlmalloc::Dlmalloc<System>);

impl Heap for Dlmalloc {
    const NAME: &'static str = "dlmalloc";

    fn new(memory: Memory) -> Result<Self, Unable> {
        Ok(Self(dlmalloc::Dlmalloc::new_with_allocator(System(Cell::new(Some(memory))))))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: any layout will do.
        NonNull::new(unsafe { self.0.malloc(layout.size(), layout.align()) })
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { self.0.free(block.as_ptr(), layout.size(), layout.align()) }
    }

    #[inline]
    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: any layout will do.
        NonNull::new(unsafe { self.0.calloc(layout.size(), layout.align()) })
    }
}
