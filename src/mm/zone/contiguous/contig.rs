//! Physically contiguous memory of any size: a range is isolated, emptied of per-CPU lists and of pages whose owners move
//! them, and taken if all of it is free then (Linux: `alloc_contig_range`).
#![forbid(unsafe_code)]

use super::super::blocks::{Zone, block_type, set_block_type};
use super::super::error::{ContigError, FreeError};
use super::super::{PageAllocator, PageHal};
use crate::addr::{MAX_ORDER, Order, PAGE_SIZE};
use crate::gfp::{Gfp, Mobility};
use crate::hal::Internal;
use crate::mm::page::{
    Kind, MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Page, PageMap, PageState, ZoneId, find_head,
};

/// The order that reports give for so many pages: the largest one stands for all that is larger.
pub(super) fn order_for(pages: u32) -> Order {
    Order::for_bytes(u64::from(pages) * PAGE_SIZE).unwrap_or(Order::MAX)
}

/// The first page at or above page `at` whose frame number is a multiple of `align`; `None` if no page has that number.
pub(super) fn align_up<M: PageMap>(map: M, at: u32, align: u32) -> Option<u32> {
    let pfn = map.pfn(Page::new(at)).get();
    let up = pfn.checked_next_multiple_of(align.into())? - pfn;
    at.checked_add(u32::try_from(up).ok()?)
}

/// Page blocks from the first to the last of a range.
pub(in crate::mm::zone) fn page_blocks(first: Page, pages: u32) -> impl Iterator<Item = Page> {
    let start = first.align_down(PAGEBLOCK_ORDER).index();
    let end = first.index().saturating_add(pages);
    (start..end).step_by(PAGEBLOCK_PAGES as usize).map(Page::new)
}

impl<H: PageHal> PageAllocator<H> {
    /// Allocates the `pages` pages from `first` on, each a block of its own with one reference.
    ///
    /// The page blocks of the range are isolated meanwhile, so no other allocation takes from them; afterwards those that
    /// are left have the type they had. Movable pages in use are moved by their owners ([`Mover`](super::super::Mover)) if the
    /// flags permit waiting; fails if a page of the range stays in use. Any context; other CPUs are asked for the pages on
    /// their lists. Cost: O(pages), and what moving costs.
    ///
    /// # Errors
    ///
    /// [`ContigError`]; all pages are as before then.
    pub fn alloc_contig_range(&self, first: Page, pages: u32, gfp: Gfp) -> Result<(), ContigError> {
        gfp.check()?;
        let gfp = self.without_illegal_wait(gfp, order_for(pages));
        match self.refuses(pages, gfp) {
            true => Err(ContigError::Busy(self.hal.map().pfn(first))),
            false => self.alloc_isolated(first, pages, gfp),
        }
    }

    /// Whether a test wants this allocation to fail.
    pub(super) fn refuses(&self, pages: u32, gfp: Gfp) -> bool {
        self.is_careful() && self.hal.should_fail(gfp, order_for(pages))
    }

    pub(super) fn alloc_isolated(&self, first: Page, pages: u32, gfp: Gfp) -> Result<(), ContigError> {
        let zone = self.contig_zone(first, pages)?;
        self.isolate(zone, first, pages)?;
        self.drain_all();
        if gfp.may_wait() && self.evacuate(first, pages) {
            // Moving has left pages on lists of CPUs.
            self.drain_all();
        }
        let taken = self.with_zone(zone, |zone, map| zone.alloc_range(map, first, pages, gfp.mobility()));
        self.undo_isolate(zone, first, pages);
        self.announce();
        match taken {
            Some(Ok(())) => {}
            Some(Err(busy)) => return Err(ContigError::Busy(self.hal.map().pfn(busy))),
            None => return Err(ContigError::NoRange),
        }
        self.prepare_contig(first, pages, gfp);
        Ok(())
    }

    /// Does what the flags and the settings want done to pages that have just been taken.
    pub(super) fn prepare_contig(&self, first: Page, pages: u32, gfp: Gfp) {
        self.scrub_allocated(first, u64::from(pages), gfp, || self.hal().caller());
        if gfp.contains(Gfp::ZERO) {
            self.hal.zero(Internal::CALL, self.hal.map().phys(first), u64::from(pages));
        }
    }

