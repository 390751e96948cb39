//! Mapping memory that is not user memory, and the number in the TLB: whether that is right, only the caller knows.
//!
//! Each is declared `unsafe` here for everybody else, and is a `do_…` function inside this crate. Nothing here does anything.

use super::{PagesError, UserHal, UserPages};
use crate::addr::{Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::mmu::Asid;
use crate::hal::prot::{Access, MemoryType};
use crate::mm::page::Page;

impl<H: UserHal> UserPages<H> {
    /// Gives the space another number in the TLB (Linux: `check_and_switch_context`), under which everything is invalidated
    /// from now on. Before the root goes into a TTBR with it. Any context.
    ///
    /// # Safety
    ///
    /// No CPU runs the space under the old number, nor holds a translation under the new one; no other space has it.
    #[inline]
    pub unsafe fn set_asid(&self, asid: Asid) {
        self.do_set_asid(asid);
    }

    /// Maps a page of the kernel at `at`, where nothing is (Linux: `vm_insert_page`). The mapping holds a reference to its
    /// block: memory that its owner frees meanwhile stays until it is unmapped. May sleep if `gfp` says so.
    ///
    /// # Errors
    ///
    /// [`PagesError::BadPage`] for a page that is free, a slab's, a page table, or user memory; [`PagesError::MemoryType`] if
    /// it is not write-back; [`PagesError::SharedExecutable`]; [`PagesError::Occupied`], [`PagesError::OutOfMemory`],
    /// [`PagesError::Range`]. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the page, and user space may read what it holds, and write it if `access` says so, for as long as it
    /// is mapped.
    #[inline]
    pub unsafe fn insert_page(&self, at: VirtAddr, page: Page, access: Access, gfp: Gfp) -> Result<(), PagesError> {
        self.do_insert_page(at, page, access, gfp)
    }

    /// Maps `range`, where nothing is, to the frames from `pfn` on, with this memory type (Linux: `remap_pfn_range`,
    /// `io_remap_pfn_range`). Frames of allocated blocks are held as [`UserPages::insert_page`] does. All or nothing. May sleep
    /// if `gfp` says so. Cost: one store an entry where the frames have no descriptor.
    ///
    /// # Errors
    ///
    /// Those of [`UserPages::insert_page`].
    ///
    /// # Safety
    ///
    /// The frames are the caller's to show to user space, as `access` says, for as long as they are mapped, and stay what they
    /// are: reserved, or a device's. For frames without a descriptor the caller holds a claim on the physical range with this
    /// memory type for all of that time (promise 9), as a mapping of `ioremap` does.
    #[inline]
    pub unsafe fn insert_pfn(
        &self,
        range: VirtRange,
        pfn: Pfn,
        memory: MemoryType,
        access: Access,
        gfp: Gfp,
    ) -> Result<(), PagesError> {
        self.do_insert_pfn(range, pfn, memory, access, gfp)
    }
}
