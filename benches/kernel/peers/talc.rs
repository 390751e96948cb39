//! `talc`: a general heap with binned gaps and boundary tags.

use super::block_layout;
use crate::arena::Arena;
use crate::meter::Unable;
use crate::pages::PageAllocator;
use core::ptr::NonNull;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Manual;

pub(crate) struct Pages(Talc<Manual, DefaultBinning>);

impl PageAllocator for Pages {
    const NAME: &'static str = "talc";
    type Block = NonNull<u8>;

    fn new(arena: Arena) -> Result<Self, Unable> {
        let mut talc = Talc::new(Manual);
        // SAFETY: the arena is nobody else's while the row runs.
        unsafe { talc.claim(arena.start().as_ptr(), arena.size()) }.ok_or("it refuses the arena")?;
        Ok(Self(talc))
    }

    #[inline]
    fn alloc<const ORDER: u8>(&mut self) -> Option<NonNull<u8>> {
        // SAFETY: the layout's size is not zero.
        unsafe { self.0.allocate(block_layout::<ORDER>()) }
    }

    #[inline]
    fn free<const ORDER: u8>(&mut self, block: NonNull<u8>) -> bool {
        // SAFETY: the block came from `alloc` with this order.
        unsafe { self.0.deallocate(block.as_ptr(), block_layout::<ORDER>()) };
        true
    }

    fn start(&self, block: NonNull<u8>) -> NonNull<u8> {
        block
    }
}
