//! The tree of areas, with the free addresses below each kept as areas come, go and change.
#![forbid(unsafe_code)]

use super::summary::{MaxGap, pages_below};
use super::vma::{Record, Vma};
use crate::addr::PAGE_SHIFT;
use crate::ds::rbtree::{Broken, Cursor, Owned, Payload, RbTree};

/// The areas of a space by address.
///
/// # Invariants
///
/// - `VMA-1`: every area begins and ends at a page, and is not empty.
/// - `VMA-2`: no two areas overlap.
/// - `VMA-3`: every record has the free pages below its area ([`pages_below`]).
/// - `VMA-7`: the area that was put in last is remembered only while it is in the tree.
///
/// And those of [`RbTree`] (`RBT`).
pub(super) struct VmaTree<'a> {
    tree: RbTree<'a, Vma, MaxGap>,
    /// The limit that cuts the gap that it lies in: see [`pages_below`].
    clip: u64,
    /// The area that was put in last, while it is in the tree: the next call is probably about it.
    recent: Option<&'a Record<'a>>,
}

impl<'a> VmaTree<'a> {
    /// A tree whose gaps are cut at `clip`; `u64::MAX` for no such limit.
    pub(super) const fn new(clip: u64) -> Self {
        Self { tree: RbTree::new(), clip, recent: None }
    }

    /// Where the gap is cut that it lies in.
    #[inline(always)]
    pub(super) const fn clip(&self) -> u64 {
        self.clip
    }

