//! Sources of a pool's elements: `kmalloc`, a cache, pages, or functions of the caller.

use super::error::{NotElement, PoolCreateError};
use crate::addr::{MAX_ORDER, Order, PAGE_SIZE, Pfn, VirtAddr, to_usize};
use crate::gfp::Gfp;
use crate::mm::page::PageMap;
use crate::mm::slab::{Cache, KMALLOC_MAX_SIZE, SlabAllocator, SlabHal};
use crate::mm::zone::{PageAllocator, PageHal};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// A source of elements.
///
/// # Safety
///
/// - `BACK-1`: an allocated element has no other owner until it is freed.
/// - `BACK-2`: [`Backing::bytes`] bytes of each may be read and written meanwhile; it is the same at each call.
/// - `BACK-3`: [`Backing::verify`] accepts nothing that does not have these bytes.
pub unsafe trait Backing {
    /// Bytes of an element that the pool may write while it is in the reserve; 0 if it may write none.
    fn bytes(&self) -> usize;

    /// Allocates an element. Context as `gfp` says.
    fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>>;

    /// Takes an element from this CPU's cache, without asking for memory. `None` also if the backing has no such cache, if the
    /// flags ask for more than that, or if they allow waiting where it is not legal.
    #[inline(always)]
    fn alloc_at_hand(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        let _ = gfp;
        None
    }

    /// Frees an element. A bad element is reported. Any context.
    ///
    /// # Safety
    ///
    /// It came from here, and nobody uses it afterwards.
    unsafe fn free(&self, element: NonNull<u8>);

    /// The first eight bytes of an element that has at least eight, as a quick test for an element of the reserve; 0 for any
    /// other element, or for an address of none.
    #[inline(always)]
    fn first_word(&self, element: NonNull<u8>) -> u64 {
        let _ = element;
        0
    }

    /// Whether it is an element that is in use, as far as that can be told. Any context.
    ///
    /// # Errors
    ///
    /// The error in it.
    fn verify(&self, element: NonNull<u8>) -> Result<(), NotElement>;
}

// SAFETY: as the backing behind the reference.
unsafe impl<B: Backing> Backing for &B {
    fn bytes(&self) -> usize {
        B::bytes(self)
    }

    fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        B::alloc(self, gfp)
    }

    #[inline(always)]
    fn alloc_at_hand(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        B::alloc_at_hand(self, gfp)
    }

    #[inline(always)]
    unsafe fn free(&self, element: NonNull<u8>) {
        // SAFETY: `Backing::free`: the element came from here, and nobody uses it afterwards.
        unsafe { B::free(self, element) };
    }

    #[inline(always)]
    fn first_word(&self, element: NonNull<u8>) -> u64 {
        B::first_word(self, element)
    }

    fn verify(&self, element: NonNull<u8>) -> Result<(), NotElement> {
        B::verify(self, element)
    }
}

/// The first word of an element in memory of the linear map, where each address has memory as far as descriptors go.
fn linear_word<H: PageHal>(pages: &PageAllocator<H>, element: NonNull<u8>) -> u64 {
    let at = address(element);
    let hal = pages.hal();
    let frame = hal.to_phys(at).filter(|_| at.is_aligned(8)).and_then(|phys| hal.map().find(Pfn::containing(phys)));
    // SAFETY: RAM that is mapped (HAL-4), and aligned. Atomic, as a wrong user may be writing to it.
    frame.map_or(0, |_| unsafe { AtomicU64::from_ptr(at.as_ptr()) }.load(Ordering::Relaxed))
}

fn pointer(at: VirtAddr) -> Option<NonNull<u8>> {
    NonNull::new(at.as_ptr())
}

fn address(element: NonNull<u8>) -> VirtAddr {
    VirtAddr::new(element.expose_provenance().get() as u64)
}

