//! `kmalloc`: memory by size. Caches of 8 to 8,192 bytes for three types of memory, blocks of pages above.
#![forbid(unsafe_code)]

use super::super::cache::Cache;
use super::super::error::{CreateError, SlabAllocError};
use super::super::object::{CacheId, Shape, SlabFlags};
use super::super::words::{ArrayHeader, ArrayOffset};
use super::super::{SlabAllocator, SlabHal};
use crate::addr::{MAX_ORDER, PAGE_SIZE, VirtAddr, to_usize};
use crate::gfp::Gfp;
use crate::hal::Internal;

/// Bytes of the smallest cache (Linux: `KMALLOC_MIN_SIZE`): 8, or the largest cache line of any machine with the feature
/// `dma-minalign`, so that no two objects share a line that a device writes.
pub const KMALLOC_MIN_SIZE: usize = if crate::DMA_MINALIGN { DMA_LINE } else { 8 };
/// Bytes of the largest cache; larger sizes come from the page allocator.
pub const KMALLOC_MAX_CACHE_SIZE: usize = 8 << 10;
/// Bytes of the largest block.
pub const KMALLOC_MAX_SIZE: usize = to_usize(PAGE_SIZE) << MAX_ORDER;
/// The cache line of the largest machine: sizes of the DMA type are multiples of it.
const DMA_LINE: usize = 128;
const SIZES: usize = KMALLOC_SIZES as usize;
/// Sizes by their numbers: 0 is none, 1 is 96 bytes, 2 is 192, n is 2^n.
pub const KMALLOC_SIZES: u16 = 14;
/// Types of memory that have caches.
const TYPES: usize = 3;
/// Numbers of caches that belong to `kmalloc`, the one of the cache of records included.
#[expect(clippy::cast_possible_truncation, reason = "three")]
pub(super) const KMALLOC_CACHES: u16 = KMALLOC_SIZES * TYPES as u16;

/// Bytes of the header of an array.
#[expect(clippy::cast_possible_truncation, reason = "a few words")]
const HEADER: u32 = size_of::<ArrayHeader>() as u32;

/// Type of memory for an allocation by size (Linux: `kmalloc_cache_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum KmallocCacheType {
    /// Any memory.
    Normal = 0,
    /// Memory that a shrinker frees: [`Gfp::RECLAIMABLE`].
    Reclaimable = 1,
    /// Memory that every device reaches: [`Gfp::DMA`].
    Dma = 2,
}

impl KmallocCacheType {
    /// All types, by number.
    pub const ALL: [Self; TYPES] = [Self::Normal, Self::Reclaimable, Self::Dma];

    /// The type for these flags.
    #[must_use]
    #[inline(always)]
    pub const fn of(gfp: Gfp) -> Self {
        if gfp.contains(Gfp::DMA) {
            Self::Dma
        } else if gfp.contains(Gfp::RECLAIMABLE) {
            Self::Reclaimable
        } else {
            Self::Normal
        }
    }

    /// Bytes of its smallest cache.
    #[must_use]
    const fn min_size(self) -> usize {
        match self {
            Self::Dma => DMA_LINE,
            _ => KMALLOC_MIN_SIZE,
        }
    }

    const fn flags(self) -> SlabFlags {
        match self {
            Self::Normal => SlabFlags::empty(),
            Self::Reclaimable => SlabFlags::RECLAIM_ACCOUNT,
            Self::Dma => SlabFlags::CACHE_DMA,
        }
    }
}

/// Bytes of the caches with this number (Linux: `kmalloc_info`).
#[must_use]
pub const fn kmalloc_size(index: u8) -> usize {
    match index {
        0 => 0,
        1 => 96,
        2 => 192,
        n => 1 << n,
    }
}

/// Index of the smallest cache for `size` bytes, 1 to 8,192, among those of a type; 0 for any other size (Linux:
/// `kmalloc_index`, `kmalloc_slab`). With a constant size it is evaluated at compile time.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 64")]
pub const fn kmalloc_index(kind: KmallocCacheType, size: usize) -> u8 {
    let least = kind.min_size();
    let size = if size < least { least * (size != 0) as usize } else { size };
    match size {
        0 => 0,
        // Only multiples of 128.
        65..=96 if least <= 32 => 1,
        129..=192 if least <= 64 => 2,
        1..=8 => 3,
        9..=KMALLOC_MAX_CACHE_SIZE => (usize::BITS - (size - 1).leading_zeros()) as u8,
        _ => 0,
    }
}

