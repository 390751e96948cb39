//! The machine's memory pools: Linux's names for them as free functions, over this kernel's fast paths.

use super::alloc::Kmalloc;
use super::cpu::KernelPages;
use super::pages::PAGES;
use super::slab::{KmemCache, slab_allocator};
use super::slab_fast;
use crate::addr::{Order, Pointer, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::alloc::Kmem;
use crate::mm::mempool::{
    self, Backing, CacheBacking, Functions, KmallocBacking, NotElement, NotFreed, PageBacking, PoolCreateError,
    PoolDestroyError, PoolEmpty, PoolResizeError, PoolSpec, RawMempool,
};
use crate::mm::slab::{ArrayOffset, CacheSpec, CreateError, KmallocCacheType, SlabFlags, SlabHal};
use core::ptr::NonNull;

/// A pool of pointers on this machine (Linux: `mempool_t`).
pub type MempoolOf<B> = RawMempool<'static, KernelPages, B>;
/// A pool of blocks of `kmalloc`.
pub type KmallocPool = MempoolOf<KmallocElements>;
/// A pool of objects of a cache, which outlives it.
pub type SlabPool<'c> = MempoolOf<&'c KmemCache>;
/// A pool of blocks of pages.
pub type PagePool = MempoolOf<PageBacking<'static, KernelPages>>;
/// A pool of elements that two functions allocate and free.
pub type FunctionPool<D> = MempoolOf<Functions<D>>;
/// A pool of values of one type, with its own cache.
pub type Mempool<T> = mempool::Mempool<'static, T, KernelPages, KmemCache>;
/// A value out of a [`Mempool`].
pub type MempoolBox<'p, T> = mempool::MempoolBox<'p, 'static, T, KernelPages, KmemCache>;

/// Whether flags ask for nothing but a cached object.
#[inline(always)]
const fn plain(gfp: Gfp) -> bool {
    !gfp.intersects(Gfp::HIGHMEM.union(Gfp::DMA).union(Gfp::DMA32).union(Gfp::RECLAIMABLE))
}

fn address(element: NonNull<u8>) -> VirtAddr {
    VirtAddr::new(element.expose_provenance().get() as u64)
}

/// Blocks of `kmalloc` of one size.
#[derive(Debug)]
pub struct KmallocElements {
    size: usize,
    /// Offset of their cache's array in each CPU's data; `None` for blocks that are larger than the largest cache's.
    array: Option<ArrayOffset>,
}

impl KmallocElements {
    /// Blocks of `size` bytes, rounded up to a multiple of eight.
    ///
    /// # Errors
    ///
    /// [`PoolCreateError::Size`].
    pub fn new(size: usize) -> Result<Self, PoolCreateError> {
        let size = KmallocBacking::new(slab_allocator(), size)?.size();
        let cache = slab_allocator().kmalloc_cache(KmallocCacheType::Normal, size);
        Ok(Self { size, array: cache.map(|cache| cache.array()) })
    }
}

// SAFETY: the guarantees of `kmalloc`.
unsafe impl Backing for KmallocElements {
    fn bytes(&self) -> usize {
        self.size
    }

    fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        super::slab::kmalloc(self.size, gfp).ok()
    }

    #[inline(always)]
    fn alloc_at_hand(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        let array = self.array.filter(|_| plain(gfp))?;
        // The mark of a block is its first word.
        let block = PAGES.hal().pop_free(Internal::CALL, array, 0, gfp.may_wait())?;
        NonNull::new(block.as_ptr())
    }

    #[inline(always)]
    unsafe fn free(&self, element: NonNull<u8>) {
        // SAFETY: `Backing::free`: the element came from here, and nobody uses it afterwards.
        unsafe { super::slab::kfree(element.as_ptr()) };
    }

    #[inline(always)]
    fn first_word(&self, element: NonNull<u8>) -> u64 {
        slab_fast::word_at(element)
    }

    fn verify(&self, element: NonNull<u8>) -> Result<(), NotElement> {
        KmallocBacking::verify_block(slab_allocator(), element, self.size)
    }
}

