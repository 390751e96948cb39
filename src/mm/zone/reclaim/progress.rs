//! Whether reclaim got anywhere, by what the allocator counts and not by what a shrinker says.
#![forbid(unsafe_code)]

use super::super::blocks::{Mark, Reach};
use super::super::{PageAllocator, PageHal, Shortage};
use crate::addr::{CpuId, Order};
use crate::gfp::ZoneType;
use crate::hal::cpu::with_local;

/// How many pages had been freed at some moment.
#[derive(Debug)]
pub(super) struct Freed {
    direct: u64,
    /// The CPU that was looked at.
    cpu: CpuId,
    /// To its lists.
    listed: u64,
}

impl<H: PageHal> PageAllocator<H> {
    /// How many pages have been freed so far, for [`PageAllocator::freed_since`].
    pub(super) fn freed_so_far(&self) -> Freed {
        let direct = self.zone_ids().filter_map(|id| self.with_zone(id, |zone, _| zone.events.freed)).sum();
        let (cpu, listed) = with_local(&self.hal, |local| {
            (self.hal.cpu(), self.zone_ids().map(|id| H::pages(local).flow(id).freed).sum())
        });
        Freed { direct, cpu, listed }
    }

    /// Pages freed since `before`: straight to the zones, and to the lists of this CPU if the thread is still, or again,
    /// on the one that it was on. Pages that others free to their lists are no progress of the caller's.
    pub(super) fn freed_since(&self, before: &Freed) -> u64 {
        let now = self.freed_so_far();
        let listed = if now.cpu == before.cpu { now.listed - before.listed } else { 0 };
        now.direct - before.direct + listed
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
        // A request that may use all of the reserve gets the blocks kept for atomic high orders, too.
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
