//! The invariants as code, by their tags: every list, every descriptor, every counter.
#![forbid(unsafe_code)]

use super::super::blocks::{Zone, block_type};
use super::super::contiguous::{contiguous_run, is_cma};
use super::super::error::ZoneBroken;
use super::super::pcp::{CpuPages, zone_of};
use super::super::{PageAllocator, PageHal};
use crate::addr::{CpuId, MAX_ORDER, Order};
use crate::gfp::{Mobility, ZoneType};
use crate::mm::page::{
    Kind, MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Page, PageMap, PageState, SECTION_PAGES, ZoneId,
};

/// Sums over the descriptors of one zone.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// Free blocks by type and order.
    blocks: [[u32; MAX_ORDER as usize + 1]; MigrateType::COUNT],
    /// Blocks on per-CPU lists.
    listed: u64,
    /// Pages of RAM.
    present: u64,
    /// Pages of RAM that were never the allocator's.
    reserved: u64,
    /// Pages of the span that are no RAM, with a descriptor and without.
    holes: u64,
    /// Pages of accounted blocks.
    accounted: u64,
    /// Pages in page blocks of these types.
    cma: u64,
    high_atomic: u64,
}

const fn broken(tag: &'static str, page: Page, what: &'static str) -> ZoneBroken {
    ZoneBroken { tag, page: Some(page), what }
}

const fn unequal(tag: &'static str, what: &'static str) -> ZoneBroken {
    ZoneBroken { tag, page: None, what }
}

