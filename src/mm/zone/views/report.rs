//! Reports for people: buddyinfo, zoneinfo, meminfo, pagetypeinfo, in Linux's format.
#![forbid(unsafe_code)]

use super::super::blocks::{Reach, block_type};
use super::super::pcp::Traffic;
use super::super::{Mark, PageAllocator, PageHal, Watermarks, ZoneEvents};
use crate::addr::{CpuId, MAX_ORDER, Order, PAGE_SHIFT, PhysRange};
use crate::gfp::ZoneType;
use crate::mm::page::{Kind, MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Page, PageMap, ZoneId};
use core::fmt;

const ORDERS: usize = MAX_ORDER as usize + 1;

/// State of a zone at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneSnapshot {
    /// Which.
    pub kind: ZoneType,
    /// The first page of its span, from the lowest page that has a descriptor.
    pub start: u32,
    /// Pages from the first to the last.
    pub spanned: u64,
    /// Pages of RAM.
    pub present: u64,
    /// Pages that belong to the allocator.
    pub managed: u64,
    /// Pages on the free lists.
    pub free: u64,
    /// Those of them that are kept for contiguous allocations.
    pub free_cma: u64,
    /// Those that are kept for atomic high orders.
    pub free_high_atomic: u64,
    /// Free pages that are isolated, and not among the free ones.
    pub free_isolated: u64,
    /// Pages in page blocks for contiguous allocations.
    pub cma: u64,
    /// Pages in page blocks for atomic high orders.
    pub high_atomic: u64,
    /// The watermarks, without the boost.
    pub marks: Watermarks,
    /// Pages by which the watermarks are raised.
    pub boost: u64,
    /// Pages kept from requests for higher zones, by [`ZoneType`].
    pub lowmem_reserve: [u64; ZoneType::COUNT],
    /// Events in it.
    pub events: ZoneEvents,
}

/// The free blocks of a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FreeBlocks {
    /// By migrate type and order.
    pub blocks: [[u32; ORDERS]; MigrateType::COUNT],
}

impl FreeBlocks {
    /// Free blocks of an order, of all types.
    #[must_use]
    pub fn blocks_of(&self, order: Order) -> u64 {
        self.blocks.iter().filter_map(|row| row.get(order.get() as usize)).map(|count| u64::from(*count)).sum()
    }

    /// Pages in all of them.
    #[must_use]
    pub fn pages(&self) -> u64 {
        (0..=MAX_ORDER).filter_map(Order::new).map(|order| self.blocks_of(order) << order.get()).sum()
    }

    /// How badly free memory is scattered for a request of `order`: 0 if lack of memory is what hurts, towards 1,000 if
    /// fragmentation is; `None` if the request could be served (Linux: `fragmentation_index`).
    #[must_use]
    pub fn fragmentation_index(&self, order: Order) -> Option<u64> {
        let all = (0..=MAX_ORDER).filter_map(Order::new);
        let (mut blocks, mut suitable) = (0, 0);
        for each in all {
            let found = self.blocks_of(each);
            blocks += found;
            suitable += if each >= order { found } else { 0 };
        }
        if suitable != 0 {
            return None;
        }
        let free = self.pages();
        let wanted = order.pages();
        match blocks {
            0 => Some(0),
            _ => Some(1000_u64.saturating_sub((1000 + free * 1000 / wanted) / blocks)),
        }
    }

    /// Of the free memory, what a request of `order` cannot use, in 1/1,000 (Linux: `unusable_free_index`).
    #[must_use]
    pub fn unusable_index(&self, order: Order) -> u64 {
        let free = self.pages();
        let all = (order.get()..=MAX_ORDER).filter_map(Order::new);
        let usable: u64 = all.map(|order| self.blocks_of(order) << order.get()).sum();
        ((free - usable) * 1000).checked_div(free).unwrap_or(1000)
    }
}

impl<H: PageHal> PageAllocator<H> {
    /// State of a zone now, or `None` for a zone without memory. Any context.
    #[must_use]
    pub fn zone(&self, kind: ZoneType) -> Option<ZoneSnapshot> {
        self.zone_ids().map(|id| self.snapshot(id)).find_map(|found| found.filter(|found| found.kind == kind))
    }

