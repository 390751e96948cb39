//! `buddy-alloc`: blocks of 64 bytes from a list in one half of the memory, the rest from a buddy with leaves of 16 bytes.

use crate::heap::{Heap, Memory, Unable};
use buddy_alloc::{BuddyAllocParam, FastAllocParam, NonThreadsafeAlloc};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

pub(crate) struct FastBuddy(NonThreadsafeAlloc);

impl Heap for FastBuddy {
    const NAME: &'static str = "buddy-alloc";

    fn new(memory: Memory) -> Result<Self, Unable> {
        let (fast, buddy) = memory.split(memory.size() / 2);
        let fast = FastAllocParam::new(fast.start().as_ptr(), fast.size());
        let buddy = BuddyAllocParam::new(buddy.start().as_ptr(), buddy.size(), 16);
        Ok(Self(NonThreadsafeAlloc::new(fast, buddy)))
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
