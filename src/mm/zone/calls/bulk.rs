//! Many single pages at once: one round of masking interrupts, one look at the list (Linux: `alloc_pages_bulk`).
#![forbid(unsafe_code)]

use super::super::error::{AllocError, FreeError};
use super::super::pcp::{PcpRoom, zone_of};
use super::super::{PageAllocator, PageHal};
use crate::addr::Order;
use crate::gfp::{Gfp, ZoneType};
use crate::mm::page::{Kind, Page, PageMap, PageState, ZoneId};

/// Up to `N` pages, allocated and freed together. Dropping it with pages in it loses them.
#[derive(Debug)]
#[must_use = "pages in a batch are lost unless they are freed"]
pub struct PageBatch<const N: usize> {
    pages: [Page; N],
    /// - `BATCH-1`: at most `N`; the pages below are the batch's.
    len: usize,
}

impl<const N: usize> PageBatch<N> {
    /// No pages.
    pub const fn new() -> Self {
        Self { pages: [Page::new(0); N], len: 0 }
    }

    /// The pages.
    #[must_use]
    pub fn pages(&self) -> &[Page] {
        self.pages.get(..self.len).unwrap_or_default()
    }

    /// Takes a page out, which is the caller's then.
    pub fn pop(&mut self) -> Option<Page> {
        let last = self.len.checked_sub(1)?;
        self.len = last;
        self.pages.get(last).copied()
    }

    /// Adds a page of the caller's; whether there was room for it.
    #[must_use = "a page that does not fit is still the caller's"]
    pub fn push(&mut self, page: Page) -> bool {
        let Some(place) = self.pages.get_mut(self.len) else { return false };
        *place = page;
        // INVARIANT: BATCH-1: there was a place, so that it stays below `N`, and cannot overflow.
        self.len = self.len.wrapping_add(1);
        true
    }

    /// Room for more pages.
    pub(in crate::mm) const fn room(&self) -> usize {
        N.saturating_sub(self.len)
    }
}

impl<const N: usize> Default for PageBatch<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Pages of which a reference is dropped one after another: [`PageAllocator::begin_freeing`].
#[must_use = "interrupts are masked until its end"]
pub(in crate::mm) struct Freeing<'p, H: PageHal> {
    hal: &'p H,
    saved: H::Saved,
    local: &'p H::Local,
    map: H::Map,
    /// The state of each before, and after.
    state: PageState,
    then: PageState,
    /// Others have references to each, and no list gets it.
    shared: bool,
    list: usize,
    room: PcpRoom<'p>,
}

/// The next owner of such pages, once their reference is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mm) enum Way {
    /// The list of this CPU.
    List,
    /// The reserve behind it.
    Reserve,
    /// The others that have references.
    Others,
    /// The fast path cannot free these pages.
    None,
}

impl<H: PageHal> Freeing<'_, H> {
    /// The way that the first of so many pages go, and how many do.
    #[inline(always)]
    pub(in crate::mm) fn way(&self, pages: usize) -> (Way, usize) {
        if self.shared {
            return (Way::Others, pages);
        }
        match (self.room.room_on_list(), self.room.room_in_reserve()) {
            (0, 0) => (Way::None, pages),
            (0, room) => (Way::Reserve, room.min(pages)),
            (room, _) => (Way::List, room.min(pages)),
        }
    }

    /// The CPU that changes the state has the page.
    #[inline(always)]
    fn change(map: H::Map, (state, then): (PageState, PageState), page: Page) -> bool {
        map.get(page).exchange_here(state, then)
    }

    /// Drops a reference to a page that goes by [`Way::List`]: whether it could. If not, nothing has changed: the page is of
    /// another state, or there is no room for it.
    #[inline(always)]
    pub(in crate::mm) fn give_list(&mut self, page: Page) -> bool {
        let (map, states) = (self.map, (self.state, self.then));
        self.room.put_on_list(page, || Self::change(map, states, page))
    }

    /// The same by [`Way::Reserve`], no more often than [`Freeing::way`] said.
    #[inline(always)]
    pub(in crate::mm) fn give_reserve(&mut self, page: Page) -> bool {
        let (map, states) = (self.map, (self.state, self.then));
        self.room.put_in_reserve(map, page, || Self::change(map, states, page))
    }

    /// The same by [`Way::Others`].
    #[inline(always)]
    pub(in crate::mm) fn give_others(&mut self, page: Page) -> bool {
        Self::change(self.map, (self.state, self.then), page)
    }

    /// The lists have what they got.
    #[inline(always)]
    pub(in crate::mm) fn end(self) {
        H::pages(self.local).set_room(self.list, self.room);
        self.hal.restore(self.saved);
    }
}

