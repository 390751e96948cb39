//! Contiguous areas: memory that is set aside while booting for allocations of many pages in a row, and lent to movable
//! allocations meanwhile (Linux: `mm/cma.c`).
//!
//! There is no map beside the page descriptors. The page blocks of an area have a migrate type of their own, from whose free
//! lists only movable allocations borrow; the pages of a contiguous allocation say so in their descriptors, and how many they
//! are. So an allocation is a search over the area's blocks: for a run that is free, and else for one whose pages their owners
//! move.
#![forbid(unsafe_code)]

use super::super::blocks::block_type;
use super::super::error::{ContigError, FreeError};
use super::super::{PageAllocator, PageHal};
use super::contig::{align_up, order_for, page_blocks};
use super::migrate::may_move;
use crate::addr::{MAX_ORDER, Order, PAGE_SIZE};
use crate::gfp::{Gfp, Mobility};
use crate::hal::prot::MemoryType;
use crate::mm::page::{
    Kind, MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Page, PageMap, PageState, ZoneId, find_head,
};

/// Times that an area is searched again because others were taking ranges of it.
const ROUNDS: u32 = 8;
/// In the owner's word of each page of a contiguous allocation: that it is one. Above is the number of the first page, below
/// how many there are.
const CONTIGUOUS: u64 = 1 << 31;

/// A contiguous area of a page allocator, from [`PageAllocator::add_cma`].
///
/// # Invariants
///
/// - `CMA-1`: the area is whole page blocks of one zone, and whatever is allocated in them, or waits on a per-CPU list, is
///   movable or a contiguous allocation.
/// - `CMA-2`: each page of a contiguous allocation is a block of its own of [`Kind::Dma`] whose owner's word names the first
///   page and their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CmaArea {
    first: Page,
    pages: u32,
}

impl CmaArea {
    pub(in crate::mm::zone) const fn new(first: Page, pages: u32) -> Self {
        Self { first, pages }
    }

    /// Its first page.
    #[must_use]
    pub const fn first(self) -> Page {
        self.first
    }

    /// How many pages it has.
    #[must_use]
    pub const fn pages(self) -> u32 {
        self.pages
    }

    /// Whether all of a range lies in the area.
    #[must_use]
    pub const fn contains(self, first: Page, pages: u32) -> bool {
        let offset = first.index().wrapping_sub(self.first.index());
        offset < self.pages && pages <= self.pages - offset
    }

    const fn end(self) -> u32 {
        self.first.index() + self.pages
    }
}

/// How the pages of an area are used; the counts add up to its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CmaUsage {
    /// Free, on lists of the zone.
    pub free: u32,
    /// Lent: allocated as movable, or on a per-CPU list for such pages.
    pub lent: u32,
    /// Pages of contiguous allocations.
    pub taken: u32,
}

impl<H: PageHal> PageAllocator<H> {
    /// Allocates `pages` pages in a row from an area (Linux: `cma_alloc`). The physical address of the first one is a multiple
    /// of `align` pages, a power of two. They belong to [`Kind::Dma`] until [`PageAllocator::cma_release`].
    ///
    /// Of the flags the right to wait, [`Gfp::ZERO`] and [`Gfp::NOWARN`] count. Where the flags permit waiting, pages that were
    /// lent are moved by their owners ([`Mover`](super::super::Mover)); otherwise only what is free is taken. Any context without
    /// [`Gfp::DIRECT_RECLAIM`]. Cost: O(blocks of the area), and what moving costs.
    ///
    /// # Errors
    ///
    /// [`ContigError::Empty`] for no pages, [`ContigError::NoRange`] if no such range of the area can be had, `align` is no
    /// power of two or the area is another machine's; [`ContigError::Flags`]. All pages are as before then.
    pub fn cma_alloc(&self, area: CmaArea, pages: u32, align: u32, gfp: Gfp) -> Result<Page, ContigError> {
        gfp.check()?;
        if pages == 0 {
            return Err(ContigError::Empty);
        }
        if !align.is_power_of_two() || pages > area.pages {
            return Err(ContigError::NoRange);
        }
        let zone = self.contig_zone(area.first, area.pages)?;
        let gfp = self.without_illegal_wait(gfp, order_for(pages));
        if self.refuses(pages, gfp) {
            return Err(ContigError::NoRange);
        }
        let gfp = gfp.difference(Gfp::RECLAIMABLE) | Gfp::MOVABLE;
        let mut first = self.alloc_free_run(zone, area, (pages, align));
        if first.is_none() {
            self.drain_all();
            first = self.alloc_free_run(zone, area, (pages, align));
        }
        let first = match first {
            Some(first) => {
                self.prepare_contig(first, pages, gfp);
                first
            }
            None if gfp.may_wait() => self.make_room(area, (pages, align), gfp)?,
            None => return Err(ContigError::NoRange),
        };
        let map = self.hal.map();
        for index in 0..pages {
            let descriptor = map.get(first.offset(index));
            // INVARIANT: CMA-2: fresh, so that nobody else has a reference.
            descriptor.set_owner(word_of(first, pages));
            descriptor.claim_fresh(Kind::Dma);
        }
        Ok(first)
    }

