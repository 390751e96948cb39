//! A frame of user memory: who counts what in its descriptor.
//!
//! A leaf holds one reference to the block of its frame. So does a pin. The references of a block of kind
//! [`Kind::User`] are the leaves that map any of its pages, in all spaces, and its pins; the last one frees it. Blocks of
//! other kinds, mapped by a driver, are held in the same way beside their owner's references. Frames that nobody
//! allocated (reserved, or without a descriptor) are mapped without.
#![forbid(unsafe_code)]

use super::UserHal;
use crate::addr::{Order, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::gfp::Mobility;
use crate::hal::Internal;
use crate::mm::page::{Kind, Page, PageMap, PageState, find_far, find_head, find_near, is_undescribed};
use crate::mm::zone::{PageAllocator, PageBatch, PageHal};
use core::sync::atomic::Ordering;

/// Pages that are dropped together.
pub(super) const BATCH: usize = 64;

/// The low bits of the number of the page at an address.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
const fn place_of(at: VirtAddr) -> u32 {
    (at.get() >> PAGE_SHIFT) as u32
}

/// The counter that a leaf's frame belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted {
    /// Anonymous memory.
    Anon,
    /// Memory of a driver.
    Mapped,
    /// The zero page, which counts as nothing.
    Zero,
}

/// The word that counts a pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PinCount {
    /// The state of the page, beside the reference: one change for both.
    State,
    /// The word for the pins of blocks, and of pages that have more than their state can count.
    Beside,
}

/// Frames that left tables, and what they counted as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Dropped {
    pub(super) anon: u64,
    pub(super) mapped: u64,
}

impl Dropped {
    pub(super) fn add(&mut self, what: Counted) {
        match what {
            Counted::Anon => self.anon += 1,
            Counted::Mapped => self.mapped += 1,
            Counted::Zero => {}
        }
    }
}

/// The frames of a machine, for the code that maps them.
pub(super) struct Frames<'h, H: UserHal> {
    hal: &'h H,
}

impl<'h, H: UserHal> Frames<'h, H> {
    #[inline]
    pub(super) fn new(hal: &'h H) -> Self {
        Self { hal }
    }

    /// Not kept: a copy of it costs more than finding it where one field is wanted.
    #[inline(always)]
    fn map(&self) -> <H::Pages as PageHal>::Map {
        self.hal.pages().hal().map()
    }

    /// The descriptors, for a loop over many frames.
    #[inline(always)]
    pub(super) fn kept(&self) -> Kept<H> {
        Kept(self.map())
    }

