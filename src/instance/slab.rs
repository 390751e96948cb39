//! The machine's slab allocator: `kmalloc` and caches as free functions and handles.
//!
//! All functions may be called in any context unless they say otherwise; those that allocate wait only with
//! [`Gfp::DIRECT_RECLAIM`].

use super::pages::{CPU_LOCAL_SIZE, CpuLocal, KernelPages, PAGES};
use crate::addr::{PhysAddr, VirtAddr, to_usize};
use crate::gfp::Gfp;
use crate::mm::layout::{self, PAGE_OFFSET};
use crate::mm::slab::{
    AllocError, Cache, CacheHandle, CacheSpec, CreateError, InUse, KMALLOC_ARRAYS_SIZE, Misuse, SlabAllocator,
    SlabConstants, SlabHal, SlabOptions, Slot,
};
use core::mem::offset_of;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// Room in each CPU's data for the arrays of `kmalloc`, and one array that is always off.
#[derive(Debug)]
#[repr(C, align(16))]
pub(super) struct KmallocArrays {
    arrays: [AtomicU64; KMALLOC_ARRAYS_SIZE as usize / 8],
    /// Zero for good.
    none: [AtomicU64; 2],
}

impl KmallocArrays {
    /// Arrays that are off.
    pub(super) const OFF: Self = Self {
        arrays: [const { AtomicU64::new(0) }; KMALLOC_ARRAYS_SIZE as usize / 8],
        none: [const { AtomicU64::new(0) }; 2],
    };
}

/// Distance of the arrays from the start of a CPU's data.
#[expect(clippy::cast_possible_truncation, reason = "a CPU's data are a few pages")]
const ARRAYS: u32 = (offset_of!(CpuLocal, kmalloc) + offset_of!(KmallocArrays, arrays)) as u32;
#[expect(clippy::cast_possible_truncation, reason = "a CPU's data are a few pages")]
const NONE: u32 = (offset_of!(CpuLocal, kmalloc) + offset_of!(KmallocArrays, none)) as u32;
/// What lies behind a CPU's data.
#[expect(clippy::cast_possible_truncation, reason = "a CPU's data are a few pages")]
const WINDOW: Range<u32> = size_of::<CpuLocal>().next_multiple_of(16) as u32..CPU_LOCAL_SIZE as u32;

/// What the machine knows that is not known outside.
static ENTROPY: AtomicU64 = AtomicU64::new(0);

/// Adds bits that nobody outside knows to those from which the order and the secrets of caches are made: the boot
/// loader's seed, say. Before [`start_slabs`].
pub fn add_entropy(bits: u64) {
    ENTROPY.fetch_add(bits.rotate_left(32) ^ bits.wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
}

impl SlabHal for KernelPages {
    const NO_ARRAY: Slot = Slot::at(NONE);
    const KMALLOC_ARRAYS: u32 = ARRAYS;

    #[inline(always)]
    fn word(local: &CpuLocal, distance: u32) -> &AtomicU64 {
        let word = VirtAddr::new(VirtAddr::of(local).get() + u64::from(distance)).as_ptr::<AtomicU64>();
        // SAFETY: a CPU's data are `CPU_LOCAL_SIZE` bytes of atomics that are there for good (LOCAL-1), and the distance is
        // that of an array in its window (SLOT-1).
        unsafe { &*word }
    }

    #[inline(always)]
    fn words(local: &CpuLocal, distance: u32, count: usize) -> &[AtomicU64] {
        let first = VirtAddr::new(VirtAddr::of(local).get() + u64::from(distance)).as_ptr::<AtomicU64>();
        // SAFETY: as above; the array has so many entries.
        unsafe { core::slice::from_raw_parts(first, count) }
    }

    #[inline(always)]
    fn constants(local: &CpuLocal) -> &SlabConstants {
        &local.slab
    }

    fn window(&self) -> Range<u32> {
        WINDOW
    }

    #[inline(always)]
    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        VirtAddr::new(PAGE_OFFSET | phys.get())
    }

    #[inline(always)]
    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        layout::virt_to_phys(virt)
    }

    fn entropy(&self) -> u64 {
        ENTROPY.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn zero_object(&self, object: VirtAddr, bytes: usize) {
        // SAFETY: the allocator vouches for the object: allocated for the caller, or being freed, and as large.
        unsafe { object.as_ptr::<u8>().write_bytes(0, bytes) };
    }
}

static SLABS: SlabAllocator<'static, KernelPages> = SlabAllocator::new(&PAGES);

/// The slab allocator, for reports and checks.
#[must_use]
pub fn slab_allocator() -> &'static SlabAllocator<'static, KernelPages> {
    &SLABS
}

/// Makes the first caches; see [`SlabAllocator::start`].
///
/// # Errors
///
/// [`CreateError`].
pub fn start_slabs(options: SlabOptions) -> Result<(), CreateError> {
    SLABS.start(options)
}

#[inline(always)]
fn pointer(object: VirtAddr) -> NonNull<u8> {
    // SAFETY: an object lies in the linear map, and an allocation of no bytes is not at zero either.
    unsafe { NonNull::new_unchecked(object.as_ptr()) }
}

#[inline(always)]
fn address(object: *const u8) -> VirtAddr {
    VirtAddr::new(object.expose_provenance() as u64)
}

