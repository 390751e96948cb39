//! The machine's slab allocator: `kmalloc` and caches as free functions and handles.
//!
//! All functions may be called in any context unless they say otherwise; those that allocate wait only with
//! [`Gfp::DIRECT_RECLAIM`].

use super::cpu::{CpuLocal, KernelPages};
use super::linear::pointer;
use super::machine::machine;
use super::pages::PAGES;
use super::reclaim::{context, reclaim};
use super::{fault_injection, slab_fast};
use crate::addr::{Address, PAGE_SIZE, Pointer, VirtAddr, to_usize};
use crate::arch::aarch64::counter;
use crate::arch::aarch64::cpu;
use crate::arch::aarch64::mem;
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::fault_inject::FaultSite;
use crate::mm::slab::{
    ArrayHeader, ArrayOffset, Cache, CacheHandle, CacheObjects, CacheSpec, CpuSlabs, CreateError, DestroyError,
    Findings, KMALLOC_SIZES, Misuse, SlabAllocError, SlabAllocator, SlabHal, SlabOptions,
};
use crate::mm::zone::{Scanned, Shrinker};
use core::fmt;
use core::mem::offset_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

#[expect(clippy::cast_possible_truncation, reason = "a CPU's data are a few pages")]
const FIRST: u32 = offset_of!(CpuLocal, first_arrays) as u32;
#[expect(clippy::cast_possible_truncation, reason = "a CPU's data are a few pages")]
const OTHERS: u32 = offset_of!(CpuLocal, arrays) as u32;
#[expect(clippy::cast_possible_truncation, reason = "a few words")]
const HEADER: u32 = size_of::<ArrayHeader>() as u32;

/// Random bits of the machine, unknown outside it.
static ENTROPY: AtomicU64 = AtomicU64::new(0);

