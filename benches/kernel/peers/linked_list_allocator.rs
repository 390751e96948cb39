//! `linked_list_allocator`: the first-fit list that most teaching kernels start with.

use super::block_layout;
use crate::arena::Arena;
use crate::meter::Unable;
use crate::pages::PageAllocator;
use core::ptr::NonNull;
use linked_list_allocator::Heap;

pub(crate) struct Pages(Heap);

impl PageAllocator for Pages {
    const NAME: &'static str = "linked_list_allocator";
    type Block = NonNull<u8>;

    fn new(arena: Arena) -> Result<Self, Unable> {
        // SAFETY: the arena is nobody else's while the row runs.
        Ok(Self(unsafe { Heap::new(arena.start().as_ptr(), arena.size()) }))
    }

    #[inline]
    fn alloc<const ORDER: u8>(&mut self) -> Option<NonNull<u8>> {
        self.0.allocate_first_fit(block_layout::<ORDER>()).ok()
    }

    #[inline]
    fn free<const ORDER: u8>(&mut self, block: NonNull<u8>) -> bool {
        // SAFETY: the block came from `alloc` with this order.
        unsafe { self.0.deallocate(block, block_layout::<ORDER>()) };
        true
    }

    fn start(&self, block: NonNull<u8>) -> NonNull<u8> {
        block
    }
}
