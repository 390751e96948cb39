//! Memory from `kmalloc` if possible, otherwise from `vmalloc` (Linux: `kvmalloc`): built on both.

use super::misuse::refused;
use super::slab::{self, kfree, kmalloc, try_kfree};
use super::vmalloc::{is_vmalloc_addr, try_vfree, vmalloc_gfp, vrealloc};
use crate::addr::{PAGE_SIZE, Pointer, VirtAddr, to_usize};
use crate::gfp::Gfp;
use crate::mm::alloc::size_mul;
use crate::mm::slab::{Misuse, SlabAllocError};
use crate::mm::vmalloc::VmallocError;
use core::fmt;
use core::panic::Location;
use core::ptr::NonNull;

/// The largest size (Linux: `INT_MAX`).
const LARGEST: usize = i32::MAX as usize;

/// Reason why there is no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KvError {
    /// The slab allocator refused, for a reason that vmalloc cannot help.
    Slab(SlabAllocError),
    /// Both refused; this is vmalloc's error.
    Vmalloc(VmallocError),
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slab(error) => error.fmt(f),
            Self::Vmalloc(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for KvError {}

/// Reason why memory was not freed. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KvFreeError {
    /// The slab allocator did not allocate it.
    Slab(Misuse),
    /// vmalloc did not allocate it.
    Vmalloc(VmallocError),
}

impl fmt::Display for KvFreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slab(misuse) => misuse.fmt(f),
            Self::Vmalloc(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for KvFreeError {}

/// `size` bytes, contiguous in addresses: from [`kmalloc`] if it succeeds without much effort, otherwise, if it is more than a
/// page, from [`vmalloc`](super::vmalloc()) (Linux: `kvmalloc`). Context as `gfp` says.
///
/// As a value: [`KVec`](super::KVec) for small sizes, [`VVec`](super::VVec) for large ones.
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/kvmalloc.rs"), "```")]
///
/// # Errors
///
/// [`KvError`].
#[track_caller]
#[inline]
pub fn kvmalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvError> {
    if size <= to_usize(PAGE_SIZE) {
        return kmalloc(size, gfp).map_err(KvError::Slab);
    }
    kvmalloc_large(size, gfp)
}

#[track_caller]
fn kvmalloc_large(size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvError> {
    if size > LARGEST {
        return Err(KvError::Slab(SlabAllocError::TooLarge));
    }
    // vmalloc is tried too, unless the caller asks for the effort.
    let effort = if gfp.contains(Gfp::RETRY_MAYFAIL) { Gfp::empty() } else { Gfp::NORETRY };
    match kmalloc(size, (gfp - Gfp::NOFAIL) | Gfp::NOWARN | effort) {
        Ok(memory) => Ok(memory),
        Err(error @ (SlabAllocError::Flags(_) | SlabAllocError::Zone(_))) => Err(KvError::Slab(error)),
        Err(_) => vmalloc_gfp(size, gfp).map_err(KvError::Vmalloc),
    }
}

/// [`kvmalloc`], zeroed.
///
/// As a value: [`KVec`](super::KVec) for small sizes, [`VVec`](super::VVec) for large ones.
///
/// # Errors
///
/// [`KvError`].
#[track_caller]
#[inline]
pub fn kvzalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvError> {
    kvmalloc(size, gfp | Gfp::ZERO)
}

/// [`kvzalloc`] for `count` elements of `size` bytes.
///
/// As a value: [`KVec`](super::KVec) for small sizes, [`VVec`](super::VVec) for large ones.
///
/// # Errors
///
/// [`KvError`], also if the product overflows.
#[track_caller]
pub fn kvcalloc(count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvError> {
    kvzalloc(size_mul(count, size), gfp)
}

/// Resizes an allocation of [`kvmalloc`] to `size` bytes, in place or by moving it. A null pointer allocates; a size of 0
/// frees, and returns the same as [`kvmalloc`] of 0 bytes. The contents up to the smaller of both sizes are kept. Context as
/// `gfp` says.
///
/// As a value: [`KVec`](super::KVec) for small sizes, [`VVec`](super::VVec) for large ones.
///
/// # Errors
///
/// [`KvError`]; the memory is unchanged then.
///
/// # Safety
///
/// The memory came from [`kvmalloc`] or [`kmalloc`], or from vmalloc. If this succeeds, nobody uses the
/// old pointer afterwards.
#[track_caller]
pub unsafe fn kvrealloc(old: impl Pointer, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvError> {
    let old = old.at();
    if old == VirtAddr::ZERO {
        return kvmalloc(size, gfp);
    }
    if is_vmalloc_addr(old) {
        if size == 0 {
            // SAFETY: by this function's `# Safety`, the memory came from vmalloc; nobody uses it after a success.
            unsafe { try_vfree(old) }.map_err(KvError::Vmalloc)?;
            return kvmalloc(0, gfp);
        }
        // SAFETY: by this function's `# Safety`, the memory came from vmalloc; nobody uses it after a success.
        return unsafe { vrealloc(old, size, gfp) }.map_err(KvError::Vmalloc);
    }
    // SAFETY: by this function's `# Safety`, the memory came from `kmalloc`; nobody uses it after a success.
    match unsafe { slab::krealloc(old, size, gfp | Gfp::NOWARN) } {
        Ok(memory) => Ok(memory),
        Err(error @ (SlabAllocError::Flags(_) | SlabAllocError::Zone(_) | SlabAllocError::NotAllocated(_))) => {
            Err(KvError::Slab(error))
        }
        Err(error) => {
            let had = slab::ksize(old).map_err(|_| KvError::Slab(error))?;
            let new = kvmalloc(size, gfp)?;
            // SAFETY: both have that many bytes, and the new memory has no other owner.
            unsafe { new.as_ptr().copy_from_nonoverlapping(old.as_ptr(), had.min(size)) };
            // SAFETY: by this function's `# Safety`, nobody uses the old pointer after a success, and this is one.
            unsafe { kfree(old) };
            Ok(new)
        }
    }
}

/// Frees what [`kvmalloc`], [`kmalloc`] or [`vmalloc`](super::vmalloc()) gave; null is nothing to free.
/// Misuse is reported, and nothing is freed then. Any context.
///
/// As a value: [`KVec`](super::KVec) for small sizes, [`VVec`](super::VVec) for large ones.
///
/// # Safety
///
/// Nobody uses the memory afterwards.
#[inline]
#[track_caller]
pub unsafe fn kvfree(memory: impl Pointer) {
    let at = memory.at();
    if !is_vmalloc_addr(at) {
        // SAFETY: by this function's `# Safety`, nobody uses the memory afterwards.
        return unsafe { kfree(at) };
    }
    // SAFETY: by this function's `# Safety`, nobody uses the memory afterwards.
    let freed = unsafe { try_vfree(at) };
    if let Err(error) = freed {
        refused("kvfree", at, &error, Location::caller());
    }
}

/// As [`kvfree`], but returns an error for a bad pointer instead of reporting it.
///
/// # Errors
///
/// [`KvFreeError`]; nothing is freed then.
///
/// # Safety
///
/// As for [`kvfree`].
pub unsafe fn try_kvfree(memory: impl Pointer) -> Result<(), KvFreeError> {
    let at = memory.at();
    if is_vmalloc_addr(at) {
        // SAFETY: by this function's `# Safety`, nobody uses the memory afterwards.
        unsafe { try_vfree(at) }.map_err(KvFreeError::Vmalloc)
    } else {
        // SAFETY: by this function's `# Safety`, nobody uses the memory afterwards.
        unsafe { try_kfree(at) }.map_err(KvFreeError::Slab)
    }
}