/// Adds random bits to the seed of the caches' order and secrets: the boot loader's seed, for example. Before
/// [`bring_up`](super::bring_up()).
pub fn add_entropy(bits: u64) {
    ENTROPY.fetch_add(bits.rotate_left(32) ^ bits.wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
}

// SAFETY: HAL-6: by the layout of `CpuLocal`; HAL-7: the restartable sequences do what the bodies do that mask
// interrupts.
unsafe impl SlabHal for KernelPages {
    const FIRST_ARRAYS: u32 = FIRST;

    #[inline(always)]
    fn array_offset(number: u16) -> ArrayOffset {
        let distance = match number.checked_sub(KMALLOC_SIZES) {
            None => FIRST + u32::from(number) * HEADER,
            Some(other) => OTHERS + u32::from(other) * HEADER,
        };
        // SAFETY: ARR-3: the arrays of `CpuLocal` have a header for each number below MAX_CACHES.
        unsafe { ArrayOffset::at(distance) }
    }

    #[inline(always)]
    fn header(local: &CpuLocal, offset: ArrayOffset) -> &ArrayHeader {
        let header =
            VirtAddr::new(VirtAddr::of(local).get().wrapping_add(offset.distance().into())).as_ptr::<ArrayHeader>();
        // SAFETY: an offset that `array_offset` has made points to a header in the CPU's data, which are never freed (LOCAL-1).
        unsafe { &*header }
    }

    #[inline(always)]
    fn slabs(local: &CpuLocal) -> &CpuSlabs {
        &local.slab
    }

    #[inline(always)]
    fn pop_free(&self, _: Internal, offset: ArrayOffset, mark: u32, wait: bool) -> Option<VirtAddr> {
        let object = if wait { slab_fast::pop_or_wait(offset) } else { slab_fast::pop(offset) }?;
        let marked = VirtAddr::new(object.get().wrapping_add(mark.into())).as_ptr::<u64>();
        // SAFETY: the object is this caller's alone from here on, and its mark lies in its slot (ARR-1).
        unsafe { marked.write(0) };
        Some(object)
    }

    #[inline(always)]
    fn push_free_many(
        &self,
        _: Internal,
        local: &CpuLocal,
        of: &CacheObjects,
        objects: &[VirtAddr],
        room: &[AtomicU64],
    ) -> usize {
        slab_fast::push_many(local, of, objects, room)
    }

    #[inline(always)]
    fn page_number(&self, at: VirtAddr) -> Option<u32> {
        slab_fast::page_number(at)
    }

    fn should_fail_slab(&self, _: &'static str, gfp: Gfp) -> bool {
        fault_injection::should_fail(FaultSite::Slab, gfp, 1)
    }

    fn entropy(&self) -> u64 {
        ENTROPY.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn zero_object(&self, _: Internal, object: VirtAddr, bytes: usize) {
        if bytes.is_multiple_of(to_usize(PAGE_SIZE))
            && object.is_aligned(PAGE_SIZE)
            && let Some(first) = NonNull::new(object.as_ptr::<mem::Page>()).filter(|_| bytes != 0)
        {
            // SAFETY: the allocator guarantees the object: allocated for the caller, or being freed, and at least `bytes` long.
            unsafe { mem::clear_pages(first, bytes as u64 / PAGE_SIZE) };
        } else if bytes.is_multiple_of(8) {
            // In words, so that a constant number of them needs no call.
            // SAFETY: `bytes` of an object that is the allocator's or its caller's alone; objects are aligned to words.
            unsafe { object.as_ptr::<u64>().write_bytes(0, bytes / 8) };
        } else {
            // SAFETY: `bytes` of an object that is the allocator's or its caller's alone.
            unsafe { object.as_ptr::<u8>().write_bytes(0, bytes) };
        }
    }

    #[inline(always)]
    fn return_address(&self) -> VirtAddr {
        cpu::return_address()
    }

    fn fmt_code(&self, at: VirtAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        machine().fmt_code(at, f)
    }

    fn ticks(&self) -> u64 {
        counter::microseconds() / 1000
    }
}

/// Frees the memory that caches hold in reserve when memory is short.
struct SlabShrinker;

impl Shrinker for SlabShrinker {
    fn name(&self) -> &str {
        "slab"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        SLABS.pages_at_hand()
    }

    fn scan_objects(&self, _: Gfp, pages: u64) -> Scanned {
        SLABS.try_shrink_all(pages).map_or(Scanned::Stop, Scanned::Freed)
    }

    fn seeks(&self) -> u32 {
        0
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
pub(crate) fn start_slabs(options: SlabOptions) -> Result<(), CreateError> {
    SLABS.start(options)?;
    if let Err(error) = reclaim().shrinkers().register(context(), &SlabShrinker) {
        log::error!("slab: no shrinker: {error}");
    }
    Ok(())
}

/// Allocates `size` bytes; see [`SlabAllocator::kmalloc`]. With constant size and flags the cache is found at compile time.
///
/// As a value: [`KBox`](super::KBox), [`KVec`](super::KVec).
///
/// # Errors
///
/// [`SlabAllocError`].
#[inline(always)]
pub fn kmalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
    SLABS.kmalloc(size, gfp).map(pointer)
}

/// Allocates `size` zeroed bytes.
///
/// As a value: [`KBox`](super::KBox), [`KVec`](super::KVec).
///
/// # Errors
///
/// [`SlabAllocError`].
#[inline(always)]
pub fn kzalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
    kmalloc(size, gfp | Gfp::ZERO)
}

/// Allocates room for `count` elements of `size` bytes; see [`SlabAllocator::kmalloc_array`].
///
/// As a value: [`KBox`](super::KBox), [`KVec`](super::KVec).
///
/// # Errors
///
/// [`SlabAllocError`]; [`SlabAllocError::Overflow`] if the product does not fit.
#[inline(always)]
pub fn kmalloc_array(count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
    SLABS.kmalloc_array(count, size, gfp).map(pointer)
}

/// Allocates zeroed room for `count` elements of `size` bytes.
///
/// As a value: [`KBox`](super::KBox), [`KVec`](super::KVec).
///
/// # Errors
///
/// As for [`kmalloc_array`].
#[inline(always)]
pub fn kcalloc(count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
    kmalloc_array(count, size, gfp | Gfp::ZERO)
}

/// Resizes an allocation to `size` bytes, in place or by moving it; see [`SlabAllocator::krealloc`].
///
/// As a value: [`KBox`](super::KBox), [`KVec`](super::KVec).
///
/// # Errors
///
/// [`SlabAllocError`]; the old allocation is untouched then.
///
/// # Safety
///
/// Nobody uses the old allocation afterwards, if this succeeds.
pub unsafe fn krealloc(object: impl Pointer, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
    SLABS.do_krealloc(object.at(), size, gfp).map(pointer)
}

/// Frees an allocation of [`kmalloc`] and its kin or of a cache; null is a no-op. A bad pointer is reported, and nothing is
/// freed then.
///
/// As a value: [`KBox`](super::KBox), [`KVec`](super::KVec).
///
/// # Safety
///
/// Nobody uses the allocation afterwards.
#[inline(always)]
pub unsafe fn kfree(object: impl Pointer) {
    let at = object.at();
    if at != VirtAddr::ZERO && !slab_fast::push(at) {
        kfree_slow(at);
    }
}

/// Slow path of [`kfree`]: the steps of the table in `mm/slab/calls/free.rs`. First a large block, onto this CPU's list of pages.
#[cold]
#[inline(never)]
fn kfree_slow(object: VirtAddr) {
    if !SLABS.do_free_large_fast(object) {
        kfree_to_spare(object);
    }
}

/// Then an object, onto this CPU's spare magazine.
#[cold]
#[inline(never)]
fn kfree_to_spare(object: VirtAddr) {
    if !SLABS.free_to_spare(object, |_| true) {
        kfree_checked(object);
    }
}

/// Then all else. The functions above tail-call here, so the return address is still `kfree`'s caller.
#[cold]
#[inline(never)]
fn kfree_checked(object: VirtAddr) {
    let caller = SLABS.hal().return_address();
    if let Err(misuse) = SLABS.free_slow_for(object, caller) {
        SLABS.report_from(&misuse, caller);
    }
}

#[cold]
#[inline(never)]
fn free_object_slow(object: VirtAddr, cache: &Cache<KernelPages>) {
    let caller = SLABS.hal().return_address();
    // Objects that do not start in the first page of their slab are not misuse.
    if !SLABS.hal().push_free_to(Internal::CALL, object, cache.array())
        && !SLABS.free_to_spare(object, |array| array == cache.array())
        && let Err(misuse) = SLABS.free_checked(object, Some(cache), caller)
    {
        SLABS.report_from(&misuse, caller);
    }
}

/// As [`kfree`], but returns an error for a bad pointer instead of reporting it.
///
/// # Errors
///
/// [`Misuse`]; nothing is freed then.
///
/// # Safety
///
/// As for [`kfree`].
pub unsafe fn try_kfree(object: impl Pointer) -> Result<(), Misuse> {
    SLABS.do_kfree(object.at())
}

/// Zeroes an allocation and frees it; see [`SlabAllocator::kfree_sensitive`]. A bad pointer is reported, and nothing is zeroed
/// or freed then.
///
/// As a value: [`KBox`](super::KBox), [`KVec`](super::KVec).
///
/// # Safety
///
/// As for [`kfree`].
// Inlined, so that a report names the caller.
#[inline(always)]
pub unsafe fn kfree_sensitive(object: impl Pointer) {
    if let Err(misuse) = SLABS.do_kfree_sensitive(object.at()) {
        SLABS.report(&misuse);
    }
}

/// As [`kfree_sensitive`], but returns an error for a bad pointer instead of reporting it.
///
/// # Errors
///
/// [`Misuse`]; nothing is zeroed or freed then.
///
/// # Safety
///
/// As for [`kfree`].
pub unsafe fn try_kfree_sensitive(object: impl Pointer) -> Result<(), Misuse> {
    SLABS.do_kfree_sensitive(object.at())
}

/// Usable bytes of an allocation; see [`SlabAllocator::ksize`].
///
/// # Errors
///
/// [`Misuse`], if there is no such allocation.
pub fn ksize(object: impl Address) -> Result<usize, Misuse> {
    SLABS.ksize(object.at())
}

/// A cache of objects of one size. Dropping it keeps the cache for good.
///
/// Of one type, with objects as values: [`Cache`].
#[derive(Debug)]
pub struct KmemCache {
    handle: CacheHandle<KernelPages>,
    // Where its arrays are in each CPU's data, for the fast paths.
    array: ArrayOffset,
    mark: u32,
    word: u64,
    secret: u64,
}

impl KmemCache {
    /// Makes a cache; see [`SlabAllocator::create`]. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub fn create(spec: &CacheSpec) -> Result<Self, CreateError> {
        SLABS.create(spec).map(Self::of)
    }

    const fn of(handle: CacheHandle<KernelPages>) -> Self {
        let cache = handle.cache();
        let (array, mark, word) = (cache.array(), cache.mark(), cache.first_word().raw());
        let secret = cache.mark_secret();
        Self { handle, array, mark, word, secret }
    }

    /// The cache's data for reports.
    #[must_use]
    pub const fn cache(&self) -> &Cache<KernelPages> {
        self.handle.cache()
    }

    /// Allocates an object; see [`SlabAllocator::alloc_object`].
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    #[inline(always)]
    pub fn alloc(&self, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        SLABS.alloc_in(self.array, self.mark, gfp, || self.cache()).map(pointer)
    }

    /// Takes an object from this CPU's array; `None` also if waiting, which the flags allow, is not legal.
    #[inline(always)]
    pub(super) fn take(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        SLABS.hal().pop_free(Internal::CALL, self.array, self.mark, gfp.may_wait()).map(pointer)
    }

    /// Allocates a zeroed object.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    #[inline(always)]
    pub fn zalloc(&self, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        self.alloc(gfp | Gfp::ZERO)
    }

    /// Frees an object of this cache. A wrong pointer is reported, and nothing is freed.
    ///
    /// # Safety
    ///
    /// Nobody uses the object afterwards.
    #[inline(always)]
    pub unsafe fn free(&self, object: impl Pointer) {
        let at = object.at();
        if !slab_fast::push_to(at, self.word, self.secret) {
            free_object_slow(at, self.cache());
        }
    }

    /// As [`KmemCache::free`], but returns an error for a bad pointer instead of reporting it.
    ///
    /// # Errors
    ///
    /// [`Misuse`]; nothing is freed then.
    ///
    /// # Safety
    ///
    /// As for [`KmemCache::free`].
    pub unsafe fn try_free(&self, object: impl Pointer) -> Result<(), Misuse> {
        SLABS.do_free_object(self.cache(), object.at())
    }

    /// Allocates an object for each place of `objects`, or none; see [`SlabAllocator::alloc_bulk`].
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    #[inline]
    pub fn alloc_bulk(&self, gfp: Gfp, objects: &mut [NonNull<u8>]) -> Result<(), SlabAllocError> {
        // SAFETY: a pointer and an address are alike in memory, and no object is at zero.
        let objects = unsafe { &mut *(ptr::from_mut(objects) as *mut [VirtAddr]) };
        SLABS.alloc_bulk(self.handle.cache(), gfp, objects)
    }

    /// Frees objects of this cache. A bad object is reported and skipped. Returns the number of bad objects.
    ///
    /// # Safety
    ///
    /// Nobody uses the objects afterwards.
    #[inline]
    pub unsafe fn free_bulk(&self, objects: &[NonNull<u8>]) -> usize {
        // SAFETY: a pointer and an address are alike in memory.
        let objects = unsafe { &*(ptr::from_ref(objects) as *const [VirtAddr]) };
        SLABS.do_free_bulk(self.handle.cache(), objects)
    }

    /// Frees the memory that the cache holds in reserve. Returns whether there was any. Where sleeping is allowed.
    pub fn shrink(&self) -> bool {
        SLABS.shrink(self.handle.cache())
    }

    /// Looks through all slabs of the cache; see [`SlabAllocator::validate`].
    pub fn validate(&self) -> Findings {
        SLABS.validate(self.cache())
    }

    /// Destroys the cache; see [`SlabAllocator::destroy`]. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// The cache, and why it stays.
    // Inlined, so that a report names the caller.
    #[inline(always)]
    pub fn destroy(self) -> Result<(), (Self, DestroyError)> {
        SLABS.destroy(self.handle).map_err(|(handle, left)| (Self::of(handle), left))
    }
}
