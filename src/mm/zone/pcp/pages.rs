//! Per-CPU page lists: the hot path of allocation, without a shared lock and without a shared write (Linux: `struct
//! per_cpu_pages`).
//!
//! Each CPU has stacks of free blocks of every order: many single pages, few large blocks, of the largest but one. A
//! stack is an array of page numbers, so taking a block and giving it back touch the array, one control word, and the
//! block's descriptor, whatever the order.
//!
//! A CPU's lists are its own: it alone changes them, with interrupts masked. Everything is an atomic that is loaded and
//! stored relaxed, so that other CPUs may look (for statistics) without a lock, but a change by another CPU loses
//! updates. A CPU that wants another's pages back asks for them: [`CpuPages::request_drain`].
#![forbid(unsafe_code)]

use super::super::blocks::Corrupt;
use super::lists::{Lists, PcpLists};
use super::reserve::{Chain, Reserve};
use super::traffic::{Traffic, zone_of};
use crate::addr::{MAX_ORDER, Order};
use crate::mm::page::{Page, PageMap, PageState, ZoneId};
use core::slice::Iter;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Slots of a list of single pages; a power of two, as all of them.
const PAGE_SLOTS: usize = 256;
/// Slots of a list of small blocks: up to 16 KiB.
const SMALL_SLOTS: usize = 128;
/// The orders of small blocks, 1 and 2.
const SMALL_ORDERS: usize = 2;
/// Slots of a list of blocks of middle size: up to 64 KiB.
const MIDDLE_SLOTS: usize = 64;
/// The orders up to these.
const MIDDLE_ORDERS: usize = 4;
/// Slots of a list of large blocks: up to 4 MiB.
const LARGE_SLOTS: usize = 8;
/// The orders of large blocks, 5 to 10.
const LARGE_ORDERS: usize = MAX_ORDER as usize - MIDDLE_ORDERS;

/// The page lists of one CPU. All-zero is a valid value: empty lists that take nothing.
#[derive(Debug)]
#[repr(C)]
pub struct CpuPages {
    pages: Lists<PAGE_SLOTS>,
    small: [Lists<SMALL_SLOTS>; SMALL_ORDERS],
    middle: [Lists<MIDDLE_SLOTS>; MIDDLE_ORDERS - SMALL_ORDERS],
    large: [Lists<LARGE_SLOTS>; LARGE_ORDERS],
    /// Pages that wait behind the lists of single pages.
    reserves: [Reserve; PageState::LISTS],
    /// The position in the zonelist at which each zone modifier starts, by `ZoneType`.
    first_zone: [AtomicU8; 3],
    /// How often other CPUs have asked for this one's pages, and how many of these requests have been answered.
    drains_requested: AtomicU32,
    drains_answered: AtomicU32,
}

