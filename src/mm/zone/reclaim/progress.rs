//! Whether reclaim got anywhere, by what the allocator counts and not by what a shrinker says.
#![forbid(unsafe_code)]

use super::super::watermark::{Mark, Reach};
use super::super::{PageAllocator, PageHal, Shortage};
use crate::addr::Order;
use crate::gfp::ZoneType;

impl<H: PageHal> PageAllocator<H> {
    /// Pages freed so far to the lists of this CPU and straight to the zones. The difference of two tells what was freed
    /// in between, by this CPU at least.
    pub(super) fn freed_here(&self) -> u64 {
        let direct: u64 = self.zone_ids().filter_map(|id| self.with_zone(id, |zone, _| zone.events.freed)).sum();
        let saved = self.hal.save();
        let pages = H::pages(self.hal.local());
        let listed: u64 = self.zone_ids().map(|id| pages.flow(id).freed).sum();
        self.hal.restore(saved);
        direct + listed
    }

    /// Whether a zone of a request has free memory down to `mark`, for a request without privilege.
    pub(super) fn is_above(&self, class: ZoneType, order: Order, mark: Mark) -> bool {
        self.any_zone_allows(class, order, mark, Reach::empty())
    }

    /// Whether what was short would be served now.
    pub(super) fn would_serve(&self, shortage: &Shortage) -> bool {
        let reach = shortage.reach();
        self.any_zone_allows(shortage.zone, shortage.order, Mark::Min, reach)
    }

    fn any_zone_allows(&self, class: ZoneType, order: Order, mark: Mark, reach: Reach) -> bool {
        let Some(layout) = self.layout() else { return false };
        layout.zonelist(class).any(|id| {
            self.with_zone(id, |zone, _| {
                zone.allows(order.get(), mark, class, reach) && zone.level().has_block(order.get(), reach)
            }) == Some(true)
        })
    }

    /// The raised marks have had their effect: they fall back.
    pub(super) fn settle_boost(&self) {
        for id in self.zone_ids() {
            let _ = self.with_zone(id, |zone, _| zone.boost = 0);
        }
    }
}
