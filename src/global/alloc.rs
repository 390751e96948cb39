//! The kernel's `kmalloc` for Rust types: the generic types of [`mm::alloc`](crate::mm::alloc) over this kernel's allocator.

use super::slab::{self, KmemCache};
use super::valloc::refused;
use super::vmalloc;
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::irq;
use crate::gfp::Gfp;
use crate::mm::alloc::{self, Kmem, Stateless, WithGfp};
use crate::mm::slab::{CacheSpec, CreateError, DestroyError, Misuse, SlabAllocError};
use core::ptr::NonNull;

/// The allocator behind [`kmalloc`](super::kmalloc), as a value. Any context that the flags of each call allow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kmalloc;

/// A value in memory of `kmalloc`.
///
/// Raw: [`kmalloc`](super::kmalloc), [`kzalloc`](super::kzalloc), [`kfree`](super::kfree),
/// [`kfree_sensitive`](super::kfree_sensitive), [`kvmalloc`](super::kvmalloc()), [`kvzalloc`](super::kvzalloc),
/// [`kvfree`](super::kvfree).
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/kmalloc.rs"), "```")]
pub type KBox<T> = alloc::KBox<T, Kmalloc>;
/// A growable array in memory of `kmalloc`.
///
/// Raw: [`kmalloc_array`](super::kmalloc_array), [`kcalloc`](super::kcalloc), [`krealloc`](super::krealloc),
/// [`kvcalloc`](super::kvcalloc), [`kvrealloc`](super::kvrealloc).
pub type KVec<T> = alloc::KVec<T, Kmalloc>;
/// A cache of one type.
///
/// Raw: [`KmemCache`].
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/caches.rs"), "```")]
pub type Cache<T> = alloc::Cache<T, Kmalloc>;
/// A cache of one type with a constructor.
pub type ConstructedCache<T> = alloc::ConstructedCache<T, Kmalloc>;
/// A value out of a [`Cache`].
pub type CacheBox<T> = alloc::CacheBox<T, Kmalloc>;
/// `kmalloc` as an allocator of `allocator-api2`, with [`Gfp::KERNEL`] unless another is named.
pub type KmallocApi<const GFP: u32 = { Gfp::KERNEL.bits() }> = WithGfp<Kmalloc, GFP>;

impl Stateless for Kmalloc {
    const THE: Self = Self;
}

// SAFETY: the slab allocator's guarantees hold for its fast paths too.
unsafe impl Kmem for Kmalloc {
    type Cache = KmemCache;
    type Relax = Relax;

    #[inline(always)]
    fn kmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        slab::kmalloc(size, gfp)
    }

    unsafe fn krealloc(&self, object: NonNull<u8>, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        // SAFETY: `Kmem::krealloc`: `object` came from here, and nobody uses it after a success.
        unsafe { slab::krealloc(object.as_ptr(), size, gfp) }
    }

    #[inline(always)]
    unsafe fn kfree(&self, object: NonNull<u8>) {
        // SAFETY: `Kmem::kfree`: `object` came from here, and nobody uses it afterwards.
        unsafe { slab::kfree(object.as_ptr()) };
    }

    fn ksize(&self, object: NonNull<u8>) -> Result<usize, Misuse> {
        slab::ksize(object.as_ptr())
    }

    fn report(&self, misuse: &Misuse) {
        slab::slab_allocator().report(misuse);
    }

    fn vmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        vmalloc::vmalloc_gfp(size, gfp).map_err(|error| refused(&error))
    }

    unsafe fn vfree(&self, memory: NonNull<u8>) {
        // SAFETY: `Kmem::vfree`: `memory` came from `vmalloc`, and nobody uses it afterwards. `vfree` reports a bad pointer.
        unsafe { vmalloc::vfree(memory) };
    }

    fn create(&self, spec: &CacheSpec) -> Result<KmemCache, CreateError> {
        KmemCache::create(spec)
    }

    #[inline(always)]
    fn alloc_object(&self, cache: &KmemCache, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        cache.alloc(gfp)
    }

    fn destroy(&self, cache: KmemCache) -> Result<(), (KmemCache, DestroyError)> {
        cache.destroy()
    }

    fn may_wait(&self) -> bool {
        slab::slab_allocator().may_wait()
    }

    fn masked<R>(&self, f: impl FnOnce() -> R) -> R {
        let _masked = irq::local_irq_save();
        f()
    }
}
