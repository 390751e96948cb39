//! Allocation: the hot path over the per-CPU lists, and the slow path through the zonelist, step by step.
//!
//! | step | function | lock | interrupts | if it has no block |
//! |---|---|---|---|---|
//! | 1. this CPU's list for the use | `alloc_fast` | none | masked | 2 |
//! | 2. single pages: a batch of this CPU's reserve, then 1 | `refill_from_reserve` | none | masked | 3 |
//! | 3. flags, fault injection | `alloc_from_zones` | none | as the caller has them | an error |
//! | 4. each zone that stays above `low`: the list again, a batch for it, one block | `alloc_above_mark`, `refill_from_zone` | the zone's | masked | 5 |
//! | 5. this CPU's reserves, into their zones; 4 again | `drain_local_reserves` | the zone's | masked | 6, and the background reclaimer is woken |
//! | 6. each zone that stays above `min`, or lower as the flags reach | `alloc_below_low` | the zone's | masked | 7 |
//! | 7. this CPU's lists; 6 again. Then, where the caller may wait, all CPUs' lists and the reserve for atomic calls; 6 again | `drain_local`, `drain_all` | the zone's | masked | 8, or an error |
//! | 8. reclaim, as often as it says; 6 after each | [`Pressure::relieve`](super::super::Pressure::relieve) | none | as the caller has them | an error |
//! | 9. scrubbing, tags; what the flags want done | `scrub_allocated`, `finish` | none | as the caller has them | - |
#![forbid(unsafe_code)]

use super::super::blocks::{Corrupt, Mark, Reach, Zone};
use super::super::error::AllocError;
use super::super::pcp::CpuPages;
use super::super::pressure::{Relief, Shortage};
use super::super::{PCP_BATCH_MAX, PageAllocator, PageHal, ZoneLayout};
use crate::addr::Order;
use crate::gfp::{Gfp, ZoneType};
use crate::hal::Internal;
use crate::mm::page::{MigrateType, Page, PageMap, PageState, ZoneId};
use core::sync::atomic::Ordering;

/// Flags that want something done to a block after it has been found.
const AFTERWARDS: Gfp = Gfp::ZERO.union(Gfp::COMP).union(Gfp::ACCOUNT);

/// Arguments of one allocation.
#[derive(Clone, Copy)]
struct Request {
    gfp: Gfp,
    order: Order,
    class: ZoneType,
}

impl<H: PageHal> PageAllocator<H> {
    /// Allocates a block of 2^order pages, aligned to its size (Linux: `alloc_pages`).
    ///
    /// The pages are whatever they were, unless [`Gfp::ZERO`] is there. The caller has the one reference. Any context
    /// without [`Gfp::DIRECT_RECLAIM`], interrupts included. Cost: about twenty instructions from a list of this CPU
    /// where flags and order are constant; else O(orders), and without bound where the caller may wait.
    ///
    /// # Errors
    ///
    /// [`AllocError::OutOfMemory`], [`AllocError::Flags`], [`AllocError::NotReady`].
    #[inline(always)]
    pub fn alloc_pages(&self, gfp: Gfp, order: Order) -> Result<Page, AllocError> {
        self.alloc_pages_as(gfp, order, |page| page, |page| page)
    }

    /// The same, with the block named by `plain` where it comes from a list of this CPU, and so has no memory tag, and by
    /// `tagged` where it may have one.
    ///
    /// # Errors
    ///
    /// As for [`PageAllocator::alloc_pages`].
    #[inline(always)]
    pub fn alloc_pages_as<T>(
        &self,
        gfp: Gfp,
        order: Order,
        plain: impl FnOnce(Page) -> T,
        tagged: impl FnOnce(Page) -> T,
    ) -> Result<T, AllocError> {
        if let Err(error) = gfp.check() {
            return Err(AllocError::Flags(error));
        }
        // Two ways out, so that the usual one never looks at the answer of the other.
        if let Some(page) = self.alloc_fast(gfp, order) {
            if gfp.intersects(AFTERWARDS.difference(Gfp::ZERO)) {
                self.finish(page, gfp, order);
            } else if gfp.contains(Gfp::ZERO) {
                self.hal.zero(Internal::CALL, self.hal.map().phys(page), order.pages());
            }
            return Ok(plain(page));
        }
        self.alloc_slow(gfp, order).map(tagged)
    }

