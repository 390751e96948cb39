//! The physical page allocator: zones, buddy system, per-CPU page lists (Linux: `mm/page_alloc.c`).
//!
//! Memory is divided into up to three **zones** by what devices reach it. A zone keeps its free memory as blocks of
//! 2^order pages on free lists, one for each order and migrate type; **watermarks** say how far it may be emptied, and
//! for whom. Each CPU keeps lists of free blocks of the usual orders, so that most calls touch no lock and no line that
//! another CPU writes; lists are filled from the zone, and drained into it, a batch at a time. Single pages that come back
//! in numbers wait in a **reserve** behind their list.
//!
//! ```text
//!   alloc_pages ── list of this CPU ── zone NORMAL ── zone DMA32 ── zone DMA ── Pressure: reclaim, wait, fail
//!   free_pages  ── list of this CPU ── zone of the page
//! ```
//!
//! The use of a block stands in the descriptor of its first page ([`crate::mm::page`]); there is no other record,
//! and no allocation behind an allocation.
//!
//! # Layers
//!
//! From the ground up: a folder imports from those above it in the table, from `hal.rs`, `pressure.rs` and `error.rs`.
//!
//! | folder | what lives there |
//! |---|---|
//! | `blocks` | the free blocks of a zone behind its lock: lists, buddy system, watermarks |
//! | `pcp` | the lists of one CPU |
//! | `contents` | what pages hold when they change hands |
//! | `contiguous` | many pages in a row: isolation, migration, contiguous areas |
//! | `setup` | how memory becomes the allocator's |
//! | `calls` | allocation, free, owners |
//! | `reclaim` | what frees memory when it is short |
//! | `views` | check, census, reports |
//!
//! # Words
//!
//! | verb | what moves |
//! |---|---|
//! | alloc, free | a block, out of the free lists of a zone or into them; for a caller, by way of a list of its CPU |
//! | pop, push | blocks, off a list or reserve of this CPU or onto it |
//! | refill | blocks, into an empty list: from its reserve, or from the zone |
//! | drain | blocks, out of lists and reserves into their zones |
//! | expand | the halves of a block that is larger than wanted, into the free lists |
//! | claim | nothing: the state of a block is changed so that it is the caller's alone |
//! | isolate | page blocks, out of reach of allocations, while a range is emptied |
//! | reserve, unreserve | page blocks, for atomic allocations of high order, and back |
//!
//! # Switches that make calls take the slow path
//!
//! | of | switch | set |
//! |---|---|---|
//! | a call | `COLD`, and a right to wait where waiting is not legal | by the caller |
//! | a block | a state for which `PageState::plain_list` has no list | by its owners: claims, references, memory type, account |
//! | a list of a CPU | a room of 0: what the fast path sees of the allocator's switches | when the CPU drains (`apply_limits`) |
//! | a zone | `short`: no reserve takes more of its pages | by a request that it had too little for; off by the next refill |
//! | the allocator | `careful` | by fault injection and [`Scrub`] |
//! | the allocator | `awaited` | while an allocation waits for a free |
//!
//! # Locks and contexts
//!
//! A CPU's lists are its own, and used with interrupts masked. Each zone has a lock, taken with interrupts masked, and
//! never two at a time. No lock is held while a method of [`Pressure`] runs. So allocating without the right to wait, and
//! freeing, are allowed everywhere: in interrupt handlers, with locks held, on any CPU.

mod blocks;

mod pcp;

mod error;
mod hal;
mod pressure;

mod contents;
mod contiguous;

mod setup;

mod calls;
mod reclaim;

mod views;

pub use blocks::{Mark, WatermarkTuning, Watermarks, ZoneEvents};
pub(in crate::mm) use calls::{Freeing, Way};
pub use calls::{PageBatch, SleepsInAtomic};
pub use contents::{PAGE_POISON, Scrub};
pub use contiguous::{CmaArea, CmaUsage, Mover};
pub use error::{AllocError, ContigError, FreeError, SetupError, ZoneBroken};
pub use hal::PageHal;
pub use pcp::{CpuPages, Traffic};
pub use pressure::{Pressure, Relief, Shortage};
pub use reclaim::{
    Balanced, MemReport, Notes, OomHook, OomReport, Purge, REGISTRY_PLACES, Reclaim, ReclaimEvents, ReclaimHal,
    Registration, Registry, RegistryError, Scanned, Shrinker, scoped_gfp,
};
pub use setup::{Handed, ZoneLimits};
pub use views::{
    BuddyInfo, Census, FreeBlocks, MemInfo, Miscount, PageTypeInfo, Stock, Usage, ZoneCensus, ZoneInfo, ZoneSnapshot,
};

