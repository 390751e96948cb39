//! The slab allocator as a source of memory for Rust types: sizes and alignments as `kmalloc` has them.

use super::allocator::Allocator;
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::gfp::Gfp;
use crate::mm::slab::{
    CacheHandle, CacheSpec, CreateError, DestroyError, KMALLOC_MAX_CACHE_SIZE, Misuse, SlabAllocError, SlabAllocator,
    SlabHal,
};
use crate::sync::{CHECKED, LockHal};
use core::alloc::Layout;
use core::ptr::NonNull;

/// `kmalloc` and its kin, in pointers. A reference to a [`SlabAllocator`] is one; a kernel with fast paths of its own writes
/// another.
///
/// # Safety
///
/// `kmalloc` returns memory of the requested size, mapped read-write, without another owner until `kfree`; it is aligned to the
/// largest power of two that divides the size of its class, up to a page, and blocks that are larger than
/// [`KMALLOC_MAX_CACHE_SIZE`] are aligned to their size rounded up to a power of two. `alloc_object` returns as much for the
/// size and alignment of the cache, which `create` took from its spec.
pub unsafe trait Kmem {
    /// A handle of a cache.
    type Cache;
    /// Way of waiting for a lock.
    type Relax: LockHal;

    /// Allocates `size` bytes, not zero; see [`SlabAllocator::kmalloc`].
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    fn kmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError>;

    /// Resizes an allocation to `size` bytes, not zero; see [`SlabAllocator::krealloc`].
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; the allocation is untouched then.
    ///
    /// # Safety
    ///
    /// `object` came from here. If this succeeds, nobody uses it afterwards.
    unsafe fn krealloc(&self, object: NonNull<u8>, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError>;

    /// Frees an allocation of `kmalloc` or `alloc_object`. Misuse is reported.
    ///
    /// # Safety
    ///
    /// `object` came from here. Nobody uses it afterwards.
    unsafe fn kfree(&self, object: NonNull<u8>);

    /// Bytes of an allocation.
    ///
    /// # Errors
    ///
    /// [`Misuse`], if there is no such allocation.
    fn ksize(&self, object: NonNull<u8>) -> Result<usize, Misuse>;

    /// Reports the error in a block that a caller frees, and that is not freed.
    fn report(&self, misuse: &Misuse);

    /// Allocates more bytes than the largest block has, page aligned and contiguous in virtual addresses only, by `vmalloc`. A
    /// machine without `vmalloc` refuses.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError::OutOfMemory`], [`SlabAllocError::TooLarge`].
    fn vmalloc(&self, _size: usize, _gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        Err(SlabAllocError::TooLarge)
    }

    /// Frees an area of `vmalloc`.
    ///
    /// # Safety
    ///
    /// `memory` came from there. Nobody uses it afterwards.
    unsafe fn vfree(&self, _memory: NonNull<u8>) {}

    /// Makes a cache; see [`SlabAllocator::create`]. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    fn create(&self, spec: &CacheSpec) -> Result<Self::Cache, CreateError>;

    /// Allocates an object of a cache made by [`Kmem::create`].
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    fn alloc_object(&self, cache: &Self::Cache, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError>;

    /// Destroys a cache; see [`SlabAllocator::destroy`]. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// The cache, and why it stays.
    fn destroy(&self, cache: Self::Cache) -> Result<(), (Self::Cache, DestroyError)>;

    /// Whether the caller may wait in its context.
    fn may_wait(&self) -> bool;

    /// Runs `f` with interrupts masked on this CPU.
    fn masked<R>(&self, f: impl FnOnce() -> R) -> R;
}

fn pointer(object: VirtAddr) -> Result<NonNull<u8>, SlabAllocError> {
    NonNull::new(object.as_ptr()).ok_or(SlabAllocError::OutOfMemory)
}

fn address(object: NonNull<u8>) -> VirtAddr {
    VirtAddr::new(object.expose_provenance().get() as u64)
}

// SAFETY: the slab allocator's guarantees: its caches' objects are apart and aligned, its large blocks are blocks of the page
// allocator.
unsafe impl<H: SlabHal> Kmem for &SlabAllocator<'_, H> {
    type Cache = CacheHandle<H>;
    type Relax = H::Relax;

    #[inline]
    fn kmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        SlabAllocator::kmalloc(self, size, gfp).and_then(pointer)
    }

    unsafe fn krealloc(&self, object: NonNull<u8>, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        SlabAllocator::do_krealloc(self, address(object), size, gfp).and_then(pointer)
    }

    #[inline]
    unsafe fn kfree(&self, object: NonNull<u8>) {
        if let Err(misuse) = SlabAllocator::do_kfree(self, address(object)) {
            self.hal().misuse(&misuse);
        }
    }

    fn ksize(&self, object: NonNull<u8>) -> Result<usize, Misuse> {
        SlabAllocator::ksize(self, address(object))
    }

    fn create(&self, spec: &CacheSpec) -> Result<CacheHandle<H>, CreateError> {
        SlabAllocator::create(self, spec)
    }

    #[inline]
    fn alloc_object(&self, cache: &CacheHandle<H>, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        SlabAllocator::alloc_object(self, cache.cache(), gfp).and_then(pointer)
    }

    fn destroy(&self, cache: CacheHandle<H>) -> Result<(), (CacheHandle<H>, DestroyError)> {
        SlabAllocator::destroy(self, cache)
    }

    fn report(&self, misuse: &Misuse) {
        SlabAllocator::report(self, misuse);
    }