impl CpuPages {
    /// Empty lists that take nothing yet. For a desk machine: a kernel, whose stacks are small, takes zeroed memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pages: Lists::new(),
            small: [const { Lists::new() }; SMALL_ORDERS],
            middle: [const { Lists::new() }; MIDDLE_ORDERS - SMALL_ORDERS],
            large: [const { Lists::new() }; LARGE_ORDERS],
            reserves: [const { Reserve::new() }; PageState::LISTS],
            first_zone: [const { AtomicU8::new(0) }; 3],
            drains_requested: AtomicU32::new(0),
            drains_answered: AtomicU32::new(0),
        }
    }

    /// Takes the hottest block of a list. By its CPU, interrupts masked.
    #[inline(always)]
    pub(in crate::mm::zone) fn pop(&self, list: usize, order: Order) -> Option<Page> {
        match order.get() as usize {
            0 => self.pages.pop(list),
            order @ 1..=SMALL_ORDERS => self.small.get(order - 1)?.pop(list),
            order @ ..=MIDDLE_ORDERS => self.middle.get(order - 1 - SMALL_ORDERS)?.pop(list),
            order => self.large.get(order - 1 - MIDDLE_ORDERS)?.pop(list),
        }
    }

    /// Puts a block on the hot end of a list; whether there was room. By its CPU, interrupts masked.
    #[inline(always)]
    pub(in crate::mm::zone) fn push(&self, list: usize, order: Order, page: Page) -> bool {
        match order.get() as usize {
            0 => self.pages.push(list, page),
            order @ 1..=SMALL_ORDERS => self.small.get(order - 1).is_some_and(|lists| lists.push(list, page)),
            order @ ..=MIDDLE_ORDERS => {
                self.middle.get(order - 1 - SMALL_ORDERS).is_some_and(|lists| lists.push(list, page))
            }
            order => self.large.get(order - 1 - MIDDLE_ORDERS).is_some_and(|lists| lists.push(list, page)),
        }
    }

    /// Takes the hottest pages of a list of single pages into `out`, as far as there are any, and shows each one to `mark`:
    /// how many. By its CPU, interrupts masked.
    #[inline(always)]
    pub(in crate::mm::zone) fn pop_many(&self, list: usize, out: &mut [Page], mark: impl FnMut(Page)) -> usize {
        self.pages.pop_many(list, out, mark)
    }

    /// Puts the last of `pages` on the hot end of a list of single pages, as long as there is room and `mark` agrees: how
    /// many. By its CPU, interrupts masked.
    #[inline(always)]
    pub(in crate::mm::zone) fn push_many(&self, list: usize, pages: &[Page], mark: impl FnMut(Page) -> bool) -> usize {
        self.pages.push_many(list, pages, mark)
    }

    /// Takes up to `pages` pages off the cold end of a list of single pages and shows them to `free`, the coldest first:
    /// how many. The caller may change the lists; interrupts masked.
    #[inline(always)]
    pub(in crate::mm::zone) fn drain_pages(&self, list: usize, pages: usize, free: impl FnMut(Page)) -> usize {
        self.pages.drain(list, pages, free)
    }

    /// Puts `pages` neighbouring pages from the zone on the hot end of a list of single pages, and shows each to `mark`.
    /// By its CPU, interrupts masked.
    #[inline(always)]
    pub(in crate::mm::zone) fn fill_pages(&self, list: usize, first: Page, pages: u32, mark: impl FnMut(Page)) {
        self.pages.fill(list, first, pages, 0, mark);
    }

    /// The reserve behind a list of single pages.
    pub(in crate::mm::zone) fn reserve(&self, list: usize) -> Option<&Reserve> {
        self.reserves.get(list)
    }

    /// Moves `pages` pages from the cold end of a list of single pages to its reserve, if that has room for them all;
    /// whether it did. By its CPU, interrupts masked.
    #[inline]
    pub(in crate::mm::zone) fn move_to_reserve<M: PageMap>(&self, map: M, list: usize, pages: u32) -> bool {
        let Some(reserve) = self.reserves.get(list).filter(|reserve| reserve.room() >= pages && pages != 0) else {
            return false;
        };
        let mut chain = reserve.chain(PageState::on_pcp(list, Order::ZERO));
        let kept = self.pages.pop_cold_many(list, pages as usize, |page| chain.push(map, page));
        #[expect(clippy::cast_possible_truncation, reason = "no more than asked for")]
        reserve.set_chain(chain, reserve.count() + kept as u32);
        kept != 0
    }

    /// A list of single pages and, if `keeps`, its reserve, to put pages there until [`CpuPages::set_room`]. By its CPU,
    /// interrupts masked.
    #[inline(always)]
    pub(in crate::mm::zone) fn room(&self, list: usize, keeps: bool) -> PcpRoom<'_> {
        let slots = self.pages.room(list);
        // A list that takes nothing at all is that of a machine that looks at every page.
        let keeps = keeps && (!slots.is_empty() || self.pages.level(list) != (0, 0));
        let reserve = self.reserves.get(list);
        let room = reserve.filter(|_| keeps).map_or(0, Reserve::room);
        let state = PageState::on_pcp(list, Order::ZERO);
        let chain = reserve.map_or(Chain::none(state), |reserve| reserve.chain(state));
        PcpRoom { slots: slots.iter(), chain, room, kept: 0 }
    }

    /// The list and its reserve have what was put there.
    #[inline(always)]
    pub(in crate::mm::zone) fn set_room(&self, list: usize, room: PcpRoom<'_>) {
        self.pages.set_room(list, room.slots.len());
        if let Some(reserve) = self.reserves.get(list).filter(|_| room.kept != 0) {
            reserve.set_chain(room.chain, reserve.count() + room.kept);
        }
    }

    /// Moves up to `pages` pages from the reserve to the hot end of its list: whether there was one. By its CPU,
    /// interrupts masked.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the chain leads elsewhere; the reserve is given up then, as nothing on it can be trusted.
    #[inline]
    pub(in crate::mm::zone) fn refill<M: PageMap>(&self, map: M, list: usize, pages: u32) -> Result<bool, Corrupt> {
        let Some(reserve) = self.reserves.get(list).filter(|reserve| reserve.count() != 0) else { return Ok(false) };
        let count = reserve.count();
        let mut chain = reserve.chain(PageState::on_pcp(list, Order::ZERO));
        let mut corrupt = None;
        let moved = self.pages.push_hot_many(list, pages.min(count) as usize, || match chain.pop(map) {
            Ok(page) => Some(page),
            Err(found) => {
                corrupt = Some(found);
                None
            }
        });
        #[expect(clippy::cast_possible_truncation, reason = "no more than there were")]
        reserve.set_chain(chain, if corrupt.is_some() { 0 } else { count - moved as u32 });
        corrupt.map_or(Ok(moved != 0), Err)
    }

    /// Takes up to `pages` pages out of a reserve for the zone and shows them to `free`: how many. The caller may change
    /// the lists; interrupts masked.
    ///
    /// # Errors
    ///
    /// As for [`CpuPages::refill`].
    pub(in crate::mm::zone) fn drain_reserve<M: PageMap>(
        &self,
        map: M,
        list: usize,
        pages: u32,
        mut free: impl FnMut(Page),
    ) -> Result<u32, Corrupt> {
        let Some(reserve) = self.reserves.get(list) else { return Ok(0) };
        let count = reserve.count();
        let released = count.min(pages);
        let mut chain = reserve.chain(PageState::on_pcp(list, Order::ZERO));
        for _ in 0..released {
            let popped = chain.pop(map);
            match popped {
                Ok(page) => free(page),
                Err(corrupt) => {
                    reserve.set_chain(chain, 0);
                    return Err(corrupt);
                }
            }
        }
        reserve.set_chain(chain, count - released);
        self.pages.count_drained(list, released as usize);
        Ok(released)
    }

    /// Pages on the lists and in the reserves of one zone.
    pub(in crate::mm::zone) fn listed(&self, zone: ZoneId) -> u64 {
        let mut sum = 0;
        for list in (0..PageState::LISTS).filter(|list| zone_of(*list) == zone) {
            for order in (0..=MAX_ORDER).filter_map(Order::new) {
                sum += self.lists(order).map_or(0, |lists| lists.level(list).0 as u64) << order.get();
            }
            sum += self.reserves.get(list).map_or(0, |reserve| u64::from(reserve.count()));
        }
        sum
    }

    /// The lists of an order.
    pub(in crate::mm::zone) fn lists(&self, order: Order) -> Option<&dyn PcpLists> {
        fn any<const SLOTS: usize>(lists: &Lists<SLOTS>) -> &dyn PcpLists {
            lists
        }
        match order.get() as usize {
            0 => Some(&self.pages),
            order @ 1..=SMALL_ORDERS => self.small.get(order - 1).map(any),
            order @ ..=MIDDLE_ORDERS => self.middle.get(order - 1 - SMALL_ORDERS).map(any),
            order => self.large.get(order - 1 - MIDDLE_ORDERS).map(any),
        }
    }

    /// Pages allocated from and freed to the lists of one zone.
    pub(in crate::mm::zone) fn flow(&self, zone: ZoneId) -> Traffic {
        let mut sum = Traffic::default();
        for order in (0..=MAX_ORDER).filter_map(Order::new) {
            let Some(lists) = self.lists(order) else { continue };
            for list in (0..PageState::LISTS).filter(|list| zone_of(*list) == zone) {
                let reserve = self.reserves.get(list).filter(|_| order == Order::ZERO);
                let flow = lists.flow(list, reserve.map_or(0, |reserve| reserve.count().into()));
                sum.allocated += flow.allocated << order.get();
                sum.freed += flow.freed << order.get();
            }
        }
        sum
    }

    /// The position in the zonelist at which requests for this zone start.
    #[inline(always)]
    pub(in crate::mm::zone) fn first_zone(&self, class: usize) -> u8 {
        self.first_zone.get(class).map_or(0, |first| first.load(Ordering::Relaxed))
    }

    pub(in crate::mm::zone) fn set_first_zone(&self, class: usize, first: u8) {
        if let Some(place) = self.first_zone.get(class) {
            place.store(first, Ordering::Relaxed);
        }
    }

    /// Asks the owner to give its pages back: the number of the request. Any CPU.
    pub(in crate::mm::zone) fn request_drain(&self) -> u32 {
        // Release pairs with the acquire in `drains_requested`.
        self.drains_requested.fetch_add(1, Ordering::Release).wrapping_add(1)
    }

    /// The number of the last request. The CPU reads it before it drains: a request that comes meanwhile may want pages
    /// that it has passed already, and is not answered by this drain.
    pub(in crate::mm::zone) fn drains_requested(&self) -> u32 {
        self.drains_requested.load(Ordering::Acquire)
    }

    /// Whether the owner has yet to answer.
    pub(in crate::mm::zone) fn drain_pending(&self) -> bool {
        self.drains_requested() != self.drains_answered.load(Ordering::Acquire)
    }

    /// Whether a request has been answered.
    pub(in crate::mm::zone) fn has_answered(&self, request: u32) -> bool {
        // Fewer than 2^31 requests are under way.
        self.drains_answered.load(Ordering::Acquire).wrapping_sub(request) < 1 << 31
    }

    /// Says that the pages have been given back for all requests up to this one.
    pub(in crate::mm::zone) fn answer_drain(&self, request: u32) {
        self.drains_answered.store(request, Ordering::Release);
    }
}