    /// The addresses from a zone's first page to its last, or `None` for a zone without memory. Any context.
    #[must_use]
    pub fn zone_span(&self, kind: ZoneType) -> Option<PhysRange> {
        let zone = self.zone(kind)?;
        PhysRange::from_size(self.hal().map().phys(Page::new(zone.start)), zone.spanned << PAGE_SHIFT)
    }

    /// The free blocks of a zone, or `None` for a zone without memory. Read off the descriptors without a lock, so while
    /// others allocate and free it is about right, and exact when nobody does. Any context. Cost: O(blocks).
    #[must_use]
    pub fn free_blocks(&self, kind: ZoneType) -> Option<FreeBlocks> {
        let zone = self.zone(kind)?;
        let map = self.hal().map();
        let end = u64::from(zone.start) + zone.spanned;
        let mut found = FreeBlocks::default();
        for section in map.sections() {
            let mut at = section.first.max(zone.start);
            while at < section.end && u64::from(at) < end {
                let state = map.get(Page::new(at)).state();
                let order = if state.kind().is_head() { state.order() } else { Order::ZERO };
                if state.kind() == Kind::Free
                    && let Some(row) = found.blocks.get_mut(state.list().index())
                    && let Some(count) = row.get_mut(order.get() as usize)
                {
                    *count += 1;
                }
                at = at.saturating_add(1 << order.get());
            }
        }
        Some(found)
    }

    pub(super) fn snapshot(&self, id: ZoneId) -> Option<ZoneSnapshot> {
        self.with_zone(id, |zone, _| ZoneSnapshot {
            kind: zone.kind,
            start: zone.start,
            spanned: zone.spanned(),
            present: zone.present,
            managed: zone.managed,
            free: zone.free,
            free_cma: zone.free_cma,
            free_high_atomic: zone.free_high_atomic,
            free_isolated: zone.free_isolated,
            cma: zone.cma,
            high_atomic: zone.high_atomic,
            marks: zone.marks,
            boost: zone.boost,
            lowmem_reserve: zone.reserve,
            events: zone.events,
        })
    }

    /// Pages allocated from a zone and freed to it since it was made, those of the per-CPU lists included (Linux:
    /// `pgalloc_*`, `pgfree`). Any context; exact while nobody allocates or frees.
    #[must_use]
    pub fn traffic(&self, kind: ZoneType) -> Option<Traffic> {
        let id = self.zone_ids().find(|id| self.layout().and_then(|layout| layout.kind(*id)) == Some(kind))?;
        let events = self.with_zone(id, |zone, _| zone.events)?;
        let mut traffic = Traffic { allocated: events.allocated, freed: events.freed };
        for local in (0..self.hal().cpus()).filter_map(|cpu| self.hal().local_of(CpuId::new(cpu))) {
            let own = H::pages(local).flow(id);
            traffic.allocated += own.allocated;
            traffic.freed += own.freed;
        }
        Some(traffic)
    }

    /// Whether a zone has free pages down to a mark, for a request of `order` without any privilege (Linux:
    /// `zone_watermark_ok`). Any context.
    #[must_use]
    pub fn watermark_ok(&self, kind: ZoneType, order: Order, mark: Mark) -> bool {
        let reach = Reach::empty();
        self.zone_ids().any(|id| {
            self.with_zone(id, |zone, _| zone.kind == kind && zone.allows(order.get(), mark, kind, reach)) == Some(true)
        })
    }

