//! The hand-over: memory comes from memblock, once, and is divided into zones and blocks.
#![forbid(unsafe_code)]

use super::super::blocks::{WatermarkTuning, Zone};
use super::super::error::SetupError;
use super::super::{ListSizes, PageAllocator, PageHal, ZoneLayout, ZoneLimits};
use crate::addr::{CpuId, MAX_ORDER, Order, PAGE_SIZE, Pfn, PhysRange};
use crate::gfp::ZoneType;
use crate::mm::page::{Kind, MigrateType, PAGEBLOCK_PAGES, Page, PageMap, PageState, Section, ZoneId};
use core::sync::atomic::Ordering;

/// Pages handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Handed {
    /// Zones that have memory.
    pub zones: usize,
    /// Pages that the allocator has.
    pub managed: u64,
    /// Pages of RAM.
    pub present: u64,
}

/// A run of pages.
#[derive(Clone, Copy)]
struct Run {
    first: u32,
    end: u32,
}

impl Run {
    const fn pages(self) -> u64 {
        (self.end - self.first) as u64
    }

    /// The run as the fewest aligned blocks, in ascending order.
    fn blocks(self) -> impl Iterator<Item = (Page, Order)> {
        let mut at = self.first;
        core::iter::from_fn(move || {
            let left = self.end - at;
            if left == 0 {
                return None;
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most 32")]
            let fits = at.trailing_zeros().min(u32::BITS - 1 - left.leading_zeros()).min(u32::from(MAX_ORDER)) as u8;
            let block = (Page::new(at), Order::new(fits)?);
            at += 1 << fits;
            Some(block)
        })
    }
}

impl<H: PageHal> PageAllocator<H> {
    /// [`Self::hand_over`], by this crate's own boot.
    pub(crate) fn do_hand_over(
        &self,
        ram: impl Iterator<Item = PhysRange> + Clone,
        free: impl Iterator<Item = PhysRange>,
        limits: ZoneLimits,
        tuning: WatermarkTuning,
    ) -> Result<Handed, SetupError> {
        if self.layout().is_some() {
            return Err(SetupError::Twice);
        }
        let map = self.hal.map();
        let run = |range: PhysRange| run_of(map, range);
        let banks = ram.filter_map(|bank| bank.align_inwards(PAGE_SIZE));
        for bank in banks.clone() {
            run(bank)?;
        }
        let (zones, order) = self.span_zones(map, banks.clone(), limits);
        if zones == 0 {
            return Err(SetupError::NoMemory);
        }
        let position = |range: PhysRange| order.iter().position(|kind| *kind == limits.zone_of(range.start()));
        let by_zone =
            |range: PhysRange| ZoneType::ALL.into_iter().filter_map(move |kind| range.intersection(limits.range(kind)));

        mark_holes(map, banks.clone().filter_map(|bank| run(bank).ok()));
        let mut free = free.filter_map(|range| range.align_inwards(PAGE_SIZE)).peekable();
        for bank in banks {
            let mut reserved_from = bank.start();
            while let Some(range) = free.next_if(|range| bank.contains_range(*range)) {
                let before = PhysRange::new(reserved_from, range.start()).unwrap_or_default();
                reserved_from = range.end();
                by_zone(before).for_each(|part| self.reserve_run(map, position(part), run(part).ok()));
                by_zone(range).for_each(|part| self.free_run(map, position(part), run(part).ok()));
            }
            let rest = PhysRange::new(reserved_from, bank.end()).unwrap_or_default();
            by_zone(rest).for_each(|part| self.reserve_run(map, position(part), run(part).ok()));
        }
        for section in map.sections() {
            for block in (section.first..section.end).step_by(PAGEBLOCK_PAGES as usize) {
                map.block_type(Page::new(block)).store(MigrateType::Movable as u8, Ordering::Relaxed);
            }
        }
        Ok(self.open(zones, order, tuning))
    }

    /// Finds out which zones have memory, and sets them up, the highest first: their number, and their kinds.
    fn span_zones(
        &self,
        map: H::Map,
        banks: impl Iterator<Item = PhysRange> + Clone,
        limits: ZoneLimits,
    ) -> (usize, [ZoneType; ZoneType::COUNT]) {
        let mut order = [ZoneType::Normal; ZoneType::COUNT];
        let mut count = 0;
        for kind in ZoneType::ALL.into_iter().rev() {
            let parts = || banks.clone().filter_map(|bank| bank.intersection(limits.range(kind)));
            let (Some(first), Some(last)) = (parts().next(), parts().last()) else { continue };
            let span = PhysRange::new(first.start(), last.end()).unwrap_or_default();
            let Some(span) = span_of(map, span) else { continue };
            #[expect(clippy::cast_possible_truncation, reason = "at most three")]
            let id = ZoneId::new(count as u8).unwrap_or(ZoneId::PREFERRED);
            if let (Some(zone), Some(place)) = (self.zones.get(count), order.get_mut(count)) {
                *zone.lock() = Zone {
                    id,
                    kind,
                    start: span.first,
                    end: span.end,
                    present: parts().map(|part| part.size() / PAGE_SIZE).sum(),
                    ..Zone::EMPTY
                };
                *place = kind;
                count += 1;
            }
        }
        (count, order)
    }

    /// Marks pages that stay with their owners.
    fn reserve_run(&self, map: H::Map, position: Option<usize>, run: Option<Run>) {
        #[expect(clippy::cast_possible_truncation, reason = "at most three")]
        let zone = position.and_then(|position| ZoneId::new(position as u8)).unwrap_or(ZoneId::PREFERRED);
        for (page, order) in run.into_iter().flat_map(Run::blocks) {
            map.get(page).set_state(PageState::outside(zone, order, Kind::Reserved));
        }
    }

