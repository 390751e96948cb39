//! `rlsf`: two-level segregated fit, with the widths that ArceOS gives it.

use crate::heap::{Heap, Memory, Unable};
use alloc::boxed::Box;
use core::alloc::Layout;
use core::ptr::NonNull;
use rlsf::Tlsf as Pools;

/// Seven kilobytes, so not on a stack.
pub(crate) struct Tlsf(Box<Pools<'static, u32, u32, 28, 32>>);

impl Heap for Tlsf {
    const NAME: &'static str = "rlsf";

    fn new(memory: Memory) -> Result<Self, Unable> {
        let mut pools = Box::new(Pools::new());
        let block = NonNull::slice_from_raw_parts(memory.start(), memory.size());
        // SAFETY: the memory is nobody else's.
        unsafe { pools.insert_free_block_ptr(block) }.ok_or("it refuses the memory")?;
        Ok(Self(pools))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.allocate(layout)
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { self.0.deallocate(block, layout.align()) }
    }
}
