//! Unmapping (Linux: `do_vmi_munmap`).
#![forbid(unsafe_code)]

use super::limits::Usage;
use super::records::Records;
use super::translations::{MapHal, Objects, Translations, VmaSource};
use super::vma::{Record, Vma, user_range};
use super::{AddressMap, MapError, VmFlags};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr, UserRange};

/// The areas, parts of areas and pages that unmapping a range removes.
pub(super) struct Removal<'a> {
    pub(super) low: u64,
    pub(super) high: u64,
    /// The first area that has some of the range; `None` if none has.
    first: Option<&'a Record<'a>>,
    /// The last one.
    last: Option<&'a Record<'a>>,
    /// The end of the last mapped part of the range.
    end: u64,
    /// An edge is inside an area: below, above.
    cuts: (bool, bool),
    /// Areas that go as a whole.
    pub(super) whole: usize,
    /// Pages that go.
    pub(super) usage: Usage,
}

impl<'a> Removal<'a> {
    /// Nothing.
    pub(super) fn nothing(low: u64, high: u64) -> Self {
        Self { low, high, first: None, last: None, end: high, cuts: (false, false), whole: 0, usage: Usage::default() }
    }

    /// Whether there is nothing to take away.
    pub(super) const fn is_nothing(&self) -> bool {
        self.first.is_none()
    }

    /// Records that it needs: one if the range is in the middle of an area.
    pub(super) fn records(&self) -> usize {
        usize::from(self.cuts.0 && self.is_in_one_area())
    }

    fn is_in_one_area(&self) -> bool {
        self.first.is_some_and(|first| first.high() > self.high)
    }

    /// Makes the edges in the page tables.
    pub(super) fn cut(&self, with: &impl Translations) -> Result<(), MapError> {
        if self.cuts.0 {
            with.cut(UserAddr::new(self.low))?;
        }
        if self.cuts.1 {
            with.cut(UserAddr::new(self.high))?;
        }
        Ok(())
    }

    /// Unmaps what is mapped of the range, whose edges were made.
    #[inline]
    pub(super) fn unmap(&self, with: &impl Translations, hole: UserRange) {
        if let Some(first) = self.first {
            with.unmap(user_range(first.low().max(self.low), self.end), hole);
        }
    }
}

/// The range of whole pages that a caller names.
///
/// # Errors
///
/// [`MapError::Unaligned`], [`MapError::Empty`], [`MapError::BadRange`].
#[inline]
pub(super) fn whole_pages(addr: UserAddr, size: u64, end: UserAddr) -> Result<(u64, u64), MapError> {
    if !addr.is_aligned(PAGE_SIZE) {
        return Err(MapError::Unaligned(addr.get()));
    }
    if size == 0 {
        return Err(MapError::Empty);
    }
    // The end of the space is that of a page: what does not go beyond it can be rounded up.
    match addr.get().checked_add(size) {
        Some(high) if high <= end.get() => Ok((addr.get(), high.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1))),
        _ => Err(MapError::BadRange(addr)),
    }
}

/// An area is no more: tells its object.
#[inline]
fn let_go(with: &impl Objects, area: &Vma) {
    if let Some(object) = area.object() {
        if area.flags().contains(VmFlags::HOOKS) {
            with.closed(object, area.range());
        }
        with.put(object);
    }
}

