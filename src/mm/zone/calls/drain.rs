//! Moving pages from per-CPU lists back to their zones, by the owner or at another CPU's request.
#![forbid(unsafe_code)]

use super::super::blocks::Zone;
use super::super::pcp::{CpuPages, zone_of};
use super::super::{PCP_BATCH_MAX, PageAllocator, PageHal};
use super::alloc::report;
use crate::addr::{CpuId, MAX_ORDER, Order};
use crate::hal::cpu::with_local;
use crate::mm::page::{PageMap, PageState, ZoneId};
use core::sync::atomic::Ordering;

impl<H: PageHal> PageAllocator<H> {
    /// Moves `batches` batches from the cold end of a list to its zone. The caller may change the lists; interrupts
    /// masked.
    pub(super) fn drain_list(&self, pages: &CpuPages, list: usize, order: Order, batches: usize) {
        let id = zone_of(list);
        let (Some(zone), Some(layout)) = (self.zones.get(id.index()), self.layout()) else { return };
        let batch = layout.batch(id, order).max(1) as usize;
        let map = self.hal.map();
        for _ in 0..batches {
            let mut zone = zone.lock();
            let taken = match order {
                Order::ZERO => zone.drain_pages(map, pages, list, batch),
                _ => zone.drain_blocks(map, pages, list, order, batch),
            };
            if taken == 0 {
                return;
            }
            zone.events.pcp_batches += 1;
        }
    }

    /// Moves what is in the reserves of one CPU to its zones, a batch at a time, and closes them; whether there was
    /// anything. The caller may change the lists; interrupts masked.
    fn drain_reserves(&self, pages: &CpuPages) -> bool {
        let mut any = false;
        for list in 0..PageState::LISTS {
            let id = zone_of(list);
            let (Some(zone), Some(reserve)) = (self.zones.get(id.index()), pages.reserve(list)) else { continue };
            reserve.close();
            let map = self.hal.map();
            while reserve.count() != 0 {
                any = true;
                let mut zone = zone.lock();
                if let Err(corrupt) =
                    pages.drain_reserve(map, list, PCP_BATCH_MAX, |page| zone.free_block(map, page, 0))
                {
                    report("PCP-3", corrupt);
                }
                zone.events.pcp_batches += 1;
            }
        }
        any
    }

    /// Gives back what this CPU keeps in reserve, its lists aside; whether there was anything.
    pub(super) fn drain_local_reserves(&self) -> bool {
        with_local(&self.hal, |local| self.drain_reserves(H::pages(local)))
    }

    /// Empties the lists of one CPU, and sets how long they may grow from now on.
    fn drain_lists(&self, pages: &CpuPages) {
        let request = pages.drains_requested();
        for order in (0..=MAX_ORDER).filter_map(Order::new) {
            for list in 0..PageState::LISTS {
                self.drain_list(pages, list, order, usize::MAX);
            }
        }
        self.drain_reserves(pages);
        self.apply_limits(pages);
        pages.answer_drain(request);
    }

    /// Sets how long the lists of one CPU may grow: not at all while allocations are to take the slow path.
    pub(in crate::mm::zone) fn apply_limits(&self, pages: &CpuPages) {
        let Some(layout) = self.layout() else { return };
        for (class, first) in layout.first.iter().enumerate() {
            pages.set_first_zone(class, *first);
        }
        for order in (0..=MAX_ORDER).filter_map(Order::new) {
            let Some(lists) = pages.lists(order) else { continue };
            for list in 0..PageState::LISTS {
                lists.set_high(list, self.list_length(list, order));
            }
        }
    }

    /// Blocks of this order that a list holds at most, as things are.
    pub(in crate::mm::zone) fn list_length(&self, list: usize, order: Order) -> usize {
        let used = list & 0b11 != 0b11;
        let layout = self.layout().filter(|_| used && !self.is_careful());
        layout.map_or(0, |layout| layout.high(zone_of(list), order) as usize)
    }

    /// Gives the pages on this CPU's lists back to their zones. Any context. Cost: O(pages on them × orders).
    pub fn drain_local(&self) {
        with_local(&self.hal, |local| self.drain_lists(H::pages(local)));
        self.announce();
    }

    /// Does what other CPUs have asked of this one. Called by whatever [`PerCpu::kick`](crate::hal::cpu::PerCpu::kick)
    /// causes, and by a CPU that is idle. Any context.
    pub fn answer_requests(&self) {
        let answered = with_local(&self.hal, |local| {
            let pages = H::pages(local);
            let pending = pages.drain_pending();
            if pending {
                self.drain_lists(pages);
            }
            pending
        });
        if answered {
            self.announce();
        }
    }