    #[inline]
    pub(super) fn pages(&self) -> &'h PageAllocator<H::Pages> {
        self.hal.pages()
    }

    #[inline]
    pub(super) fn phys(&self, page: Page) -> PhysAddr {
        self.map().phys(page)
    }

    #[inline]
    pub(super) fn pfn(&self, page: Page) -> Pfn {
        self.map().pfn(page)
    }

    /// Gives back a page that has just been allocated and not claimed.
    #[cold]
    pub(super) fn discard(&self, page: Page) {
        let freed = self.pages().do_free_pages(page, Order::ZERO);
        debug_assert!(freed.is_ok(), "a new page is nobody else's");
    }

    #[inline]
    pub(super) fn state(&self, page: Page) -> PageState {
        self.map().get(page).state()
    }

    /// Pins of a user block (Linux: what `FOLL_PIN` adds to the reference count). The state of a page by itself counts the
    /// first thousand. Each pin goes back where it was counted, and a new one comes under the lock of a leaf: so under that lock
    /// a page that stays pinned has pins here.
    #[inline]
    pub(super) fn pins(&self, head: Page) -> u32 {
        let map = self.map();
        let descriptor = map.get(head);
        descriptor.prev() + descriptor.state().pins()
    }

    /// Pins of a user block that its state does not count.
    #[inline]
    pub(super) fn pins_beside(&self, head: Page) -> u32 {
        self.map().get(head).prev()
    }

    /// Takes `count` pins of a user block, and a reference for each: where they are counted. `None` if they cannot be counted.
    /// Under the lock of a leaf that maps it.
    pub(super) fn pin(&self, head: Page, count: u32) -> Option<PinCount> {
        let map = self.map();
        let descriptor = map.get(head);
        let mut state = descriptor.state();
        while let Some(more) = state.with_one_pin().filter(|_| count == 1) {
            match descriptor.exchange(state, more) {
                Ok(()) => return Some(PinCount::State),
                Err(found) => state = found,
            }
        }
        // Half of what can be counted is enough.
        if descriptor.prev() > u32::MAX / 2 || !self.hold(head, count) {
            return None;
        }
        descriptor.add_prev(count.cast_signed());
        Some(PinCount::Beside)
    }

    /// Drops a pin of a user block, and its reference; the last one frees the block.
    pub(super) fn unpin(&self, head: Page, counted: PinCount) {
        let map = self.map();
        let descriptor = map.get(head);
        match counted {
            PinCount::State => {
                let mut state = descriptor.state();
                loop {
                    // The last reference stays until nothing says that the page is pinned. Nobody else has one then.
                    let last = state.references() == 1;
                    let less = state.with_one_pin_less(last);
                    debug_assert!(less.is_some(), "a pin is given back once: {state:?}");
                    let Some(less) = less else { return };
                    match descriptor.exchange(state, less) {
                        Ok(()) if last => break,
                        Ok(()) => return,
                        Err(found) => state = found,
                    }
                }
            }
            PinCount::Beside => {
                // Before the reference goes, which may be the last.
                descriptor.add_prev(-1);
                let state = descriptor.state();
                if state.references() > 1 && descriptor.exchange(state, state.with_one_less()).is_ok() {
                    return;
                }
            }
        }
        self.put(self.pfn(head));
    }

    /// Leaves of a user block, as [`check`](super::check::check) has counted them in the word that is nobody's.
    pub(super) fn leaves(&self, head: Page) -> u32 {
        u32::try_from(self.map().get(head).aux().load(Ordering::Relaxed) >> u32::BITS).unwrap_or(u32::MAX)
    }

    pub(super) fn set_leaves(&self, head: Page, leaves: u32) {
        self.map().get(head).aux().store(u64::from(leaves) << u32::BITS, Ordering::Relaxed);
    }

    /// The low bits of the number of the page for whose address a page came: where it probably is.
    pub(super) fn place(&self, page: Page) -> u32 {
        self.map().get(page).next()
    }

    /// Whether a block of user memory is mapped by one leaf and nobody else uses it.
    #[inline]
    pub(super) fn is_sole(&self, head: Page, state: PageState) -> bool {
        let unpinned = || state.references().wrapping_sub(state.pins()).wrapping_sub(self.pins_beside(head));
        state.references() == 1 || unpinned() == 1
    }

    #[inline]
    pub(super) fn find(&self, pfn: Pfn) -> Option<Page> {
        self.map().find(pfn)
    }

    /// Whether none of these frames has a descriptor.
    pub(super) fn is_undescribed(&self, first: Pfn, count: u64) -> bool {
        is_undescribed(&self.map(), first, count)
    }

    /// The allocated block that a frame belongs to, with its state; `None` for one that nobody allocated.
    pub(super) fn block(&self, pfn: Pfn) -> Option<(Page, PageState)> {
        let page = self.find(pfn)?;
        let state = self.state(page);
        let (head, state) = if state.kind() == Kind::User { (page, state) } else { find_head(&self.map(), page)? };
        state.kind().is_allocated().then_some((head, state))
    }

    /// Whether a page with a descriptor is free.
    pub(super) fn is_free(&self, page: Page) -> bool {
        let kind = find_head(&self.map(), page).map_or(Kind::Free, |(_, state)| state.kind());
        matches!(kind, Kind::Free | Kind::Pcp)
    }

    /// Makes a block that has just been allocated one of user memory, with one reference for the leaf to come, at `at`.
    #[inline]
    pub(super) fn claim(&self, page: Page, at: VirtAddr) {
        self.kept().claim(page, at);
    }

    /// The same as `count` pages, each a block of its own. The block is the caller's alone.
    pub(super) fn claim_pages(&self, first: Page, count: u32, start: VirtAddr) {
        let map = self.map();
        let state = map.get(first).state().with_order(Order::ZERO);
        for index in 0..count {
            map.get(first.offset(index)).set_state(state);
            self.claim(first.offset(index), VirtAddr::new(start.get() + u64::from(index) * PAGE_SIZE));
        }
    }

    /// Takes `count` references to an allocated block, by somebody who keeps it from being freed; whether they can be counted.
    pub(super) fn hold(&self, head: Page, count: u32) -> bool {
        let map = self.map();
        let descriptor = map.get(head);
        let mut state = descriptor.state();
        loop {
            let more = state.with_more(count).filter(|_| state.kind().is_allocated() && state.references() != 0);
            let Some(more) = more else { return false };
            match descriptor.exchange(state, more) {
                Ok(()) => return true,
                Err(found) => state = found,
            }
        }
    }

    /// Takes a reference to a single page of user memory that may be moved; whether it is one. Of no other: the owner of a block
    /// that is not claimed yet changes its state without an atomic operation.
    pub(super) fn hold_movable(&self, page: Page) -> bool {
        let map = self.map();
        let descriptor = map.get(page);
        let mut state = descriptor.state();
        loop {
            let single = state.kind() == Kind::User && state.order() == Order::ZERO && state.references() != 0;
            let movable = single && state.mobility() == Some(Mobility::Movable);
            let Some(more) = state.with_more(1).filter(|_| movable) else { return false };
            match descriptor.exchange(state, more) {
                Ok(()) => return true,
                Err(found) => state = found,
            }
        }
    }

    /// Takes back references that [`Frames::hold`] took, of those that there are.
    pub(super) fn unhold(&self, head: Page, count: u32) {
        let map = self.map();
        let descriptor = map.get(head);
        for _ in 0..count {
            let mut state = descriptor.state();
            while let Err(found) = descriptor.exchange(state, state.with_one_less()) {
                state = found;
            }
        }
    }

    /// Drops the reference of a leaf that no CPU holds any more; the last one frees the block.
    pub(super) fn put(&self, pfn: Pfn) -> Counted {
        if pfn == self.hal.zero_page() {
            return Counted::Zero;
        }
        loop {
            let Some((head, state)) = self.block(pfn) else { return Counted::Mapped };
            let counted = if state.kind() == Kind::User { Counted::Anon } else { Counted::Mapped };
            if state.references() > 1 {
                if self.map().get(head).exchange(state, state.with_one_less()).is_ok() {
                    return counted;
                }
                continue;
            }
            let freed = match state.kind() {
                Kind::User => self.pages().free_claimed(head, Kind::User),
                _ => self.pages().do_free_pages(head, state.order()),
            };
            debug_assert!(freed.is_ok(), "the last reference frees the block: {freed:?}");
            return counted;
        }
    }

    /// Drops a reference to the block whose first page this frame is; whether it was the last, and the block is free.
    pub(super) fn put_last(&self, pfn: Pfn) -> bool {
        while let Some(page) = self.find(pfn) {
            let state = self.state(page);
            if state.references() == 1 {
                self.put(pfn);
                return true;
            }
            if self.map().get(page).exchange(state, state.with_one_less()).is_ok() {
                break;
            }
        }
        false
    }

    /// Makes a page that has just been allocated one of user memory, in the place of `other`.
    pub(super) fn claim_like(&self, page: Page, other: Page) {
        self.claim(page, VirtAddr::ZERO);
        self.map().get(page).set_next(self.place(other));
    }

    /// [`Frames::put`] of many.
    #[inline(never)]
    pub(super) fn put_all<const N: usize>(&self, batch: &mut PageBatch<N>, dropped: &mut Dropped) {
        loop {
            let before = batch.pages().len();
            self.pages().free_claimed_bulk(batch, Kind::User);
            dropped.anon += (before - batch.pages().len()) as u64;
            let Some(page) = batch.pop() else { return };
            dropped.add(self.put(self.map().pfn(page)));
        }
    }

    /// Copies `pages` whole pages.
    pub(super) fn copy(&self, from: PhysAddr, to: PhysAddr, pages: u64) {
        for page in 0..pages {
            let [from, to] = [from, to].map(|at| PhysAddr::new(at.get() + page * PAGE_SIZE));
            self.hal.copy_page(Internal::CALL, from, to);
        }
    }
}