impl<H: PageHal> PageAllocator<H> {
    /// Allocates single pages until the batch is full, and answers how many there were. Fewer than that is no error: the
    /// caller has what there was. Context as for [`PageAllocator::alloc_pages`]. Cost: seven instructions a page from a
    /// list of this CPU.
    ///
    /// # Errors
    ///
    /// Those of [`PageAllocator::alloc_pages`] if there was not even one.
    #[inline(always)]
    pub fn alloc_pages_bulk<const N: usize>(&self, gfp: Gfp, batch: &mut PageBatch<N>) -> Result<usize, AllocError> {
        let before = batch.len;
        let mut gfp = gfp;
        let listed = gfp.zone() == ZoneType::Normal && !gfp.intersects(Gfp::ZERO | Gfp::ACCOUNT | Gfp::COLD);
        self.fill_listed(gfp, listed, batch);
        if batch.len < N && gfp.check().is_ok() {
            // Reported once for the whole batch. NOFAIL without the right to wait is no request.
            gfp = self.without_illegal_wait(gfp, Order::ZERO);
            if !gfp.may_wait() {
                gfp.remove(Gfp::NOFAIL);
            }
        }
        while batch.len < N {
            match self.alloc_pages(gfp, Order::ZERO) {
                // The slow path has filled the list.
                Ok(page) if batch.push(page) => self.fill_listed(gfp, listed, batch),
                Err(error) if batch.len == before => return Err(error),
                _ => break,
            }
        }
        Ok(batch.len - before)
    }

    /// Fills a batch from the list of this CPU as far as that goes, if the pages may come from there.
    #[inline]
    fn fill_listed<const N: usize>(&self, gfp: Gfp, listed: bool, batch: &mut PageBatch<N>) {
        if let Some(room) = batch.pages.get_mut(batch.len..)
            && listed
            && !room.is_empty()
        {
            // INVARIANT: BATCH-1: no more than there is room for.
            batch.len += self.pop_listed(gfp, room);
        }
    }

    /// Fills `room` from the list of this CPU as far as that goes.
    #[inline]
    fn pop_listed(&self, gfp: Gfp, room: &mut [Page]) -> usize {
        if gfp.check().is_err() {
            return 0;
        }
        let list = PageState::list_number(ZoneId::PREFERRED, gfp.mobility());
        let state = PageState::allocated(list, Order::ZERO);
        let saved = self.hal.save();
        let local = self.hal.local();
        let map = H::local_map(local);
        let mut taken = 0;
        if !gfp.may_wait() || self.hal.may_wait(local, saved) {
            taken = H::pages(local).pop_many(list, room, |page| map.get(page).set_state(state));
        }
        self.hal.restore(saved);
        taken
    }