    /// Free blocks by order, as `/proc/buddyinfo` shows them.
    pub const fn buddyinfo(&self) -> BuddyInfo<'_, H> {
        BuddyInfo(self)
    }

    /// All about every zone, as `/proc/zoneinfo` shows it.
    pub const fn zoneinfo(&self) -> ZoneInfo<'_, H> {
        ZoneInfo(self)
    }

    /// Memory in use, as `/proc/meminfo` shows it, for what the page allocator knows.
    pub const fn meminfo(&self) -> MemInfo<'_, H> {
        MemInfo(self)
    }

    /// Free blocks and page blocks by migrate type, as `/proc/pagetypeinfo` shows them.
    pub const fn pagetypeinfo(&self) -> PageTypeInfo<'_, H> {
        PageTypeInfo(self)
    }

    /// The zones, the lowest first, as Linux lists them.
    fn ascending(&self) -> impl Iterator<Item = ZoneSnapshot> {
        ZoneType::ALL.into_iter().filter_map(|kind| self.zone(kind))
    }
}

/// Prints `/proc/buddyinfo`.
pub struct BuddyInfo<'a, H: PageHal>(&'a PageAllocator<H>);

impl<H: PageHal> fmt::Display for BuddyInfo<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for zone in self.0.ascending() {
            write!(f, "Node 0, zone {:>8} ", zone.kind.name())?;
            let free = self.0.free_blocks(zone.kind).unwrap_or_default();
            for order in (0..=MAX_ORDER).filter_map(Order::new) {
                write!(f, "{:>6} ", free.blocks_of(order))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Prints `/proc/zoneinfo`.
pub struct ZoneInfo<'a, H: PageHal>(&'a PageAllocator<H>);

impl<H: PageHal> fmt::Display for ZoneInfo<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in ZoneType::ALL {
            writeln!(f, "Node 0, zone {:>8}", kind.name())?;
            let Some(zone) = self.0.zone(kind) else {
                writeln!(f, "  pages free     0\n        spanned  0\n        present  0\n        managed  0")?;
                continue;
            };
            writeln!(f, "  pages free     {}", zone.free)?;
            for (name, value) in [
                ("boost", zone.boost),
                ("min", zone.marks.min),
                ("low", zone.marks.low),
                ("high", zone.marks.high),
                ("spanned", zone.spanned),
                ("present", zone.present),
                ("managed", zone.managed),
                ("cma", zone.cma),
            ] {
                writeln!(f, "        {name:<8} {value}")?;
            }
            let [dma, dma32, normal] = zone.lowmem_reserve;
            writeln!(f, "        protection: ({dma}, {dma32}, {normal})")?;
            for (name, value) in [
                ("nr_free_pages", zone.free),
                ("nr_free_cma", zone.free_cma),
                ("nr_free_highatomic", zone.free_high_atomic),
                ("nr_isolated", zone.free_isolated),
                ("pgalloc_direct", zone.events.allocated),
                ("pgfree_direct", zone.events.freed),
                ("pcp_batches", zone.events.pcp_batches),
                ("pageblocks_stolen", zone.events.stolen_blocks),
                ("extfrag_mixed", zone.events.mixed),
            ] {
                writeln!(f, "      {name:<12} {value}")?;
            }
            self.0.write_pagesets(kind, f)?;
            // No counter waits on a CPU to be added up, and a zone that cannot be reclaimed is not given up.
            writeln!(f, "  node_unreclaimable:  0")?;
            writeln!(f, "  start_pfn:           {}", self.0.hal().map().pfn(Page::new(zone.start)).get())?;
        }
        Ok(())
    }
}

impl<H: PageHal> PageAllocator<H> {
    fn write_pagesets(&self, kind: ZoneType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = self.layout();
        let id = self.zone_ids().find(|id| layout.and_then(|layout| layout.kind(*id)) == Some(kind));
        let (Some(id), Some(layout)) = (id, layout) else { return Ok(()) };
        writeln!(f, "  pagesets")?;
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            writeln!(f, "    cpu: {}", cpu.get())?;
            writeln!(f, "              count:    {}", self.listed_pages(cpu, id))?;
            writeln!(f, "              high:     {}", layout.high(id, Order::ZERO))?;
            writeln!(f, "              batch:    {}", layout.batch(id, Order::ZERO))?;
        }
        Ok(())
    }
}

/// Prints what the page allocator knows of `/proc/meminfo`; `Mem…`, `AnonPages` to `CmaFree` as Linux defines them, the
/// last five its own.
pub struct MemInfo<'a, H: PageHal>(&'a PageAllocator<H>);