/// Allocates `size` bytes; see [`SlabAllocator::kmalloc`]. Where size and flags are constant nothing is left of finding
/// the cache.
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn kmalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    SLABS.kmalloc(size, gfp).map(pointer)
}

/// Allocates `size` zeroed bytes.
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn kzalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    kmalloc(size, gfp | Gfp::ZERO)
}

/// Allocates room for `count` elements of `size` bytes; see [`SlabAllocator::kmalloc_array`].
///
/// # Errors
///
/// [`AllocError`]; [`AllocError::Overflow`] if the product does not fit.
#[inline(always)]
pub fn kmalloc_array(count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    SLABS.kmalloc_array(count, size, gfp).map(pointer)
}

/// Allocates zeroed room for `count` elements of `size` bytes.
///
/// # Errors
///
/// As for [`kmalloc_array`].
#[inline(always)]
pub fn kcalloc(count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    kmalloc_array(count, size, gfp | Gfp::ZERO)
}

/// Makes an allocation `size` bytes large, in place or elsewhere; see [`SlabAllocator::krealloc`].
///
/// # Errors
///
/// [`AllocError`]; the old allocation is untouched then.
///
/// # Safety
///
/// Nobody uses the old allocation afterwards, if this succeeds.
pub unsafe fn krealloc(object: *mut u8, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    SLABS.krealloc(address(object), size, gfp).map(pointer)
}

/// Frees what [`kmalloc`] and its kin or a cache gave; null is nothing to free. What is wrong with the pointer is
/// reported, and nothing is freed then.
///
/// # Safety
///
/// Nobody uses the allocation afterwards.
#[inline(always)]
pub unsafe fn kfree(object: *mut u8) {
    if !SLABS.hal().give_free(address(object)) {
        kfree_slow(object);
    }
}

#[cold]
#[inline(never)]
fn kfree_slow(object: *mut u8) {
    if let Err(misuse) = SLABS.kfree_slow(address(object)) {
        SLABS.hal().misuse(&misuse);
    }
}

/// As [`kfree`], but what is wrong with the pointer is the answer, and is not reported.
///
/// # Errors
///
/// [`Misuse`]; nothing is freed then.
///
/// # Safety
///
/// As for [`kfree`].
pub unsafe fn try_kfree(object: *mut u8) -> Result<(), Misuse> {
    SLABS.kfree(address(object))
}

/// Zeroes an allocation and frees it; see [`SlabAllocator::kfree_sensitive`].
///
/// # Errors
///
/// [`Misuse`]; nothing is zeroed or freed then.
///
/// # Safety
///
/// As for [`kfree`].
pub unsafe fn kfree_sensitive(object: *mut u8) -> Result<(), Misuse> {
    SLABS.kfree_sensitive(address(object))
}

/// Bytes of an allocation that may be used; see [`SlabAllocator::ksize`].
///
/// # Errors
///
/// [`Misuse`], if there is no such allocation.
pub fn ksize(object: *const u8) -> Result<usize, Misuse> {
    SLABS.ksize(address(object))
}

/// A cache of objects of one size. Dropping it keeps the cache for good.
#[derive(Debug)]
pub struct KmemCache(CacheHandle<KernelPages>);

impl KmemCache {
    /// Makes a cache; see [`SlabAllocator::create`].
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub fn create(spec: &CacheSpec) -> Result<Self, CreateError> {
        SLABS.create(spec).map(Self)
    }

    /// The cache as reports see it.
    #[must_use]
    pub const fn cache(&self) -> &Cache<KernelPages> {
        self.0.cache()
    }

    /// Allocates an object; see [`SlabAllocator::alloc_object`].
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    #[inline(always)]
    pub fn alloc(&self, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        SLABS.alloc_object(self.0.cache(), gfp).map(pointer)
    }

    /// Allocates a zeroed object.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    #[inline(always)]
    pub fn zalloc(&self, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.alloc(gfp | Gfp::ZERO)
    }

    /// Frees an object of this cache. What is wrong with the pointer is reported, and nothing is freed then.
    ///
    /// # Safety
    ///
    /// Nobody uses the object afterwards.
    #[inline(always)]
    pub unsafe fn free(&self, object: NonNull<u8>) {
        let at = address(object.as_ptr());
        if !SLABS.hal().give_free_to(at, self.0.cache().slot()) {
            self.free_slow(at);
        }
    }

    #[cold]
    #[inline(never)]
    fn free_slow(&self, at: VirtAddr) {
        if let Err(misuse) = SLABS.free_object(self.0.cache(), at) {
            SLABS.hal().misuse(&misuse);
        }
    }

    /// Gives memory that the cache keeps at hand back; whether there was any.
    pub fn shrink(&self) -> bool {
        SLABS.shrink(self.0.cache())
    }

    /// Destroys the cache; see [`SlabAllocator::destroy`].
    ///
    /// # Errors
    ///
    /// The cache, and what is in use of it.
    pub fn destroy(self) -> Result<(), (Self, InUse)> {
        SLABS.destroy(self.0).map_err(|(handle, left)| (Self(handle), left))
    }
}

const _: () = assert!(to_usize(WINDOW.end as u64) == to_usize(CPU_LOCAL_SIZE));