    /// [`Self::free_pages_bulk`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    pub(crate) fn do_free_pages_bulk<const N: usize>(&self, batch: &mut PageBatch<N>) -> Result<(), FreeError> {
        let freed = self.push_listed(batch.pages());
        batch.len -= freed;
        while let Some(page) = batch.pages().last().copied() {
            self.do_free_pages(page, Order::ZERO)?;
            batch.len -= 1;
        }
        Ok(())
    }

    /// Drops a reference to each of the last pages of a batch as long as they are alike, as [`Freeing`] does. The others stay in
    /// the batch: [`PageBatch::pop`] the last one, and see what it is.
    pub(in crate::mm) fn free_claimed_bulk<const N: usize>(&self, batch: &mut PageBatch<N>, kind: Kind) {
        let Some(last) = batch.pages().last() else { return };
        let mut freeing = self.begin_freeing(*last, kind);
        let mut free = |page: &&Page| match freeing.way(1).0 {
            Way::List => freeing.give_list(**page),
            Way::Reserve => freeing.give_reserve(**page),
            Way::Others => freeing.give_others(**page),
            Way::None => false,
        };
        let freed = batch.pages().iter().rev().take_while(&mut free).count();
        freeing.end();
        // INVARIANT: BATCH-1.
        batch.len -= freed;
    }

    /// Begins to drop a reference to each of some pages that are like this one: claimed as `kind` with an owner's word of zero,
    /// each with this one reference, which frees it, or each with as many others. Those that do not fit on the list of this CPU
    /// go to its reserve, as far as that takes them. Interrupts are masked until [`Freeing::end`]. Any context. Cost: nine
    /// instructions a page.
    #[inline(always)]
    pub(in crate::mm) fn begin_freeing(&self, like: Page, kind: Kind) -> Freeing<'_, H> {
        let saved = self.hal.save();
        let local = self.hal.local();
        let map = H::local_map(local);
        let state = map.get(like).state();
        let list = state.claimed_list(kind);
        let alone = list < PageState::LISTS && state.order() == Order::ZERO;
        let shared = state.kind() == kind && state.references() > 1;
        // No list has this number, and takes anything.
        let list = if alone { list } else { PageState::LISTS };
        let room = H::pages(local).room(list, alone && !self.is_short(zone_of(list)));
        // Of pages with other owners the flush has ordered what was done through the mapping before the free by the last of them.
        let then = if shared { state.with_one_less() } else { PageState::on_pcp(list, Order::ZERO) };
        Freeing { hal: &self.hal, saved, local, map, state, then, shared, list, room }
    }

    /// Frees single pages that follow on as the block of `order` that they are together, if each is claimed as `kind` with one
    /// reference and an owner's word of zero, and all belong on one list: whether it did. Nothing has changed otherwise. Any
    /// context. Cost: seven instructions a page.
    pub(in crate::mm) fn free_claimed_row(&self, first: Page, order: Order, kind: Kind) -> bool {
        let saved = self.hal.save();
        let local = self.hal.local();
        let map = H::local_map(local);
        let state = map.get(first).state();
        let list = state.claimed_list(kind);
        let alone = list < PageState::LISTS && state.order() == Order::ZERO && first.is_aligned(order.get());
        let row = || (0..1_u32 << order.get()).map(|index| map.get(first.offset(index)));
        // The CPU that changes the state has the page, as if it were freed alone.
        let taken =
            if alone { row().take_while(|page| page.exchange_here(state, PageState::INSIDE)).count() } else { 0 };
        let all = taken as u64 == order.pages();
        let mut listed = false;
        if all {
            map.get(first).set_state(PageState::on_pcp(list, order));
            listed = H::pages(local).push(list, order, first);
        } else {
            row().take(taken).for_each(|page| page.set_state(state));
        }
        self.hal.restore(saved);
        if all && !listed {
            let freed = self.free_to_list(first, order, list);
            debug_assert!(freed.is_ok(), "the pages are of the zone that their descriptors name: {freed:?}");
        }
        all
    }

    /// Puts the last pages on one list of this CPU, as long as they belong there and it has room: how many.
    #[inline]
    fn push_listed(&self, pages: &[Page]) -> usize {
        let saved = self.hal.save();
        let local = self.hal.local();
        let map = H::local_map(local);
        let mut freed = 0;
        if let Some(last) = pages.last() {
            let state = map.get(*last).state();
            let list = state.plain_list(Order::ZERO);
            if list < PageState::LISTS {
                let listed = PageState::on_pcp(list, Order::ZERO);
                // The CPU that changes the state has the page. If two CPUs free it at once, the other one takes the slow
                // path, which refuses it.
                freed = H::pages(local).push_many(list, pages, |page| map.get(page).exchange_here(state, listed));
            }
        }
        self.hal.restore(saved);
        freed
    }
}