/// Numbers by size up to 256 in steps of eight, for sizes that are not constant (Linux: `size_index`).
#[expect(clippy::indexing_slicing, reason = "the loops stay inside")]
const SIZE_INDEX: [[u8; STEPS]; TYPES] = {
    let mut table = [[0; STEPS]; TYPES];
    let mut kind = 0;
    while kind < TYPES {
        let mut step = 0;
        while step < STEPS {
            table[kind][step] = kmalloc_index(KmallocCacheType::ALL[kind], 8 * (step + 1));
            step += 1;
        }
        kind += 1;
    }
    table
};
/// Steps of the table: a power of two.
const STEPS: usize = 32;

/// The same as [`kmalloc_index`] for a size that is not constant; `None` for a size that no cache serves.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "masked to the size of the table")]
fn runtime_index(kind: KmallocCacheType, size: usize) -> Option<usize> {
    let last = size.wrapping_sub(1);
    if last < 8 * STEPS {
        return Some(SIZE_INDEX[kind as usize][(last / 8) & (STEPS - 1)].into());
    }
    let zeros = last.leading_zeros() as usize;
    (zeros >= LEAST_ZEROS).then(|| (usize::BITS as usize).wrapping_sub(zeros))
}

/// Zeros in front of the largest size that a cache serves, less one.
const LEAST_ZEROS: usize = (KMALLOC_MAX_CACHE_SIZE - 1).leading_zeros() as usize;

/// Whether a type has a cache with this index.
const fn has(kind: KmallocCacheType, index: u8) -> bool {
    let size = kmalloc_size(index);
    size != 0 && kmalloc_index(kind, size) == index
}

/// ID of cache `index` of this kmalloc type. ID 0 has no size class; it is the cache of cache descriptors.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "less than 42")]
const fn id(kind: KmallocCacheType, index: usize) -> CacheId {
    CacheId::new((kind as usize * SIZES + index) as u16)
}

/// The array of a cache. Those of the normal type lie in order.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "less than 14")]
fn array_of<H: SlabHal>(kind: KmallocCacheType, index: usize) -> ArrayOffset {
    match kind {
        // INVARIANT: ARR-3: the headers of the first numbers follow each other (HAL-6).
        KmallocCacheType::Normal => {
            ArrayOffset::from_distance(H::FIRST_ARRAYS.wrapping_add((index as u32).wrapping_mul(HEADER)))
        }
        _ => H::array_offset(id(kind, index).get()),
    }
}

