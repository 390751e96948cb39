//! What a change leaves to be done: translations that TLBs may still hold, and tables that walkers may still be in.
#![forbid(unsafe_code)]

use super::PageTable;
use super::table::{Flushed, RemovedTables};
use crate::addr::VirtAddr;
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level};
use crate::hal::mmu::{AsidScope, Invalidation, MAX_RANGE_PAGES, Mmu, WalkDepth};

/// Ranges that are kept apart. One more, and what is there is invalidated at once (but not waited for).
const SPANS: usize = 4;

/// From this many invalidations by address on, one that drops everything is cheaper (Linux: `MAX_DVM_OPS`).
const FULL_INVALIDATION: u64 = 512;

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

    const fn pages(&self) -> u64 {
        self.size() / LeafLevel::Pte.size()
    }
}

/// Invalidations that are due.
///
/// # Invariants
///
/// - `INV-1`: every address noted lies in a span, or was invalidated (`issued`), or `everything` is set.
#[must_use = "until the invalidations are complete, CPUs reach what was unmapped"]
#[derive(Debug)]
pub(super) struct Pending {
    spans: [Span; SPANS],
    used: usize,
    /// Invalidations by address that were issued, or would have been but for `everything`.
    by_address: u64,
    everything: bool,
    issued: bool,
}

impl Pending {
    pub(super) const fn new() -> Self {
        Self { spans: [Span::NONE; SPANS], used: 0, by_address: 0, everything: false, issued: false }
    }

    /// Notes that `count` leaves of size `stride` from `start` on were made invalid or changed.
    #[inline]
    pub(super) fn note<M: Mmu>(
        &mut self,
        table: &PageTable<M>,
        start: VirtAddr,
        count: u64,
        stride: LeafLevel,
        depth: WalkDepth,
    ) {
        // INVARIANT: INV-1 by the three ways below.
        if let Some(last) = self.used.checked_sub(1).and_then(|index| self.spans.get_mut(index))
            && last.stride == stride
            && last.depth == depth
            && last.start.checked_add(last.size()) == Some(start)
        {
            last.count += count;
            return;
        }
        if self.used == SPANS {
            self.issue(table);
        }
        if let Some(span) = self.spans.get_mut(self.used) {
            *span = Span { start, count, stride, depth };
            self.used += 1;
        }
    }

    /// Invalidates the spans, without waiting.
    fn issue<M: Mmu>(&mut self, table: &PageTable<M>) {
        let ranged = table.mmu.has_range_invalidation();
        let spans = || self.spans.iter().take(self.used);
        let by_range = |span: &Span| ranged && span.count > 1 && span.pages() <= MAX_RANGE_PAGES;
        self.by_address += spans().filter(|span| !by_range(span)).map(|span| span.count).sum::<u64>();
        self.everything |= self.by_address >= FULL_INVALIDATION;
        if !self.everything {
            table.mmu.order_before_invalidate();
            for span in spans() {
                let Span { start, count, stride, depth } = *span;
                let what = Invalidation { start, count, stride, depth, scope: table.space.scope() };
                if by_range(span) { table.mmu.invalidate_range(what) } else { table.mmu.invalidate(what) }
            }
            self.issued = true;
        }
        // INVARIANT: INV-1, by `issued` or `everything`.
        self.used = 0;
    }

    /// Invalidates and waits; `None` if there was nothing.
    #[inline]
    pub(super) fn flush<M: Mmu>(&mut self, table: &PageTable<M>) -> Option<Flushed> {
        if self.used > 0 {
            self.issue(table);
        }
        if self.everything {
            table.mmu.order_before_invalidate();
            match table.space.scope() {
                AsidScope::All => table.mmu.invalidate_all(),
                AsidScope::One(asid) => table.mmu.invalidate_asid(asid),
            }
        }
        let due = self.issued || self.everything;
        (self.by_address, self.issued, self.everything) = (0, false, false);
        due.then(|| Flushed::wait(&table.mmu))
    }
}

/// The invalidations and freed tables of any number of [`PageTable::unmap`] calls.
///
/// Until it is flushed, CPUs may still reach what was unmapped, and no frame may be given away. Dropping it flushes:
/// an early return cannot forget it.
#[must_use = "the memory may be given away only after `flush`"]
#[derive(Debug)]
pub struct Gather<'t, M: Mmu, F: FrameSource> {
    table: &'t PageTable<M>,
    frames: &'t F,
    pending: Pending,
    pub(super) removed: RemovedTables,
}

impl<M: Mmu> PageTable<M> {
    /// An empty gather. Tables that it frees go back to `frames`.
    pub const fn gather<'t, F: FrameSource>(&'t self, frames: &'t F) -> Gather<'t, M, F> {
        Gather { table: self, frames, pending: Pending::new(), removed: RemovedTables::new() }
    }
}

impl<M: Mmu, F: FrameSource> Gather<'_, M, F> {
    /// Waits until no CPU holds what was unmapped, then frees the tables. Cost: two DSB, and one TLBI a leaf up to 511
    /// or one for everything; with FEAT_TLBIRANGE at most five for any range.
    pub fn flush(self) {
        drop(self);
    }

    /// Notes that `count` leaves of size `stride` from `start` on were made invalid.
    #[inline]
    pub(super) fn note(&mut self, start: VirtAddr, count: u64, stride: LeafLevel) {
        self.pending.note(self.table, start, count, stride, WalkDepth::LastLevel);
    }

    /// Notes that everything below the entry of `level` for `start` went away with its table.
    pub(super) fn note_subtree(&mut self, start: VirtAddr, level: Level) {
        let pages = level.size() / LeafLevel::Pte.size();
        self.pending.note(self.table, start, pages, LeafLevel::Pte, WalkDepth::AnyLevel);
    }
}

impl<M: Mmu, F: FrameSource> Drop for Gather<'_, M, F> {
    #[inline]
    fn drop(&mut self) {
        // Tables are removed only together with a note, so there is a flush to wait for.
        if let Some(flushed) = self.pending.flush(self.table)
            && !self.removed.is_empty()
        {
            let freed = self.removed.free(&self.table.mmu, self.frames, flushed);
            self.table.count_given_back(freed);
        }
    }
}