/// Size requested of `kmalloc`, so that an element has a first word.
fn element_size(size: usize) -> Option<usize> {
    (1..=KMALLOC_MAX_SIZE).contains(&size).then(|| size.next_multiple_of(8))
}

/// Blocks of `kmalloc` of one size (Linux: `mempool_create_kmalloc_pool`).
pub struct KmallocBacking<'s, H: SlabHal> {
    slabs: &'s SlabAllocator<'s, H>,
    size: usize,
}

impl<'s, H: SlabHal> KmallocBacking<'s, H> {
    /// Blocks of `size` bytes, rounded up to a multiple of eight.
    ///
    /// # Errors
    ///
    /// [`PoolCreateError::Size`].
    pub fn new(slabs: &'s SlabAllocator<'s, H>, size: usize) -> Result<Self, PoolCreateError> {
        Ok(Self { slabs, size: element_size(size).ok_or(PoolCreateError::Size)? })
    }

    /// Bytes of an element.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Whether an allocation of `kmalloc` is large enough to be an element of `size` bytes.
    pub(crate) fn verify_block(
        slabs: &SlabAllocator<'_, H>,
        element: NonNull<u8>,
        size: usize,
    ) -> Result<(), NotElement> {
        let usable = slabs.ksize(address(element)).map_err(NotElement::Object)?;
        if usable < size { Err(NotElement::Small { usable, size }) } else { Ok(()) }
    }
}

// SAFETY: what `kmalloc` promises.
unsafe impl<H: SlabHal> Backing for KmallocBacking<'_, H> {
    fn bytes(&self) -> usize {
        self.size
    }

    fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        self.slabs.kmalloc(self.size, gfp).ok().and_then(pointer)
    }

    #[inline(always)]
    unsafe fn free(&self, element: NonNull<u8>) {
        if let Err(misuse) = self.slabs.do_kfree(address(element)) {
            self.slabs.hal().misuse(&misuse);
        }
    }

    fn first_word(&self, element: NonNull<u8>) -> u64 {
        linear_word(self.slabs.pages(), element)
    }

    fn verify(&self, element: NonNull<u8>) -> Result<(), NotElement> {
        Self::verify_block(self.slabs, element, self.size)
    }
}

/// Objects of a cache (Linux: `mempool_create_slab_pool`).
pub struct CacheBacking<'s, H: SlabHal> {
    slabs: &'s SlabAllocator<'s, H>,
    cache: &'s Cache<H>,
}

impl<'s, H: SlabHal> CacheBacking<'s, H> {
    /// Objects of `cache`, which is one of `slabs`.
    #[must_use]
    pub const fn new(slabs: &'s SlabAllocator<'s, H>, cache: &'s Cache<H>) -> Self {
        Self { slabs, cache }
    }

    /// Bytes of its objects that a pool may write: none if a constructor has made them.
    pub(crate) fn writable(cache: &Cache<H>) -> usize {
        if cache.is_constructed() { 0 } else { cache.object_size() as usize }
    }
}

// SAFETY: the cache's guarantees hold; an object of another cache is not accepted.
unsafe impl<H: SlabHal> Backing for CacheBacking<'_, H> {
    fn bytes(&self) -> usize {
        Self::writable(self.cache)
    }

    fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        self.slabs.alloc_object(self.cache, gfp).ok().and_then(pointer)
    }

    #[inline(always)]
    unsafe fn free(&self, element: NonNull<u8>) {
        if let Err(misuse) = self.slabs.do_free_object(self.cache, address(element)) {
            self.slabs.hal().misuse(&misuse);
        }
    }

    fn first_word(&self, element: NonNull<u8>) -> u64 {
        if self.bytes() < 8 { 0 } else { linear_word(self.slabs.pages(), element) }
    }

    fn verify(&self, element: NonNull<u8>) -> Result<(), NotElement> {
        self.slabs.verify_object(self.cache, address(element)).map_err(NotElement::Object)
    }
}