    /// Finds `pages` contiguous pages and allocates them (Linux: `alloc_contig_pages`). The physical address of the first
    /// one is a multiple of `align` pages, a power of two. Takes from the highest zone that the flags admit, and there the
    /// lowest such range, but nothing of the contiguous areas ([`PageAllocator::cma_alloc`]). Context and cost as for [`PageAllocator::alloc_contig_range`], for every range that is tried;
    /// free ranges are told by their blocks.
    ///
    /// # Errors
    ///
    /// [`ContigError::Empty`] for no pages; [`ContigError::NoRange`] if no range is free or `align` is no power of two;
    /// [`ContigError::Flags`].
    pub fn alloc_contig_pages(&self, pages: u32, align: u32, gfp: Gfp) -> Result<Page, ContigError> {
        gfp.check()?;
        if pages == 0 {
            return Err(ContigError::Empty);
        }
        let layout = self.layout().filter(|_| align.is_power_of_two()).ok_or(ContigError::NoRange)?;
        let gfp = self.without_illegal_wait(gfp, order_for(pages));
        if self.refuses(pages, gfp) {
            return Err(ContigError::NoRange);
        }
        self.drain_all();
        for id in layout.zonelist(gfp.zone()) {
            let span = self.with_zone(id, |zone, _| (zone.start, zone.end)).unwrap_or((0, 0));
            let mut from = span.0;
            while let Some(first) = self.with_zone(id, |zone, map| zone.find_range(map, from, pages, align)).flatten() {
                match self.alloc_isolated(first, pages, gfp) {
                    Ok(()) => return Ok(first),
                    Err(_) => from = first.index() + 1,
                }
            }
        }
        Err(ContigError::NoRange)
    }

    /// [`Self::free_contig_range`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_free_contig_range(&self, first: Page, pages: u32) -> Result<(), FreeError> {
        let map = self.hal.map();
        (0..pages).try_for_each(|index| {
            let page = first.offset(index);
            map.get_checked(page).ok_or(FreeError::NoDescriptor(map.phys(page)))?;
            self.do_free_pages(page, Order::ZERO)
        })
    }

    /// The one zone that all of a range lies in, with no hole and nothing reserved in it.
    pub(in crate::mm::zone) fn contig_zone(&self, first: Page, pages: u32) -> Result<ZoneId, ContigError> {
        let map = self.hal.map();
        if pages == 0 {
            return Err(ContigError::Empty);
        }
        let end = first.index().checked_add(pages).ok_or(ContigError::NoRange)?;
        let whole = |section: &&crate::mm::page::Section| section.first <= first.index() && end <= section.end;
        map.sections().iter().find(whole).ok_or(ContigError::NoRange)?;
        let inside = |zone: &mut Zone, _| zone.start <= first.index() && end <= zone.end;
        self.zone_ids().find(|id| self.with_zone(*id, inside) == Some(true)).ok_or(ContigError::NoRange)
    }

    /// Isolates the page blocks of a range: all or none.
    fn isolate(&self, zone: ZoneId, first: Page, pages: u32) -> Result<(), ContigError> {
        let isolated = self.with_zone(zone, |zone, map| {
            let fits =
                |block: Page| zone.whole_block(block).is_some() && block_type(map, block) != MigrateType::Isolate;
            if !page_blocks(first, pages).all(fits) {
                return false;
            }
            for block in page_blocks(first, pages) {
                let before = block_type(map, block);
                zone.retype(map, block, MigrateType::Isolate);
                remember(map, block, before);
            }
            true
        });
        if isolated == Some(true) { Ok(()) } else { Err(ContigError::Isolated) }
    }

    /// Gives the page blocks of a range the type that they had, and lets what is free in them merge again.
    fn undo_isolate(&self, zone: ZoneId, first: Page, pages: u32) {
        let _ = self.with_zone(zone, |zone, map| {
            for block in page_blocks(first, pages) {
                let before = recall(map, block);
                set_block_type(map, block, MigrateType::Isolate);
                zone.retype(map, block, before);
            }
            page_blocks(first, pages).for_each(|block| zone.rejoin(map, block));
        });
    }
}

