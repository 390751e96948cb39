//! Calls on areas that the caller names: only the caller knows whether it owns them.
//!
//! Each is declared `unsafe` here for outside callers, and calls a `do_…` function of this crate, which does the work.

use super::{
    AreaError, AreaHal, AreaRef, Pages, Permission, RamBlocks, Removed, SetMemoryError, SetMemoryHal, Uncached,
    VmFlags, VmallocError, VmallocHal, VmapSpace,
};
use crate::addr::{PhysAddr, PhysRange, VirtAddr};

impl<'a, H: VmallocHal<'a>> VmapSpace<'a, H> {
    /// Frees an area of [`VmapSpace::vmalloc`], or one whose pages were given to [`VmapSpace::vmap`] with
    /// [`VmFlags::MAP_PUT_PAGES`]; address zero is a no-op. The next purge frees the pages: see [`VmapSpace::retire`]. Any
    /// context; in an interrupt handler as [`VmapSpace::vfree_atomic`]. Needs no memory.
    ///
    /// # Errors
    ///
    /// [`VmallocError::Area`] with the error in the address; nothing has changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the area, alone: no owning type (`VBox`, `VVec`, `Vmap`, `IoMem`, …) holds it, and after the
    /// call nobody uses its addresses, or the memory of its pages if they are its own. A name that is wrong in itself
    /// (no area, not its start, another kind) is found and refused.
    #[inline]
    pub unsafe fn vfree(&self, addr: VirtAddr) -> Result<(), VmallocError> {
        self.do_vfree(addr)
    }

    /// [`VmapSpace::vfree`] that leaves all work to other contexts (Linux: `vfree_atomic`): nothing is unmapped, invalidated or
    /// freed by this call unless twice the limit waits, or permissions of the area have been changed. O(log n) otherwise.
    ///
    /// # Errors
    ///
    /// As for [`VmapSpace::vfree`].
    ///
    /// # Safety
    ///
    /// The caller owns the area, alone: no owning type (`VBox`, `VVec`, `Vmap`, `IoMem`, …) holds it, and after the
    /// call nobody uses its addresses, or the memory of its pages if they are its own. A name that is wrong in itself
    /// (no area, not its start, another kind) is found and refused.
    #[inline]
    pub unsafe fn vfree_atomic(&self, addr: VirtAddr) -> Result<(), VmallocError> {
        self.do_vfree_atomic(addr)
    }

    /// Unmaps an area of [`VmapSpace::vmap`]. When it returns, no CPU translates it; the pages stay with their owner. Address
    /// zero is a no-op. Any context. Needs no memory.
    ///
    /// # Errors
    ///
    /// [`VmallocError::Area`] with the error in the address; nothing has changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the area, alone: no owning type (`VBox`, `VVec`, `Vmap`, `IoMem`, …) holds it, and after the
    /// call nobody uses its addresses, or the memory of its pages if they are its own. A name that is wrong in itself
    /// (no area, not its start, another kind) is found and refused.
    #[inline]
    pub unsafe fn vunmap(&self, addr: VirtAddr) -> Result<(), VmallocError> {
        self.do_vunmap(addr)
    }
}

impl<'s, 'a, H: VmallocHal<'a>> RamBlocks<'s, 'a, H> {
    /// Unmaps a mapping of [`RamBlocks::vm_map_ram`], all of it. When it returns, no CPU translates it. Any context. Needs no
    /// memory.
    ///
    /// # Errors
    ///
    /// [`VmallocError::NotMapped`] if no mapping of `pages` pages starts at `addr`; [`VmallocError::Area`]. Nothing has changed
    /// then.
    ///
    /// # Safety
    ///
    /// The caller owns the area, alone: no owning type (`VBox`, `VVec`, `Vmap`, `IoMem`, …) holds it, and after the
    /// call nobody uses its addresses, or the memory of its pages if they are its own. A name that is wrong in itself
    /// (no area, not its start, another kind) is found and refused.
    #[inline]
    pub unsafe fn vm_unmap_ram(&self, addr: VirtAddr, pages: usize) -> Result<(), VmallocError> {
        self.do_vm_unmap_ram(addr, pages)
    }
}

