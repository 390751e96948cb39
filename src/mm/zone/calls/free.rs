//! Freeing: the hot path onto the per-CPU lists, and the slow path with its checks, step by step.
//!
//! | step | function | lock | interrupts | if it cannot |
//! |---|---|---|---|---|
//! | 1. a plain block, claimed and pushed onto this CPU's list | `claim_for_list` | none | masked | not plain: 2; no room: 3 |
//! | 2. the checks, and the claim of a block that is not plain | `diagnose`, `claim_slow` | none | as the caller has them | [`FreeError`]; another reference is left: the end |
//! | 3. scrubbing, tags | `scrub_freed` | none | masked | - |
//! | 4. a full list: a batch into this CPU's reserve, or into its zone; then onto the list | `free_to_list` | none; the zone's | masked | 5 |
//! | 5. into the zone, merged | `free_block` | the zone's | masked | - |
//! | 6. who waits for pages is told | `announce` | none | as the caller has them | - |
#![forbid(unsafe_code)]

use super::super::error::FreeError;
use super::super::pcp::zone_of;
use super::super::{PCP_BATCH_MAX, PageAllocator, PageHal};
use crate::addr::{Order, PAGE_SIZE, Pfn, VirtAddr};
use crate::hal::prot::MemoryType;
use crate::mm::page::{Kind, Page, PageDescriptor, PageMap, PageState, ZoneId, find_head};
use core::sync::atomic::Ordering;