    /// Takes from the list of this CPU for this use in the preferred zone.
    #[inline(always)]
    fn alloc_fast(&self, gfp: Gfp, order: Order) -> Option<Page> {
        if gfp.contains(Gfp::COLD) {
            return None;
        }
        let saved = self.hal.save();
        let local = self.hal.local();
        let mut taken = None;
        if !gfp.may_wait() || self.hal.may_wait(local, saved) {
            let pages = H::pages(local);
            let list = match gfp.zone() {
                // The preferred zone is the highest one that has memory, so this is a constant.
                ZoneType::Normal => PageState::list_number(ZoneId::PREFERRED, gfp.mobility()),
                lower => ZoneId::new(pages.first_zone(lower.index()))
                    .map_or(PageState::LISTS, |zone| PageState::list_number(zone, gfp.mobility())),
            };
            taken = pages.pop(list, order);
            if let Some(page) = taken {
                H::local_map(local).get(page).set_state(PageState::allocated(list, order));
            }
        }
        self.hal.restore(saved);
        taken
    }

    /// Does what flags want done to a block: outside the path of those that want nothing.
    fn finish(&self, page: Page, gfp: Gfp, order: Order) {
        let map = self.hal.map();
        if gfp.contains(Gfp::COMP) && order > Order::ZERO {
            make_compound(map, page, order);
        }
        if gfp.contains(Gfp::ACCOUNT) {
            let descriptor = map.get(page);
            descriptor.set_state(descriptor.state().with_accounted(true));
            self.accounted.fetch_add(order.pages(), Ordering::Relaxed);
        }
        if gfp.contains(Gfp::ZERO) {
            self.hal.zero(Internal::CALL, map.phys(page), order.pages());
        }
    }

    /// Slow path: from the zones in order, reaching deeper into each, then with the help of reclaim.
    #[inline(never)]
    fn alloc_slow(&self, gfp: Gfp, order: Order) -> Result<Page, AllocError> {
        let kept =
            if order == Order::ZERO && self.refill_from_reserve(gfp) { self.alloc_fast(gfp, order) } else { None };
        let page = kept.map_or_else(|| self.alloc_from_zones(gfp, order), Ok)?;
        self.scrub_allocated(
            page,
            order.pages(),
            gfp,
            #[inline(always)]
            || self.hal.caller(),
        );
        if gfp.intersects(AFTERWARDS) {
            self.finish(page, gfp, order);
        }
        Ok(page)
    }

    /// Moves a batch from a reserve of this CPU to the list that [`PageAllocator::alloc_fast`] found empty; whether it did.
    fn refill_from_reserve(&self, gfp: Gfp) -> bool {
        let saved = self.hal.save();
        let local = self.hal.local();
        let pages = H::pages(local);
        let zone = match gfp.zone() {
            ZoneType::Normal => Some(ZoneId::PREFERRED),
            lower => ZoneId::new(pages.first_zone(lower.index())),
        };
        let stocked = zone.is_some_and(|zone| {
            let list = PageState::list_number(zone, gfp.mobility());
            pages.refill(H::local_map(local), list, PCP_BATCH_MAX).unwrap_or_else(|corrupt| {
                report("PCP-3", corrupt);
                false
            })
        });
        self.hal.restore(saved);
        stocked
    }

    fn alloc_from_zones(&self, gfp: Gfp, order: Order) -> Result<Page, AllocError> {
        let layout = self.layout().ok_or(AllocError::NotReady)?;
        let gfp = self.hal.scoped(gfp);
        let request = Request { gfp: self.without_illegal_wait(gfp, order), order, class: gfp.zone() };
        let mut shortage = Shortage { gfp: request.gfp, order, zone: request.class, attempt: 0, fruitless: 0 };
        let refused = self.is_careful() && self.hal.should_fail(gfp, order);
        if !refused {
            let first = || self.alloc_above_mark(layout, request, Mark::Low, Reach::movable(gfp));
            if let Some(page) = first() {
                return Ok(page);
            }
            // The reserves of this CPU come before anybody else is asked to give something up.
            if self.drain_local_reserves()
                && let Some(page) = first()
            {
                return Ok(page);
            }
            if gfp.contains(Gfp::KSWAPD_RECLAIM) {
                self.wake_reclaimer(layout, request);
            }
            if let Some(page) = self.alloc_below_low(layout, request, &mut shortage) {
                return Ok(page);
            }
        }
        if !gfp.contains(Gfp::NOWARN) {
            self.hal.failed(&shortage);
        }
        Err(AllocError::OutOfMemory)
    }

