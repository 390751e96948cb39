//! `buddy-alloc`: a buddy heap with bitmaps; its leaves are pages here. Blocks are aligned relative to where its own
//! tables end, so that those above a page are not aligned to their size.

use crate::arena::Arena;
use crate::meter::Unable;
use crate::pages::PageAllocator;
use buddy_alloc::buddy_alloc::{BuddyAlloc, BuddyAllocParam};
use core::ptr::NonNull;

pub(crate) struct Pages(BuddyAlloc);

impl PageAllocator for Pages {
    const NAME: &'static str = "buddy-alloc";
    type Block = NonNull<u8>;

    fn new(arena: Arena) -> Result<Self, Unable> {
        let param = BuddyAllocParam::new(arena.start().as_ptr(), arena.size(), 4096);
        // SAFETY: the arena is nobody else's while the row runs.
        Ok(Self(unsafe { BuddyAlloc::new(param) }))
    }

    #[inline]
    fn alloc<const ORDER: u8>(&mut self) -> Option<NonNull<u8>> {
        NonNull::new(self.0.malloc(4096 << ORDER))
    }

    #[inline]
    fn free<const ORDER: u8>(&mut self, block: NonNull<u8>) -> bool {
        self.0.free(block.as_ptr());
        true
    }

    fn start(&self, block: NonNull<u8>) -> NonNull<u8> {
        block
    }
}
