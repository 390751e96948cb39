//! Reserves of uncached memory: which of their pages are in use.
#![forbid(unsafe_code)]

use super::{Broken, Device};
use crate::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, to_usize};
use crate::mm::vmalloc::Uncached;

/// Words of a bit for each page: of 4 MiB, the largest block.
const WORDS: usize = 16;
/// Pages that a word has a bit for.
const BITS: u64 = 64;
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
    busy: [u64; WORDS],
    /// The first pages of allocations.
    starts: [u64; WORDS],
    used: u64,
}

impl Reserve {
    pub(super) const fn new(range: PhysRange, uncached: Uncached) -> Self {
        Self { range, uncached, busy: [0; WORDS], starts: [0; WORDS], used: 0 }
    }

    pub(super) const fn range(&self) -> PhysRange {
        self.range
    }

    pub(super) const fn uncached(&self) -> Uncached {
        self.uncached
    }

    const fn pages(&self) -> u64 {
        self.range.size() / PAGE_SIZE
    }

    fn words(&self) -> usize {
        to_usize(self.pages() / BITS)
    }

    /// The lowest `align` free pages in a row from a multiple of `align` on, a power of two.
    fn find(&self, align: u64) -> Option<u64> {
        let words = self.busy.get(..self.words())?;
        if align > BITS {
            let step = to_usize(align / BITS);
            let index = words.chunks_exact(step).position(|run| run.iter().all(|word| *word == 0))?;
            return Some((index * step) as u64 * BITS);
        }
        words.iter().enumerate().find_map(|(index, word)| {
            let mut free = !word;
            let mut shift = 1;
            while shift < align {
                free &= free >> shift;
                shift <<= 1;
            }
            // Multiples of the alignment.
            free &= u64::MAX / (u64::MAX >> (BITS - align));
            (free != 0).then(|| index as u64 * BITS + u64::from(free.trailing_zeros()))
        })
    }

    /// The part of a run of pages that lies in each word, as a mask.
    fn masks(first: u64, count: u64) -> impl Iterator<Item = (usize, u64)> {
        let end = first + count;
        (first / BITS..end.div_ceil(BITS)).map(move |word| {
            let from = first.max(word * BITS) - word * BITS;
            let to = end.min((word + 1) * BITS) - word * BITS;
            (to_usize(word), u64::MAX >> (BITS - (to - from)) << from)
        })
    }

    fn take(&mut self, count: u64) -> Option<u64> {
        if count == 1 {
            return self.take_one();
        }
        let first = self.find(count.next_power_of_two())?;
        for (word, mask) in Self::masks(first, count) {
            *self.busy.get_mut(word)? |= mask;
        }
        // INVARIANT: RSV-1.
        *self.starts.get_mut(to_usize(first / BITS))? |= 1 << (first % BITS);
        self.used += count;
        Some(first)
    }

    /// [`Reserve::take`] of one page.
    #[inline]
    fn take_one(&mut self) -> Option<u64> {
        let words = self.words();
        let (index, word) = self.busy.iter_mut().take(words).enumerate().find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        // INVARIANT: RSV-1.
        *self.starts.get_mut(index)? |= 1 << bit;
        self.used += 1;
        Some(index as u64 * BITS + u64::from(bit))
    }

    fn bit(words: &[u64; WORDS], page: u64) -> bool {
        words.get(to_usize(page / BITS)).is_some_and(|word| word >> (page % BITS) & 1 != 0)
    }

    /// Frees an allocation of exactly `count` pages: whether there is one.
    fn free(&mut self, first: u64, count: u64) -> bool {
        let end = first + count;
        if end > self.pages() || !Self::bit(&self.starts, first) {
            return false;
        }
        let whole = Self::masks(first, count).all(|(word, mask)| {
            let busy = self.busy.get(word).copied().unwrap_or_default();
            let starts = self.starts.get(word).copied().unwrap_or_default();
            let own = if first / BITS == word as u64 { 1 << (first % BITS) } else { 0 };
            busy & mask == mask && starts & mask & !own == 0
        });
        let goes_on = end < self.pages() && Self::bit(&self.busy, end) && !Self::bit(&self.starts, end);
        if !whole || goes_on {
            return false;
        }
        for (word, mask) in Self::masks(first, count) {
            if let (Some(busy), Some(starts)) = (self.busy.get_mut(word), self.starts.get_mut(word)) {
                *busy &= !mask;
                *starts &= !mask;
            }
        }
        // INVARIANT: RSV-1.
        self.used -= count;
        true
    }

    fn check(&self) -> Result<(), Broken> {
        let used: u32 = self.busy.iter().map(|word| word.count_ones()).sum();
        let orphan = self.starts.iter().zip(&self.busy).any(|(starts, busy)| starts & !busy != 0);
        let outside = self.busy.iter().skip(self.words()).any(|word| *word != 0);
        if u64::from(used) != self.used || orphan || outside {
            return Err(Broken { tag: "RSV-1", what: "the pages of a reserve are miscounted" });
        }
        Ok(())
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

    pub(super) const fn count(&self) -> u64 {
        self.count as u64
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
        self.iter().filter(|reserve| reserve.used == 0).take(spare).map(Reserve::pages).sum()
    }

    pub(super) fn add(&mut self, reserve: Reserve) -> bool {
        let Some(place) = self.list.get_mut(self.count) else { return false };
        *place = Some(reserve);
        // INVARIANT: RSV-2: a fresh block.
        self.count += 1;
        true
    }

    /// Takes pages that a device reaches.
    pub(super) fn take(&mut self, device: &Device, pages: u64) -> Option<(VirtAddr, DmaAddr)> {
        self.iter_mut().find_map(|reserve| {
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

    /// Takes a reserve off the list of which nothing is in use and that is one too many.
    pub(super) fn take_empty(&mut self) -> Option<Reserve> {
        if self.count() <= self.kept {
            return None;
        }
        let index = self.list.iter().position(|reserve| reserve.is_some_and(|reserve| reserve.used == 0))?;
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
