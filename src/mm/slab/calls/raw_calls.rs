//! Calls on objects that the caller names: only the caller knows whether it owns them.
//!
//! Each is declared `unsafe` here for outside callers, and calls a `do_…` function of this crate, which does the work.

use super::super::{Cache, Misuse, SlabAllocError, SlabAllocator, SlabHal};
use crate::addr::VirtAddr;
use crate::gfp::Gfp;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Frees an allocation of `kmalloc` or of a cache (Linux: `kfree`). Null and [`SlabAllocator::ZERO_SIZE`] are no-ops. Any
    /// context.
    ///
    /// # Errors
    ///
    /// The error in the pointer. Nothing is freed then.
    ///
    /// # Safety
    ///
    /// The caller owns the object, alone: it came from this allocator, no owning type (`KBox`, `KVec`, a typed cache,
    /// …) holds it, and nobody uses it after the call. A name that is wrong in itself (free already, inside an object,
    /// of no cache) is found and refused.
    #[inline(always)]
    pub unsafe fn kfree(&self, at: VirtAddr) -> Result<(), Misuse> {
        self.do_kfree(at)
    }

    /// Resizes an allocation to `size` bytes, in place or by moving it (Linux: `krealloc`). The contents up to the smaller size
    /// are kept; with [`Gfp::ZERO`], on this call and on all before, new bytes are zero. A null pointer allocates; a size of 0
    /// frees. The old allocation is freed if this succeeds by moving it, and untouched if it fails.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError::NotAllocated`], after a report, and those of [`SlabAllocator::kmalloc`], whether it moves or not.
    ///
    /// # Safety
    ///
    /// As for [`kfree`](Self::kfree); where the object moves, or shrinks, nobody uses the old one, or the bytes beyond, any
    /// more.
    #[inline(never)]
    pub unsafe fn krealloc(&self, at: VirtAddr, size: usize, gfp: Gfp) -> Result<VirtAddr, SlabAllocError> {
        self.do_krealloc(at, size, gfp)
    }

    /// Zeroes an allocation, slack included, and frees it (Linux: `kfree_sensitive`).
    ///
    /// # Errors
    ///
    /// [`Misuse`]; nothing is freed or zeroed then.
    ///
    /// # Safety
    ///
    /// The caller owns the object, alone: it came from this allocator, no owning type (`KBox`, `KVec`, a typed cache,
    /// …) holds it, and nobody uses it after the call. A name that is wrong in itself (free already, inside an object,
    /// of no cache) is found and refused.
    #[inline]
    pub unsafe fn kfree_sensitive(&self, at: VirtAddr) -> Result<(), Misuse> {
        self.do_kfree_sensitive(at)
    }

    /// Frees an object of this cache (Linux: `kmem_cache_free`). Any context. Cost: two dozen instructions onto this CPU's
    /// array.
    ///
    /// # Errors
    ///
    /// The error in the pointer, [`Misuse::WrongCache`] among them. Nothing is freed then.
    ///
    /// # Safety
    ///
    /// The caller owns the object, alone: it came from this allocator, no owning type (`KBox`, `KVec`, a typed cache,
    /// …) holds it, and nobody uses it after the call. A name that is wrong in itself (free already, inside an object,
    /// of no cache) is found and refused.
    #[inline(always)]
    pub unsafe fn free_object(&self, cache: &Cache<H>, at: VirtAddr) -> Result<(), Misuse> {
        self.do_free_object(cache, at)
    }

    /// Frees objects of this cache, from any of its slabs. A bad object is reported and skipped. Returns the number of bad
    /// objects. Any context. Cost: about seven instructions an object onto this CPU's array, and three dozen for each time that
    /// the next one is of another slab.
    ///
    /// # Safety
    ///
    /// The caller owns the object, alone: it came from this allocator, no owning type (`KBox`, `KVec`, a typed cache,
    /// …) holds it, and nobody uses it after the call. A name that is wrong in itself (free already, inside an object,
    /// of no cache) is found and refused.
    #[inline]
    pub unsafe fn free_bulk(&self, cache: &Cache<H>, objects: &[VirtAddr]) -> usize {
        self.do_free_bulk(cache, objects)
    }

    /// Frees a large block onto a list of this CPU, if it is valid and there is room. Returns whether it did.
    ///
    /// # Safety
    ///
    /// The caller owns the object, alone: it came from this allocator, no owning type (`KBox`, `KVec`, a typed cache,
    /// …) holds it, and nobody uses it after the call. A name that is wrong in itself (free already, inside an object,
    /// of no cache) is found and refused.
    #[inline]
    #[must_use]
    pub unsafe fn free_large_fast(&self, at: VirtAddr) -> bool {
        self.do_free_large_fast(at)
    }
}