    /// Areas in the tree.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.tree.len()
    }

    #[inline]
    pub(super) fn root(&self) -> Option<Cursor<'_, 'a, Vma>> {
        self.tree.root()
    }

    #[inline]
    pub(super) fn first(&self) -> Option<Cursor<'_, 'a, Vma>> {
        self.tree.first()
    }

    #[inline]
    pub(super) fn last(&self) -> Option<Cursor<'_, 'a, Vma>> {
        self.tree.last()
    }

    /// The area before `at`.
    #[inline]
    pub(super) fn prev(&self, at: &'a Record<'a>) -> Option<&'a Record<'a>> {
        Some(self.tree.cursor(at)?.prev()?.node())
    }

    /// The area behind `at`.
    #[inline]
    pub(super) fn next(&self, at: &'a Record<'a>) -> Option<&'a Record<'a>> {
        Some(self.tree.cursor(at)?.next()?.node())
    }

    /// The area behind `at`, or the first.
    #[inline]
    pub(super) fn next_of(&self, at: Option<&'a Record<'a>>) -> Option<&'a Record<'a>> {
        match at {
            Some(at) => self.next(at),
            None => self.first().map(Cursor::node),
        }
    }

    /// The first area that ends above `addr` (Linux: `find_vma`). O(log n).
    #[inline]
    pub(super) fn find(&self, addr: u64) -> Option<&'a Record<'a>> {
        if let Some(recent) = self.recent
            && recent.low() <= addr
            && addr < recent.high()
        {
            return Some(recent);
        }
        let cursor = match self.tree.last_at_or_below(addr) {
            Some(at) if at.high() > addr => Some(at),
            Some(at) => at.next(),
            None => self.tree.first(),
        };
        cursor.map(Cursor::node)
    }

    /// The last area that starts at `addr` or below. O(log n).
    #[inline]
    pub(super) fn last_at_or_below(&self, addr: u64) -> Option<Cursor<'_, 'a, Vma>> {
        self.tree.last_at_or_below(addr)
    }

    /// The first area that starts at `addr` or above. O(log n).
    #[inline]
    pub(super) fn first_at_or_above(&self, addr: u64) -> Option<Cursor<'_, 'a, Vma>> {
        self.tree.first_at_or_above(addr)
    }

    /// All areas by address.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> + ExactSizeIterator {
        self.tree.iter().map(|record| record.payload())
    }

    /// Notes the free pages below `at` anew, which begin at `end`.
    #[inline]
    fn note_gap(&mut self, at: &'a Record<'a>, end: u64) {
        let gap = pages_below(at, end, self.clip);
        let before = at.gap();
        // INVARIANT: VMA-3.
        at.set_gap(gap);
        if gap > before {
            self.tree.propagate_growth(at);
        } else if gap < before {
            self.tree.propagate(at);
        }
    }

    /// Puts in a record, directly behind `prev`, or in front of all. Amortised O(1) but for the summaries.
    ///
    /// # Errors
    ///
    /// The record comes back if its place is not there.
    #[inline]
    pub(super) fn insert(
        &mut self,
        prev: Option<&'a Record<'a>>,
        record: Owned<'a, Vma>,
    ) -> Result<&'a Record<'a>, Owned<'a, Vma>> {
        let end = prev.map_or(0, |prev| prev.high());
        let next = self.next_of(prev);
        // INVARIANT: VMA-2.
        if record.low() < end || next.is_some_and(|next| next.low() < record.high()) {
            return Err(record);
        }
        // INVARIANT: VMA-3, for the record and the one behind it.
        record.set_gap(pages_below(&record, end, self.clip));
        let at = match prev {
            Some(prev) => self.tree.insert_after(prev, record)?,
            None => self.tree.insert(record)?,
        };
        if let Some(next) = next {
            self.note_gap(next, at.high());
        }
        self.recent = Some(at);
        Ok(at)
    }

    /// Takes a record out.
    #[inline]
    pub(super) fn remove(&mut self, at: &'a Record<'a>) -> Option<Owned<'a, Vma>> {
        let (end, next) = (self.prev(at).map_or(0, |prev| prev.high()), self.next(at));
        if self.recent.is_some_and(|recent| core::ptr::eq(recent, at)) {
            self.recent = None;
        }
        let record = self.tree.erase(at)?;
        if let Some(next) = next {
            self.note_gap(next, end);
        }
        Some(record)
    }

    /// Moves the end of `at`, not into the area behind it nor to its own start.
    #[inline]
    pub(super) fn set_end(&mut self, at: &'a Record<'a>, end: u64) {
        at.set_high(end);
        if let Some(next) = self.next(at) {
            self.note_gap(next, end);
        }
    }

    /// Moves the start of `at`, and with it the offset of its first page; not into the area before it nor to its own end.
    #[inline]
    pub(super) fn set_start(&mut self, at: &'a Record<'a>, start: u64) {
        let pages = (start.wrapping_sub(at.low()).cast_signed() >> PAGE_SHIFT).cast_unsigned();
        at.set_page_offset(at.page_offset().wrapping_add(pages));
        at.set_low(start);
        let end = self.prev(at).map_or(0, |prev| prev.high());
        self.note_gap(at, end);
    }

    /// Cuts `at` in two at `addr`, inside it: `record` becomes the upper part.
    ///
    /// # Errors
    ///
    /// The record comes back if `addr` is not inside `at`.
    #[inline]
    pub(super) fn split(
        &mut self,
        at: &'a Record<'a>,
        addr: u64,
        record: Owned<'a, Vma>,
    ) -> Result<&'a Record<'a>, Owned<'a, Vma>> {
        let end = at.high();
        if addr <= at.key() || addr >= end {
            return Err(record);
        }
        record.set_low(addr);
        record.set_high(end);
        record.set_page_offset(at.page_offset().wrapping_add((addr - at.low()) >> PAGE_SHIFT));
        record.set_flags(at.flags());
        record.set_object(at.object());
        at.set_high(addr);
        self.insert(Some(at), record)
    }

    /// Tests `VMA-1` to `VMA-3`, `VMA-7` and the tree.
    pub(super) fn check(&self) -> Result<(), Broken> {
        const fn broken(tag: &'static str, what: &'static str) -> Result<(), Broken> {
            Err(Broken { tag, what })
        }
        self.tree.check()?;
        if self.recent.is_some_and(|recent| !self.iter().any(|area| core::ptr::eq(area, recent.payload()))) {
            return broken("VMA-7", "the area that was put in last, which is not there");
        }
        let mut end = 0;
        for area in self.iter() {
            if !area.start().is_aligned(1 << PAGE_SHIFT) || !area.end().is_aligned(1 << PAGE_SHIFT) {
                return broken("VMA-1", "an area that is not whole pages");
            }
            if area.low() >= area.high() {
                return broken("VMA-1", "an empty area");
            }
            if area.low() < end {
                return broken("VMA-2", "areas that overlap");
            }
            if area.gap() != pages_below(area, end, self.clip) {
                return broken("VMA-3", "free pages below an area, and what its record says of them");
            }
            end = area.high();
        }
        Ok(())
    }
}
