//! Many single pages at once: one round of masking interrupts, one look at the list (Linux: `alloc_pages_bulk`).
#![forbid(unsafe_code)]

use super::error::{AllocError, FreeError};
use super::{PageAllocator, PageHal};
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
}

impl<const N: usize> Default for PageBatch<N> {
    fn default() -> Self {
        Self::new()
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
        if let Some(room) = batch.pages.get_mut(before..)
            && gfp.zone() == ZoneType::Normal
            && !gfp.intersects(Gfp::ZERO | Gfp::ACCOUNT | Gfp::COLD)
        {
            // INVARIANT: BATCH-1: no more than there is room for.
            batch.len += self.take_listed(gfp, room);
        }
        if batch.len < N && gfp.check().is_ok() {
            // Reported once for the whole batch. NOFAIL without the right to wait is no request.
            gfp = self.without_illegal_wait(gfp, Order::ZERO);
            if !gfp.may_wait() {
                gfp.remove(Gfp::NOFAIL);
            }
        }
        while batch.len < N {
            match self.alloc_pages(gfp, Order::ZERO) {
                Ok(page) if batch.push(page) => {}
                Err(error) if batch.len == before => return Err(error),
                _ => break,
            }
        }
        Ok(batch.len - before)
    }

    /// Fills `room` from the list of this CPU as far as that goes.
    #[inline]
    fn take_listed(&self, gfp: Gfp, room: &mut [Page]) -> usize {
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
        let given = self.give_listed(batch.pages());
        batch.len -= given;
        while let Some(page) = batch.pages().last().copied() {
            self.do_free_pages(page, Order::ZERO)?;
            batch.len -= 1;
        }
        Ok(())
    }

    /// Frees the last pages of a batch as long as each is claimed as `kind` with one reference and an owner's word of zero,
    /// and belongs on the same list of this CPU, which has room. The others stay in the batch: [`PageBatch::pop`] the last
    /// one, and see what it is. Any context. Cost: nine instructions a page.
    #[inline(always)]
    pub(in crate::mm) fn free_claimed_bulk<const N: usize>(&self, batch: &mut PageBatch<N>, kind: Kind) {
        let saved = self.hal.save();
        let local = self.hal.local();
        let map = H::local_map(local);
        let mut given = 0;
        if let Some(last) = batch.pages().last() {
            let state = map.get(*last).state();
            let list = state.claimed_list(kind);
            if list < PageState::LISTS && state.order() == Order::ZERO {
                let listed = PageState::on_pcp(list, Order::ZERO);
                let take = |page| map.get(page).exchange_here(state, listed);
                given = H::pages(local).push_many(list, batch.pages(), take);
            }
        }
        self.hal.restore(saved);
        // INVARIANT: BATCH-1.
        batch.len -= given;
    }

    /// Puts the last pages on one list of this CPU, as long as they belong there and it has room: how many.
    #[inline]
    fn give_listed(&self, pages: &[Page]) -> usize {
        let saved = self.hal.save();
        let local = self.hal.local();
        let map = H::local_map(local);
        let mut given = 0;
        if let Some(last) = pages.last() {
            let state = map.get(*last).state();
            let list = state.plain_list(Order::ZERO);
            if list < PageState::LISTS {
                let listed = PageState::on_pcp(list, Order::ZERO);
                // The CPU that changes the state has the page. If two CPUs free it at once, the other one takes the slow
                // path, which refuses it.
                given = H::pages(local).push_many(list, pages, |page| map.get(page).exchange_here(state, listed));
            }
        }
        self.hal.restore(saved);
        given
    }
}
