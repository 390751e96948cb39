//! Work that a change leaves for later: translations that TLBs may still hold, and tables that walkers may still be in.
#![forbid(unsafe_code)]

use super::PageTable;
use super::table::{Flushed, RemovedTables, Table};
use crate::addr::{PMD_SHIFT, VirtAddr};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level};
use crate::hal::mmu::{AsidScope, Invalidation, MAX_RANGE_PAGES, Mmu, WalkDepth};

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

/// Invalidations that are due. One span is collected at a time: when the next does not follow on, the one before is
/// invalidated, and only the wait is left for later.
///
/// # Invariants
///
/// - `INV-1`: every address noted lies in the span, or was invalidated (`issued`), or `everything` is set.
#[must_use = "until the invalidations are complete, CPUs reach what was unmapped"]
#[derive(Debug)]
pub(super) struct Pending {
    /// Nothing if its count is zero.
    span: Span,
    /// Invalidations by address that were issued, or would have been but for `everything`.
    by_address: u64,
    everything: bool,
    issued: bool,
}

impl Pending {
    pub(super) const fn new() -> Self {
        let span = Span { start: VirtAddr::ZERO, count: 0, stride: LeafLevel::Pte, depth: WalkDepth::LastLevel };
        Self { span, by_address: 0, everything: false, issued: false }
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
        if self.everything {
            // INVARIANT: INV-1.
            return;
        }
        let last = &mut self.span;
        if last.count > 0 {
            let end = last.start.get().wrapping_add(last.count << last.stride.shift());
            if (end, last.stride, last.depth) == (start.get(), stride, depth) {
                last.count += count;
                return;
            }
            self.issue(table);
        }
        // INVARIANT: INV-1; what was in the span is issued.
        self.span = Span { start, count, stride, depth };
    }

    /// Notes that an empty table was unlinked for the `size` bytes from `start` on: any address there names it.
    fn note_table<M: Mmu>(&mut self, table: &PageTable<M>, start: VirtAddr, size: u64) {
        let Span { start: noted, count, depth, .. } = self.span;
        if count > 0 && depth == WalkDepth::AnyLevel && noted.align_down(size) == start {
            // INVARIANT: INV-1: what is in the span is not issued yet, and names this table as well.
            return;
        }
        self.note(table, start, 1, LeafLevel::Pte, WalkDepth::AnyLevel);
    }

    /// Invalidates the span, without waiting.
    fn issue<M: Mmu>(&mut self, table: &PageTable<M>) {
        let Span { start, count, stride, depth } = self.span;
        // INVARIANT: INV-1, by `issued` or `everything`.
        self.span.count = 0;
        let what = Invalidation { start, count, stride, depth, scope: table.scope() };
        let means = table.means(&what, self.by_address);
        if means == Means::ByRange {
            table.mmu.order_before_invalidate();
            table.mmu.invalidate_range(table.scoped(what));
            self.issued = true;
            return;
        }
        self.by_address += count;
        self.everything |= means == Means::Everything;
        if !self.everything {
            table.mmu.order_before_invalidate();
            table.mmu.invalidate(table.scoped(what));
            self.issued = true;
        }
    }

    /// Invalidates and waits; `None` if there was nothing.
    pub(super) fn flush<M: Mmu>(&mut self, table: &PageTable<M>) -> Option<Flushed> {
        if self.span.count > 0 {
            self.issue(table);
        }
        if self.everything {
            table.mmu.order_before_invalidate();
            table.invalidate_space();
        }
        let due = self.issued || self.everything;
        (self.by_address, self.issued, self.everything) = (0, false, false);
        due.then(|| Flushed::wait(&table.mmu))
    }
}

/// How to drop a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Means {
    ByAddress,
    ByRange,
    Everything,
}

impl<M: Mmu> PageTable<M> {
    /// The cheapest way to drop a span, when `by_address` invalidations by address are due already.
    #[inline]
    fn means(&self, what: &Invalidation, by_address: u64) -> Means {
        if what.count > 1 && what.pages() <= MAX_RANGE_PAGES && self.mmu.has_range_invalidation() {
            Means::ByRange
        } else if by_address.saturating_add(what.count) < FULL_INVALIDATION {
            Means::ByAddress
        } else {
            Means::Everything
        }
    }

    pub(super) fn invalidate_space(&self) {
        match self.scope() {
            AsidScope::All => self.mmu.invalidate_all(),
            AsidScope::One(asid) => self.mmu.invalidate_asid(asid),
        }
    }

