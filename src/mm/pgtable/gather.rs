//! What an unmap leaves to be done: translations that TLBs may still hold, and tables that walkers may still be in.
#![forbid(unsafe_code)]

use super::PageTable;
use super::table::{Flushed, RemovedTables};
use crate::addr::VirtAddr;
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level};
use crate::hal::mmu::{AsidScope, Invalidation, MAX_RANGE_PAGES, Mmu, WalkDepth};

/// Ranges that a gather keeps apart. One more, and what is there is invalidated at once (but not waited for).
const SPANS: usize = 4;

/// From this many invalidations by address on, one that drops everything is cheaper (Linux: `MAX_DVM_OPS`).
const FULL_INVALIDATION: u64 = 512;

/// The invalidations and freed tables of any number of [`PageTable::unmap`] calls.
///
/// Until it is flushed, CPUs may still reach what was unmapped, and no frame may be given away. Dropping it flushes:
/// an early return cannot forget it.
///
/// # Invariants
///
/// - `GTH-1`: every address that was unmapped through the gather lies in a span, or was invalidated (`issued`), or
///   `everything` is set.
#[must_use = "the memory may be given away only after `flush`"]
#[derive(Debug)]
pub struct Gather<'t, M: Mmu, F: FrameSource> {
    page_table: &'t PageTable<M>,
    frames: &'t F,
    spans: [Span; SPANS],
    used: usize,
    /// Invalidations by address so far, issued or not.
    total: u64,
    everything: bool,
    issued: bool,
    pub(super) removed: RemovedTables,
}

/// Consecutive addresses with leaves of one size.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: VirtAddr,
    count: u64,
    stride: LeafLevel,
    depth: WalkDepth,
}

impl Span {
    const NONE: Self = Self { start: VirtAddr::ZERO, count: 0, stride: LeafLevel::Pte, depth: WalkDepth::LastLevel };

    const fn size(&self) -> u64 {
        self.count * self.stride.size()
    }
}

impl<M: Mmu> PageTable<M> {
    /// An empty gather. Tables that it frees go back to `frames`.
    pub fn gather<'t, F: FrameSource>(&'t self, frames: &'t F) -> Gather<'t, M, F> {
        Gather {
            page_table: self,
            frames,
            spans: [Span::NONE; SPANS],
            used: 0,
            total: 0,
            everything: false,
            issued: false,
            removed: RemovedTables::new(),
        }
    }
}

impl<M: Mmu, F: FrameSource> Gather<'_, M, F> {
    /// Waits until no CPU holds what was unmapped, then frees the tables. Cost: one DSB, one TLBI a leaf up to 512, or
    /// one for everything; with FEAT_TLBIRANGE a few for any range.
    pub fn flush(self) {
        drop(self);
    }

    /// Notes that `count` leaves of size `stride` from `start` on were made invalid.
    #[inline]
    pub(super) fn note(&mut self, start: VirtAddr, count: u64, stride: LeafLevel, depth: WalkDepth) {
        // INVARIANT: GTH-1 by the three ways below.
        self.total += count;
        if let Some(last) = self.used.checked_sub(1).and_then(|index| self.spans.get_mut(index))
            && last.stride == stride
            && last.depth == depth
            && last.start.checked_add(last.size()) == Some(start)
        {
            last.count += count;
            return;
        }
        if self.used == SPANS {
            self.issue();
        }
        if let Some(span) = self.spans.get_mut(self.used) {
            *span = Span { start, count, stride, depth };
            self.used += 1;
        }
    }

    /// Notes that everything below the entry of `level` for `start` went away with its table.
    pub(super) fn note_subtree(&mut self, start: VirtAddr, level: Level) {
        let pages = level.size() / LeafLevel::Pte.size();
        self.note(start, pages, LeafLevel::Pte, WalkDepth::AnyLevel);
    }

    /// Invalidates the spans, without waiting.
    fn issue(&mut self) {
        let mmu = &self.page_table.mmu;
        let ranged = mmu.has_range_invalidation();
        self.everything |= !ranged && self.total >= FULL_INVALIDATION;
        let spans = || self.spans.iter().take(self.used);
        self.everything |= spans().any(|span| span.size() / LeafLevel::Pte.size() > MAX_RANGE_PAGES);
        if !self.everything {
            mmu.order_before_invalidate();
            for span in spans() {
                let Span { start, count, stride, depth } = *span;
                let what = Invalidation { start, count, stride, depth, scope: self.page_table.space.scope() };
                if ranged && count > 1 { mmu.invalidate_range(what) } else { mmu.invalidate(what) }
            }
            self.issued = true;
        }
        // INVARIANT: GTH-1, by `issued` or `everything`.
        self.used = 0;
    }

    /// Invalidates, waits, and gives the tables back.
    fn finish(&mut self) {
        if self.used > 0 {
            self.issue();
        }
        let mmu = &self.page_table.mmu;
        if self.everything {
            mmu.order_before_invalidate();
            match self.page_table.space.scope() {
                AsidScope::All => mmu.invalidate_all(),
                AsidScope::One(asid) => mmu.invalidate_asid(asid),
            }
            self.issued = true;
        }
        if self.issued {
            let flushed = Flushed::wait(mmu);
            self.issued = false;
            self.everything = false;
            self.total = 0;
            if !self.removed.is_empty() {
                let freed = self.removed.free(mmu, self.frames, flushed);
                self.page_table.count_given_back(freed);
            }
        }
    }
}

impl<M: Mmu, F: FrameSource> Drop for Gather<'_, M, F> {
    fn drop(&mut self) {
        self.finish();
    }
}
