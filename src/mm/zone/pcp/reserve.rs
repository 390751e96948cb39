//! The reserve of a CPU behind a list of single pages: pages that came back in numbers and will be wanted in numbers
//! again (Linux: the growth of `pcp->high` between `high_min` and `high_max`).
//!
//! A burst of frees overflows the list, and a burst of allocations empties it. Giving the overflow to the zone page by
//! page, to be merged into large blocks which the next burst splits again, is most of what a page costs. So a batch goes
//! to the reserve first: a chain through the descriptors, which takes no memory and no lock.
//!
//! How much may wait there is learnt: a batch more for each one that had to be fetched from the zone, up to the CPU's
//! share of an eighth of the zone; nothing while the zone is short, and nothing once the lists have been drained.
#![forbid(unsafe_code)]

use super::super::blocks::Corrupt;
use crate::mm::page::{Page, PageMap, PageState};
use core::sync::atomic::{AtomicU32, Ordering};

/// The reserve of one list. Changed by the CPU that may change the list, with interrupts masked. All-zero is a valid value:
/// empty, and taking nothing.
///
/// # Invariants
///
/// - `PCP-3`: from `first` on, the links lead through `count` pages whose state is that of the list's; no page is in two
///   places.
#[derive(Debug)]
#[repr(C)]
pub(in crate::mm::zone) struct Reserve {
    /// The page that came last; meaningless without pages.
    first: AtomicU32,
    count: AtomicU32,
    limit: AtomicU32,
}

impl Reserve {
    pub(super) const fn new() -> Self {
        Self { first: AtomicU32::new(0), count: AtomicU32::new(0), limit: AtomicU32::new(0) }
    }

    /// Pages in it.
    #[inline]
    pub(in crate::mm::zone) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Pages that it still takes.
    #[inline]
    pub(super) fn room(&self) -> u32 {
        self.limit.load(Ordering::Relaxed).saturating_sub(self.count())
    }

    /// Lets it grow by `pages`, up to `most` in all.
    pub(in crate::mm::zone) fn raise(&self, pages: u32, most: u32) {
        let limit = self.limit.load(Ordering::Relaxed).saturating_add(pages).min(most);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Lets it take nothing more; what is in it stays.
    pub(in crate::mm::zone) fn close(&self) {
        self.limit.store(0, Ordering::Relaxed);
    }

    /// The pages, to put some in front or take some from there.
    #[inline]
    pub(in crate::mm::zone) fn chain(&self, state: PageState) -> Chain {
        Chain { first: self.first.load(Ordering::Relaxed), state }
    }

    /// The pages after that: `count` of them.
    #[inline]
    pub(super) fn set_chain(&self, chain: Chain, count: u32) {
        // INVARIANT: PCP-3: `Chain` keeps the links.
        self.first.store(chain.first, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
    }
}

/// The pages of a reserve while they are changed.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm::zone) struct Chain {
    first: u32,
    /// State that all of them have.
    state: PageState,
}

impl Chain {
    /// No pages.
    pub(super) const fn none(state: PageState) -> Self {
        Self { first: 0, state }
    }

    /// The page in front, if there is one.
    pub(in crate::mm::zone) const fn front(self) -> Page {
        Page::new(self.first)
    }

    /// Puts a page in front.
    #[inline(always)]
    pub(super) fn push<M: PageMap>(&mut self, map: M, page: Page) {
        map.get(page).set_next(self.first);
        self.first = page.index();
    }

    /// Takes the page in front; the chain is not empty.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the chain points to a page of another state: somebody wrote to a descriptor.
    #[inline(always)]
    pub(in crate::mm::zone) fn pop<M: PageMap>(&mut self, map: M) -> Result<Page, Corrupt> {
        let page = Page::new(self.first);
        let descriptor = map.get(page);
        if descriptor.state() != self.state {
            return Err(Corrupt(page));
        }
        self.first = descriptor.next();
        Ok(page)
    }
}
