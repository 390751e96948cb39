//! Reserves of uncached memory: which of their pages are in use.
#![forbid(unsafe_code)]

use super::Device;
use super::page_bits::{BITS, PageBits};
use crate::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, to_usize};
use crate::ds::Broken;
use crate::mm::vmalloc::Uncached;
use crate::mm::zone::CmaArea;

/// Words of a bit for each page: of 4 MiB, the largest block.
const WORDS: usize = 16;
/// Reserves that there can be.
pub(super) const MAX_RESERVES: usize = 48;

/// A block that is uncached, and which of its pages are in use.
///
/// # Invariants
///
/// - `RSV-1`: a page that starts an allocation is in use; no page behind the block is; `used` are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserve {
    range: PhysRange,
    uncached: Uncached,
    origin: Origin,
    busy: [u64; WORDS],
    /// The first pages of allocations.
    starts: [u64; WORDS],
    used: u64,
}

/// Where the memory of a reserve is from, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Origin {
    /// It is a contiguous allocation, and not a block of the page allocator.
    pub(super) contiguous: bool,
    /// The contiguous area of some devices, who alone use it.
    pub(super) of: Option<CmaArea>,
    /// It is one allocation, and goes back with it.
    pub(super) whole: bool,
}

impl Reserve {
    pub(super) const fn new(range: PhysRange, uncached: Uncached, origin: Origin) -> Self {
        Self { range, uncached, origin, busy: [0; WORDS], starts: [0; WORDS], used: 0 }
    }

    /// The same with one allocation of so many pages, from its start on.
    pub(super) const fn taken(self, pages: u64) -> Self {
        // INVARIANT: RSV-1.
        Self { used: pages, ..self }
    }

    pub(super) const fn range(&self) -> PhysRange {
        self.range
    }

    pub(super) const fn uncached(&self) -> Uncached {
        self.uncached
    }

    pub(super) const fn origin(&self) -> Origin {
        self.origin
    }

    const fn pages(&self) -> u64 {
        self.range.size() / PAGE_SIZE
    }

    fn bits(&mut self) -> PageBits<'_> {
        let pages = self.pages();
        PageBits::new(&mut self.busy, &mut self.starts, pages)
    }

    /// Whether it is of no use to anybody any more, or to nobody for now.
    const fn is_idle(&self) -> bool {
        self.used == 0
    }

    #[inline]
    fn take(&mut self, count: u64) -> Option<u64> {
        let first = self.bits().take(count)?;
        // INVARIANT: RSV-1.
        self.used += count;
        Some(first)
    }

    /// Frees an allocation of exactly `count` pages: whether there is one.
    fn free(&mut self, first: u64, count: u64) -> bool {
        let freed = match self.origin.whole {
            true => first == 0 && count == self.used && count != 0,
            false => self.bits().free(first, count),
        };
        // INVARIANT: RSV-1.
        self.used -= if freed { count } else { 0 };
        freed
    }

    fn check(&self) -> Result<(), Broken> {
        let mut copy = *self;
        let right = match self.origin.whole {
            true => self.used <= self.pages(),
            false => {
                let words = to_usize(self.pages().div_ceil(BITS));
                let outside = self.busy.iter().skip(words).any(|word| *word != 0);
                copy.bits().used() == Some(self.used) && !outside
            }
        };
        if right { Ok(()) } else { Err(Broken { tag: "RSV-1", what: "the pages of a reserve are miscounted" }) }
    }
}

/// All reserves.
///
/// # Invariants
///
/// - `RSV-2`: the first `count` are there, and no two of them share memory.
pub(super) struct Reserves {
    list: [Option<Reserve>; MAX_RESERVES],
    count: usize,
    /// As many stay although nothing of them is in use.
    kept: u64,
}

