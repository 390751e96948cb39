//! This kernel's `kmalloc` and caches, called as a kernel calls them: free functions, flags constant.

use crate::heap::{BULK, FAILED, Heap, Memory, Unable};
use crate::heaps::lost_by_slabs;
use crate::meter::{Figures, Meter};
use crate::rows::{QUARRY, Row};
use core::alloc::Layout;
use core::hint::black_box;
use core::ptr::NonNull;
use quarry::addr::{CpuId, PAGE_SIZE, to_usize};
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache};
use quarry::mm::slab::{CacheSpec, KMALLOC_SIZES, KmallocCacheType, SlabFlags, kmalloc_size};

/// The machine's own heap; the arena is some of its memory, and not needed.
pub(crate) struct Kmalloc {
    /// Bytes that were free at first, those in slabs included.
    free: u64,
}

/// Bytes of free objects in the slabs of `kmalloc`.
fn free_in_slabs() -> u64 {
    let slabs = global::slab_allocator();
    let sizes =
        (0..KMALLOC_SIZES).filter_map(|index| u8::try_from(index).ok()).map(kmalloc_size).filter(|size| *size != 0);
    let free = sizes.filter_map(|size| {
        let info = slabs.info(slabs.kmalloc_cache(KmallocCacheType::Normal, size)?);
        Some(info.objects.saturating_sub(info.active_objects) * size as u64)
    });
    free.sum()
}

/// Pages that nobody has, those on per-CPU lists included.
fn free_pages() -> u64 {
    global::nr_free_pages() + global::page_allocator().pages_on_lists(CpuId::BOOT)
}

impl Heap for Kmalloc {
    const NAME: &'static str = QUARRY;

    fn new(_: Memory) -> Result<Self, Unable> {
        global::slab_allocator().shrink_all();
        Ok(Self { free: free_pages() * PAGE_SIZE + free_in_slabs() })
    }

    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        global::kmalloc(layout.size(), Gfp::KERNEL).ok()
    }

    #[inline(always)]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, _: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { global::kfree(block.as_ptr()) };
    }

    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        global::kzalloc(layout.size(), Gfp::KERNEL).ok()
    }

    fn taken(&self) -> Option<usize> {
        Some(to_usize(self.free.saturating_sub(free_pages() * PAGE_SIZE)))
    }
}

/// The rows of caches, which nobody else has.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "kmem_cache/256", by: QUARRY, run: pair },
    Row { name: "kmem_cache_bulk/64", by: QUARRY, run: bulk },
    Row { name: "mempool/256", by: QUARRY, run: pool },
    Row { name: "memory_lost/slabs", by: QUARRY, run: lost_by_slabs::<Kmalloc> },
];

/// Objects of 256 bytes in slabs of their own.
fn cache(name: &'static str) -> Result<KmemCache, Unable> {
    let spec = CacheSpec { name, size: 256, align: 0, flags: SlabFlags::NO_MERGE, constructor: None };
    KmemCache::create(&spec).map_err(|_| FAILED)
}

fn pair(meter: &mut Meter) -> Result<Figures, Unable> {
    let cache = cache("bench-pair")?;
    let own = black_box(&cache);
    let mut done = true;
    let figures = meter.measure(|| match own.alloc(Gfp::KERNEL) {
        // SAFETY: it has just been allocated.
        Ok(object) => unsafe { own.free(black_box(object)) },
        Err(_) => done = false,
    });
    let gone = cache.destroy().is_ok();
    if done && gone { Ok(figures) } else { Err(FAILED) }
}

/// A reserve of four blocks of `kmalloc`, full all the while.
fn pool(meter: &mut Meter) -> Result<Figures, Unable> {
    let pool = global::mempool_create_kmalloc_pool("bench", 4, 256).map_err(|_| FAILED)?;
    let own = black_box(&pool);
    let mut done = true;
    let figures = meter.measure(|| match global::mempool_alloc(own, Gfp::KERNEL) {
        // SAFETY: it has just been allocated.
        Ok(element) => unsafe { global::mempool_free(black_box(element).as_ptr(), own) },
        Err(_) => done = false,
    });
    done &= pool.stats().reserve == 4;
    let gone = global::mempool_destroy(pool).is_ok();
    if done && gone { Ok(figures) } else { Err(FAILED) }
}

/// The row counts the allocation of all and the free of all together.
fn bulk(meter: &mut Meter) -> Result<Figures, Unable> {
    let cache = cache("bench-bulk")?;
    let own = black_box(&cache);
    let mut objects = [NonNull::dangling(); BULK];
    let mut done = true;
    let figures = meter.measure(|| {
        done &= own.alloc_bulk(Gfp::KERNEL, &mut objects).is_ok();
        // SAFETY: all have just been allocated.
        done &= unsafe { own.free_bulk(black_box(&objects)) } == 0;
    });
    let gone = cache.destroy().is_ok();
    if done && gone { Ok(figures) } else { Err(FAILED) }
}
