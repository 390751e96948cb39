//! The system's allocator as an [`Allocator`], for records that need no machine. The fuzz target of DMA uses it too.

use quarry::gfp::Gfp;
use quarry::mm::alloc::{Allocator, Stateless};
use quarry::mm::slab::SlabAllocError;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// The system's allocator, of which there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TheSystem;

impl Stateless for TheSystem {
    const THE: Self = Self;
}

// SAFETY: blocks of the system's allocator.
unsafe impl Allocator for TheSystem {
    fn allocate(&self, layout: Layout, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        assert_ne!(layout.size(), 0, "nothing was asked for");
        let get = if gfp.contains(Gfp::ZERO) { alloc_zeroed } else { alloc };
        // SAFETY: not empty.
        let block = unsafe { get(layout) };
        NonNull::new(block).ok_or(SlabAllocError::OutOfMemory)
    }

    unsafe fn resize(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, SlabAllocError> {
        // SAFETY: `Allocator::resize`: the block has the layout `old`, and is not used after the move.
        unsafe { resize_elsewhere(self, block, old, new, gfp) }
    }

    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: given out with this layout.
        unsafe { dealloc(block.as_ptr(), layout) };
    }
}

/// The body of [`Allocator::resize`] for allocators that always move, so that nobody relies on the old place.
///
/// # Safety
///
/// That of [`Allocator::resize`].
pub(crate) unsafe fn resize_elsewhere(
    allocator: &impl Allocator,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
    gfp: Gfp,
) -> Result<NonNull<u8>, SlabAllocError> {
    let moved = allocator.allocate(new, gfp)?;
    // SAFETY: both are as large.
    unsafe { moved.copy_from_nonoverlapping(block, old.size().min(new.size())) };
    // SAFETY: `Allocator::resize`: the block has the layout `old`, and is not used after the move.
    unsafe { allocator.free(block, old) };
    Ok(moved)
}