impl<'a> AddressMap<'a> {
    /// Unmaps what is mapped of `size` bytes from `addr`, rounded up to whole pages; areas that are partly inside keep the
    /// rest. Addresses where nothing is mapped are no error.
    ///
    /// # Errors
    ///
    /// - [`MapError::Unaligned`], [`MapError::Empty`], [`MapError::BadRange`]: the range.
    /// - [`MapError::Sealed`]: an area in it is sealed.
    /// - [`MapError::MapCount`], [`MapError::NoMemory`]: an area has to be cut in two.
    ///
    /// Nothing has changed then.
    #[inline]
    pub fn munmap<H: MapHal<'a>>(&mut self, with: &H, addr: UserAddr, size: u64) -> Result<(), MapError> {
        let (low, high) = whole_pages(addr, size, self.layout.task_size)?;
        self.unmap_pages(with, low, high)
    }

    #[inline]
    pub(super) fn unmap_pages<H: MapHal<'a>>(&mut self, with: &H, low: u64, high: u64) -> Result<(), MapError> {
        let Some(first) = self.tree.find(low).filter(|first| first.low() < high) else { return Ok(()) };
        // Nearly always it is one area, or an end of one.
        if first.high() == high || first.high() > high && first.low() >= low {
            self.unmap_of_one(with, first, low.max(first.low()), high)
        } else {
            self.unmap_of_many(with, low, high)
        }
    }

    /// Unmaps all or an end of one area: no record is needed.
    #[inline]
    fn unmap_of_one<H: MapHal<'a>>(
        &mut self,
        with: &H,
        area: &'a Record<'a>,
        low: u64,
        high: u64,
    ) -> Result<(), MapError> {
        let flags = area.flags();
        if flags.contains(VmFlags::SEALED) {
            return Err(MapError::Sealed(area.range()));
        }
        let (keeps_below, keeps_above) = (area.low() < low, area.high() > high);
        if keeps_below {
            with.cut(UserAddr::new(low))?;
        } else if keeps_above {
            with.cut(UserAddr::new(high))?;
        }
        let hole_low = if keeps_below { low } else { self.end_before(area) };
        let hole_high = if keeps_above { high } else { self.start_behind(area) };
        with.unmap(user_range(low, high), user_range(hole_low, hole_high));
        // INVARIANT: VMA-5.
        self.usage.sub(flags, high.wrapping_sub(low) >> PAGE_SHIFT);
        if keeps_below {
            self.tree.set_end(area, low);
        } else if keeps_above {
            self.tree.set_start(area, high);
        } else {
            let_go(with, area);
            if let Some(record) = self.tree.remove(area) {
                with.give(record);
            }
        }
        Ok(())
    }

    /// Unmaps from the middle of an area, or what several have.
    fn unmap_of_many<H: MapHal<'a>>(&mut self, with: &H, low: u64, high: u64) -> Result<(), MapError> {
        let removal = self.plan_removal(low, high)?;
        let needed = removal.records();
        self.may_add_areas(needed)?;
        let mut records = Records::take(with, needed)?;
        if let Err(error) = removal.cut(with) {
            records.give_back(with);
            return Err(error);
        }
        let hole_low = removal.first.filter(|_| !removal.cuts.0).map_or(low, |first| self.end_before(first));
        let hole_high = removal.last.filter(|_| !removal.cuts.1).map_or(high, |last| self.start_behind(last));
        removal.unmap(with, user_range(hole_low, hole_high));
        self.remove(with, removal, &mut records);
        records.give_back(with);
        Ok(())
    }

    /// The areas, parts of areas and pages that unmapping `low..high` removes.
    ///
    /// # Errors
    ///
    /// [`MapError::Sealed`].
    #[inline]
    pub(super) fn plan_removal(&self, low: u64, high: u64) -> Result<Removal<'a>, MapError> {
        let mut removal = Removal::nothing(low, high);
        let mut at = self.tree.find(low);
        while let Some(area) = at.filter(|area| area.low() < high) {
            let (flags, start, end) = (area.flags(), area.low(), area.high());
            if flags.contains(VmFlags::SEALED) {
                return Err(MapError::Sealed(area.range()));
            }
            let (cut_below, cut_above) = (start < low, end > high);
            if removal.first.is_none() {
                removal.first = Some(area);
                removal.cuts.0 = cut_below;
            }
            removal.last = Some(area);
            removal.cuts.1 = cut_above;
            removal.whole += usize::from(!cut_below && !cut_above);
            removal.end = end.min(high);
            removal.usage.add(flags, (removal.end - start.max(low)) >> PAGE_SHIFT);
            if end >= high {
                break;
            }
            at = self.tree.next(area);
        }
        Ok(removal)
    }

    /// Where the area before `area` ends, or the space begins.
    #[inline]
    fn end_before(&self, area: &'a Record<'a>) -> u64 {
        self.tree.prev(area).map_or(0, |prev| prev.high())
    }

    /// Where the area behind `area` begins, or the space ends.
    #[inline]
    fn start_behind(&self, area: &'a Record<'a>) -> u64 {
        self.tree.next(area).map_or(self.layout.task_size.get(), |next| next.low())
    }

    /// Takes the areas of a removal away, whose translations are gone. `records` has the one that it may need, and gets
    /// those of areas that are no more. The last area that is left before the range.
    pub(super) fn remove<H: MapHal<'a>>(
        &mut self,
        with: &H,
        removal: Removal<'a>,
        records: &mut Records<'a>,
    ) -> Option<&'a Record<'a>> {
        let (low, high) = (removal.low, removal.high);
        let first = removal.first?;
        // INVARIANT: VMA-5.
        self.usage.total -= removal.usage.total;
        self.usage.data -= removal.usage.data;
        self.usage.locked -= removal.usage.locked;
        let (mut prev, mut at) = (self.tree.prev(first), Some(first));
        if first.low() < low {
            if first.high() > high {
                self.tree.split_with(with, first, high, records);
            }
            self.tree.set_end(first, low);
            (prev, at) = (Some(first), self.tree.next(first));
        }
        while let Some(area) = at.filter(|area| area.low() < high) {
            if area.high() > high {
                self.tree.set_start(area, high);
                break;
            }
            at = self.tree.next(area);
            let_go(with, area);
            if let Some(record) = self.tree.remove(area) {
                records.push(record);
            }
        }
        prev
    }

    /// Unmaps everything: the process is gone. The heap is as if it had just begun.
    pub fn clear<H: MapHal<'a>>(&mut self, with: &H) {
        if let (Some(first), Some(last)) = (self.tree.first(), self.tree.last()) {
            with.unmap(user_range(first.low(), last.high()), user_range(0, self.layout.task_size.get()));
        }
        self.release_areas(with);
    }

    /// Gives all areas up, of which nothing is translated.
    pub(in crate::mm::user) fn release_areas<H: VmaSource<'a> + Objects>(&mut self, with: &H) {
        while let Some(first) = self.tree.first() {
            let area = first.node();
            let_go(with, area);
            match self.tree.remove(area) {
                Some(record) => with.give(record),
                None => break,
            }
        }
        self.usage = Usage::default();
        self.brk = self.start_brk;
    }
}