/// A list of single pages with its reserve, while pages are put there.
pub(in crate::mm::zone) struct PcpRoom<'l> {
    /// Free slots of the list.
    slots: Iter<'l, AtomicU32>,
    chain: Chain,
    /// Pages that the reserve takes, and that it got.
    room: u32,
    kept: u32,
}

impl PcpRoom<'_> {
    /// Pages that the list still takes.
    #[inline(always)]
    pub(in crate::mm::zone) fn room_on_list(&self) -> usize {
        self.slots.len()
    }

    /// Pages that the reserve still takes.
    #[inline(always)]
    pub(in crate::mm::zone) const fn room_in_reserve(&self) -> usize {
        self.room.saturating_sub(self.kept) as usize
    }

    /// Puts a page on the list, if there is room and `mark` agrees; whether it did.
    #[inline(always)]
    pub(in crate::mm::zone) fn put_on_list(&mut self, page: Page, mark: impl FnOnce() -> bool) -> bool {
        let Some(slot) = self.slots.as_slice().first().filter(|_| mark()) else { return false };
        slot.store(page.index(), Ordering::Relaxed);
        self.slots.next();
        true
    }

    /// Puts a page in the reserve, if `mark` agrees; whether it did. No more often than there is room.
    #[inline(always)]
    pub(in crate::mm::zone) fn put_in_reserve<M: PageMap>(
        &mut self,
        map: M,
        page: Page,
        mark: impl FnOnce() -> bool,
    ) -> bool {
        debug_assert!(self.kept < self.room, "a reserve takes what it has room for");
        let agreed = mark();
        if agreed {
            self.chain.push(map, page);
            self.kept = self.kept.wrapping_add(1);
        }
        agreed
    }
}

impl Default for CpuPages {
    fn default() -> Self {
        Self::new()
    }
}
