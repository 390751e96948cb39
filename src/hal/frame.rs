//! Sources of frames for page tables: memblock at boot, the buddy allocator later, an arena in a test.

use crate::addr::PhysAddr;
use core::fmt;

/// No frame was left for a page table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoFrame;

impl fmt::Display for NoFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no frame for a page table")
    }
}

impl core::error::Error for NoFrame {}

/// A source of page frames for tables.
///
/// # Safety
///
/// `mm::pgtable` writes to the frames that it gets and lets hardware walkers read them. The implementer promises that each
/// frame is ordinary write-back memory that the [`super::mmu::Mmu`] in use can reach, aligned to its own 4 KiB, and that
/// nothing else uses it until it comes back through [`FrameSource::free_table`].
pub unsafe trait FrameSource {
    /// A frame with undefined content. Called with all locks held that the page-table caller holds; the source decides whether
    /// it may sleep, for example by the flags with which it was made.
    ///
    /// # Errors
    ///
    /// [`NoFrame`] if none is left.
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame>;

    /// Frees a frame.
    ///
    /// # Safety
    ///
    /// The frame came from this source, or from one that shares its memory, and no CPU holds a translation or a cached
    /// walk through it.
    unsafe fn free_table(&self, table: PhysAddr);
}

// SAFETY: the promises are those of the source behind the reference.
unsafe impl<F: FrameSource> FrameSource for &F {
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        (**self).alloc_table()
    }

    unsafe fn free_table(&self, table: PhysAddr) {
        // SAFETY: `FrameSource::free_table`: the frame came from this source, and no CPU walks through it.
        unsafe { (**self).free_table(table) }
    }
}
