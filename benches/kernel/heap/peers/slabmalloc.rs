//! `slabmalloc`: slabs of 4 KiB for blocks up to 256 bytes, of 2 MiB up to 128 KiB. It asks its user for zeroed slabs; here
//! they come from both ends of the memory.

use crate::heap::{Heap, Memory, Unable};
use core::alloc::Layout;
use core::ptr::NonNull;
use slabmalloc::{AllocationError, Allocator, LargeObjectPage, ObjectPage, ZoneAllocator};

pub(crate) struct Zone {
    zone: ZoneAllocator<'static>,
    memory: Memory,
    /// Bytes that went to slabs of 4 KiB, from the start.
    small: usize,
    /// Bytes that went to slabs of 2 MiB, from the end.
    large: usize,
}

impl Zone {
    /// Gives the zone a slab for blocks of this layout; whether there was one.
    #[cold]
    fn refill(&mut self, layout: Layout) -> bool {
        let is_small = layout.size() <= ZoneAllocator::MAX_BASE_ALLOC_SIZE;
        let bytes = if is_small { size_of::<ObjectPage<'_>>() } else { size_of::<LargeObjectPage<'_>>() };
        if self.memory.size() - self.small - self.large < bytes {
            return false;
        }
        let offset = if is_small { self.small } else { self.memory.size() - self.large - bytes };
        let slab = self.memory.pointer(self.memory.addr() + offset);
        *(if is_small { &mut self.small } else { &mut self.large }) += bytes;
        // SAFETY: these bytes of the memory went to nobody yet.
        unsafe { slab.write_bytes(0, bytes) };
        let taken = if is_small {
            // SAFETY: zeroed, aligned, and nobody else's.
            let page = unsafe { slab.cast::<ObjectPage<'_>>().as_mut() };
            // SAFETY: an empty page.
            unsafe { self.zone.refill(layout, page) }
        } else {
            // SAFETY: zeroed, aligned, and nobody else's.
            let page = unsafe { slab.cast::<LargeObjectPage<'_>>().as_mut() };
            // SAFETY: an empty page.
            unsafe { self.zone.refill_large(layout, page) }
        };
        taken.is_ok()
    }
}

impl Heap for Zone {
    const NAME: &'static str = "slabmalloc";

    fn new(memory: Memory) -> Result<Self, Unable> {
        Ok(Self { zone: ZoneAllocator::new(), memory, small: 0, large: 0 })
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        match self.zone.allocate(layout) {
            Ok(block) => Some(block),
            Err(AllocationError::OutOfMemory) if self.refill(layout) => self.zone.allocate(layout).ok(),
            Err(_) => None,
        }
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        if self.zone.deallocate(block, layout).is_err() {
            panic!("slabmalloc refuses {block:?} of {layout:?}");
        }
    }
}
