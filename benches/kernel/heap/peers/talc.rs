//! `talc`: binned gaps and boundary tags.

use crate::heap::{Heap, Memory, Unable};
use core::alloc::Layout;
use core::ptr::NonNull;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Manual;

pub(crate) struct Binned(Talc<Manual, DefaultBinning>);

impl Heap for Binned {
    const NAME: &'static str = "talc";

    fn new(memory: Memory) -> Result<Self, Unable> {
        let mut talc = Talc::new(Manual);
        // SAFETY: the memory is nobody else's.
        unsafe { talc.claim(memory.start().as_ptr(), memory.size()) }.ok_or("it refuses the memory")?;
        Ok(Self(talc))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no layout here is empty.
        unsafe { self.0.allocate(layout) }
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { self.0.deallocate(block.as_ptr(), layout) }
    }
}
