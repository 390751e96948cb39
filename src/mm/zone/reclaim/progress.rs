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
        // Who may use all of the reserve gets what is kept for atomic high orders, too.
        let all = reach.contains(Reach::NO_WATERMARKS);
        let lists = if all { reach | Reach::HIGH_ATOMIC } else { reach };
        layout.zonelist(class).any(|id| {
            self.with_zone(id, |zone, _| {
                zone.allows(order.get(), mark, class, reach) && zone.level().has_block(order.get(), lists)
            }) == Some(true)
        })
    }

    /// Lets the raised marks fall back, as memory has been reclaimed up to them or nothing more can be: whether any was
    /// raised. Any context.
    pub fn settle_boost(&self) -> bool {
        let mut any = false;
        for id in self.zone_ids() {
            any |= self.with_zone(id, |zone, _| core::mem::take(&mut zone.boost)).is_some_and(|boost| boost != 0);
        }
        any
    }
}