use crate::addr::Order;
use crate::gfp::{Mobility, ZoneType};
use crate::mm::page::{Page, ZoneId};
use crate::sync::Once;
use crate::sync::{OrderedLock, class};
use blocks::Zone;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Blocks that move between a list and its zone at once, at most.
const PCP_BATCH_MAX: u32 = 64;

/// Description of the zones, once they are there: it never changes, so it is read without a lock.
#[derive(Debug)]
struct ZoneLayout {
    /// Zones that have memory.
    count: u8,
    /// The zones by position, the highest first.
    kinds: [ZoneType; ZoneType::COUNT],
    /// Where in the zonelist each kind of request starts, by `ZoneType`; `count` if no zone serves it.
    first: [u8; ZoneType::COUNT],
    /// The first page of each zone and one past its last, by position.
    spans: [(u32, u32); ZoneType::COUNT],
    /// How large per-CPU lists are, by position.
    sizes: [ListSizes; ZoneType::COUNT],
}

/// How large the per-CPU lists of a zone are, in pages.
#[derive(Clone, Copy, Debug, Default)]
struct ListSizes {
    /// Pages that move between a list and its zone at once: a power of two.
    batch: u32,
    /// Limit of a list of single pages; a list of blocks holds four times as much.
    high: u32,
    /// Limit of a list whose blocks are larger than that, or of a list with its reserve.
    share: u32,
}

impl ListSizes {
    /// For a zone of `managed` pages: a batch of at most 64 pages, lists of two batches, of eight where they are of blocks,
    /// and all lists of one order together at most an eighth of the zone (Linux: `zone_batchsize`, `zone_highsize`).
    fn new(managed: u64, cpus: u32) -> Self {
        let lists = u64::from(cpus.max(1)) * Mobility::COUNT as u64;
        let share = u32::try_from(managed / 8 / lists).unwrap_or(u32::MAX);
        let batch = (share / 2).checked_ilog2().map_or(0, |log| 1 << log).min(PCP_BATCH_MAX);
        Self { batch, high: 2 * batch, share }
    }
}

impl ZoneLayout {
    /// The zones that a request whose highest zone is `class` may use, in order.
    #[inline]
    fn zonelist(&self, class: ZoneType) -> impl Iterator<Item = ZoneId> + use<> {
        let first = self.first.get(class.index()).copied().unwrap_or(0);
        (first..self.count).filter_map(ZoneId::new)
    }

    fn kind(&self, id: ZoneId) -> Option<ZoneType> {
        self.kinds.get(id.index()).copied().filter(|_| id.index() < self.count as usize)
    }

    /// Whether a page lies between the first and the last of a zone.
    fn contains(&self, id: ZoneId, page: Page) -> bool {
        self.spans.get(id.index()).is_some_and(|(start, end)| (*start..*end).contains(&page.index()))
    }

    /// Blocks of this order that move between a list and the zone at once.
    fn batch(&self, id: ZoneId, order: Order) -> u32 {
        let batch = self.sizes.get(id.index()).map_or(0, |sizes| sizes.batch);
        if batch == 0 { 0 } else { (batch >> order.get()).max(1) }
    }

    /// Pages that may wait in the reserve behind a list of single pages.
    fn reserve(&self, id: ZoneId) -> u32 {
        self.sizes.get(id.index()).map_or(0, |sizes| sizes.share.saturating_sub(sizes.high))
    }

    /// Blocks of this order that a list holds at most.
    fn high(&self, id: ZoneId, order: Order) -> u32 {
        let Some(sizes) = self.sizes.get(id.index()) else { return 0 };
        if order == Order::ZERO {
            return sizes.high;
        }
        // Of blocks as many pages as a purge of vmalloc gives back at once. Two at least where that is little for the
        // zone: for who takes one or two and gives them back, again and again.
        (sizes.share.min(4 * sizes.high) >> order.get()).max((sizes.share >> order.get()).min(2))
    }
}