/// Blocks of pages of one order, by the address of their first byte in the linear map (Linux: `mempool_create_page_pool`,
/// whose elements are descriptors).
pub struct PageBacking<'p, H: PageHal> {
    pages: &'p PageAllocator<H>,
    order: Order,
}

impl<'p, H: PageHal> PageBacking<'p, H> {
    /// Blocks of 2^`order` pages.
    ///
    /// # Errors
    ///
    /// [`PoolCreateError::Size`] for an order that no block has.
    pub const fn new(pages: &'p PageAllocator<H>, order: Order) -> Result<Self, PoolCreateError> {
        if order.get() > MAX_ORDER {
            return Err(PoolCreateError::Size);
        }
        Ok(Self { pages, order })
    }

    /// The order of an element.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }
}

// SAFETY: the page allocator's guarantees hold; blocks are in the linear map, and have the order that is verified.
unsafe impl<H: PageHal> Backing for PageBacking<'_, H> {
    fn bytes(&self) -> usize {
        to_usize(PAGE_SIZE) << self.order.get()
    }

    fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        let page = self.pages.alloc_pages(gfp, self.order).ok()?;
        let hal = self.pages.hal();
        pointer(hal.to_virt(hal.map().phys(page)))
    }

    unsafe fn free(&self, element: NonNull<u8>) {
        let at = address(element);
        let freed = self.pages.page_at(at).and_then(|page| self.pages.do_free_pages(page, self.order));
        if let Err(error) = freed {
            log::error!("free_pages({at}): {error}");
        }
    }

    fn first_word(&self, element: NonNull<u8>) -> u64 {
        linear_word(self.pages, element)
    }

    fn verify(&self, element: NonNull<u8>) -> Result<(), NotElement> {
        let page = self.pages.page_at(address(element)).map_err(NotElement::Pages)?;
        let block = self.pages.block_order(page).map_err(NotElement::Pages)?;
        if block != self.order {
            return Err(NotElement::Order { block, element: self.order });
        }
        Ok(())
    }
}

/// Functions of the caller (Linux: `mempool_create` with `alloc_fn`, `free_fn`, `pool_data`). The pool does not write to
/// their results: elements may be anything that a pointer can stand for.
#[derive(Debug)]
pub struct Functions<D> {
    alloc_fn: fn(Gfp, &D) -> Option<NonNull<u8>>,
    free_fn: fn(NonNull<u8>, &D),
    pool_data: D,
}

impl<D> Functions<D> {
    /// Elements that `alloc_fn` gives and `free_fn` takes, both with `pool_data`. `alloc_fn` heeds the flags: without
    /// [`Gfp::DIRECT_RECLAIM`] it does not wait. `free_fn` runs in any context. Both run without a lock of the pool.
    ///
    /// # Safety
    ///
    /// An element of `alloc_fn` has no other owner until `free_fn` takes it. In turn `free_fn` gets such elements alone, each
    /// once, when nobody uses them any more.
    #[must_use]
    pub const unsafe fn new(
        alloc_fn: fn(Gfp, &D) -> Option<NonNull<u8>>,
        free_fn: fn(NonNull<u8>, &D),
        pool_data: D,
    ) -> Self {
        Self { alloc_fn, free_fn, pool_data }
    }

    /// Argument of the functions.
    #[must_use]
    pub const fn pool_data(&self) -> &D {
        &self.pool_data
    }
}

// SAFETY: BACK-1 by the promise of `new`; there are no bytes.
unsafe impl<D> Backing for Functions<D> {
    fn bytes(&self) -> usize {
        0
    }

    fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        (self.alloc_fn)(gfp, &self.pool_data)
    }

    unsafe fn free(&self, element: NonNull<u8>) {
        (self.free_fn)(element, &self.pool_data);
    }

    fn verify(&self, _: NonNull<u8>) -> Result<(), NotElement> {
        Ok(())
    }
}