impl<H: PageHal> PageAllocator<H> {
    /// Tests every invariant of the page allocator: walks every descriptor, every free list and every per-CPU list, and
    /// compares all counters with what it finds. Nothing may be allocated or freed meanwhile, on any CPU.
    /// Cost: O(pages).
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, and where.
    pub fn check(&self) -> Result<(), ZoneBroken> {
        check_map(self.hal.map())?;
        let tallies = self.check_descriptors()?;
        if tallies.iter().map(|tally| tally.accounted).sum::<u64>() != self.accounted_pages() {
            return Err(unequal("PAGE-5", "accounted pages, and their counter"));
        }
        let mut listed = [0_u64; ZoneType::COUNT];
        for cpu in (0..self.hal.cpus()).map(CpuId::new) {
            if let Some(local) = self.hal.local_of(cpu) {
                self.check_cpu(H::pages(local), &mut listed)?;
            }
        }
        for (id, tally) in self.zone_ids().zip(&tallies) {
            if listed.get(id.index()) != Some(&tally.listed) {
                return Err(unequal("PCP-1", "blocks that say they are on a per-CPU list, and blocks on the lists"));
            }
            self.with_zone(id, |zone, map| zone.check(map, tally)).unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Walks the descriptors block by block: `PAGE-1` to `PAGE-4`, `ZONE-4`, and what `PAGE-5` and `ZONE-2` add up.
    fn check_descriptors(&self) -> Result<[Tally; ZoneType::COUNT], ZoneBroken> {
        let map = self.hal.map();
        let mut tallies = [Tally::default(); ZoneType::COUNT];
        let mut described = 0;
        for section in map.sections() {
            self.count_holes(&mut tallies, described, section.first);
            described = section.end;
            let mut at = section.first;
            while at < section.end {
                let page = Page::new(at);
                let state = map.get(page).state();
                let pages = self.check_block(map, page, state)?;
                check_cma(map, page, state)?;
                if state.kind() == Kind::Hole {
                    self.count_holes(&mut tallies, at, at + pages);
                } else if let Some(tally) = state.zone().and_then(|zone| tallies.get_mut(zone.index())) {
                    tally.count(state, pages);
                }
                at += pages;
            }
            for block in (section.first..section.end).step_by(PAGEBLOCK_PAGES as usize) {
                let page = Page::new(block);
                let zone = self.zone_holding(page);
                let Some(tally) = zone.and_then(|zone| tallies.get_mut(zone.index())) else { continue };
                match block_type(map, page) {
                    MigrateType::Cma => tally.cma += u64::from(PAGEBLOCK_PAGES),
                    MigrateType::HighAtomic => tally.high_atomic += u64::from(PAGEBLOCK_PAGES),
                    _ => {}
                }
            }
        }
        Ok(tallies)
    }

    /// Counts the pages from `first` to `end`, which are no RAM, for the zones whose spans they lie in.
    fn count_holes(&self, tallies: &mut [Tally; ZoneType::COUNT], first: u32, end: u32) {
        for (id, tally) in self.zone_ids().zip(tallies) {
            let within = |zone: &mut Zone| end.min(zone.end).saturating_sub(first.max(zone.start));
            tally.holes += u64::from(self.with_zone(id, |zone, _| within(zone)).unwrap_or(0));
        }
    }

    /// The zone whose span holds a page.
    fn zone_holding(&self, page: Page) -> Option<ZoneId> {
        self.zone_ids().find(|id| self.with_zone(*id, |zone, _| zone.contains(page)).unwrap_or(false))
    }

    /// Tests one block, and answers how many pages it has.
    fn check_block(&self, map: H::Map, page: Page, state: PageState) -> Result<u32, ZoneBroken> {
        if !state.kind().is_head() {
            return Err(broken("PAGE-1", page, "a page of no block"));
        }
        let order = state.raw_order();
        if order > MAX_ORDER || !page.is_aligned(order) {
            return Err(broken("PAGE-2", page, "a block that is not aligned to its size"));
        }
        let pages = 1_u32 << order;
        let last = page.offset(pages - 1);
        let zone = state.zone();
        if state.kind() != Kind::Hole {
            let within = |zone: &mut Zone, _| (zone.contains(page), zone.contains(last));
            match zone.and_then(|zone| self.with_zone(zone, within)) {
                Some((true, true)) => {}
                Some((true, false)) => return Err(broken("ZONE-4", page, "a block that reaches outside its zone")),
                _ => return Err(broken("PAGE-2", page, "a block that does not lie in its zone")),
            }
        }
        if state.kind().is_allocated() != (state.references() != 0) {
            return Err(broken("PAGE-3", page, "references to a block that is not allocated, or none to one that is"));
        }
        if (state.kind().is_allocated() || state.kind() == Kind::Pcp) && state.mobility().is_none() {
            return Err(broken("PAGE-3", page, "a block of no use"));
        }
        if state.kind() != Kind::Free && state.has_unknown_bits() {
            return Err(broken("PAGE-3", page, "a block with bits that nobody sets"));
        }
        for index in 1..pages {
            let inner = page.offset(index);
            let found = map.get(inner).state();
            let (expected, linked) = match state.is_compound() {
                true => (PageState::TAIL, map.get(inner).next() == page.index()),
                false => (PageState::INSIDE, true),
            };
            if found != expected {
                return Err(broken("PAGE-1", inner, "a page inside a block that says something else"));
            }
            if !linked {
                return Err(broken("PAGE-4", inner, "a tail that does not lead to its head"));
            }
        }
        Ok(pages)
    }

    /// Tests the lists and reserves of one CPU: `PCP-1`, `PCP-2`, `PCP-3`; counts their blocks by zone.
    fn check_cpu(&self, pages: &CpuPages, listed: &mut [u64; ZoneType::COUNT]) -> Result<(), ZoneBroken> {
        let map = self.hal.map();
        for order in (0..=MAX_ORDER).filter_map(Order::new) {
            let Some(lists) = pages.lists(order) else { continue };
            for list in 0..PageState::LISTS {
                let (count, room) = lists.level(list);
                let length = count + room;
                if length > lists.capacity() {
                    return Err(unequal("PCP-2", "a list that takes more than it holds"));
                }
                // A CPU that has never been asked for its pages takes none yet, and one that has not answered may still
                // have the length of before.
                if length != 0
                    && length != self.list_length(list, order).min(lists.capacity())
                    && !pages.drain_pending()
                {
                    return Err(unequal("PCP-2", "a list of another length than is right for its zone"));
                }
                for index in 0..count {
                    let Some(page) = lists.peek(list, index) else { continue };
                    if map.get_checked(page).map(|found| found.state()) != Some(PageState::on_pcp(list, order)) {
                        return Err(broken("PCP-1", page, "a block on a per-CPU list that says something else"));
                    }
                }
                if let Some(sum) = listed.get_mut(zone_of(list).index()) {
                    *sum += count as u64;
                }
            }
        }
        for list in 0..PageState::LISTS {
            let Some(reserve) = pages.reserve(list) else { continue };
            let state = PageState::on_pcp(list, Order::ZERO);
            let mut chain = reserve.chain(state);
            for _ in 0..reserve.count() {
                let at = chain.front();
                let found = map.get_checked(at).map(|found| found.state());
                if found != Some(state) || chain.pop(map).is_err() {
                    return Err(broken("PCP-3", at, "a page in a reserve that says something else"));
                }
            }
            if let Some(sum) = listed.get_mut(zone_of(list).index()) {
                *sum += u64::from(reserve.count());
            }
        }
        Ok(())
    }
}

/// Tests `CMA-1` and `CMA-2` of a block.
fn check_cma<M: PageMap>(map: M, page: Page, state: PageState) -> Result<(), ZoneBroken> {
    let in_use = state.kind().is_allocated() || state.kind() == Kind::Pcp;
    let stays = in_use && state.mobility() != Some(Mobility::Movable);
    if is_cma(map, page) && (stays || state.kind() == Kind::Reserved) {
        return Err(broken("CMA-1", page, "a block that nobody moves, in memory of contiguous allocations"));
    }
    match contiguous_run(map, page, state) {
        Some(Err(())) => Err(broken("CMA-2", page, "a page of a contiguous allocation without the others")),
        _ => Ok(()),
    }
}

/// Tests `MAP-1` and `MAP-2`: what the allocator takes for granted about which pages have descriptors.
fn check_map<M: PageMap>(map: M) -> Result<(), ZoneBroken> {
    let whole = |index: u32| index.is_multiple_of(SECTION_PAGES);
    if !map.origin().get().is_multiple_of(u64::from(SECTION_PAGES)) {
        return Err(unequal("MAP-2", "page 0 is no multiple of a section"));
    }
    let mut end = 0;
    for section in map.sections() {
        let page = Page::new(section.first);
        if end == 0 && section.first != 0 {
            return Err(broken("MAP-2", page, "the first section does not start at page 0"));
        }
        if section.first < end || section.end <= section.first || !whole(section.first) || !whole(section.end) {
            return Err(broken("MAP-1", page, "sections that are not in order"));
        }
        end = section.end;
    }
    Ok(())
}

impl Tally {
    /// Counts a block of RAM.
    fn count(&mut self, state: PageState, pages: u32) {
        let pages = u64::from(pages);
        match state.kind() {
            Kind::Reserved => self.reserved += pages,
            Kind::Free => {
                let row = self.blocks.get_mut(state.list().index());
                if let Some(count) = row.and_then(|row| row.get_mut(state.raw_order() as usize)) {
                    *count += 1;
                }
            }
            Kind::Pcp => self.listed += 1,
            _ => {}
        }
        self.present += pages;
        if state.kind().is_allocated() && state.is_accounted() {
            self.accounted += pages;
        }
    }

    fn blocks(&self, kind: MigrateType, order: u8) -> u32 {
        self.blocks.get(kind.index()).and_then(|row| row.get(order as usize)).copied().unwrap_or(0)
    }

    fn free(&self, kind: MigrateType) -> u64 {
        (0..=MAX_ORDER).map(|order| u64::from(self.blocks(kind, order)) << order).sum()
    }
}

impl Zone {
    /// Tests `BUD-1` to `BUD-4` and `ZONE-1` to `ZONE-3` against what the descriptors say.
    fn check<M: PageMap>(&self, map: M, tally: &Tally) -> Result<(), ZoneBroken> {
        for kind in MigrateType::ALL {
            for order in 0..=MAX_ORDER {
                self.check_list(map, order, kind, tally.blocks(kind, order))?;
            }
        }
        let marks = self.marks;
        if marks.min > marks.low || marks.low > marks.high || (self.managed != 0 && marks.min == 0) {
            return Err(unequal("ZONE-1", "watermarks that do not rise"));
        }
        if tally.present != self.present {
            return Err(unequal("ZONE-2", "pages of RAM, and their counter"));
        }
        if self.present + tally.holes != self.spanned() {
            return Err(unequal("ZONE-2", "present pages and holes, and the pages of the span"));
        }
        if self.managed + tally.reserved != self.present {
            return Err(unequal("ZONE-2", "managed and reserved pages, and present pages"));
        }
        let free: u64 = MigrateType::ALL.iter().map(|kind| tally.free(*kind)).sum();
        let counted = [
            (self.free_cma, tally.free(MigrateType::Cma)),
            (self.free_high_atomic, tally.free(MigrateType::HighAtomic)),
            (self.free_isolated, tally.free(MigrateType::Isolate)),
            (self.free + self.free_isolated, free),
            (self.cma, tally.cma),
            (self.high_atomic, tally.high_atomic),
        ];
        match counted.iter().all(|(counter, found)| counter == found) {
            true => Ok(()),
            false => Err(unequal("ZONE-3", "free pages on the lists, and their counters")),
        }
    }

    fn check_list<M: PageMap>(&self, map: M, order: u8, kind: MigrateType, blocks: u32) -> Result<(), ZoneBroken> {
        let expected = PageState::free(self.id, order, kind);
        let (mut at, mut before, mut length) = (self.lists.first(order, kind), Page::NIL, 0_u32);
        while let Some(page) = at {
            let descriptor = map.get_checked(page).ok_or(broken("BUD-1", page, "a free list that leaves memory"))?;
            if descriptor.state() != expected {
                return Err(broken("BUD-1", page, "a block on a free list that says something else"));
            }
            // No longer than there are such blocks: a circle ends here.
            if descriptor.prev() != before || length >= blocks {
                return Err(broken("BUD-2", page, "links that do not agree"));
            }
            self.check_merged(map, page, order, kind)?;
            before = page.index();
            length += 1;
            at = (descriptor.next() != Page::NIL).then_some(Page::new(descriptor.next()));
        }
        if length != blocks {
            return Err(unequal("BUD-1", "free blocks that are on no list"));
        }
        let marked = self.lists.filled(kind) >> order & 1 != 0;
        if marked == (length != 0) { Ok(()) } else { Err(unequal("BUD-3", "a list that is marked wrongly")) }
    }

    /// Tests that a free block could not have merged, and that it lies in a page block of its list's type.
    fn check_merged<M: PageMap>(&self, map: M, page: Page, order: u8, kind: MigrateType) -> Result<(), ZoneBroken> {
        let other = page.buddy(order);
        let own = block_type(map, page);
        if order < MAX_ORDER && map.get(other).state().is_free_buddy(self.id, order) {
            let kinds = [own, block_type(map, other)];
            let joinable = own == kinds[1] || kinds.iter().all(|kind| kind.is_mergeable());
            if order < PAGEBLOCK_ORDER || joinable {
                return Err(broken("BUD-4", page, "two free buddies"));
            }
        }
        if own != kind {
            return Err(broken("BUD-5", page, "a free block on the list of another type than its page block's"));
        }
        Ok(())
    }
}