impl<H: PageHal> PageAllocator<H> {
    /// [`Self::free_pages`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    pub(crate) fn do_free_pages(&self, page: Page, order: Order) -> Result<(), FreeError> {
        let saved = self.hal.save();
        let local = self.hal.local();
        let map = H::local_map(local);
        let list = claim_for_list::<H>(map.get(page), order);
        let freed = H::pages(local).push(list, order, page);
        self.hal.restore(saved);
        if freed { Ok(()) } else { self.free_slow(page, order, list) }
    }

    /// Gives a block back that was claimed as `kind` with an owner's word of zero: [`PageAllocator::disown`] and
    /// [`PageAllocator::free_pages`] in one. `page` has a descriptor. Any context.
    #[inline(always)]
    pub(crate) fn free_claimed(&self, page: Page, kind: Kind) -> Result<(), FreeError> {
        if self.free_claimed_fast(page, kind) { Ok(()) } else { self.free_claimed_slow(page, kind) }
    }

    /// Slow path. A function of its own, so that the fast path saves no registers for it.
    #[inline(never)]
    fn free_claimed_slow(&self, page: Page, kind: Kind) -> Result<(), FreeError> {
        let order = self.hal.map().get(page).state().order();
        match self.claim_slow(page, order, kind)? {
            Some(list) => self.free_to_list(page, order, list),
            None => Ok(()),
        }
    }

    /// The same onto a list of this CPU, if that is all that is needed; whether it was. Nothing has changed otherwise.
    #[inline(always)]
    pub(in crate::mm) fn free_claimed_fast(&self, page: Page, kind: Kind) -> bool {
        let saved = self.hal.save();
        let local = self.hal.local();
        let map = H::local_map(local);
        let descriptor = map.get(page);
        let taken = descriptor.try_change(H::load_exclusive, H::store_exclusive, |state| {
            let (list, order) = (state.claimed_list(kind), state.order());
            (list < PageState::LISTS).then_some((PageState::on_pcp(list, order), (state, list, order)))
        });
        let mut freed = false;
        if let Some((state, list, order)) = taken {
            freed = H::pages(local).push(list, order, page);
            if !freed {
                descriptor.set_state(state);
            }
        }
        self.hal.restore(saved);
        freed
    }

    /// [`Self::free_pages_cold`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_free_pages_cold(&self, page: Page, order: Order) -> Result<(), FreeError> {
        let saved = self.hal.save();
        let local = self.hal.local();
        let map = self.hal.map();
        let list = map.get_checked(page).map_or(PageState::LISTS, |descriptor| claim_for_list::<H>(descriptor, order));
        let freed = H::pages(local).lists(order).is_some_and(|lists| lists.push_cold(list, page));
        self.hal.restore(saved);
        if freed { Ok(()) } else { self.free_slow(page, order, list) }
    }

    /// The page at an address of the linear map.
    ///
    /// # Errors
    ///
    /// [`FreeError::NotLinear`], [`FreeError::NoDescriptor`], [`FreeError::Unaligned`]; [`FreeError::Stale`] for a
    /// pointer whose memory tag is wrong.
    #[inline]
    pub fn page_at(&self, addr: VirtAddr) -> Result<Page, FreeError> {
        let Some(phys) = self.hal.to_phys(addr) else { return self.page_at_tagged(addr) };
        if !phys.is_aligned(PAGE_SIZE) {
            return Err(FreeError::Unaligned(addr));
        }
        H::local_map(self.hal.local()).find(Pfn::containing(phys)).ok_or(FreeError::NoDescriptor(phys))
    }

    /// Slow path: blocks that are not plain, that have no list, or whose list is full. If `list` is one, the fast path has
    /// taken the block for it already.
    #[inline(never)]
    fn free_slow(&self, page: Page, order: Order, list: usize) -> Result<(), FreeError> {
        let list = if list < PageState::LISTS { Some(list) } else { self.claim_slow(page, order, Kind::Block)? };
        list.map_or(Ok(()), |list| self.free_to_list(page, order, list))
    }

    /// Puts a block on a list of this CPU, or makes it free in its zone. Its state says already that it is on `list`, so
    /// that it is the caller's alone.
    pub(super) fn free_to_list(&self, page: Page, order: Order, list: usize) -> Result<(), FreeError> {
        let map = self.hal.map();
        let zone = zone_of(list);
        if let Err(foreign) = self.in_zone(map, page, zone) {
            // Not for the free lists of another zone: it stays what it was.
            map.get(page).set_state(PageState::allocated(list, order));
            return Err(foreign);
        }
        let saved = self.hal.save();
        let pages = H::pages(self.hal.local());
        self.scrub_freed(
            page,
            order.pages(),
            #[inline(always)]
            || self.hal.caller(),
        );
        let full = pages.lists(order).is_some_and(|lists| lists.level(list) != (0, 0));
        let keep = full && order == Order::ZERO && !self.is_short(zone);
        if full && !(keep && pages.move_to_reserve(map, list, PCP_BATCH_MAX)) {
            self.drain_list(pages, list, order, 1);
        }
        let listed = full && pages.push(list, order, page);
        if !listed && let Some(zone) = self.zones.get(zone.index()) {
            let mut zone = zone.lock();
            zone.events.freed += order.pages();
            zone.free_block(map, page, order.get());
        }
        self.hal.restore(saved);
        self.announce();
        Ok(())
    }

    /// Takes a block that is claimed as `kind`, which may be [`Kind::Block`], for a list of this CPU: its number, or `None`
    /// if only a reference was dropped. If two CPUs free a block at once, one is refused here: the CPU that changes the
    /// state has the block.
    #[cold]
    fn claim_slow(&self, page: Page, order: Order, kind: Kind) -> Result<Option<usize>, FreeError> {
        let map = self.hal.map();
        // Where there is no descriptor the loads so far have read zero.
        let descriptor = map.get_checked(page).ok_or(FreeError::NoDescriptor(map.phys(page)))?;
        let mut found = descriptor.state();
        let (state, list) = loop {
            let is_claimed = kind != Kind::Block && found.kind() == kind;
            let state = if is_claimed { found.unclaimed() } else { found };
            if kind != Kind::Block && !is_claimed {
                return Err(FreeError::DoubleFree(map.pfn(page)));
            }
            self.diagnose(map, page, order, state)?;
            let (list, last) = (state.pcp_list(), state.references() == 1);
            let new = if last { PageState::on_pcp(list, order) } else { state.with_one_less() };
            match map.get(page).exchange(found, new) {
                Ok(()) => break (state, last.then_some(list)),
                Err(other) => found = other,
            }
        };
        if list.is_some() && state.is_accounted() {
            self.accounted.fetch_sub(order.pages(), Ordering::Relaxed);
        }
        if list.is_some() && state.is_compound() {
            for index in 1..1_u32 << order.get() {
                map.get(page.offset(index)).set_state(PageState::INSIDE);
            }
        }
        Ok(list)
    }

    /// Reason why an allocated block of `order` cannot be freed at `page`, if anything speaks against it.
    pub(super) fn diagnose(&self, map: H::Map, page: Page, order: Order, state: PageState) -> Result<(), FreeError> {
        let pfn = map.pfn(page);
        match state.kind() {
            Kind::Hole => return Err(FreeError::Hole(pfn)),
            Kind::Reserved => return Err(FreeError::Reserved(pfn)),
            Kind::Free | Kind::Pcp => return Err(FreeError::DoubleFree(pfn)),
            Kind::Inside | Kind::Tail => return Err(inside(map, page)),
            Kind::Block => {}
            kind => return Err(FreeError::Claimed { page: pfn, kind }),
        }
        if !page.is_aligned(order.get()) {
            return Err(FreeError::Misaligned { page: pfn, order });
        }
        if state.order() != order {
            return Err(FreeError::WrongOrder { page: pfn, allocated: state.order(), freed: order });
        }
        if state.memory_type() != MemoryType::WriteBack {
            return Err(FreeError::MemoryType { page: pfn, memory: state.memory_type() });
        }
        let sane = state.references() != 0 && state.mobility().is_some();
        let zone = state.zone().filter(|_| sane).ok_or(FreeError::Corrupt(pfn))?;
        self.in_zone(map, page, zone)?;
        // A holder of another reference may drop this one.
        if state.references() == 1 { self.check_unmapped(page, state) } else { Ok(()) }
    }

    /// Whether a page lies in the zone that its descriptor names. The fast path does not ask: a block whose descriptor
    /// was damaged to name another zone waits on a list of that zone's, where the check finds it.
    fn in_zone(&self, map: H::Map, page: Page, zone: ZoneId) -> Result<(), FreeError> {
        match self.layout() {
            Some(layout) if layout.contains(zone, page) => Ok(()),
            _ => Err(FreeError::ForeignZone(map.pfn(page))),
        }
    }
}