// SAFETY: the cache's guarantees hold; an object of another cache is not accepted.
unsafe impl Backing for KmemCache {
    fn bytes(&self) -> usize {
        CacheBacking::writable(self.cache())
    }

    fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        self.alloc(gfp).ok()
    }

    #[inline(always)]
    fn alloc_at_hand(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        if plain(gfp) { self.take(gfp) } else { None }
    }

    #[inline(always)]
    unsafe fn free(&self, element: NonNull<u8>) {
        // SAFETY: `Backing::free`: the element came from here, and nobody uses it afterwards.
        unsafe { self.free(element) };
    }

    #[inline(always)]
    fn first_word(&self, element: NonNull<u8>) -> u64 {
        // Objects of less than a word, or with a constructor, hold no mark; they still have a slot of eight bytes.
        slab_fast::word_at(element)
    }

    fn verify(&self, element: NonNull<u8>) -> Result<(), NotElement> {
        slab_allocator().verify_object(self.cache(), address(element)).map_err(NotElement::Object)
    }
}

fn create<B: Backing>(name: &'static str, min: u32, backing: B) -> Result<MempoolOf<B>, PoolCreateError> {
    RawMempool::create(slab_allocator(), &PoolSpec::new(name, min), backing).map_err(|refused| refused.error)
}

/// Makes a pool of elements that `alloc_fn` allocates and `free_fn` frees, both with `pool_data`; see [`RawMempool::create`]
/// and [`Functions::new`] (Linux: `mempool_create`). Where sleeping is allowed.
///
/// # Errors
///
/// [`PoolCreateError`].
///
/// # Safety
///
/// As for [`Functions::new`].
pub unsafe fn mempool_create<D>(
    name: &'static str,
    min_nr: u32,
    alloc_fn: fn(Gfp, &D) -> Option<NonNull<u8>>,
    free_fn: fn(NonNull<u8>, &D),
    pool_data: D,
) -> Result<FunctionPool<D>, PoolCreateError> {
    super::might_sleep("mempool_create").map_err(PoolCreateError::Atomic)?;
    // SAFETY: this function's `# Safety` is that of `Functions::new`.
    create(name, min_nr, unsafe { Functions::new(alloc_fn, free_fn, pool_data) })
}

/// Makes a pool of objects of a cache (Linux: `mempool_create_slab_pool`). Where sleeping is allowed.
///
/// # Errors
///
/// [`PoolCreateError`].
pub fn mempool_create_slab_pool<'c>(
    name: &'static str,
    min_nr: u32,
    cache: &'c KmemCache,
) -> Result<SlabPool<'c>, PoolCreateError> {
    super::might_sleep("mempool_create_slab_pool").map_err(PoolCreateError::Atomic)?;
    create(name, min_nr, cache)
}

/// Makes a pool of blocks of `kmalloc` of `size` bytes (Linux: `mempool_create_kmalloc_pool`). Where sleeping is allowed.
///
/// # Errors
///
/// [`PoolCreateError`].
pub fn mempool_create_kmalloc_pool(
    name: &'static str,
    min_nr: u32,
    size: usize,
) -> Result<KmallocPool, PoolCreateError> {
    super::might_sleep("mempool_create_kmalloc_pool").map_err(PoolCreateError::Atomic)?;
    create(name, min_nr, KmallocElements::new(size)?)
}

/// Makes a pool of blocks of 2^`order` pages, by their addresses in the linear map (Linux: `mempool_create_page_pool`).
/// Where sleeping is allowed.
///
/// # Errors
///
/// [`PoolCreateError`].
pub fn mempool_create_page_pool(name: &'static str, min_nr: u32, order: Order) -> Result<PagePool, PoolCreateError> {
    super::might_sleep("mempool_create_page_pool").map_err(PoolCreateError::Atomic)?;
    create(name, min_nr, PageBacking::new(&PAGES, order)?)
}

/// Allocates an element; see [`RawMempool::alloc`]. Context as `gfp` says.
///
/// # Errors
///
/// [`PoolEmpty`].
#[inline(always)]
pub fn mempool_alloc<B: Backing>(pool: &MempoolOf<B>, gfp: Gfp) -> Result<NonNull<u8>, PoolEmpty> {
    pool.alloc(gfp)
}