impl Reserves {
    pub(super) const fn new() -> Self {
        Self { list: [None; MAX_RESERVES], count: 0, kept: 0 }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Reserve> {
        self.list.iter().take(self.count).flatten()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Reserve> {
        self.list.iter_mut().take(self.count).flatten()
    }

    /// Those that serve many allocations.
    pub(super) fn count(&self) -> u64 {
        self.iter().filter(|reserve| !reserve.origin.whole).count() as u64
    }

    pub(super) const fn is_full(&self) -> bool {
        self.count == MAX_RESERVES
    }

    pub(super) const fn keep(&mut self, kept: u64) {
        self.kept = kept;
    }

    pub(super) fn pages(&self) -> (u64, u64) {
        self.iter().fold((0, 0), |(pages, used), reserve| (pages + reserve.pages(), used + reserve.used))
    }

    pub(super) fn idle_pages(&self) -> u64 {
        let spare = to_usize(self.count().saturating_sub(self.kept));
        let idle = |whole: bool| self.iter().filter(move |reserve| reserve.is_idle() && reserve.origin.whole == whole);
        idle(true).chain(idle(false).take(spare)).map(Reserve::pages).sum()
    }

    pub(super) fn add(&mut self, reserve: Reserve) -> bool {
        let Some(place) = self.list.get_mut(self.count) else { return false };
        *place = Some(reserve);
        // INVARIANT: RSV-2: a fresh block.
        self.count += 1;
        true
    }

    /// Takes pages that a device reaches, of what devices with this area have for themselves, or of what all share.
    pub(super) fn take(&mut self, device: &Device, pages: u64, of: Option<CmaArea>) -> Option<(VirtAddr, DmaAddr)> {
        let is_its = |reserve: &&mut Reserve| reserve.origin.of == of && !reserve.origin.whole;
        self.iter_mut().filter(is_its).find_map(|reserve| {
            let bus = device.translate_coherent(reserve.range)?;
            let offset = reserve.take(pages)? * PAGE_SIZE;
            Some((VirtAddr::new(reserve.uncached.at.get() + offset), DmaAddr::new(bus.get() + offset)))
        })
    }

    /// Frees pages: whether they were allocated so, or `None` if no reserve has the address.
    pub(super) fn free(&mut self, device: &Device, addr: VirtAddr, bus: DmaAddr, pages: u64) -> Option<bool> {
        self.iter_mut().find_map(|reserve| {
            let offset = addr.offset_from(reserve.uncached.at).filter(|offset| *offset < reserve.range.size())?;
            let phys = PhysAddr::new(reserve.range.start().get() + offset);
            let here = PhysRange::from_size(phys, PAGE_SIZE).and_then(|page| device.translate(page, u64::MAX));
            let right = offset.is_multiple_of(PAGE_SIZE) && here == Some(bus);
            Some(right && reserve.free(offset / PAGE_SIZE, pages))
        })
    }

    /// Takes a reserve off the list of which nothing is in use and that is one too many, or that was one allocation.
    pub(super) fn take_empty(&mut self, only_whole: bool) -> Option<Reserve> {
        let spare = self.count() > self.kept;
        let goes = |reserve: &Reserve| reserve.is_idle() && (reserve.origin.whole || (spare && !only_whole));
        let index = self.list.iter().position(|reserve| reserve.as_ref().is_some_and(goes))?;
        let last = self.count - 1;
        self.list.swap(index, last);
        // INVARIANT: RSV-2.
        self.count = last;
        self.list.get_mut(last).and_then(Option::take)
    }

    pub(super) fn check(&self) -> Result<(), Broken> {
        let overlap =
            |(index, one): (usize, &Reserve)| self.iter().skip(index + 1).any(|other| one.range.overlaps(other.range));
        if self.list.iter().flatten().count() != self.count || self.iter().enumerate().any(overlap) {
            return Err(Broken { tag: "RSV-2", what: "the reserves are miscounted, or overlap" });
        }
        self.iter().try_for_each(Reserve::check)
    }
}