/// The page allocator of a machine: zones with their locks, over the descriptors and the CPUs that `H` reaches.
///
/// # Invariants
///
/// Those of [`PageDescriptor`](crate::mm::page::PageDescriptor) (`PAGE`), of the free lists (`BUD`), the zones (`ZONE`),
/// the per-CPU lists (`PCP`) and the contiguous areas (`CMA`); [`PageAllocator::check`] tests them all.
pub struct PageAllocator<H: PageHal> {
    hal: H,
    zones: [OrderedLock<Zone, class::Zone, H::Relax>; ZoneType::COUNT],
    layout: Once<ZoneLayout, H::Relax>,
    tuning: OrderedLock<WatermarkTuning, class::WatermarkTuning, H::Relax>,
    /// Pages whose blocks carry `ACCOUNT`.
    accounted: AtomicU64,
    careful: AtomicBool,
    /// A [`Scrub`], which is empty unless `careful`.
    scrub: AtomicU8,
    /// Contexts that wait for pages: while there are any, every call takes the slow path.
    awaited: AtomicU32,
    reclaimer_woken: AtomicBool,
    /// Zones that had too little for a request, until a list is filled from them again: no CPU keeps more pages of
    /// theirs in reserve meanwhile (Linux: `ZONE_BELOW_HIGH`).
    short: [AtomicBool; ZoneType::COUNT],
    /// Held while somebody uses the lists of a CPU that is not online.
    offline: OrderedLock<(), class::OfflineLists, H::Relax>,
}

impl<H: PageHal> PageAllocator<H> {
    /// An allocator without memory: it refuses everything until [`PageAllocator::hand_over`].
    pub const fn new(hal: H) -> Self {
        Self {
            hal,
            zones: [const { OrderedLock::new(Zone::EMPTY) }; ZoneType::COUNT],
            layout: Once::new(),
            tuning: OrderedLock::new(WatermarkTuning::DEFAULT),
            accounted: AtomicU64::new(0),
            careful: AtomicBool::new(false),
            scrub: AtomicU8::new(0),
            awaited: AtomicU32::new(0),
            reclaimer_woken: AtomicBool::new(false),
            short: [const { AtomicBool::new(false) }; ZoneType::COUNT],
            offline: OrderedLock::new(()),
        }
    }

    /// The machine.
    pub const fn hal(&self) -> &H {
        &self.hal
    }

    /// The machine, as long as nobody else has the allocator.
    pub const fn hal_mut(&mut self) -> &mut H {
        &mut self.hal
    }

    #[inline]
    fn layout(&self) -> Option<&ZoneLayout> {
        self.layout.get()
    }

    #[inline]
    fn is_careful(&self) -> bool {
        self.careful.load(Ordering::Relaxed) || self.is_awaited()
    }

    /// Whether somebody waits for pages.
    #[inline]
    fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) != 0
    }

    fn is_short(&self, id: ZoneId) -> bool {
        self.short.get(id.index()).is_some_and(|short| short.load(Ordering::Relaxed))
    }

    /// Notes whether a zone is short.
    fn set_short(&self, id: ZoneId, is_short: bool) {
        // Looked at first: the line is shared, and rarely changes.
        if let Some(short) = self.short.get(id.index()).filter(|short| short.load(Ordering::Relaxed) != is_short) {
            short.store(is_short, Ordering::Relaxed);
        }
    }

    /// Whether the caller's context may wait.
    pub(in crate::mm) fn may_wait(&self) -> bool {
        let saved = self.hal.save();
        let may = self.hal.may_wait(self.hal.local(), saved);
        self.hal.restore(saved);
        may
    }

    /// Runs `f` with a zone locked and interrupts masked; `None` if there is no such zone.
    fn with_zone<R>(&self, id: ZoneId, f: impl FnOnce(&mut Zone, H::Map) -> R) -> Option<R> {
        let layout = self.layout()?;
        let zone = self.zones.get(id.index()).filter(|_| id.index() < layout.count as usize)?;
        let saved = self.hal.save();
        let result = f(&mut zone.lock(), self.hal.map());
        self.hal.restore(saved);
        Some(result)
    }

    /// The zones that have memory, the highest first.
    fn zone_ids(&self) -> impl Iterator<Item = ZoneId> + use<H> {
        let count = self.layout().map_or(0, |layout| layout.count);
        (0..count).filter_map(ZoneId::new)
    }

    /// Pages that belong to the allocator, free or not (Linux: `totalram_pages`).
    #[must_use]
    pub fn total_pages(&self) -> u64 {
        self.zone_ids().filter_map(|id| self.with_zone(id, |zone, _| zone.managed)).sum()
    }

    /// Pages on the free lists of the zones; those on per-CPU lists are not among them, nor those of isolated page
    /// blocks (Linux: `nr_free_pages`). Any context.
    #[must_use]
    pub fn free_page_count(&self) -> u64 {
        self.zone_ids().filter_map(|id| self.with_zone(id, |zone, _| zone.free)).sum()
    }

    /// Pages allocated with [`Gfp::ACCOUNT`](crate::gfp::Gfp::ACCOUNT).
    #[must_use]
    pub fn accounted_pages(&self) -> u64 {
        self.accounted.load(Ordering::Relaxed)
    }
}