/// Takes a block of `order` that is plain (see [`PageState::plain_list`]) for the list of this CPU that it belongs on: its
/// number. Or a number that is none, and then nothing has changed: it is not plain, or somebody else changes it. On the CPU
/// of the list, interrupts masked.
#[inline(always)]
fn claim_for_list<H: PageHal>(descriptor: &PageDescriptor, order: Order) -> usize {
    let taken = descriptor.try_change(H::load_exclusive, H::store_exclusive, |state| {
        // One comparison for all that a free must check.
        let list = state.plain_list(order);
        (list < PageState::LISTS).then_some((PageState::on_pcp(list, order), list))
    });
    taken.unwrap_or(PageState::LISTS)
}

/// The error for a page that starts no block.
fn inside<M: PageMap>(map: M, page: Page) -> FreeError {
    let pfn = map.pfn(page);
    match find_head(&map, page) {
        Some((_, state)) if matches!(state.kind(), Kind::Free | Kind::Pcp) => FreeError::DoubleFree(pfn),
        Some((_, state)) if state.kind() == Kind::Reserved => FreeError::Reserved(pfn),
        Some((_, state)) if state.kind() == Kind::Hole => FreeError::Hole(pfn),
        Some((head, _)) => FreeError::InsideBlock { page: pfn, head: map.pfn(head) },
        None => FreeError::Corrupt(pfn),
    }
}