    /// Takes the lowest run of free pages of an area, with the zone's lock held for that alone.
    fn alloc_free_run(&self, zone: ZoneId, area: CmaArea, (pages, align): (u32, u32)) -> Option<Page> {
        let free = |state: PageState| state.kind() == Kind::Free && state.list() == MigrateType::Cma;
        let mut from = area.first.index();
        // Looked for without the lock: what is found is looked at again.
        while let Some(first) = find_run(self.hal.map(), (from, area.end()), (pages, align), free) {
            let taken = self.with_zone(zone, |zone, map| {
                if let Some(other) = page_blocks(first, pages).find(|block| block_type(map, *block) != MigrateType::Cma)
                {
                    return Err(other.offset(PAGEBLOCK_PAGES - 1));
                }
                zone.alloc_range(map, first, pages, Mobility::Movable)
            });
            match taken? {
                Ok(()) => return Some(first),
                Err(busy) => from = busy.index().max(first.index()) + 1,
            }
        }
        None
    }

    /// Takes a run of an area whose pages are free or can be moved.
    fn make_room(&self, area: CmaArea, (pages, align): (u32, u32), gfp: Gfp) -> Result<Page, ContigError> {
        let map = self.hal.map();
        let gives_way = |state: PageState| matches!(state.kind(), Kind::Free | Kind::Pcp) || may_move(state);
        for _ in 0..ROUNDS {
            let mut from = area.first.index();
            let mut contended = false;
            while let Some(first) = find_run(map, (from, area.end()), (pages, align), gives_way) {
                match self.alloc_isolated(first, pages, gfp) {
                    Ok(()) => return Ok(first),
                    Err(ContigError::Busy(busy)) => {
                        let busy = map.find(busy).map_or(first.index(), Page::index);
                        // On its way from list to list.
                        contended |= gives_way(map.get(Page::new(busy)).state());
                        from = busy.max(first.index()) + 1;
                    }
                    Err(ContigError::Isolated) => {
                        contended = true;
                        from = first.align_down(PAGEBLOCK_ORDER).index() + PAGEBLOCK_PAGES;
                    }
                    Err(error) => return Err(error),
                }
            }
            if !contended {
                break;
            }
            H::relax();
        }
        Err(ContigError::NoRange)
    }

    /// [`Self::cma_release`], for pages that this crate knows to be its own, or that its caller promises to be.
    pub(crate) fn do_cma_release(&self, first: Page, pages: u32) -> Result<(), FreeError> {
        let map = self.hal.map();
        let wrong = FreeError::NotContiguous { page: map.pfn(first), pages };
        let zone = self.contig_zone(first, pages).map_err(|_| wrong)?;
        let is_part = |index: u32| {
            let descriptor = map.get(first.offset(index));
            let state = descriptor.state();
            let plain = state.kind() == Kind::Dma && state.memory_type() == MemoryType::WriteBack;
            plain && state.references() == 1 && descriptor.owner() == word_of(first, pages)
        };
        match map.get(first).state().kind() {
            Kind::Free | Kind::Pcp => return Err(FreeError::DoubleFree(map.pfn(first))),
            _ if (0..pages).all(is_part) => {}
            _ => return Err(wrong),
        }
        // Of two that free it at once, one finds it free already.
        map.get(first).become_kind(Kind::Block, 0).map_err(|_| FreeError::DoubleFree(map.pfn(first)))?;
        for page in (1..pages).map(|index| first.offset(index)) {
            // Ours, by the line above.
            let _ = map.get(page).become_kind(Kind::Block, 0);
        }
        self.scrub_freed(first, pages.into(), || self.hal.caller());
        for block in page_blocks(first, pages) {
            let start = block.max(first);
            let end = block.index().saturating_add(PAGEBLOCK_PAGES).min(first.index() + pages);
            let _ = self.with_zone(zone, |zone, map| {
                for page in (start.index()..end).map(Page::new) {
                    zone.free_block(map, page, 0);
                }
                zone.events.freed += u64::from(end - start.index());
            });
        }
        self.announce();
        Ok(())
    }

