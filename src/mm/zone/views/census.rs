//! The use of every page: one walk over the descriptors, from block to block, while others go on allocating.
#![forbid(unsafe_code)]

use super::super::error::ZoneBroken;
use super::super::{PageAllocator, PageHal, ZoneSnapshot};
use crate::addr::{CpuId, MAX_ORDER, PAGE_SIZE, PhysRange};
use crate::gfp::ZoneType;
use crate::mm::page::{Kind, Page, PageMap, PageState, SECTION_PAGES, ZoneId};
use core::fmt;

/// Walks after which a difference is believed that is larger than what other CPUs may be in the middle of: an operation
/// under way during one walk has mostly finished by the next.
const WALKS: u32 = 4;
/// Pages that one CPU can be moving at a moment, out of one count and not yet in the other: a batch, or a block.
const IN_FLIGHT: u64 = 1 << MAX_ORDER;
/// Looks at a descriptor that is no head where one has to be, before that is believed: its owner may be splitting the
/// block, and the new heads are about to become visible.
const LOOKS: u32 = 1 << 10;

/// Pages by what they are used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    pages: [u64; Kind::COUNT],
}

impl Usage {
    /// Pages in blocks of this kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.pages.get(kind as usize).copied().unwrap_or(0)
    }

    /// Pages in blocks of the kinds that `which` names.
    #[must_use]
    pub fn sum(&self, which: impl Fn(Kind) -> bool) -> u64 {
        Kind::ALL.into_iter().filter(|kind| which(*kind)).map(|kind| self.of(kind)).sum()
    }

    /// Pages that belong to the allocator: free, on per-CPU lists, or allocated.
    #[must_use]
    pub fn managed(&self) -> u64 {
        self.sum(is_managed)
    }

    fn add(&mut self, kind: Kind, pages: u64) {
        if let Some(count) = self.pages.get_mut(kind as usize) {
            *count += pages;
        }
    }
}

const fn is_managed(kind: Kind) -> bool {
    kind.is_allocated() || matches!(kind, Kind::Free | Kind::Pcp)
}

/// Coarse use of a run of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stock {
    /// The allocator's: free or allocated.
    Managed,
    /// RAM that was in use before there was an allocator.
    Reserved,
    /// No RAM, or RAM that the kernel may not touch.
    Hole,
}

/// Use of the pages of one zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneCensus {
    /// The zone with its counters, as they were when the walk had passed it.
    pub zone: ZoneSnapshot,
    /// Use by descriptor.
    pub usage: Usage,
    /// Pages that the per-CPU lists have.
    pub listed: u64,
    /// Pages that may have changed hands while the zone was walked: the most by which descriptors and counters can
    /// differ. 0 if the zone was quiet.
    pub moved: u64,
}

impl ZoneCensus {
    /// Compares the descriptors with the counters.
    ///
    /// # Errors
    ///
    /// The first sum that is wrong.
    pub fn check(&self) -> Result<(), Miscount> {
        let zone = self.zone.kind;
        let compare = |what, found: u64, counted: u64, slack: u64| {
            let same = found.abs_diff(counted) <= slack;
            if same { Ok(()) } else { Err(Miscount::Zone { zone, what, found, counted, slack }) }
        };
        let present = self.usage.managed() + self.usage.of(Kind::Reserved);
        compare("present", present, self.zone.present, 0)?;
        compare("managed", self.usage.managed(), self.zone.managed, self.moved)?;
        compare("free", self.usage.of(Kind::Free), self.zone.free + self.zone.free_isolated, self.moved)?;
        compare("on per-CPU lists", self.usage.of(Kind::Pcp), self.listed, self.moved)
    }
}

/// Use of every page of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// By zone, the lowest first; `None` for zones without memory.
    pub zones: [Option<ZoneCensus>; ZoneType::COUNT],
}

impl Census {
    /// The zones that have memory, the lowest first.
    pub fn zones(&self) -> impl Iterator<Item = &ZoneCensus> {
        self.zones.iter().flatten()
    }

    /// Pages in blocks of this kind, in all zones.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.zones().map(|zone| zone.usage.of(kind)).sum()
    }

    /// Pages that belong to the allocator.
    #[must_use]
    pub fn managed(&self) -> u64 {
        self.zones().map(|zone| zone.usage.managed()).sum()
    }

    /// Pages that the descriptors call reserved.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.of(Kind::Reserved)
    }

    /// Compares the descriptors of every zone with its counters.
    ///
    /// # Errors
    ///
    /// The first sum that is wrong.
    pub fn check(&self) -> Result<(), Miscount> {
        self.zones().try_for_each(ZoneCensus::check)
    }
}