    fn may_wait(&self) -> bool {
        SlabAllocator::may_wait(self)
    }

    fn masked<R>(&self, f: impl FnOnce() -> R) -> R {
        let saved = self.hal().save();
        let result = f();
        self.hal().restore(saved);
        result
    }
}

/// Size to request of `kmalloc`, so that the block has the layout: a multiple of the alignment, since each class is aligned to
/// what divides it, and a block of pages for alignments above a page.
#[inline(always)]
const fn request(layout: Layout) -> usize {
    let size = layout.pad_to_align().size();
    if layout.align() as u64 > PAGE_SIZE && size <= KMALLOC_MAX_CACHE_SIZE { KMALLOC_MAX_CACHE_SIZE + 1 } else { size }
}

/// Whether a block of `usable` bytes is so much larger than `size` that moving out of it pays: half of it, and a cache line.
const fn is_wasteful(usable: usize, size: usize) -> bool {
    size <= usable / 2 && usable - size >= 64
}

/// Bytes of a block, if it is wastefully large for `size`.
fn wasted<K: Kmem>(kmem: &K, block: NonNull<u8>, size: usize) -> Option<usize> {
    kmem.ksize(block).ok().filter(|usable| is_wasteful(*usable, size))
}

/// Note in the last word of a block (checking build only): the block stays wastefully large for the `size` bytes that its user
/// wants, because there was no memory to move it.
fn small_note(block: NonNull<u8>, size: usize) -> u64 {
    0x7368_7275_6e6b_656e ^ address(block).get() ^ size as u64
}

fn note_small<K: Kmem>(kmem: &K, block: NonNull<u8>, size: usize) {
    if CHECKED && let Some(usable) = wasted(kmem, block, size) {
        // SAFETY: the block has that many bytes.
        let last = unsafe { block.add(usable - 8) }.cast::<u64>();
        // SAFETY: the last bytes of the block, whose user wants less than half of it.
        unsafe { last.write_unaligned(small_note(block, size)) };
    }
}

/// Whether a block may have been requested with `size` bytes, as far as its own size tells. A wrong size is reported.
#[inline(never)]
fn has_size<K: Kmem>(kmem: &K, block: NonNull<u8>, size: usize) -> bool {
    // `kfree` reports a block that has no size.
    let Ok(usable) = kmem.ksize(block) else { return true };
    let right = if is_wasteful(usable, size) {
        // SAFETY: the block has that many bytes.
        let last = unsafe { block.add(usable - 8) }.cast::<u64>();
        // SAFETY: the last bytes of the block, which nobody uses any more.
        unsafe { last.read_unaligned() == small_note(block, size) }
    } else {
        size <= usable
    };
    if !right {
        kmem.report(&Misuse::WrongSize { at: address(block), size, usable });
    }
    right
}

/// Allocates a block with another layout, copies what fits, and frees the old one.
///
/// # Safety
///
/// As for [`Allocator::resize`].
unsafe fn move_block<K: Kmem>(
    kmem: &K,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
    gfp: Gfp,
) -> Result<NonNull<u8>, SlabAllocError> {
    let moved = kmem.kmalloc(request(new), gfp)?;
    // SAFETY: both blocks have that many bytes, and are distinct.
    unsafe { moved.copy_from_nonoverlapping(block, old.size().min(new.size())) };
    // SAFETY: `Allocator::resize`: the block came from here, and nobody uses it after the move.
    unsafe { kmem.kfree(block) };
    Ok(moved)
}

// SAFETY: `Kmem` promises exclusive memory of the requested size; `request` asks for a size whose class has the alignment.
unsafe impl<K: Kmem> Allocator for K {
    #[inline(always)]
    fn allocate(&self, layout: Layout, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        self.kmalloc(request(layout), gfp)
    }

    unsafe fn resize(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, SlabAllocError> {
        let size = request(new);
        let plain = gfp - Gfp::ZERO;
        let shrinks = new.size() < old.size();
        let resized = if !block.addr().get().is_multiple_of(new.align()) {
            // SAFETY: this function's `# Safety` is that of `move_block`.
            unsafe { move_block(self, block, old, new, plain) }?
        } else if shrinks && self.ksize(block).is_ok_and(|usable| is_wasteful(usable, size)) {
            // SAFETY: this function's `# Safety` is that of `move_block`.
            let moved = unsafe { move_block(self, block, old, new, plain | Gfp::NOWARN) };
            match moved {
                Ok(moved) => moved,
                // It fits in place.
                Err(_) => {
                    // SAFETY: `Allocator::resize`: the block came from here, and nobody uses it after a success.
                    let stays = unsafe { self.krealloc(block, size, plain) }?;
                    note_small(self, stays, size);
                    stays
                }
            }
        } else {
            // SAFETY: `Allocator::resize`: the block came from here, and nobody uses it after a success.
            unsafe { self.krealloc(block, size, plain) }?
        };
        if gfp.contains(Gfp::ZERO) && !shrinks {
            // SAFETY: the block has `new.size()` bytes.
            let tail = unsafe { resized.add(old.size()) };
            // SAFETY: bytes `old.size()` to `new.size()` of the block, which has as many.
            unsafe { tail.write_bytes(0, new.size() - old.size()) };
        }
        Ok(resized)
    }

    #[inline(always)]
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        if CHECKED && !has_size(self, block, request(layout)) {
            return;
        }
        // SAFETY: `Allocator::free`: the block came from here, and nobody uses it afterwards.
        unsafe { self.kfree(block) };
    }
}
