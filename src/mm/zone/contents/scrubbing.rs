//! Scrubbing pages as they change hands, as [`Scrub`] says.
#![forbid(unsafe_code)]

use super::super::{PageAllocator, PageHal};
use super::scrub::{PAGE_POISON, Scrub};
use crate::addr::{MAX_ORDER, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::page::{MigrateType, Page, PageMap};
use core::sync::atomic::Ordering;

impl<H: PageHal> PageAllocator<H> {
    /// Sets what is done to pages that change hands, and makes all memory that is free now as free memory is to be.
    ///
    /// Nobody else allocates or frees meanwhile: for booting, and for tests. While it is not empty every call takes the slow
    /// path, whatever [`PageAllocator::set_careful`] says. Cost: O(free memory).
    pub fn set_scrub(&self, scrub: Scrub) {
        self.scrub.store(Scrub::empty().bits(), Ordering::Relaxed);
        self.set_careful(!scrub.is_empty());
        if scrub.of_free().is_some() || scrub.intersects(Scrub::TAG.union(Scrub::UNMAP)) {
            for id in self.zone_ids() {
                let _ = self.with_zone(id, |zone, map| {
                    for (kind, order) in MigrateType::ALL.iter().flat_map(|kind| (0..=MAX_ORDER).map(|o| (*kind, o))) {
                        let mut at = zone.lists.first(order, kind);
                        while let Some(page) = at {
                            if let Some(byte) = scrub.of_free() {
                                self.hal.fill(Internal::CALL, map.phys(page), 1 << order, byte);
                            }
                            if scrub.contains(Scrub::TAG) {
                                self.tag_freed(page, 1 << order, VirtAddr::ZERO);
                            }
                            if scrub.contains(Scrub::UNMAP) {
                                self.hal.set_present(Internal::CALL, map.phys(page), 1 << order, false);
                            }
                            let next = map.get(page).next();
                            at = (next != Page::NIL).then_some(Page::new(next));
                        }
                    }
                });
            }
        }
        self.scrub.store(scrub.bits(), Ordering::Relaxed);
    }

    /// Treatment of pages that change hands.
    #[must_use]
    pub fn scrub(&self) -> Scrub {
        Scrub::from_bits_truncate(self.scrub.load(Ordering::Relaxed))
    }

    /// `pages` pages from `page` on become free, given back by `caller`: they are still nobody else's.
    #[inline]
    pub(in crate::mm::zone) fn scrub_freed(&self, page: Page, pages: u64, caller: impl FnOnce() -> VirtAddr) {
        let scrub = self.scrub();
        if let Some(byte) = scrub.of_free() {
            self.hal.fill(Internal::CALL, self.hal.map().phys(page), pages, byte);
        }
        if scrub.contains(Scrub::TAG) {
            self.tag_freed(page, pages, caller());
        }
        if scrub.contains(Scrub::UNMAP) {
            self.hal.set_present(Internal::CALL, self.hal.map().phys(page), pages, false);
        }
    }

    /// `pages` pages from `page` on were free and are `caller`'s now.
    #[inline]
    pub(in crate::mm::zone) fn scrub_allocated(
        &self,
        page: Page,
        pages: u64,
        gfp: Gfp,
        caller: impl FnOnce() -> VirtAddr,
    ) {
        let scrub = self.scrub();
        if scrub.is_empty() {
            return;
        }
        let start = self.hal.map().phys(page);
        if scrub.contains(Scrub::UNMAP) {
            self.hal.set_present(Internal::CALL, start, pages, true);
        }
        if scrub.contains(Scrub::POISON)
            && let Some((at, found)) = self.hal.find_other(Internal::CALL, start, pages, PAGE_POISON)
        {
            self.hal.overwritten(at, found);
        }
        if scrub.contains(Scrub::ZERO_ON_ALLOC) && !gfp.contains(Gfp::ZERO) {
            self.hal.zero(Internal::CALL, start, pages);
        }
        if scrub.contains(Scrub::TAG) {
            self.tag_allocated(page, pages, caller());
        }
    }
}