/// The descriptors of a machine, for the loops of fork and unmap: found once, not for each frame.
pub(super) struct Kept<H: UserHal>(pub(super) <H::Pages as PageHal>::Map);

impl<H: UserHal> Kept<H> {
    /// [`Frames::claim`].
    #[inline(always)]
    pub(super) fn claim(&self, page: Page, at: VirtAddr) {
        let descriptor = self.0.get(page);
        descriptor.set_next(place_of(at));
        // INVARIANT: USR-2.
        descriptor.set_prev(0);
        descriptor.claim_fresh(Kind::User);
    }

    #[inline(always)]
    pub(super) fn find(&self, pfn: Pfn) -> Option<Page> {
        match find_near(&self.0, pfn) {
            Some(page) => Some(page),
            None => find_far(self.0, pfn),
        }
    }

    /// Notes the address at which a page will be mapped.
    #[inline(always)]
    pub(super) fn note_place(&self, page: Page, at: VirtAddr) {
        self.0.get(page).set_next(place_of(at));
    }

    /// Takes a reference to the user block of any order whose first page this frame is, if nobody has pinned it: the fast path
    /// of fork. Returns whether it did. `alone` as for [`Kept::is_sole`].
    #[inline(always)]
    pub(super) fn share(&self, pfn: Pfn, alone: &mut Option<PageState>) -> bool {
        let Some(page) = self.find(pfn) else { return false };
        let descriptor = self.0.get(page);
        if let Some(state) = *alone {
            // One reference is that of the leaf, so there is no pin.
            if descriptor.exchange_here(state, state.with_one_more()) {
                return true;
            }
            *alone = None;
        }
        if descriptor.prev() != 0 {
            return false;
        }
        let one_more = |state: PageState| {
            let user = state.kind() == Kind::User && state.pins() == 0;
            state.with_more(1).filter(|_| user).map(|more| (more, state))
        };
        let shared = descriptor.try_change(H::Pages::load_exclusive, H::Pages::store_exclusive, one_more);
        *alone = shared.filter(|state| state.references() == 1);
        shared.is_some()
    }