/// The pages do not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Miscount {
    /// A descriptor makes no sense.
    Descriptor(ZoneBroken),
    /// The descriptors of a zone and its counters differ.
    Zone {
        /// Which zone.
        zone: ZoneType,
        /// Which pages.
        what: &'static str,
        /// How many the descriptors say.
        found: u64,
        /// How many the counter says.
        counted: u64,
        /// How much of the difference others may have caused meanwhile.
        slack: u64,
    },
}

impl From<ZoneBroken> for Miscount {
    fn from(broken: ZoneBroken) -> Self {
        Self::Descriptor(broken)
    }
}

impl fmt::Display for Miscount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor(broken) => broken.fmt(f),
            Self::Zone { zone, what, found, counted, slack } => {
                let zone = zone.name();
                write!(f, "zone {zone}: {found} pages are {what}, and its counter says {counted} (± {slack})")
            }
        }
    }
}

impl core::error::Error for Miscount {}

/// The pages of a zone's span.
#[derive(Clone, Copy, Default)]
struct Span {
    id: Option<ZoneId>,
    start: u32,
    end: u32,
}

impl<H: PageHal> PageAllocator<H> {
    /// Counts what every page is used for. Any context, on any CPU, while others allocate and free.
    ///
    /// Descriptors are read from block to block: one for each block, whatever its order. Boundaries of blocks of a zone
    /// change only under its lock, or by splitting a block in an order that shows a reader whole blocks, so the walk
    /// holds the lock, interrupts masked, for one section (4 MiB, at most 1,024 reads) at a time. Each page is counted
    /// once, so the sum over all kinds is exact at any time; what the kinds have is as of the moment at which the walk
    /// passed, and exact if nothing moved. Then it must agree with the counters to the page; otherwise to what the
    /// traffic counters say has moved. A difference counts when several walks in a row have found one, beyond the 1,024
    /// pages that each other CPU may be in the middle of moving: one that its host does not run can stay there.
    ///
    /// Cost: O(blocks).
    ///
    /// # Errors
    ///
    /// [`Miscount`]: descriptors that make no sense, or that disagree with the counters.
    pub fn census(&self) -> Result<Census, Miscount> {
        let mut walks = 1;
        loop {
            let mut census = self.count_once()?;
            match census.check() {
                Ok(()) => return Ok(census),
                Err(_) if walks == WALKS => {
                    let in_flight = self.others_online() * IN_FLIGHT;
                    census.zones.iter_mut().flatten().for_each(|zone| zone.moved += in_flight);
                    return census.check().map(|()| census);
                }
                Err(_) => walks += 1,
            }
        }
    }

    /// Shows `f` all pages that have a descriptor as runs of one stock, by ascending address, none empty. Any context,
    /// as [`PageAllocator::census`]. `f` runs with a zone's lock held: it allocates and frees nothing.
    ///
    /// # Errors
    ///
    /// [`ZoneBroken`]: a descriptor makes no sense.
    pub fn for_each_run(&self, mut f: impl FnMut(PhysRange, Stock)) -> Result<(), ZoneBroken> {
        let mut run: Option<(PhysRange, Stock)> = None;
        self.for_each_block(|block, state| {
            let stock = match state.kind() {
                Kind::Reserved => Stock::Reserved,
                Kind::Hole => Stock::Hole,
                _ => Stock::Managed,
            };
            run = match run {
                Some((before, same)) if same == stock && before.end() == block.start() => {
                    PhysRange::new(before.start(), block.end()).map(|both| (both, stock))
                }
                before => {
                    before.into_iter().for_each(|(range, stock)| f(range, stock));
                    Some((block, stock))
                }
            };
        })?;
        run.into_iter().for_each(|(range, stock)| f(range, stock));
        Ok(())
    }

    /// Shows `f` every block that has a descriptor, by ascending address, with its state at the moment at which the walk
    /// passes. Any context, as [`PageAllocator::census`]: a zone is locked for one section at a time. `f` runs with that lock
    /// held: it allocates and frees nothing.
    ///
    /// # Errors
    ///
    /// [`ZoneBroken`]: a descriptor makes no sense.
    pub fn for_each_block(&self, mut f: impl FnMut(PhysRange, PageState)) -> Result<(), ZoneBroken> {
        let map = self.hal().map();
        self.walk_blocks(&mut |page, state| {
            if let Some(block) = PhysRange::from_size(map.phys(page), PAGE_SIZE << state.raw_order()) {
                f(block, state);
            }
        })
    }

    /// CPUs beside this one that may be allocating.
    fn others_online(&self) -> u64 {
        let here = self.hal().cpu();
        let cpus = (0..self.hal().cpus()).map(CpuId::new);
        cpus.filter(|cpu| *cpu != here && self.hal().is_online(*cpu)).count() as u64
    }

