//! `embedded-alloc`: rlsf behind a critical section, which masks interrupts on the bare machine and is a lock on the host.

use crate::heap::{Heap, Memory, Unable};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use embedded_alloc::TlsfHeap;

/// Too large for a stack, so it lies in the memory that it manages the rest of.
pub(crate) struct Embedded(&'static TlsfHeap);

/// As every heap of this type begins.
static EMPTY: TlsfHeap = TlsfHeap::empty();

impl Heap for Embedded {
    const NAME: &'static str = "embedded-alloc";

    fn new(memory: Memory) -> Result<Self, Unable> {
        let (own, memory) = memory.split(size_of::<TlsfHeap>().next_multiple_of(4096));
        let place = own.start().cast::<TlsfHeap>();
        // SAFETY: the memory is nobody else's, and nothing has been done with the original yet.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(&EMPTY), 1) };
        // SAFETY: it has just been made, and nobody else knows it.
        let heap = unsafe { place.as_ref() };
        // SAFETY: the memory is nobody else's.
        unsafe { heap.init(memory.addr(), memory.size()) };
        Ok(Self(heap))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no layout here is empty.
        NonNull::new(unsafe { self.0.alloc(layout) })
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { self.0.dealloc(block.as_ptr(), layout) }
    }
}