    /// The flags, less the right to wait where waiting is not legal; that has been reported.
    pub(in crate::mm::zone) fn without_illegal_wait(&self, gfp: Gfp, order: Order) -> Gfp {
        if !gfp.may_wait() || self.may_wait() {
            return gfp;
        }
        self.hal.waits_in_atomic(gfp, order);
        gfp - Gfp::DIRECT_RECLAIM
    }

    fn alloc_below_low(&self, layout: &ZoneLayout, request: Request, shortage: &mut Shortage) -> Option<Page> {
        let again = |shortage: &Shortage| self.alloc_above_mark(layout, request, Mark::Min, shortage.reach());
        if let Some(page) = again(shortage) {
            return Some(page);
        }
        // Pages on the lists of this CPU may be of another use, or make a larger block.
        self.drain_local();
        if let Some(page) = again(shortage) {
            return Some(page);
        }
        if !request.gfp.may_wait() {
            return None;
        }
        self.drain_all();
        let _ = self.unreserve(layout, request);
        if let Some(page) = again(shortage) {
            return Some(page);
        }
        loop {
            match self.hal.relieve(shortage) {
                Relief::Retry => shortage.fruitless = 0,
                Relief::Fruitless => shortage.fruitless = shortage.fruitless.saturating_add(1),
                Relief::GiveUp => return None,
            }
            shortage.attempt = shortage.attempt.saturating_add(1);
            if let Some(page) = again(shortage) {
                return Some(page);
            }
            self.drain_all();
            if let Some(page) = again(shortage) {
                return Some(page);
            }
        }
    }

    /// Gives page blocks back that were kept for atomic high orders; whether there was one.
    fn unreserve(&self, layout: &ZoneLayout, request: Request) -> bool {
        layout.zonelist(request.class).any(|id| {
            self.with_zone(id, |zone, map| zone.unreserve_high_atomic(map, request.gfp.mobility())).unwrap_or(false)
        })
    }

    /// Tells the background reclaimer once that memory is short, until it says that it is done.
    fn wake_reclaimer(&self, layout: &ZoneLayout, request: Request) {
        if !self.reclaimer_woken.swap(true, Ordering::Relaxed) {
            let zone = layout.zonelist(request.class).next().and_then(|id| layout.kind(id));
            self.hal.wake(zone.unwrap_or(request.class), request.order);
        }
    }

    /// The background reclaimer has done what it could and wants to be woken next time.
    pub fn reclaimer_rests(&self) {
        self.reclaimer_woken.store(false, Ordering::Relaxed);
    }

    /// Goes through the zonelist: NORMAL, DMA32, DMA, never upwards.
    fn alloc_above_mark(&self, layout: &ZoneLayout, request: Request, mark: Mark, reach: Reach) -> Option<Page> {
        layout.zonelist(request.class).find_map(|id| self.alloc_from_zone(layout, id, request, mark, reach))
    }

    #[inline]
    fn alloc_from_zone(
        &self,
        layout: &ZoneLayout,
        id: ZoneId,
        request: Request,
        mark: Mark,
        reach: Reach,
    ) -> Option<Page> {
        let Request { gfp, order, class } = request;
        let list = PageState::list_number(id, gfp.mobility());
        let saved = self.hal.save();
        let pages = H::pages(self.hal.local());
        let map = self.hal.map();
        let mut zone = self.zones.get(id.index())?.lock();
        let mut taken = None;
        if zone.allows(order.get(), mark, class, reach) {
            let pop = || match pages.lists(order) {
                Some(lists) if gfp.contains(Gfp::COLD) => lists.pop_cold(list),
                _ => pages.pop(list, order),
            };
            taken = pop();
            if taken.is_none() {
                self.refill_from_zone(map, &mut zone, pages, request, layout);
                taken = pop();
            }
            if taken.is_none() {
                taken = zone.alloc(map, order.get(), gfp.mobility(), reach).unwrap_or_else(|corrupt| {
                    report("BUD-1", corrupt);
                    None
                });
                zone.events.allocated += if taken.is_some() { order.pages() } else { 0 };
            }
            if let Some(page) = taken {
                map.get(page).set_state(PageState::allocated(list, order));
                if reach.contains(Reach::HIGH_ATOMIC) {
                    zone.reserve_high_atomic(map, page);
                }
            }
        } else {
            self.set_short(id, true);
        }
        drop(zone);
        self.hal.restore(saved);
        taken
    }

