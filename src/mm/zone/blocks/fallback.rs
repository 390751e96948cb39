//! When a zone has no free block of the wanted type: taking one of another, whole page blocks if possible, so that types
//! mix in as few page blocks as possible (Linux: `__rmqueue_fallback`).
#![forbid(unsafe_code)]

use super::buddy::{block_type, set_block_type};
use super::free_area::Corrupt;
use super::watermark::Reach;
use super::zone::Zone;
use crate::gfp::Mobility;
use crate::mm::page::{MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Page, PageMap};

/// Which types an allocation takes from, in order (Linux: `fallbacks`).
const fn fallbacks(want: Mobility) -> [MigrateType; 2] {
    match want {
        Mobility::Unmovable => [MigrateType::Reclaimable, MigrateType::Movable],
        Mobility::Movable => [MigrateType::Reclaimable, MigrateType::Unmovable],
        Mobility::Reclaimable => [MigrateType::Unmovable, MigrateType::Movable],
    }
}

impl Zone {
    /// A free block of `order` for this use: of its own type, borrowed from contiguous allocations if it is movable, or
    /// taken from another type. The watermarks are the caller's affair. Its state still says that it is free.
    ///
    /// # Errors
    ///
    /// [`Corrupt`].
    #[inline]
    pub(in crate::mm::zone) fn alloc<M: PageMap>(
        &mut self,
        map: M,
        order: u8,
        want: Mobility,
        reach: Reach,
    ) -> Result<Option<Page>, Corrupt> {
        if reach.contains(Reach::HIGH_ATOMIC)
            && let Some(page) = self.alloc_smallest(map, order, MigrateType::HighAtomic)?
        {
            return Ok(Some(page));
        }
        // Movable pages fill the memory of contiguous allocations from the start: half of what is free, in balance.
        let borrow_early = reach.contains(Reach::CMA) && self.free_cma > self.free / 2;
        if borrow_early && let Some(page) = self.alloc_smallest(map, order, MigrateType::Cma)? {
            return Ok(Some(page));
        }
        if let Some(page) = self.alloc_smallest(map, order, MigrateType::of(want))? {
            return Ok(Some(page));
        }
        self.alloc_foreign(map, order, want, reach)
    }

    #[cold]
    fn alloc_foreign<M: PageMap>(
        &mut self,
        map: M,
        order: u8,
        want: Mobility,
        reach: Reach,
    ) -> Result<Option<Page>, Corrupt> {
        if reach.contains(Reach::CMA)
            && let Some(page) = self.alloc_smallest(map, order, MigrateType::Cma)?
        {
            return Ok(Some(page));
        }
        if let Some(page) = self.steal(map, order, want)? {
            return Ok(Some(page));
        }
        // Better a page of the reserve than none for who can neither wait nor do without.
        if reach.contains(Reach::NON_BLOCK) || reach.contains(Reach::NO_WATERMARKS) {
            return self.alloc_smallest(map, order, MigrateType::HighAtomic);
        }
        Ok(None)
    }

    /// Takes from another type: of the largest block there is, with its page block if that is worth it.
    fn steal<M: PageMap>(&mut self, map: M, order: u8, want: Mobility) -> Result<Option<Page>, Corrupt> {
        let [first, second] = fallbacks(want);
        let filled = (self.lists.filled(first) | self.lists.filled(second)) >> order << order;
        if filled == 0 {
            return Ok(None);
        }
        let on = |lists: u16, order: u8| lists >> order & 1 != 0;
        #[expect(clippy::cast_possible_truncation, reason = "at most 15")]
        let (largest, smallest) = ((u16::BITS - 1 - filled.leading_zeros()) as u8, filled.trailing_zeros() as u8);
        let claims = largest >= PAGEBLOCK_ORDER / 2 || want != Mobility::Movable;
        // A movable page does no harm wherever it lies: the smallest block, so that the large ones survive.
        let from = if claims { largest } else { smallest };
        let kind = if on(self.lists.filled(first), from) { first } else { second };
        let page = self.lists.pop(map, self.id, from, kind)?;
        let wanted = MigrateType::of(want);

        if from >= PAGEBLOCK_ORDER {
            for block in 0..1_u32 << (from - PAGEBLOCK_ORDER) {
                set_block_type(map, page.offset(block * PAGEBLOCK_PAGES), wanted);
            }
            self.events.stolen_blocks += 1 << (from - PAGEBLOCK_ORDER);
            self.count_allocated(kind, 1 << order);
            self.expand(map, page, from, order, wanted);
            return Ok(Some(page));
        }
        self.boost();
        if claims && let Some(block) = self.whole_block(page).filter(|block| block_type(map, *block).is_mergeable()) {
            self.lists.push(map, self.id, page, from, kind);
            let census = self.census(map, block);
            let alike = match (wanted, block_type(map, block)) {
                (MigrateType::Movable, _) => census.movable,
                // A page that is neither free nor movable is as immovable as the newcomer.
                (_, MigrateType::Movable) => census.other,
                _ => 0,
            };
            if census.free + alike >= PAGEBLOCK_PAGES / 2 {
                self.retype(map, block, wanted);
                self.events.stolen_blocks += 1;
                return self.alloc_smallest(map, order, wanted);
            }
            self.lists.remove(map, page, from, kind);
        }
        self.events.mixed += 1;
        self.count_allocated(kind, 1 << order);
        self.expand(map, page, from, order, kind);
        Ok(Some(page))
    }

    /// Raises the marks for a while: memory has begun to mix, and reclaiming more of it helps (Linux:
    /// `boost_watermark`).
    fn boost(&mut self) {
        let limit = self.marks.high.saturating_mul(self.boost_factor) / 10_000;
        let limit = limit.max(u64::from(PAGEBLOCK_PAGES));
        // A zone too small for large blocks has nothing to defend (Linux: four page blocks).
        if self.boost_factor != 0 && self.managed >= 4 * limit {
            self.boost = (self.boost + u64::from(PAGEBLOCK_PAGES)).min(limit);
        }
    }

    /// Puts the page block of a freshly allocated block aside for atomic high orders, up to 1 % of the zone (Linux:
    /// `reserve_highatomic_pageblock`).
    pub(in crate::mm::zone) fn reserve_high_atomic<M: PageMap>(&mut self, map: M, page: Page) {
        let limit = self.managed / 100;
        let Some(block) = self.whole_block(page) else { return };
        if self.high_atomic + u64::from(PAGEBLOCK_PAGES) <= limit && block_type(map, block).is_mergeable() {
            self.retype(map, block, MigrateType::HighAtomic);
            self.events.high_atomic_reserved += 1;
        }
    }

    /// Gives a page block with free pages back that was kept for atomic high orders; whether there was one (Linux:
    /// `unreserve_highatomic_pageblock`).
    pub(in crate::mm::zone) fn unreserve_high_atomic<M: PageMap>(&mut self, map: M, to: Mobility) -> bool {
        let filled = self.lists.filled(MigrateType::HighAtomic);
        #[expect(clippy::cast_possible_truncation, reason = "at most 15")]
        let found = self.lists.first(filled.trailing_zeros() as u8 & 0xf, MigrateType::HighAtomic);
        let Some(block) = found.and_then(|page| self.whole_block(page)) else { return false };
        self.retype(map, block, MigrateType::of(to));
        self.rejoin(map, block);
        true
    }
}