/// Keeps the type that a page block has while it is isolated, beside the mark.
fn remember<M: PageMap>(map: M, block: Page, before: MigrateType) {
    let both = MigrateType::Isolate as u8 | (before as u8) << MigrateType::BITS;
    map.block_type(block).store(both, core::sync::atomic::Ordering::Relaxed);
}

fn recall<M: PageMap>(map: M, block: Page) -> MigrateType {
    MigrateType::from_bits(map.block_type(block).load(core::sync::atomic::Ordering::Relaxed) >> MigrateType::BITS)
}

/// Whether a page block is kept for contiguous allocations, isolated for the moment or not.
pub(in crate::mm::zone) fn is_cma<M: PageMap>(map: M, page: Page) -> bool {
    let kind = block_type(map, page);
    kind == MigrateType::Cma || (kind == MigrateType::Isolate && recall(map, page) == MigrateType::Cma)
}

impl Zone {
    /// The first page of a run of free blocks that holds `pages` pages from a frame number on that is a multiple of
    /// `align`, at or above `from`.
    fn find_range<M: PageMap>(&self, map: M, from: u32, pages: u32, align: u32) -> Option<Page> {
        let mut start = None;
        for section in map.sections() {
            let mut at = section.first.max(self.start).max(from);
            let end = section.end.min(self.end);
            // A run does not go on in the next section.
            start = start.filter(|_: &u32| false);
            while at < end {
                let (head, state) = find_head(&map, Page::new(at))?;
                let after = head.index() + (1 << state.raw_order().min(MAX_ORDER));
                let kept = matches!(block_type(map, head), MigrateType::Isolate | MigrateType::Cma);
                if state.kind() == Kind::Free && !kept {
                    let first = match start {
                        Some(first) => first,
                        None => *start.insert(align_up(map, at, align)?),
                    };
                    if after.min(end) >= first && after.min(end) - first >= pages {
                        return Some(Page::new(first));
                    }
                } else {
                    start = None;
                }
                at = after;
            }
        }
        None
    }

    /// Takes the pages of a range off the free lists, or answers with one that is not free. In memory of contiguous
    /// allocations they are movable, whatever `mobility` says: freed, they wait on lists that only movable allocations
    /// take from.
    pub(super) fn alloc_range<M: PageMap>(
        &mut self,
        map: M,
        first: Page,
        pages: u32,
        mobility: Mobility,
    ) -> Result<(), Page> {
        let end = first.index() + pages;
        let mut at = first;
        while at.index() < end {
            match find_head(&map, at) {
                Some((head, state)) if state.kind() == Kind::Free => {
                    at = head.offset(1 << state.raw_order().min(MAX_ORDER));
                }
                _ => return Err(at),
            }
        }
        let mut at = first;
        while at.index() < end {
            let Some((head, state)) = find_head(&map, at) else { return Err(at) };
            let order = state.raw_order().min(MAX_ORDER);
            self.lists.remove(map, head, order, state.list());
            self.count_allocated(state.list(), 1 << order);
            let after = head.offset(1 << order);
            // The parts of the first and the last block outside the range go back, page by page: they merge by themselves.
            map.get(head).set_state(PageState::INSIDE);
            for index in head.index()..after.index() {
                let page = Page::new(index);
                if first.index() <= index && index < end {
                    // INVARIANT: CMA-1.
                    let mobility = if is_cma(map, page) { Mobility::Movable } else { mobility };
                    let list = PageState::list_number(self.id, mobility);
                    map.get(page).set_state(PageState::allocated(list, Order::ZERO));
                }
            }
            for index in (head.index()..after.index()).filter(|index| *index < first.index() || *index >= end) {
                self.free_block(map, Page::new(index), 0);
            }
            self.events.allocated += u64::from(after.index().min(end) - head.index().max(first.index()));
            at = after;
        }
        Ok(())
    }
}