    /// The state of the page of this frame, if it is a user block of its own that is mapped once, and not pinned.
    #[inline(always)]
    pub(super) fn sole_state(&self, pfn: Pfn) -> Option<PageState> {
        let mut alone = None;
        self.is_sole(pfn, &mut alone);
        alone
    }

    /// The state of the page of this frame, if it is where nearly all are.
    #[inline(always)]
    pub(super) fn state_near(&self, pfn: Pfn) -> Option<PageState> {
        find_near(&self.0, pfn).map(|page| self.0.get(page).state())
    }

    /// Whether the page of this frame is a user block of its own that is mapped once, and not pinned. The zero page is not.
    /// `alone` is the state of such a page, if one has been seen: the next is probably alike.
    #[inline(always)]
    pub(super) fn is_sole(&self, pfn: Pfn, alone: &mut Option<PageState>) -> bool {
        let Some(page) = self.find(pfn) else { return false };
        let state = self.0.get(page).state();
        if *alone == Some(state) {
            return true;
        }
        let sole = state.kind() == Kind::User && state.order() == Order::ZERO && state.references() == 1;
        if sole {
            *alone = Some(state);
        }
        sole
    }

    /// Takes the first pin of the page of this frame, if it lies where most RAM is, and is ordinary user memory by itself that one
    /// leaf maps and nobody else uses: the page. Under the lock of that leaf. No function is called, so that a loop saves no registers.
    #[inline(always)]
    pub(super) fn pin_first(&self, pfn: Pfn) -> Option<Page> {
        let page = find_near(&self.0, pfn)?;
        let first = |state: PageState| state.with_first_pin().map(|pinned| (pinned, ()));
        // INVARIANT: USR-2, USR-4. The leaf keeps the page from being freed meanwhile, so nothing has to be ordered.
        self.0.get(page).try_change(H::Pages::load_exclusive, H::Pages::store_exclusive, first).map(|()| page)
    }

    /// Pins the page of this frame, if it is one of user memory by itself that one leaf maps, and nobody but pins uses: the page.
    /// Under the lock of that leaf.
    #[inline]
    pub(super) fn pin(&self, pfn: Pfn) -> Option<Page> {
        let page = self.find(pfn)?;
        let descriptor = self.0.get(page);
        let state = descriptor.state();
        let more = state.with_one_pin()?;
        let own = state.references().wrapping_sub(state.pins()).wrapping_sub(descriptor.prev()) == 1;
        // INVARIANT: USR-2, USR-4.
        (own && descriptor.exchange(state, more).is_ok()).then_some(page)
    }

    /// Drops a pin of a page that [`Kept::pin_first`] has pinned, with its reference, if all is as that left it: whether it did.
    #[inline(always)]
    pub(super) fn unpin_first(&self, page: Page) -> bool {
        let unpinned = |state: PageState| state.without_first_pin().map(|less| (less, ()));
        // Release: what was done through the pin comes before the page may be another's.
        self.0.get(page).try_change(H::Pages::load_exclusive, H::Pages::store_exclusive_release, unpinned).is_some()
    }

    /// Drops a reference to the user block that this page heads, if it is not the last: whether it did. No CPU reaches the frame
    /// through the leaf any more, so the flush has ordered what was done there before the free by the last owner.
    #[inline(always)]
    pub(super) fn unshare_page(&self, page: Page) -> bool {
        let one_less = |state: PageState| {
            let shared = state.kind() == Kind::User && state.references() > 1;
            shared.then(|| (state.with_one_less(), ()))
        };
        self.0.get(page).try_change(H::Pages::load_exclusive, H::Pages::store_exclusive, one_less).is_some()
    }
}