impl<'a, H: AreaHal<'a>> VmapSpace<'a, H> {
    /// Takes the area that starts at `start` out of use, if one of its flags is in `kinds` or `kinds` is empty: no lookup finds
    /// it any more, and a second call for it fails. Its pages are still mapped. Any context. O(log n).
    ///
    /// # Errors
    ///
    /// [`AreaError::NoArea`], [`NotTheStart`](AreaError::NotTheStart), [`Uninitialized`](AreaError::Uninitialized),
    /// [`WrongKind`](AreaError::WrongKind); the space is unchanged.
    ///
    /// # Safety
    ///
    /// The caller owns the area, alone: no owning type (`VBox`, `VVec`, `Vmap`, `IoMem`, …) holds it, and after the
    /// call nobody uses its addresses, or the memory of its pages if they are its own. A name that is wrong in itself
    /// (no area, not its start, another kind) is found and refused.
    #[inline]
    pub unsafe fn remove(&self, start: VirtAddr, kinds: VmFlags) -> Result<Removed<'a>, AreaError> {
        self.do_remove(start, kinds)
    }

    /// [`VmapSpace::remove`], if `accept` permits the area's flags and the physical address that it maps.
    ///
    /// # Errors
    ///
    /// Those of [`VmapSpace::remove`]; [`AreaError::NotTheStart`] also for an area that is not accepted.
    ///
    /// # Safety
    ///
    /// The caller owns the area, alone: no owning type (`VBox`, `VVec`, `Vmap`, `IoMem`, …) holds it, and after the
    /// call nobody uses its addresses, or the memory of its pages if they are its own. A name that is wrong in itself
    /// (no area, not its start, another kind) is found and refused.
    #[inline]
    pub unsafe fn remove_if(
        &self,
        start: VirtAddr,
        kinds: VmFlags,
        accept: impl Fn(VmFlags, Option<PhysAddr>) -> bool,
    ) -> Result<Removed<'a>, AreaError> {
        self.do_remove_if(start, kinds, accept)
    }

    /// Frees an area that no CPU translates any more: its addresses are free at once. Any context. Needs no memory. O(1) for a
    /// small area, O(log n) otherwise.
    ///
    /// # Safety
    ///
    /// No CPU translates the area's addresses any more, and nobody uses them.
    #[inline]
    pub unsafe fn recycle(&self, area: Removed<'a>) {
        self.do_recycle(area)
    }
}

impl<'a> AreaRef<'a> {
    /// Makes these pages the area's own.
    ///
    /// # Errors
    ///
    /// Returns them if it has pages already.
    ///
    /// # Safety
    ///
    /// The caller has just made the area: nobody else fills, completes or frees it at the same time. The caller owns the pages,
    /// and they are mapped in the area.
    #[inline]
    pub unsafe fn give_pages(self, pages: Pages) -> Result<(), Pages> {
        self.do_give_pages(pages)
    }

    /// The area is complete: from now on it can be freed by its address (Linux: `clear_vm_uninitialized_flag`).
    ///
    /// # Safety
    ///
    /// The caller has just made the area, and it has everything that the call which frees it will give back.
    #[inline]
    pub unsafe fn complete(self) {
        self.do_complete()
    }
}

impl<'a, H: SetMemoryHal<'a>> VmapSpace<'a, H> {
    /// Changes the permissions of `pages` pages from `addr` on, all of an area or a part of it, and of their linear map. When
    /// it returns, no CPU acts on the old permissions. Not from an interrupt handler; needs memory for tables where blocks have
    /// to be split. The caller has the area, and changes it from one CPU at a time.
    ///
    /// # Errors
    ///
    /// [`SetMemoryError`]; permissions are unchanged then.
    ///
    /// # Safety
    ///
    /// The caller owns the area. Nobody holds a reference, or goes on executing, as the new permissions forbid; what
    /// becomes executable is code that was meant for it.
    #[inline]
    pub unsafe fn set_memory(&self, addr: VirtAddr, pages: u64, to: Permission) -> Result<(), SetMemoryError> {
        self.do_set_memory(addr, pages, to)
    }

    /// Takes a block of pages out of the linear map and maps it uncached (promise 9). When it returns, no CPU translates the
    /// linear map's addresses of it; the caches may still hold lines of it. Not from an interrupt handler; needs memory for
    /// tables where blocks have to be split.
    ///
    /// # Errors
    ///
    /// [`SetMemoryError`]; nothing has changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the block, alone, a power of two of pages and aligned to its size, and cleans and invalidates the
    /// caches through the new address before it is used.
    #[inline]
    pub unsafe fn uncache(&self, block: PhysRange) -> Result<Uncached, SetMemoryError> {
        self.do_uncache(block)
    }

    /// Undoes [`VmapSpace::uncache`]. Not from an interrupt handler.
    ///
    /// # Errors
    ///
    /// [`SetMemoryError`]: then the block is in no mapping, and lost.
    ///
    /// # Safety
    ///
    /// The block was uncached by that call, and nobody uses it.
    #[inline]
    pub unsafe fn recache(&self, block: PhysRange, uncached: Uncached) -> Result<(), SetMemoryError> {
        self.do_recache(block, uncached)
    }
}
