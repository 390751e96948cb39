//! Properties requested of a cache.
#![forbid(unsafe_code)]

use bitflags::bitflags;

bitflags! {
    /// Properties of a cache (Linux: `SLAB_*`).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SlabFlags: u32 {
        /// `F`: every allocation and free tests slab, free list and object.
        const CONSISTENCY_CHECKS = 1 << 0;
        /// `Z`: known bytes before and behind each object, tested when it is allocated and freed.
        const RED_ZONE = 1 << 1;
        /// `P`: free objects are filled with known bytes, tested when they are allocated.
        const POISON = 1 << 2;
        /// `U`: each object records its last allocation and its last free.
        const STORE_USER = 1 << 3;
        /// Objects start at a cache line, small ones at a fraction of one.
        const HWCACHE_ALIGN = 1 << 4;
        /// Objects are in the zone that every device reaches.
        const CACHE_DMA = 1 << 5;
        /// A shrinker frees the objects: their pages are grouped with their like.
        const RECLAIM_ACCOUNT = 1 << 6;
        /// If the cache cannot be created, the kernel cannot go on.
        const PANIC = 1 << 7;
        /// The cache shares no slabs with another. No cache does here, so this is always true, as in Linux's calls.
        const NO_MERGE = 1 << 8;
        /// Memory of freed objects stays of their type until a grace period is over. This allocator has no grace periods:
        /// a cache with this flag is refused.
        const TYPESAFE_BY_RCU = 1 << 9;
        /// Objects carry memory tags. The allocator sets and clears it by itself, according to the machine.
        const KASAN = 1 << 10;

        /// The flags of debugging, each of which costs something on every call.
        const DEBUG = Self::CONSISTENCY_CHECKS.bits() | Self::RED_ZONE.bits() | Self::POISON.bits()
            | Self::STORE_USER.bits();
    }
}
