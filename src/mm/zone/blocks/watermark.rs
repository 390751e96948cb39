//! Watermarks: how far a zone may be emptied, and for whom (Linux: `__zone_watermark_ok`, `__setup_per_zone_wmarks`).
#![forbid(unsafe_code)]

use super::free_area::FreeLists;
use crate::addr::MAX_ORDER;
use crate::gfp::{Gfp, ZoneType};
use crate::mm::page::MigrateType;
use bitflags::bitflags;

/// The three marks of a zone, in pages of free memory.
///
/// # Invariants
///
/// - `ZONE-1`: `min <= low <= high`, and `min` is not zero in a zone that has pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermarks {
    /// Below, only those allocate who may use the reserve.
    pub min: u64,
    /// Below, the background reclaimer is woken.
    pub low: u64,
    /// The background reclaimer sleeps above.
    pub high: u64,
}

/// Which of the marks an allocation must leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// [`Watermarks::min`].
    Min,
    /// [`Watermarks::low`].
    Low,
    /// [`Watermarks::high`].
    High,
}

bitflags! {
    /// How deep an allocation may reach (Linux: `ALLOC_*` of `mm/internal.h`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(in crate::mm::zone) struct Reach: u8 {
        /// Half of the reserve: [`Gfp::HIGH`].
        const MIN_RESERVE = 1 << 0;
        /// A quarter of what is left of it: the caller cannot wait.
        const NON_BLOCK = 1 << 1;
        /// Page blocks kept for high-order allocations that cannot wait.
        const HIGH_ATOMIC = 1 << 2;
        /// Page blocks kept for contiguous allocations.
        const CMA = 1 << 3;
        /// All of the reserve: [`Gfp::MEMALLOC`].
        const NO_WATERMARKS = 1 << 4;
        /// Any of the flags that open a part of the reserve.
        const RESERVES = Self::MIN_RESERVE.bits() | Self::NON_BLOCK.bits() | Self::HIGH_ATOMIC.bits();
    }
}

impl Reach {
    /// How deep the flags let an allocation of `order` reach once the reclaimer has been woken.
    pub(in crate::mm::zone) fn of(gfp: Gfp, order: u8) -> Self {
        let mut reach = Self::movable(gfp);
        if gfp.contains(Gfp::HIGH) {
            reach |= Self::MIN_RESERVE;
        }
        // NOWAIT alone opens nothing: it has another way. (Linux: `gfp_to_alloc_flags`.)
        if !gfp.may_wait() && gfp.contains(Gfp::HIGH) && !gfp.contains(Gfp::NOMEMALLOC) {
            reach |= Self::NON_BLOCK;
            if order > 0 {
                reach |= Self::HIGH_ATOMIC;
            }
        }
        if gfp.contains(Gfp::MEMALLOC) && !gfp.contains(Gfp::NOMEMALLOC) {
            reach |= Self::NO_WATERMARKS;
        }
        reach
    }

    /// How deep it may reach before that.
    #[inline]
    pub(in crate::mm::zone) fn movable(gfp: Gfp) -> Self {
        if gfp.contains(Gfp::MOVABLE) { Self::CMA } else { Self::empty() }
    }
}

/// The part of a zone that the check looks at.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm::zone) struct Level<'a> {
    /// Free pages, those of isolated page blocks not counted.
    pub(super) free: u64,
    /// How many of them are in page blocks kept for contiguous allocations.
    pub(super) free_cma: u64,
    /// How many are in page blocks kept for atomic high orders.
    pub(super) free_high_atomic: u64,
    pub(super) lists: &'a FreeLists,
}

impl Level<'_> {
    /// Whether an allocation of `order` may go ahead: it leaves `mark` pages and `reserve` more (what the zone keeps
    /// from requests that could have been served higher up), and a block that large really is there for it.
    #[inline]
    pub(super) fn allows(&self, order: u8, mark: u64, reserve: u64, reach: Reach) -> bool {
        let mut min = mark;
        if reach.contains(Reach::MIN_RESERVE) {
            min -= min / 2;
            if reach.contains(Reach::NON_BLOCK) {
                min -= min / 4;
            }
        }
        let mut usable = self.free;
        if !reach.intersects(Reach::RESERVES) {
            usable = usable.saturating_sub(self.free_high_atomic);
        }
        if !reach.contains(Reach::CMA) {
            usable = usable.saturating_sub(self.free_cma);
        }
        if usable.saturating_sub((1 << order) - 1) <= min.saturating_add(reserve) {
            return false;
        }
        order == 0 || self.has_block(order, reach)
    }

    /// Whether a list that the allocation may use has a block of `order` or more.
    #[inline]
    pub(in crate::mm::zone) fn has_block(&self, order: u8, reach: Reach) -> bool {
        let mut filled = self.lists.filled(MigrateType::Unmovable)
            | self.lists.filled(MigrateType::Movable)
            | self.lists.filled(MigrateType::Reclaimable);
        if reach.contains(Reach::CMA) {
            filled |= self.lists.filled(MigrateType::Cma);
        }
        if reach.contains(Reach::HIGH_ATOMIC) {
            filled |= self.lists.filled(MigrateType::HighAtomic);
        }
        filled >> order != 0
    }
}

/// Settings from which the marks of all zones are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatermarkTuning {
    /// KiB that all zones together keep free (`min_free_kbytes=`); `None` is computed from the size of memory.
    pub min_free_kbytes: Option<u64>,
    /// The distance between the marks, in 1/10,000 of a zone (`watermark_scale_factor=`), 1 to 3,000.
    pub scale_factor: u64,
    /// How far `high` may be boosted when page blocks change hands, in 1/10,000 of it (`watermark_boost_factor=`).
    pub boost_factor: u64,
    /// Share that each zone keeps from requests that could have been served higher up: one page in this many of the higher
    /// zones' pages, by [`ZoneType`]; zero keeps nothing (`lowmem_reserve_ratio=`).
    pub lowmem_reserve_ratio: [u64; ZoneType::COUNT],
}

impl WatermarkTuning {
    /// Linux's values.
    pub const DEFAULT: Self =
        Self { min_free_kbytes: None, scale_factor: 10, boost_factor: 15_000, lowmem_reserve_ratio: [256, 256, 32] };

    /// Pages that all zones together, which have `managed` pages, keep free: 4 × √(KiB of memory), between 128 KiB and
    /// 256 MiB, but never more than a quarter of the memory.
    #[must_use]
    pub fn min_pages(&self, managed: u64) -> u64 {
        let computed = || (managed.saturating_mul(4 * 16)).isqrt().clamp(128, 262_144);
        let kbytes = self.min_free_kbytes.unwrap_or_else(computed);
        (kbytes / 4).min(managed / 4)
    }

    /// The marks of a zone of `managed` pages among `total` pages that together keep `min_pages`.
    #[must_use]
    pub fn marks(&self, managed: u64, total: u64, min_pages: u64) -> Watermarks {
        if managed == 0 || total == 0 {
            return Watermarks::default();
        }
        let share = u128::from(min_pages) * u128::from(managed) / u128::from(total);
        // INVARIANT: ZONE-1, and no mark is above what the zone has.
        let min = u64::try_from(share).unwrap_or(managed).clamp(1, managed);
        let step = (min / 4).max(managed.saturating_mul(self.scale_factor.clamp(1, 3_000)) / 10_000);
        Watermarks { min, low: (min + step).min(managed), high: (min + 2 * step).min(managed) }
    }
}

impl Default for WatermarkTuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const _: () = assert!(MAX_ORDER < 16);