    /// Fills a list of this CPU, as long as the zone stays above its `high` mark.
    #[inline]
    fn refill_from_zone(&self, map: H::Map, zone: &mut Zone, pages: &CpuPages, request: Request, layout: &ZoneLayout) {
        let Some(lists) = pages.lists(request.order) else { return };
        let batch = layout.batch(zone.id, request.order);
        let (order, mobility) = (request.order, request.gfp.mobility());
        let list = PageState::list_number(zone.id, mobility);
        let (_, room) = lists.level(list);
        let spare = zone.free.saturating_sub(zone.mark(Mark::High)) >> order.get();
        #[expect(clippy::cast_possible_truncation, reason = "at most the batch")]
        let blocks = u64::from(batch).min(room as u64).min(spare) as u32;
        let state = PageState::on_pcp(list, order);
        // Movable pages fill the memory of contiguous allocations from the start, as in `Zone::alloc`.
        let borrows = request.gfp.contains(Gfp::MOVABLE) && zone.free_cma > zone.free / 2;
        let kind = if borrows { MigrateType::Cma } else { MigrateType::of(mobility) };
        if let Some(reserve) = pages.reserve(list).filter(|_| order == Order::ZERO) {
            self.set_short(zone.id, spare == 0);
            if blocks == 0 {
                reserve.close();
            } else {
                reserve.raise(blocks, layout.reserve(zone.id));
            }
        }
        match order {
            Order::ZERO => zone.alloc_rows(map, 0, kind, blocks, |first, pages_in| {
                pages.fill_pages(list, first, pages_in, |page| map.get(page).set_state(state));
            }),
            _ => zone.alloc_rows(map, order.get(), kind, blocks, |first, blocks_in| {
                lists.fill(list, first, blocks_in, order.get(), &mut |page| map.get(page).set_state(state));
            }),
        }
    }
}

impl Zone {
    /// Takes `blocks` blocks of `order` as rows of neighbouring ones, or as many as there are of this type: the smallest
    /// free blocks first, and of one that is large enough all the rest at once, without a list for each step of its
    /// splitting.
    #[inline(always)]
    fn alloc_rows<M: PageMap>(
        &mut self,
        map: M,
        order: u8,
        kind: MigrateType,
        blocks: u32,
        mut fill: impl FnMut(Page, u32),
    ) {
        let id = self.id;
        let mut left = blocks;
        while left != 0 {
            let filled = self.lists.filled(kind) >> order;
            if filled == 0 {
                break;
            }
            let found = filled.trailing_zeros();
            let row = found.min(left.ilog2());
            #[expect(clippy::cast_possible_truncation, reason = "at most 15")]
            let (found, taken) = (order + found as u8, order + row as u8);
            let page = match self.lists.pop(map, id, found, kind) {
                Ok(page) => page,
                Err(corrupt) => {
                    report("BUD-1", corrupt);
                    break;
                }
            };
            if taken != found {
                self.expand(map, page, found, taken, kind);
            }
            fill(page, 1 << row);
            left -= 1 << row;
        }
        if left != blocks {
            self.count_allocated(kind, u64::from(blocks - left) << order);
            self.events.pcp_batches += 1;
        }
    }
}

/// Says that a list of free pages was damaged and given up. Its pages are lost; everything else goes on.
#[cold]
pub(super) fn report(tag: &str, corrupt: Corrupt) {
    log::error!("{tag} broken: a list points to {:?}, which does not belong there; the list is given up", corrupt.0);
}

/// Makes every page of a block but the first point to the first.
fn make_compound<M: PageMap>(map: M, head: Page, order: Order) {
    // INVARIANT: PAGE-4.
    for index in 1..1_u32 << order.get() {
        let tail = map.get(head.offset(index));
        tail.set_next(head.index());
        tail.set_state(PageState::TAIL);
    }
    let descriptor = map.get(head);
    descriptor.set_state(descriptor.state().with_compound(true));
}
