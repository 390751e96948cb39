//! A zone: a span of frames with its free lists, counters and watermarks. Everything in it is protected by its lock.
#![forbid(unsafe_code)]

use super::free_area::FreeLists;
use super::watermark::{Level, Mark, Reach, Watermarks};
use crate::gfp::ZoneType;
use crate::mm::page::{MigrateType, Page, ZoneId};

/// Events that a zone counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ZoneEvents {
    /// Pages allocated past the per-CPU lists.
    pub allocated: u64,
    /// Pages freed past the per-CPU lists.
    pub freed: u64,
    /// Times that the zone's lock was taken to fill or to drain a per-CPU list.
    pub pcp_batches: u64,
    /// Page blocks that changed their migrate type because an allocation found none of its own.
    pub stolen_blocks: u64,
    /// Allocations that took a block of a foreign type and left the page block as it was.
    pub mixed: u64,
    /// Page blocks put aside for atomic high-order allocations.
    pub high_atomic_reserved: u64,
}

/// A zone.
///
/// # Invariants
///
/// - `ZONE-2`: `present + holes = spanned`, `managed + reserved = present`.
/// - `ZONE-3`: `free` is the number of pages on the free lists, those of isolated page blocks not counted;
///   `free_cma`, `free_high_atomic` and `free_isolated` are those in page blocks of that type.
/// - `ZONE-4`: no block of the zone reaches outside its span.
#[derive(Debug)]
pub(in crate::mm::zone) struct Zone {
    pub(in crate::mm::zone) id: ZoneId,
    pub(in crate::mm::zone) kind: ZoneType,
    /// The first page of the span.
    pub(in crate::mm::zone) start: u32,
    /// One past the last page of the span.
    pub(in crate::mm::zone) end: u32,
    /// Pages of RAM in the span.
    pub(in crate::mm::zone) present: u64,
    /// Pages that belong to this allocator.
    pub(in crate::mm::zone) managed: u64,
    pub(in crate::mm::zone) lists: FreeLists,
    pub(in crate::mm::zone) free: u64,
    pub(in crate::mm::zone) free_cma: u64,
    pub(in crate::mm::zone) free_high_atomic: u64,
    pub(in crate::mm::zone) free_isolated: u64,
    /// Pages in page blocks of type CMA.
    pub(in crate::mm::zone) cma: u64,
    /// Pages in page blocks kept for atomic high orders.
    pub(in crate::mm::zone) high_atomic: u64,
    pub(in crate::mm::zone) marks: Watermarks,
    /// Pages by which `high`, `low` and `min` are raised for now.
    pub(in crate::mm::zone) boost: u64,
    /// How far the boost may go, in 1/10,000 of `high`.
    pub(in crate::mm::zone) boost_factor: u64,
    /// Pages kept from requests whose highest zone is the one with this number.
    pub(in crate::mm::zone) reserve: [u64; ZoneType::COUNT],
    pub(in crate::mm::zone) events: ZoneEvents,
}

impl Zone {
    pub(in crate::mm::zone) const EMPTY: Self = Self {
        id: ZoneId::PREFERRED,
        kind: ZoneType::Normal,
        start: 0,
        end: 0,
        present: 0,
        managed: 0,
        lists: FreeLists::EMPTY,
        free: 0,
        free_cma: 0,
        free_high_atomic: 0,
        free_isolated: 0,
        cma: 0,
        high_atomic: 0,
        marks: Watermarks { min: 0, low: 0, high: 0 },
        boost: 0,
        boost_factor: 0,
        reserve: [0; ZoneType::COUNT],
        events: ZoneEvents {
            allocated: 0,
            freed: 0,
            pcp_batches: 0,
            stolen_blocks: 0,
            mixed: 0,
            high_atomic_reserved: 0,
        },
    };

    /// Pages from the first to the last of the zone.
    pub(in crate::mm::zone) const fn spanned(&self) -> u64 {
        (self.end - self.start) as u64
    }

    /// Whether the span holds the page.
    pub(in crate::mm::zone) const fn contains(&self, page: Page) -> bool {
        self.start <= page.index() && page.index() < self.end
    }

    /// Counts `pages` more on the free lists of this type.
    #[inline(always)]
    pub(in crate::mm::zone) fn count_freed(&mut self, kind: MigrateType, pages: u64) {
        // INVARIANT: ZONE-3, together with `count_allocated`.
        if kind.is_mergeable() {
            self.free = self.free.wrapping_add(pages);
        } else {
            self.count_special(kind, pages);
        }
    }

    /// Counts `pages` less on the free lists of this type.
    #[inline]
    pub(in crate::mm::zone) fn count_allocated(&mut self, kind: MigrateType, pages: u64) {
        if kind.is_mergeable() {
            self.free = self.free.wrapping_sub(pages);
        } else {
            self.count_special(kind, pages.wrapping_neg());
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn count_special(&mut self, kind: MigrateType, pages: u64) {
        let special = match kind {
            MigrateType::Cma => &mut self.free_cma,
            MigrateType::HighAtomic => &mut self.free_high_atomic,
            _ => &mut self.free_isolated,
        };
        *special = special.wrapping_add(pages);
        if kind != MigrateType::Isolate {
            self.free = self.free.wrapping_add(pages);
        }
    }

    /// The part of the zone that the watermark check looks at.
    #[inline]
    pub(in crate::mm::zone) fn level(&self) -> Level<'_> {
        Level { free: self.free, free_cma: self.free_cma, free_high_atomic: self.free_high_atomic, lists: &self.lists }
    }

    /// The mark, with the boost.
    #[inline]
    pub(in crate::mm::zone) const fn mark(&self, mark: Mark) -> u64 {
        let plain = match mark {
            Mark::Min => self.marks.min,
            Mark::Low => self.marks.low,
            Mark::High => self.marks.high,
        };
        plain.saturating_add(self.boost)
    }

    /// Whether a request of `order` whose highest zone is `class` may be served from here down to `mark`.
    #[inline]
    pub(in crate::mm::zone) fn allows(&self, order: u8, mark: Mark, class: ZoneType, reach: Reach) -> bool {
        if reach.contains(Reach::NO_WATERMARKS) {
            return true;
        }
        let reserve = self.reserve.get(class.index()).copied().unwrap_or(0);
        self.level().allows(order, self.mark(mark), reserve, reach)
    }
}