impl<H: PageHal> fmt::Display for MemInfo<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.0;
        let sum = |value: fn(&ZoneSnapshot) -> u64| pages.ascending().map(|zone| value(&zone)).sum::<u64>();
        let listed: u64 = (0..pages.hal().cpus()).map(|cpu| pages.pages_on_lists(CpuId::new(cpu))).sum();
        let total = sum(|zone| zone.managed);
        let free = sum(|zone| zone.free);
        // Available without reclaim: free memory above the reserves.
        let kept = sum(|zone| zone.marks.high);
        // Damaged descriptors are for `check` to report; here they count as nothing.
        let census = pages.census().unwrap_or_default();
        for (name, value) in [
            ("MemTotal:", total),
            ("MemFree:", free),
            ("MemAvailable:", (free + listed).saturating_sub(kept)),
            ("AnonPages:", census.of(Kind::User)),
            ("Slab:", census.of(Kind::Slab)),
            ("PageTables:", census.of(Kind::PageTable)),
            ("VmallocTotal:", pages.hal().vmalloc_size() >> PAGE_SHIFT),
            ("VmallocUsed:", census.of(Kind::Vmalloc)),
            ("Percpu:", census.of(Kind::PerCpu)),
            ("CmaTotal:", sum(|zone| zone.cma)),
            ("CmaFree:", sum(|zone| zone.free_cma)),
            // Kinds for which Linux has no line.
            ("LargeKmalloc:", census.of(Kind::LargeKmalloc)),
            ("Dma:", census.of(Kind::Dma)),
            ("Unclaimed:", census.of(Kind::Block)),
            ("PcpFree:", listed),
            ("Accounted:", pages.accounted_pages()),
        ] {
            writeln!(f, "{name:<16}{:>8} kB", value * 4)?;
        }
        Ok(())
    }
}

/// Prints `/proc/pagetypeinfo`.
pub struct PageTypeInfo<'a, H: PageHal>(&'a PageAllocator<H>);

impl<H: PageHal> fmt::Display for PageTypeInfo<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Page block order: {PAGEBLOCK_ORDER}")?;
        writeln!(f, "Pages per block:  {PAGEBLOCK_PAGES}\n")?;
        write!(f, "{:<43} ", "Free pages count per migrate type at order")?;
        for order in 0..=MAX_ORDER {
            write!(f, "{order:>6} ")?;
        }
        writeln!(f)?;
        for zone in self.0.ascending() {
            let free = self.0.free_blocks(zone.kind).unwrap_or_default();
            for (kind, row) in MigrateType::ALL.iter().zip(&free.blocks) {
                write!(f, "Node {:>4}, zone {:>8}, type {:>12} ", 0, zone.kind.name(), kind.name())?;
                for count in row {
                    write!(f, "{count:>6} ")?;
                }
                writeln!(f)?;
            }
        }
        write!(f, "\n{:<23}", "Number of blocks type ")?;
        for kind in MigrateType::ALL {
            write!(f, "{:>12} ", kind.name())?;
        }
        writeln!(f)?;
        for zone in self.0.ascending() {
            write!(f, "Node {}, zone {:>8} ", 0, zone.kind.name())?;
            for count in self.0.block_types(&zone) {
                write!(f, "{count:>12} ")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl<H: PageHal> PageAllocator<H> {
    /// Page blocks of a zone by their type.
    fn block_types(&self, zone: &ZoneSnapshot) -> [u64; MigrateType::COUNT] {
        let map = self.hal().map();
        let mut counts = [0; MigrateType::COUNT];
        let span = u64::from(zone.start)..u64::from(zone.start) + zone.spanned;
        for section in map.sections() {
            for block in (section.first..section.end).step_by(PAGEBLOCK_PAGES as usize) {
                if span.contains(&u64::from(block)) {
                    let kind = block_type(map, Page::new(block));
                    if let Some(count) = counts.get_mut(kind.index()) {
                        *count += 1;
                    }
                }
            }
        }
        counts
    }
}
