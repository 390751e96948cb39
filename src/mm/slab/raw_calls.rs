//! Calls on objects that somebody names: whether they are the caller's, only the caller knows.
//!
//! Each is declared `unsafe` here for everybody else, and is a `do_…` function inside this crate. Nothing here does anything.

use super::{AllocError, Cache, Misuse, SlabAllocator, SlabHal};
use crate::addr::VirtAddr;
use crate::gfp::Gfp;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Frees what `kmalloc` or a cache gave (Linux: `kfree`). Null and [`SlabAllocator::ZERO_SIZE`] are nothing to free.
    /// Any context.
    ///
    /// # Errors
    ///
    /// What is wrong with the pointer. Nothing is freed then.
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

    /// Makes an allocation `size` bytes large, in place or elsewhere (Linux: `krealloc`). What fits of the content stays;
    /// with [`Gfp::ZERO`], on this call and on all before, new bytes are zero. Null is an allocation of no bytes; no bytes
    /// free it. The old allocation is gone if this succeeds elsewhere, and untouched if it fails.
    ///
    /// # Errors
    ///
    /// [`AllocError::NotAllocated`], after a report, and those of [`SlabAllocator::kmalloc`], whether it moves or not.
    ///
    /// # Safety
    ///
    /// As for [`kfree`](Self::kfree); where the object moves, or shrinks, nobody uses the old one, or what lies beyond,
    /// any more.
    #[inline(never)]
    pub unsafe fn krealloc(&self, at: VirtAddr, size: usize, gfp: Gfp) -> Result<VirtAddr, AllocError> {
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
    /// What is wrong with the pointer, [`Misuse::WrongCache`] among it. Nothing is freed then.
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

    /// Frees objects of this cache, whatever slabs they are in. What is wrong with one is reported, and it is left out: how
    /// many there were. Any context. Cost: some seven instructions an object onto this CPU's array, and three dozen for each
    /// time that the next one is of another slab.
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

    /// Frees a large block onto a list of this CPU, if nothing is wrong and there is room; whether it did.
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