    /// Gives the pages on every CPU's lists back to their zones: on this one and those that are not online at once, on
    /// the others by asking them.
    ///
    /// Returns when all have answered where the caller may wait; elsewhere the others answer later. Any context.
    pub fn drain_all(&self) {
        let cpus = || (0..self.hal.cpus()).map(CpuId::new);
        for cpu in cpus() {
            let Some(local) = self.hal.local_of(cpu) else { continue };
            // Each is this one or another at the moment at which it comes: the thread may migrate between two of them.
            let drained = with_local(&self.hal, |here| {
                let is_here = self.hal.cpu() == cpu;
                if is_here {
                    self.drain_lists(H::pages(here));
                }
                is_here
            });
            if drained {
                self.announce();
            } else if self.hal.is_online(cpu) || !self.drain_offline(cpu) {
                H::pages(local).request_drain();
                self.hal.kick(cpu);
            }
        }
        if !self.may_wait() {
            return;
        }
        for cpu in cpus() {
            let Some(local) = self.hal.local_of(cpu) else { continue };
            let request = H::pages(local).drains_requested();
            let mut step = 0;
            while !H::pages(local).has_answered(request) {
                // It may have gone instead of answering.
                if !self.hal.is_online(cpu) && self.drain_offline(cpu) {
                    break;
                }
                // Two CPUs may be asking each other, and the thread may be on the one that it has asked.
                self.answer_requests();
                self.hal.waiting_for(cpu, step);
                step += 1;
                H::relax();
            }
        }
    }

    /// Gives the pages on the lists of a CPU that is not online back to their zones. Whether it was not online. Any context.
    pub fn drain_offline(&self, cpu: CpuId) -> bool {
        let Some(local) = self.hal.local_of(cpu) else { return false };
        let drained = self.hal.while_offline(cpu, &mut || {
            let saved = self.hal.save();
            let alone = self.offline.lock();
            self.drain_lists(H::pages(local));
            drop(alone);
            self.hal.restore(saved);
        });
        if drained {
            self.announce();
        }
        drained
    }

    /// Makes every allocation and every free take the slow path from now on, past the per-CPU lists, or the fast path
    /// again. The fast path asks nothing; checks that must see every call live on the slow path.
    pub fn set_careful(&self, careful: bool) {
        self.careful.store(careful || !self.scrub().is_empty(), Ordering::Relaxed);
        self.drain_all();
    }

    /// Makes every allocation on the slow path ask [`Pressure::should_fail`](super::super::Pressure::should_fail), and
    /// leaves all else as it is. Takes no lock. Any context.
    pub fn ask_always(&self) {
        self.careful.store(true, Ordering::Relaxed);
    }

    /// The caller is about to wait for pages: from when this returns until [`PageAllocator::stop_awaiting`], every free
    /// takes the slow path and calls [`Pressure::freed`](super::super::Pressure::freed). So frees that nobody waits for pay nothing.
    /// For an allocation that waits.
    pub(in crate::mm::zone) fn await_frees(&self) {
        self.awaited.fetch_add(1, Ordering::Relaxed);
        self.drain_all();
    }

    /// The caller waits no more.
    pub(in crate::mm::zone) fn stop_awaiting(&self) {
        if self.awaited.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.drain_all();
        }
    }

    /// Says that pages have come back, if somebody waits for some. The waiter counted itself before it looked at the zones
    /// under their locks; so a free that comes after it, under the same lock, finds it counted here.
    pub(in crate::mm::zone) fn announce(&self) {
        if self.is_awaited() {
            self.hal.freed();
        }
    }

    /// Pages on the lists of one CPU. Any context; a moment later it may be another number.
    #[must_use]
    pub fn pages_on_lists(&self, cpu: CpuId) -> u64 {
        self.zone_ids().map(|id| self.listed_pages(cpu, id)).sum()
    }

    /// Pages of one zone on the lists of one CPU.
    pub(in crate::mm::zone) fn listed_pages(&self, cpu: CpuId, id: ZoneId) -> u64 {
        let Some(local) = self.hal.local_of(cpu) else { return 0 };
        H::pages(local).listed(id)
    }
}

impl Zone {
    /// Takes single pages off the cold end of a list. They are most of what is drained, so the loop is made for them.
    #[inline]
    fn drain_pages<M: PageMap>(&mut self, map: M, pages: &CpuPages, list: usize, batch: usize) -> usize {
        let id = self.id;
        let mut ordinary = 0;
        let taken = pages.drain_pages(list, batch, |page| {
            ordinary = u64::wrapping_add(ordinary, self.free_uncounted(map, id, page, 0).into());
        });
        self.free = self.free.wrapping_add(ordinary);
        taken
    }

    #[inline(never)]
    fn drain_blocks<M: PageMap>(&mut self, map: M, pages: &CpuPages, list: usize, order: Order, batch: usize) -> usize {
        let mut free = |page| self.free_block(map, page, order.get());
        pages.lists(order).map_or(0, |lists| lists.drain(list, batch, &mut free))
    }
}