    /// Gives pages to their zone. They are a free run as a whole, so nothing can merge.
    fn free_run(&self, map: H::Map, position: Option<usize>, run: Option<Run>) {
        let Some(zone) = position.and_then(|position| self.zones.get(position)) else { return };
        let Some(run) = run else { return };
        let saved = self.hal.save();
        let mut zone = zone.lock();
        let id = zone.id;
        zone.managed += run.pages();
        zone.count_freed(MigrateType::Movable, run.pages());
        for (page, order) in run.blocks() {
            zone.lists.push(map, id, page, order.get(), MigrateType::Movable);
        }
        drop(zone);
        self.hal.restore(saved);
    }

    /// Computes what depends on all zones, and lets allocations in.
    fn open(&self, zones: usize, kinds: [ZoneType; ZoneType::COUNT], tuning: WatermarkTuning) -> Handed {
        let mut handed = Handed { zones, ..Handed::default() };
        let mut sizes = [ListSizes::default(); ZoneType::COUNT];
        let mut spans = [(0, 0); ZoneType::COUNT];
        for ((zone, sizes), span) in self.zones.iter().zip(&mut sizes).zip(&mut spans).take(zones) {
            let zone = zone.lock();
            *span = (zone.start, zone.end);
            handed.managed += zone.managed;
            handed.present += zone.present;
            *sizes = ListSizes::new(zone.managed, self.hal.cpus());
        }
        let first = ZoneType::ALL.map(|class| {
            let found = kinds.iter().take(zones).position(|kind| *kind <= class);
            #[expect(clippy::cast_possible_truncation, reason = "at most three")]
            let position = found.unwrap_or(zones) as u8;
            position
        });
        #[expect(clippy::cast_possible_truncation, reason = "at most three")]
        let count = zones as u8;
        self.layout.call_once(|| ZoneLayout { count, kinds, first, spans, sizes });
        self.set_tuning(tuning);
        for cpu in (0..self.hal.cpus()).map(CpuId::new) {
            if let Some(local) = self.hal.local_of(cpu) {
                self.apply_limits(H::pages(local));
            }
        }
        handed
    }

    /// Computes the watermarks and the reserves of all zones anew (Linux: `setup_per_zone_wmarks`,
    /// `setup_per_zone_lowmem_reserve`). An allocation sees the old marks of a zone or the new ones, never a mixture.
    pub fn set_tuning(&self, tuning: WatermarkTuning) {
        let saved = self.hal.save();
        let mut current = self.tuning.lock();
        *current = tuning;
        let total = self.zones.iter().map(|zone| zone.lock_inside(&current).managed).sum();
        let min_pages = tuning.min_pages(total);
        // From the highest zone down: a zone keeps a share of the pages above it from requests that could use those.
        let mut above = [0_u64; ZoneType::COUNT];
        for zone in &self.zones {
            let mut zone = zone.lock_inside(&current);
            zone.marks = tuning.marks(zone.managed, total, min_pages);
            zone.boost_factor = tuning.boost_factor;
            zone.boost = 0;
            let ratio = tuning.lowmem_reserve_ratio.get(zone.kind.index()).copied().unwrap_or(0);
            for (reserve, above) in zone.reserve.iter_mut().zip(&above) {
                *reserve = above.checked_div(ratio).unwrap_or(0);
            }
            let (kind, managed) = (zone.kind, zone.managed);
            for (class, above) in ZoneType::ALL.iter().zip(&mut above) {
                if *class >= kind {
                    *above += managed;
                }
            }
        }
        drop(current);
        self.hal.restore(saved);
        // A waiter may be content with less now.
        self.announce();
    }

    /// The settings from which the watermarks were computed.
    #[must_use]
    pub fn tuning(&self) -> WatermarkTuning {
        let saved = self.hal.save();
        let tuning = *self.tuning.lock();
        self.hal.restore(saved);
        tuning
    }
}

/// The pages of a range whose every page has a descriptor.
fn run_of<M: PageMap>(map: M, range: PhysRange) -> Result<Run, SetupError> {
    let first = Pfn::containing(range.start());
    let last = range.end().checked_sub(1).map_or(first, Pfn::containing);
    let missing = |pfn| SetupError::NoDescriptor(pfn);
    let (low, high) = (map.find(first).ok_or(missing(first))?, map.find(last).ok_or(missing(last))?);
    // The ends may lie in two sections with something between.
    let whole = |section: &&Section| section.first <= low.index() && high.index() < section.end;
    map.sections().iter().find(whole).ok_or(missing(first))?;
    Ok(Run { first: low.index(), end: high.index() + 1 })
}

/// The pages from the first to the last of a range, holes between them included.
fn span_of<M: PageMap>(map: M, range: PhysRange) -> Option<Run> {
    let last = range.end().checked_sub(PAGE_SIZE)?;
    let (first, last) = (map.find(Pfn::containing(range.start()))?, map.find(Pfn::containing(last))?);
    Some(Run { first: first.index(), end: last.index() + 1 })
}

/// Marks the pages of all sections that are not in `banks`, which are sorted.
fn mark_holes<M: PageMap>(map: M, banks: impl Iterator<Item = Run>) {
    let mut banks = banks.peekable();
    for section in map.sections() {
        let mut from = section.first;
        while let Some(bank) = banks.next_if(|bank| bank.first < section.end) {
            mark_hole(map, Run { first: from, end: bank.first });
            from = bank.end;
        }
        mark_hole(map, Run { first: from, end: section.end });
    }
}

fn mark_hole<M: PageMap>(map: M, hole: Run) {
    for (page, order) in hole.blocks() {
        // A hole belongs to no zone, but a damaged number must not make one.
        map.get(page).set_state(PageState::outside(ZoneId::PREFERRED, order, Kind::Hole));
    }
}
