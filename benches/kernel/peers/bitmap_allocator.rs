//! `bitmap-allocator`: a tree of bitmaps, here the one for 4 GiB, as kernels use it. It hands out page numbers.

use crate::arena::Arena;
use crate::meter::Unable;
use crate::pages::PageAllocator;
use bitmap_allocator::{BitAlloc, BitAlloc1M};
use core::ptr::NonNull;
use spin::mutex::{SpinMutex, SpinMutexGuard};

static BITS: SpinMutex<BitAlloc1M> = SpinMutex::new(BitAlloc1M::DEFAULT);

pub(crate) struct Pages {
    bits: SpinMutexGuard<'static, BitAlloc1M>,
    arena: Arena,
}

impl PageAllocator for Pages {
    const NAME: &'static str = "bitmap-allocator";
    type Block = usize;

    fn new(arena: Arena) -> Result<Self, Unable> {
        let mut bits = BITS.lock();
        bits.remove(0..BitAlloc1M::CAP);
        bits.insert(0..arena.size() / 4096);
        Ok(Self { bits, arena })
    }

    #[inline]
    fn alloc<const ORDER: u8>(&mut self) -> Option<usize> {
        if ORDER == 0 { self.bits.alloc() } else { self.bits.alloc_contiguous(None, 1 << ORDER, usize::from(ORDER)) }
    }

    #[inline]
    fn free<const ORDER: u8>(&mut self, page: usize) -> bool {
        if ORDER == 0 { self.bits.dealloc(page) } else { self.bits.dealloc_contiguous(page, 1 << ORDER) }
    }

    fn start(&self, page: usize) -> NonNull<u8> {
        self.arena.pointer(self.arena.addr() + page * 4096)
    }
}