    fn count_once(&self) -> Result<Census, ZoneBroken> {
        let before = self.each_zone(|id| self.moves(id));
        let mut usage = [Usage::default(); ZoneType::COUNT];
        self.walk_blocks(&mut |_, state| {
            // A hole belongs to no zone, whatever its descriptor says.
            let zone = state.zone().filter(|_| state.kind() != Kind::Hole);
            if let Some(usage) = zone.and_then(|zone| usage.get_mut(zone.index())) {
                usage.add(state.kind(), 1 << state.raw_order());
            }
        })?;
        let mut census = Census::default();
        let found = self.zone_ids().zip(&usage).zip(&before);
        for ((id, usage), before) in found {
            let Some(zone) = self.snapshot(id) else { continue };
            let listed = self.listed(id);
            let moved = self.moves(id).wrapping_sub(*before);
            if let Some(place) = census.zones.get_mut(zone.kind.index()) {
                *place = Some(ZoneCensus { zone, usage: *usage, listed, moved });
            }
        }
        Ok(census)
    }

    /// Pages of a zone on all per-CPU lists.
    fn listed(&self, id: ZoneId) -> u64 {
        (0..self.hal().cpus()).map(|cpu| self.listed_pages(CpuId::new(cpu), id)).sum()
    }

    /// At least as many pages as have changed hands in a zone since it was made: those allocated and freed, and for each
    /// batch between the zone and a per-CPU list the most that one can be.
    fn moves(&self, id: ZoneId) -> u64 {
        let Some(events) = self.with_zone(id, |zone, _| zone.events) else { return 0 };
        let kind = self.layout().and_then(|layout| layout.kind(id));
        let traffic = kind.and_then(|kind| self.traffic(kind)).unwrap_or_default();
        let batches = events.pcp_batches.wrapping_mul(IN_FLIGHT);
        traffic.allocated.wrapping_add(traffic.freed).wrapping_add(batches)
    }

    fn each_zone<T: Copy + Default>(&self, f: impl Fn(ZoneId) -> T) -> [T; ZoneType::COUNT] {
        let mut all = [T::default(); ZoneType::COUNT];
        self.zone_ids().zip(&mut all).for_each(|(id, place)| *place = f(id));
        all
    }

    /// Shows `visit` every block by ascending address, a zone locked for a section at a time.
    fn walk_blocks(&self, visit: &mut impl FnMut(Page, PageState)) -> Result<(), ZoneBroken> {
        // A zone's span is for good.
        let spans = self.each_zone(|id| {
            let ends = self.with_zone(id, |zone, _| (zone.start, zone.end)).unwrap_or_default();
            Span { id: Some(id), start: ends.0, end: ends.1 }
        });
        for section in self.hal().map().sections() {
            let mut at = section.first;
            while at < section.end {
                let stretch = (at + 1).next_multiple_of(SECTION_PAGES).min(section.end);
                let inside = spans.iter().find(|span| span.start <= at && at < span.end);
                at = match inside.and_then(|span| span.id.map(|id| (id, span.end))) {
                    Some((id, end)) => {
                        let end = stretch.min(end);
                        self.with_zone(id, |_, map| walk_stretch::<H>(map, at, end, visit)).unwrap_or(Ok(end))?
                    }
                    None => {
                        // Between zones there are holes, which nobody changes.
                        let next = spans.iter().map(|span| span.start).filter(|start| *start > at).min();
                        let end = next.map_or(stretch, |next| next.min(stretch));
                        walk_stretch::<H>(self.hal().map(), at, end, visit)?
                    }
                };
            }
        }
        Ok(())
    }
}

/// Shows `visit` the blocks from `at` to `end`: one past the last of them.
fn walk_stretch<H: PageHal>(
    map: H::Map,
    at: u32,
    end: u32,
    visit: &mut impl FnMut(Page, PageState),
) -> Result<u32, ZoneBroken> {
    let mut at = at;
    while at < end {
        let page = Page::new(at);
        let state = settled::<H>(map, page);
        let order = state.raw_order();
        if !state.kind().is_head() {
            return Err(ZoneBroken { tag: "PAGE-1", page: Some(page), what: "a page of no block" });
        }
        if order > MAX_ORDER || !page.is_aligned(order) {
            let what = "a block that is not aligned to its size";
            return Err(ZoneBroken { tag: "PAGE-2", page: Some(page), what });
        }
        visit(page, state);
        at += 1 << order;
    }
    Ok(at)
}

/// The state of a page that starts a block, or will in a moment.
fn settled<H: PageHal>(map: H::Map, page: Page) -> PageState {
    let look = || map.get(page).state();
    let mut state = look();
    for _ in 0..LOOKS {
        if state.kind().is_head() {
            break;
        }
        H::relax();
        state = look();
    }
    state
}
