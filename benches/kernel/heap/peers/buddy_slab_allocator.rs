//! `buddy-slab-allocator`: the newer heap of ArceOS: slabs up to 2 KiB over a buddy of pages. These are its two parts, put
//! together as its global allocator does, which adds locks and a choice of CPU.

use crate::heap::{Heap, Memory, Unable};
use buddy_slab_allocator::{BuddyAllocator, SlabAllocResult, SlabAllocator, SlabDeallocResult};
use core::alloc::Layout;
use core::ptr::NonNull;

const PAGE: usize = 4096;
/// Bytes of the largest block that the slabs have.
const LARGEST: usize = 2048;

/// Bytes to which its global allocator aligns the buddy, for the slabs' sake.
const LARGEST_SLAB: usize = 2 << 20;

/// A buddy that manages `memory`, with blocks aligned to their size up to `align`.
pub(crate) fn aligned_buddy(memory: Memory, align: usize) -> Result<BuddyAllocator, Unable> {
    let mut buddy = BuddyAllocator::new();
    // Its own tables come first, and blocks are aligned relative to what follows, which is its user's to align. The tables
    // shrink with what they describe, so it takes a few steps.
    let mut skip = 0;
    for _ in 0..8 {
        // SAFETY: fewer bytes than the memory has.
        let start = unsafe { memory.start().add(skip) };
        let mut region = NonNull::slice_from_raw_parts(start, memory.size() - skip);
        // SAFETY: the memory is nobody else's, and any byte is a legal one.
        let region = unsafe { region.as_mut() };
        // SAFETY: the memory is nobody else's, and `region` is the only reference to it.
        unsafe { buddy.init(region) }.map_err(|_| "it refuses the memory")?;
        let first = buddy.section(0).ok_or("it refuses the memory")?.start;
        skip += first.next_multiple_of(align) - first;
    }
    Ok(buddy)
}

pub(crate) struct SlabsOverBuddy {
    slabs: SlabAllocator,
    buddy: BuddyAllocator,
    memory: Memory,
}

const fn is_small(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= LARGEST
}

impl Heap for SlabsOverBuddy {
    const NAME: &'static str = "buddy-slab-allocator";

    fn new(memory: Memory) -> Result<Self, Unable> {
        let buddy = aligned_buddy(memory, LARGEST_SLAB)?;
        Ok(Self { slabs: SlabAllocator::new(), buddy, memory })
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if !is_small(layout) {
            let pages = layout.size().div_ceil(PAGE);
            let block = self.buddy.alloc_pages(pages, layout.align().max(PAGE)).ok()?;
            return Some(self.memory.pointer(block));
        }
        match self.slabs.alloc(layout).ok()? {
            SlabAllocResult::Allocated(block) => Some(block),
            SlabAllocResult::NeedsSlab { size_class, pages } => {
                let bytes = pages * PAGE;
                let slab = self.buddy.alloc_pages(pages, bytes).ok()?;
                self.slabs.add_slab(size_class, slab, bytes, 0);
                match self.slabs.alloc(layout).ok()? {
                    SlabAllocResult::Allocated(block) => Some(block),
                    SlabAllocResult::NeedsSlab { .. } => None,
                }
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        if !is_small(layout) {
            self.buddy.dealloc_pages(block.addr().get(), layout.size().div_ceil(PAGE));
        } else if let SlabDeallocResult::FreeSlab { base, pages } = self.slabs.dealloc(block, layout) {
            self.buddy.dealloc_pages(base, pages);
        }
    }
}
