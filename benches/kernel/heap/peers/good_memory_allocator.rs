//! `good_memory_allocator`: boundary tags and small bins after dlmalloc. It points into itself once it has memory.

use crate::heap::{Heap, Memory, Unable};
use alloc::boxed::Box;
use core::alloc::Layout;
use core::ptr::NonNull;
use good_memory_allocator::Allocator;

pub(crate) struct Bins(Box<Allocator>);

impl Heap for Bins {
    const NAME: &'static str = "good_memory_allocator";

    fn new(memory: Memory) -> Result<Self, Unable> {
        let mut bins = Box::new(Allocator::empty());
        // SAFETY: the memory is nobody else's, and the box stays where it is.
        unsafe { bins.init(memory.addr(), memory.size()) };
        Ok(Self(bins))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no layout here is empty.
        NonNull::new(unsafe { self.0.alloc(layout) })
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, _: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { self.0.dealloc(block.as_ptr()) }
    }
}