    /// How many pages the contiguous allocation has that starts at `page`; `None` if none does.
    #[must_use]
    pub fn contiguous_pages(&self, page: Page) -> Option<u32> {
        let map = self.hal.map();
        let state = map.get_checked(page)?.state();
        let (first, pages) = contiguous(map, page, state)?;
        (first == page).then_some(pages)
    }

    /// How the pages of an area are used, each as of the moment at which it was counted. Any context. Cost: O(blocks).
    ///
    /// # Errors
    ///
    /// [`ContigError::NoRange`] for an area of another machine.
    pub fn cma_usage(&self, area: CmaArea) -> Result<CmaUsage, ContigError> {
        let zone = self.contig_zone(area.first, area.pages)?;
        let mut usage = CmaUsage::default();
        for block in page_blocks(area.first, area.pages) {
            // Under the lock no block is split or merged, so that each page is counted once.
            let _ = self.with_zone(zone, |_, map| {
                let (mut at, end) = (block.index(), block.index() + PAGEBLOCK_PAGES);
                while at < end {
                    let (after, state) = block_at(map, at);
                    let pages = after.min(end) - at;
                    let is_taken = state.is_some_and(|state| contiguous(map, Page::new(at), state).is_some());
                    match state.map(PageState::kind) {
                        Some(Kind::Free) => usage.free += pages,
                        _ if is_taken => usage.taken += pages,
                        _ => usage.lent += pages,
                    }
                    at += pages;
                }
            });
        }
        Ok(usage)
    }
}

/// The owner's word of each page of a contiguous allocation.
fn word_of(first: Page, pages: u32) -> u64 {
    u64::from(first.index()) << 32 | CONTIGUOUS | u64::from(pages)
}

/// The contiguous allocation that a page belongs to: its first page, and how many there are.
fn contiguous<M: PageMap>(map: M, page: Page, state: PageState) -> Option<(Page, u32)> {
    let word = map.get(page).owner();
    let is_one = state.kind() == Kind::Dma && word & CONTIGUOUS != 0;
    is_one.then(|| (Page::new((word >> 32) as u32), (word & (CONTIGUOUS - 1)) as u32))
}

/// Of a page of a contiguous allocation whether it is right (`CMA-2`): a page of its own, one of those that its word says, and
/// the next one says the same.
pub(in crate::mm::zone) fn contiguous_run<M: PageMap>(map: M, page: Page, state: PageState) -> Option<Result<(), ()>> {
    let (first, pages) = contiguous(map, page, state)?;
    let offset = page.index().wrapping_sub(first.index());
    let next = page.offset(1);
    let goes_on = |next: Page| {
        let descriptor = map.get_checked(next);
        descriptor.is_some_and(|descriptor| contiguous(map, next, descriptor.state()) == Some((first, pages)))
    };
    let right = state.raw_order() == 0 && offset < pages && (offset + 1 == pages) != goes_on(next);
    Some(if right { Ok(()) } else { Err(()) })
}

/// The block that has page `at`, and the number of the page behind it; a page that is in motion counts as one, of no block.
fn block_at<M: PageMap>(map: M, at: u32) -> (u32, Option<PageState>) {
    match find_head(&map, Page::new(at)) {
        Some((head, state)) => {
            let after = head.index().saturating_add(1 << state.raw_order().min(MAX_ORDER));
            (after.max(at + 1), Some(state))
        }
        None => (at + 1, None),
    }
}

/// The first of `pages` pages in a row, from a frame number on that is a multiple of `align`, whose blocks all satisfy `suits`.
fn find_run<M: PageMap>(
    map: M,
    (from, end): (u32, u32),
    (pages, align): (u32, u32),
    suits: impl Fn(PageState) -> bool,
) -> Option<Page> {
    let mut start = None;
    let mut at = from;
    while at < end {
        let (after, state) = block_at(map, at);
        if state.is_some_and(&suits) {
            let first = match start {
                Some(first) => first,
                None => *start.insert(align_up(map, at, align)?),
            };
            if after.min(end).checked_sub(first).is_some_and(|run| run >= pages) {
                return Some(Page::new(first));
            }
        } else {
            start = None;
        }
        at = after;
    }
    None
}

const _: () = assert!(PAGE_SIZE << PAGEBLOCK_ORDER == Order::MAX.bytes() / 2, "page blocks are 2 MiB");
