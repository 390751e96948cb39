//! `buddy-slab-allocator`: the page allocator of ArceOS, a buddy with a descriptor for each page.

use crate::arena::Arena;
use crate::meter::Unable;
use crate::pages::PageAllocator;
use buddy_slab_allocator::BuddyAllocator;
use core::ptr::NonNull;

/// Bytes of the largest block that is asked for.
const LARGEST: usize = 4096 << 10;

fn manage(buddy: &mut BuddyAllocator, arena: Arena, skip: usize) -> Result<(), Unable> {
    // SAFETY: fewer bytes than the arena has.
    let start = unsafe { arena.start().add(skip) };
    let mut region = NonNull::slice_from_raw_parts(start, arena.size() - skip);
    // SAFETY: the arena is nobody else's while the row runs, and any byte is a legal one.
    let region = unsafe { region.as_mut() };
    // SAFETY: as above.
    unsafe { buddy.init(region) }.map_err(|_| "it refuses the arena")
}

pub(crate) struct Pages {
    buddy: BuddyAllocator,
    arena: Arena,
}

impl PageAllocator for Pages {
    const NAME: &'static str = "buddy-slab-allocator";
    type Block = usize;

    fn new(arena: Arena) -> Result<Self, Unable> {
        let mut buddy = BuddyAllocator::new();
        // Its own tables come first, and blocks are aligned relative to what follows, which is its user's to align. The
        // tables shrink with what they describe, so it takes a few steps.
        let mut skip = 0;
        for _ in 0..8 {
            manage(&mut buddy, arena, skip)?;
            let first = buddy.section(0).ok_or("it refuses the arena")?.start;
            skip += first.next_multiple_of(LARGEST) - first;
        }
        Ok(Self { buddy, arena })
    }

    #[inline]
    fn alloc<const ORDER: u8>(&mut self) -> Option<usize> {
        self.buddy.alloc_pages(1 << ORDER, 4096 << ORDER).ok()
    }

    #[inline]
    fn free<const ORDER: u8>(&mut self, block: usize) -> bool {
        self.buddy.dealloc_pages(block, 1 << ORDER);
        true
    }

    fn start(&self, block: usize) -> NonNull<u8> {
        self.arena.pointer(block)
    }
}