/// Takes an element out of the reserve; see [`RawMempool::alloc_preallocated`]. Any context.
#[must_use]
pub fn mempool_alloc_preallocated<B: Backing>(pool: &MempoolOf<B>) -> Option<NonNull<u8>> {
    pool.alloc_preallocated()
}

/// Frees an element; null is a no-op. A wrong element is reported, and nothing is freed. Any context.
///
/// # Safety
///
/// As for [`RawMempool::free`].
#[inline(always)]
pub unsafe fn mempool_free<B: Backing>(element: impl Pointer, pool: &MempoolOf<B>) {
    // SAFETY: this function's `# Safety` is that of `RawMempool::free`.
    if let Err(wrong) = unsafe { pool.free(element.at().as_ptr()) } {
        pool.report_free(&wrong);
    }
}

/// The same, but returns an error instead of reporting it.
///
/// # Errors
///
/// [`NotFreed`].
///
/// # Safety
///
/// As for [`RawMempool::free`].
pub unsafe fn try_mempool_free<B: Backing>(element: impl Pointer, pool: &MempoolOf<B>) -> Result<(), NotFreed> {
    // SAFETY: this function's `# Safety` is that of `RawMempool::free`.
    unsafe { pool.free(element.at().as_ptr()) }
}

/// Changes the size of the reserve; see [`RawMempool::resize`]. Where sleeping is allowed.
///
/// # Errors
///
/// [`PoolResizeError`].
pub fn mempool_resize<B: Backing>(pool: &MempoolOf<B>, new_min_nr: u32) -> Result<(), PoolResizeError> {
    super::might_sleep("mempool_resize").map_err(PoolResizeError::Atomic)?;
    pool.resize(new_min_nr)
}

/// Destroys a pool; see [`RawMempool::destroy`]. Where sleeping is allowed.
///
/// # Errors
///
/// With the pool, [`PoolDestroyError`].
#[expect(clippy::result_large_err, reason = "the pool comes back as it was, by value")]
pub fn mempool_destroy<B: Backing>(pool: MempoolOf<B>) -> Result<(), (MempoolOf<B>, PoolDestroyError)> {
    if let Err(error) = super::might_sleep("mempool_destroy") {
        return Err((pool, PoolDestroyError::Atomic(error)));
    }
    pool.destroy().map(drop)
}

impl<T> Mempool<T> {
    /// Makes a pool of values, with its own cache, which gets the pool's name. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`PoolCreateError`]; types without bytes have no pool.
    pub fn create(spec: &PoolSpec) -> Result<Self, PoolCreateError> {
        super::might_sleep("Mempool::create").map_err(PoolCreateError::Atomic)?;
        let too_large = PoolCreateError::Cache(CreateError::TooLarge);
        let size = u32::try_from(size_of::<T>()).map_err(|_| too_large)?;
        let align = u32::try_from(align_of::<T>()).map_err(|_| too_large)?;
        let flags = SlabFlags::NO_MERGE;
        let cache = CacheSpec { name: spec.name, size, align, flags, constructor: None };
        let cache = KmemCache::create(&cache).map_err(PoolCreateError::Cache)?;
        match RawMempool::create(slab_allocator(), spec, cache) {
            // SAFETY: TPOOL-1: the cache was made for it.
            Ok(pool) => Ok(unsafe { Self::over(pool) }),
            Err(refused) => {
                destroy_cache(refused.value);
                Err(refused.error)
            }
        }
    }

    /// Destroys the pool and its cache. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// With the pool, if boxes were forgotten.
    #[expect(clippy::result_large_err, reason = "the pool comes back as it was, by value")]
    pub fn destroy_all(self) -> Result<(), (Self, PoolDestroyError)> {
        if let Err(error) = super::might_sleep("Mempool::destroy_all") {
            return Err((self, PoolDestroyError::Atomic(error)));
        }
        self.destroy().map(destroy_cache)
    }
}

/// Destroys a cache from which no object is left. An object that is left all the same is reported there.
fn destroy_cache(cache: KmemCache) {
    let _ = Kmalloc.destroy(cache);
}