/// Their names, by type and index.
const NAMES: [[&str; SIZES]; TYPES] = [
    [
        "",
        "kmalloc-96",
        "kmalloc-192",
        "kmalloc-8",
        "kmalloc-16",
        "kmalloc-32",
        "kmalloc-64",
        "kmalloc-128",
        "kmalloc-256",
        "kmalloc-512",
        "kmalloc-1k",
        "kmalloc-2k",
        "kmalloc-4k",
        "kmalloc-8k",
    ],
    [
        "",
        "kmalloc-rcl-96",
        "kmalloc-rcl-192",
        "kmalloc-rcl-8",
        "kmalloc-rcl-16",
        "kmalloc-rcl-32",
        "kmalloc-rcl-64",
        "kmalloc-rcl-128",
        "kmalloc-rcl-256",
        "kmalloc-rcl-512",
        "kmalloc-rcl-1k",
        "kmalloc-rcl-2k",
        "kmalloc-rcl-4k",
        "kmalloc-rcl-8k",
    ],
    [
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "dma-kmalloc-128",
        "dma-kmalloc-256",
        "dma-kmalloc-512",
        "dma-kmalloc-1k",
        "dma-kmalloc-2k",
        "dma-kmalloc-4k",
        "dma-kmalloc-8k",
    ],
];

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Makes the caches of all types.
    pub(in crate::mm::slab) fn make_kmalloc_caches(&self) -> Result<(), CreateError> {
        let mut registry = self.registry.lock();
        for kind in KmallocCacheType::ALL {
            for (index, name) in NAMES.get(kind as usize).into_iter().flatten().enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "less than 14")]
                let size = kmalloc_size(index as u8);
                #[expect(clippy::cast_possible_truncation, reason = "less than 14")]
                if !has(kind, index as u8) {
                    continue;
                }
                let shape = self.shape_for(name, kind.flags() | self.tag_flag(), |flags| {
                    // Objects are aligned to the largest power of two that divides their size, by lying side by side from the
                    // start of a block, unless there are bytes between them.
                    let apart = flags.intersects(SlabFlags::DEBUG);
                    let align = if apart { (1_usize << size.trailing_zeros()).min(4096) } else { 8 };
                    #[expect(clippy::cast_possible_truncation, reason = "at most 8,192")]
                    Shape::new(size as u32, align as u32, flags, false, self.hal().cpus())
                })?;
                let memory = self.record_memory()?;
                self.add(&mut registry, id(kind, index), (name, shape, None), memory)?;
            }
        }
        // When all caches exist: their arrays are objects of theirs.
        self.for_each_in(&registry, |cache| self.make_arrays(cache, self.is_careful()));
        Ok(())
    }

    /// Allocates `size` bytes (Linux: `kmalloc`). Memory is aligned to the largest power of two that divides the size of its
    /// class, up to a page: a power of two to itself, any size to at least eight bytes. With [`Gfp::ZERO`] all of it is zeroed,
    /// the bytes of the class beyond `size` too. A size of 0 returns [`ZERO_SIZE`](Self::ZERO_SIZE).
    ///
    /// Any context without [`Gfp::DIRECT_RECLAIM`], interrupts included. Cost: a dozen instructions from this CPU's array with
    /// constant size and flags, since the cache is found at compile time; eight more if the size is not constant.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    #[inline(always)]
    pub fn kmalloc(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, SlabAllocError> {
        match runtime_index(KmallocCacheType::of(gfp), size) {
            Some(index) => self.kmalloc_in(size, gfp, index),
            None => self.kmalloc_other(size, gfp),
        }
    }

    #[inline(always)]
    fn kmalloc_in(&self, size: usize, gfp: Gfp, index: usize) -> Result<VirtAddr, SlabAllocError> {
        let kind = KmallocCacheType::of(gfp);
        if super::alloc::is_fast(gfp)
            && let Some(object) = self.hal().pop_free(Internal::CALL, array_of::<H>(kind, index), 0, gfp.may_wait())
        {
            if gfp.contains(Gfp::ZERO) {
                // All of it: `krealloc` may give out the rest without clearing it.
                #[expect(clippy::cast_possible_truncation, reason = "less than 14")]
                self.hal().zero_object(Internal::CALL, object, kmalloc_size(index as u8));
            }
            return Ok(object);
        }
        self.kmalloc_slow(kind, index, size, gfp)
    }

    /// Sizes that are too small or too large for a cache.
    #[inline(always)]
    fn kmalloc_other(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, SlabAllocError> {
        if size == 0 { Ok(Self::ZERO_SIZE) } else { self.alloc_large(size, gfp) }
    }

    /// Slow path, from step 2 of the table in `alloc.rs` on.
    #[cold]
    #[inline(never)]
    fn kmalloc_slow(
        &self,
        kind: KmallocCacheType,
        index: usize,
        size: usize,
        gfp: Gfp,
    ) -> Result<VirtAddr, SlabAllocError> {
        if !gfp.contains(Gfp::ZERO)
            && super::alloc::is_fast(gfp)
            && let Some(object) = self.pop_swapped(array_of::<H>(kind, index), 0, gfp.may_wait())
        {
            return Ok(object);
        }
        self.kmalloc_refill(id(kind, index), size, gfp, self.hal().return_address())
    }

    /// Step 3 and those behind it, on behalf of the caller at `caller`.
    #[inline(never)]
    fn kmalloc_refill(&self, id: CacheId, size: usize, gfp: Gfp, caller: VirtAddr) -> Result<VirtAddr, SlabAllocError> {
        let cache = self.cache(id).ok_or(SlabAllocError::NotReady)?;
        let depot = match self.pop_exchanged(cache, gfp) {
            Ok(object) => return Ok(object),
            Err(depot) => depot,
        };
        let asked = u32::try_from(size).unwrap_or(u32::MAX).min(cache.shape.usable());
        let object = self.alloc_for(cache, gfp, depot, asked, caller)?;
        if cache.is_debugged() {
            self.note_request(cache, object, size);
        }
        Ok(object)
    }

    /// Result of an allocation of 0 bytes: an address that faults when it is used, and that can be freed (Linux:
    /// `ZERO_SIZE_PTR`).
    pub const ZERO_SIZE: VirtAddr = VirtAddr::new(16);

    /// The cache that serves a size.
    #[must_use]
    pub fn kmalloc_cache(&self, kind: KmallocCacheType, size: usize) -> Option<&Cache<H>> {
        match kmalloc_index(kind, size) {
            0 => None,
            index => self.cache(id(kind, index.into())),
        }
    }
}

const _: () = {
    assert!(KMALLOC_MAX_CACHE_SIZE == kmalloc_size(13));
    assert!(kmalloc_index(KmallocCacheType::Normal, 193) == 8 && kmalloc_index(KmallocCacheType::Normal, 8193) == 0);
};
