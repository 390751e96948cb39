//! Making an area larger or smaller, and moving it (Linux: `mremap`).
#![forbid(unsafe_code)]

use super::merge::{Join, Proposal};
use super::munmap::{Removal, whole_pages};
use super::records::Records;
use super::summary::start_with_guard;
use super::translations::MapHal;
use super::vma::{Record, user_range};
use super::{AddressMap, MapError, VmFlags};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr, UserRange};
use crate::ds::rbtree::Cursor;

/// The range of one area to resize or move, and its new size and place.
#[derive(Clone, Copy, Debug)]
pub struct MremapRequest {
    /// Where it begins, a multiple of the page size.
    pub addr: UserAddr,
    /// Its bytes, rounded up to whole pages.
    pub old_size: u64,
    /// The bytes that it is to have, rounded up to whole pages.
    pub new_size: u64,
    /// It may move, if it has no room to grow (`MREMAP_MAYMOVE`).
    pub may_move: bool,
    /// It moves there, in place of what is mapped there (`MREMAP_FIXED`). Only with `may_move`.
    pub to: Option<UserAddr>,
}

/// A request, rounded to pages and checked by itself.
#[derive(Clone, Copy)]
struct Sizes {
    addr: u64,
    old: u64,
    new: u64,
}

impl<'a> AddressMap<'a> {
    /// Makes a range of one area larger or smaller, where it is or elsewhere, with its content: where it is now.
    ///
    /// # Errors
    ///
    /// - [`MapError::Unaligned`], [`MapError::Empty`], [`MapError::BadRange`], [`MapError::BadFlags`],
    ///   [`MapError::Overlap`], [`MapError::BelowMinimum`]: the request.
    /// - [`MapError::NotOneArea`]: nothing is mapped there, or more than one area.
    /// - [`MapError::NotExpandable`], [`MapError::OffsetTooLarge`], [`MapError::Sealed`]: the area.
    /// - [`MapError::NoGap`]: it may not move and has no room, or there is none elsewhere.
    /// - [`MapError::LockedLimit`], [`MapError::AddressSpaceLimit`], [`MapError::DataLimit`], [`MapError::MapCount`],
    ///   [`MapError::NoMemory`].
    ///
    /// Nothing has changed then.
    pub fn mremap<H: MapHal<'a>>(&mut self, with: &H, request: &MremapRequest) -> Result<UserAddr, MapError> {
        let end = self.layout.task_size;
        let (addr, old_high) = whole_pages(request.addr, request.old_size, end)?;
        let new = request.new_size.checked_next_multiple_of(PAGE_SIZE).filter(|size| *size <= end.get());
        let new = new.ok_or(MapError::TooLarge(request.new_size))?;
        if new == 0 {
            return Err(MapError::Empty);
        }
        let sizes = Sizes { addr, old: old_high - addr, new };
        let area = self.at(addr).map_err(|_| MapError::NotOneArea(request.addr))?;
        match request.to {
            Some(to) if request.may_move => return self.move_to(with, area, sizes, to),
            Some(_) => return Err(MapError::BadFlags(area.flags())),
            None => {}
        }
        if new <= sizes.old {
            if new < sizes.old {
                self.unmap_pages(with, addr + new, old_high)?;
            }
            return Ok(request.addr);
        }
        self.may_grow(area, sizes)?;
        if self.grow_in_place(with, area, sizes)? {
            return Ok(request.addr);
        }
        if !request.may_move {
            return Err(MapError::NoGap(new));
        }
        let (to, _) = self.free_addresses(new, PAGE_SIZE)?;
        self.move_range(with, area, sizes, Removal::nothing(to, to + new))
    }

    /// Whether `area` may have more pages from `addr` on, as far as itself and the limits decide it.
    fn may_grow(&self, area: &'a Record<'a>, sizes: Sizes) -> Result<(), MapError> {
        let flags = area.flags();
        if area.high() - sizes.addr < sizes.old.min(sizes.new) {
            return Err(MapError::NotOneArea(UserAddr::new(sizes.addr)));
        }
        if flags.contains(VmFlags::SEALED) {
            return Err(MapError::Sealed(area.range()));
        }
        let Some(more) = sizes.new.checked_sub(sizes.old).filter(|more| *more > 0) else { return Ok(()) };
        if flags.intersects(VmFlags::DONTEXPAND | VmFlags::PFNMAP) {
            return Err(MapError::NotExpandable(area.range()));
        }
        let offset = area.page_offset_of(UserAddr::new(sizes.addr));
        if flags.has_named_object()
            && offset.checked_add(sizes.new >> PAGE_SHIFT).is_none_or(|end| end > u64::MAX >> PAGE_SHIFT)
        {
            return Err(MapError::OffsetTooLarge(offset));
        }
        self.may_lock(flags, more >> PAGE_SHIFT)?;
        self.may_expand(flags, more >> PAGE_SHIFT)
    }

    /// Makes the area larger where it is, if the range reaches to its end and there is room behind it: whether it was done.
    #[inline]
    fn grow_in_place<H: MapHal<'a>>(&mut self, with: &H, area: &'a Record<'a>, sizes: Sizes) -> Result<bool, MapError> {
        let (low, high) = (area.high(), sizes.addr + sizes.new);
        if sizes.addr + sizes.old != low || high > self.layout.task_size.get() {
            return Ok(false);
        }
        let next = self.tree.next(area);
        if next.is_some_and(|next| start_with_guard(next) < high) {
            return Ok(false);
        }
        let offset = area.page_offset().wrapping_add(area.pages());
        let range = Proposal { low, high, offset, flags: area.flags(), object: area.object() };
        let join = Join::of_new(Some(area), next.map(|next| next.payload()), &range);
        if !matches!(join, Some(Join::Prev | Join::Both)) {
            return Ok(false);
        }
        let mut records = Records::none();
        self.enter(with, (Some(area), next), join, &range, &mut records);
        records.give_back(with);
        Ok(true)
    }

    /// Moves to a fixed address.
    fn move_to<H: MapHal<'a>>(
        &mut self,
        with: &H,
        area: &'a Record<'a>,
        sizes: Sizes,
        to: UserAddr,
    ) -> Result<UserAddr, MapError> {
        let (low, high) = match self.fixed(to, sizes.new) {
            Err(MapError::OutsideSpace(to)) => return Err(MapError::BadRange(to)),
            range => range?,
        };
        let source: UserRange = user_range(sizes.addr, sizes.addr + sizes.old);
        if source.overlaps(user_range(low, high)) {
            return Err(MapError::Overlap(source));
        }
        self.may_grow(area, sizes)?;
        let removal = self.plan_removal(low, high)?;
        self.move_range(with, area, sizes, removal)
    }

    /// Moves a part of `area` to where `destination` is.
    fn move_range<H: MapHal<'a>>(
        &mut self,
        with: &H,
        area: &'a Record<'a>,
        sizes: Sizes,
        destination: Removal<'a>,
    ) -> Result<UserAddr, MapError> {
        let (low, high, to) = (sizes.addr, sizes.addr + sizes.old, destination.low);
        let moved = sizes.old.min(sizes.new);
        let source = self.plan_removal(low, high)?;
        // Records of areas that go serve for the one that comes.
        let needed =
            destination.records() + source.records() + usize::from(destination.whole == 0 && source.whole == 0);
        self.may_add_areas(needed)?;
        let mut records = Records::take(with, needed)?;
        if let Err(error) = self.move_translations(with, (low, high, moved), &destination, &source) {
            records.give_back(with);
            return Err(error);
        }
        // Nothing fails from here on. The object stays while the area is in neither place, and its file hears of the new
        // place first.
        let (flags, object) = (area.flags(), area.object());
        let offset = match object {
            // Nothing refers to the page numbers of private anonymous memory, so that they can suit the new neighbours.
            None => to >> PAGE_SHIFT,
            Some(_) => area.page_offset_of(UserAddr::new(low)),
        };
        let range = Proposal { low: to, high: to + sizes.new, offset, flags, object };
        if let Some(object) = object {
            with.get(object);
            range.tell_opened(with);
        }
        self.remove(with, destination, &mut records);
        // The areas may have been cut by that, so they are looked for again; none of them is sealed.
        if let Ok(source) = self.plan_removal(low, high) {
            self.remove(with, source, &mut records);
        }
        let prev = self.tree.last_at_or_below(to).map(Cursor::node);
        let is_own = self.enter_after(with, prev, &range, &mut records);
        if let Some(object) = object {
            if !is_own {
                range.tell_closed(with);
            }
            with.put(object);
        }
        records.give_back(with);
        Ok(UserAddr::new(to))
    }

    /// Changes the translations for a move of `moved` bytes of `low..high` to `destination`.
    fn move_translations<H: MapHal<'a>>(
        &self,
        with: &H,
        (low, high, moved): (u64, u64, u64),
        destination: &Removal<'a>,
        source: &Removal<'a>,
    ) -> Result<(), MapError> {
        destination.cut(with)?;
        source.cut(with)?;
        if low + moved < high {
            self.cut_inside(with, low + moved)?;
        }
        if destination.low + moved < destination.high && !destination.is_nothing() {
            self.cut_inside(with, destination.low + moved)?;
        }
        with.relocate(user_range(low, low + moved), UserAddr::new(destination.low))?;
        if low + moved < high {
            let rest = user_range(low + moved, high);
            with.unmap(rest, rest);
        }
        if destination.low + moved < destination.high && !destination.is_nothing() {
            let rest = user_range(destination.low + moved, destination.high);
            with.unmap(rest, rest);
        }
        Ok(())
    }
}