    /// Invalidates one leaf and waits.
    #[inline(always)]
    pub(in crate::mm) fn flush_leaf(&self, start: VirtAddr, stride: LeafLevel) {
        self.mmu.order_before_invalidate();
        let scope = self.scope();
        self.mmu.invalidate(Invalidation { start, count: 1, stride, depth: WalkDepth::LastLevel, scope });
        self.mmu.complete();
    }

    /// Invalidates `count` leaves from `start` on and waits.
    pub(in crate::mm) fn flush_leaves(&self, start: VirtAddr, count: u64, stride: LeafLevel) {
        let (depth, scope) = (WalkDepth::LastLevel, self.scope());
        self.flush_span(Invalidation { start, count, stride, depth, scope });
    }

    /// Invalidates one span and waits.
    #[inline(always)]
    pub(super) fn flush_span(&self, what: Invalidation) {
        self.mmu.order_before_invalidate();
        match self.means(&what, 0) {
            Means::ByRange => self.invalidate_range(what.start, what.count, what.stride, what.depth),
            Means::ByAddress => self.mmu.invalidate(self.scoped(what)),
            Means::Everything => self.invalidate_space(),
        }
        self.mmu.complete();
    }

    /// A function of its own, with arguments in registers, so that callers without a range need no stack.
    #[inline(never)]
    fn invalidate_range(&self, start: VirtAddr, count: u64, stride: LeafLevel, depth: WalkDepth) {
        self.mmu.invalidate_range(Invalidation { start, count, stride, depth, scope: self.scope() });
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
    /// The last table that pages were cleared in, with the number of its 2 MiB. It stays: what was cleared there belongs to
    /// the caller until the flush, so that nobody else has a range around all of it; and if the caller has one, it is
    /// forgotten.
    leaves: Option<(u64, Table)>,
    /// All that was noted is invalidated, and waited for.
    flushed: Option<Flushed>,
}

impl<M: Mmu> PageTable<M> {
    /// An empty gather. Tables that it frees go back to `frames`.
    pub const fn gather<'t, F: FrameSource>(&'t self, frames: &'t F) -> Gather<'t, M, F> {
        Gather {
            table: self,
            frames,
            pending: Pending::new(),
            removed: RemovedTables::new(),
            leaves: None,
            flushed: None,
        }
    }

    /// A gather for `pages` pages in many places: if they are so many that everything will be dropped, nothing is
    /// noted by address first.
    pub const fn gather_pages<'t, F: FrameSource>(&'t self, frames: &'t F, pages: u64) -> Gather<'t, M, F> {
        let mut gather = self.gather(frames);
        gather.pending.everything = pages >= FULL_INVALIDATION;
        gather
    }
}

impl<M: Mmu, F: FrameSource> Gather<'_, M, F> {
    /// Waits until no CPU holds what was unmapped, then frees the tables. Cost: two DSB, and one TLBI a leaf up to 511
    /// or one for everything; with FEAT_TLBIRANGE at most five for any range.
    pub fn flush(self) {
        drop(self);
    }

    /// Waits until no CPU holds what was unmapped so far. The tables are freed later, with the gather.
    pub(in crate::mm) fn complete(&mut self) {
        if let Some(flushed) = self.pending.flush(self.table) {
            self.flushed = Some(flushed);
        }
    }

    /// Notes that `count` leaves of size `stride` from `start` on were made invalid.
    #[inline]
    pub(in crate::mm) fn note(&mut self, start: VirtAddr, count: u64, stride: LeafLevel) {
        self.pending.note(self.table, start, count, stride, WalkDepth::LastLevel);
    }

    /// The table of the last entries for `at`, if there is one.
    #[inline]
    pub(super) fn last_level(&mut self, at: VirtAddr) -> Option<Table> {
        let number = at.get() >> PMD_SHIFT;
        match self.leaves {
            Some((last, table)) if last == number => Some(table),
            _ => {
                let table = self.table.last_level(at)?;
                self.leaves = Some((number, table));
                Some(table)
            }
        }
    }

    /// A table is removed: it may be the one that is remembered.
    pub(super) const fn forget_table(&mut self) {
        self.leaves = None;
    }

    /// Notes that a table was unlinked that held nothing, for the `size` bytes from `start` on.
    pub(super) fn note_empty_table(&mut self, start: VirtAddr, size: u64) {
        self.pending.note_table(self.table, start, size);
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
        // Tables are removed only together with a note, so there is a flush to wait for, or there was one since.
        if let Some(flushed) = self.pending.flush(self.table).or(self.flushed.take())
            && !self.removed.is_empty()
        {
            // Every way to them was cleared before the flush, which ended in a DSB.
            self.table.walkers.wait();
            let freed = self.removed.free(&self.table.mmu, self.frames, flushed);
            self.table.count_given_back(freed);
        }
    }
}
