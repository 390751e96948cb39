//! Mapping (Linux: `do_mmap`, `mmap_region`).
#![forbid(unsafe_code)]

use super::NewArea;
use super::fill::Fill;
use super::gap::{Found, Request};
use super::limits::{MapLayout, Placement};
use super::merge::{Join, Proposal};
use super::munmap::Removal;
use super::records::Records;
use super::summary::start_with_guard;
use super::translations::MapHal;
use super::vma::{ObjectId, Record, user_range};
use super::{AddressMap, MapError, VmFlags};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::ds::rbtree::Cursor;

/// Where a mapping goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Wherever there is room.
    Anywhere,
    /// There, if it is free; else wherever there is room. Rounded down to a page, and up to the lowest address allowed.
    Hint(UserAddr),
    /// There, in place of what is mapped there (`MAP_FIXED`).
    Fixed(UserAddr),
    /// There and nowhere else, if it is free (`MAP_FIXED_NOREPLACE`).
    FixedNoReplace(UserAddr),
}

/// The memory or file behind a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Zeros, private: copied when it is written to after a fork.
    Anonymous,
    /// Anonymous memory with an identity, shared by all who map it. The flags say [`VmFlags::SHARED`].
    Shared(ObjectId),
    /// A file or a device, which says by its [`mmap`](super::Objects::mmap) operation what it permits.
    File(ObjectId),
}

/// A mapping that is asked for.
///
/// The caller has a reference to the object and keeps it: the areas get their own.
#[derive(Clone, Copy, Debug)]
pub struct MmapRequest {
    /// Where.
    pub place: Place,
    /// Bytes, rounded up to whole pages.
    pub size: u64,
    /// Of what the address is a multiple: a power of two; less than a page counts as one. Ignored where the place is fixed.
    pub align: u64,
    /// [`VmFlags::ACCESS`], [`VmFlags::SHARED`], [`VmFlags::GROWSDOWN`], [`VmFlags::LOCKED`], [`VmFlags::DONTCOPY`].
    pub flags: VmFlags,
    /// The memory or object that is mapped.
    pub backing: Backing,
    /// Where in the object it begins: bytes, a multiple of the page size. Ignored for [`Backing::Anonymous`].
    pub offset: u64,
}

impl MmapRequest {
    /// Private anonymous memory wherever there is room.
    #[must_use]
    pub const fn anonymous(size: u64, access: VmFlags) -> Self {
        Self { place: Place::Anywhere, size, align: 0, flags: access, backing: Backing::Anonymous, offset: 0 }
    }

    /// The same elsewhere.
    #[must_use]
    pub const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The flags of the area, and its object.
    ///
    /// # Errors
    ///
    /// [`MapError::BadFlags`], [`MapError::WriteExec`], [`MapError::Access`].
    #[inline]
    fn checked_flags(&self) -> Result<(VmFlags, Option<ObjectId>), MapError> {
        const KNOWN: VmFlags = VmFlags::ACCESS
            .union(VmFlags::SHARED)
            .union(VmFlags::GROWSDOWN)
            .union(VmFlags::LOCKED)
            .union(VmFlags::DONTCOPY);
        let flags = self.flags;
        if flags.is_write_exec() {
            return Err(MapError::WriteExec);
        }
        let shared = flags.contains(VmFlags::SHARED);
        let (flags, may, object) = match self.backing {
            Backing::Anonymous if !shared => (flags, VmFlags::MAYACCESS, None),
            // Every process that shares it may write to it, so none executes it.
            Backing::Shared(object) if shared => (flags, VmFlags::MAYREAD | VmFlags::MAYWRITE, Some(object)),
            Backing::File(object) => (flags | VmFlags::FILE, VmFlags::MAYACCESS, Some(object)),
            _ => return Err(MapError::BadFlags(flags)),
        };
        let stack_of_object = flags.contains(VmFlags::GROWSDOWN) && object.is_some();
        if !(KNOWN | VmFlags::FILE).contains(flags)
            || stack_of_object
            || !(self.align.is_power_of_two() || self.align == 0)
        {
            return Err(MapError::BadFlags(flags));
        }
        let flags = flags | may;
        if flags.access_is_allowed() { Ok((flags, object)) } else { Err(MapError::Access(flags)) }
    }
}

/// Where a mapping goes.
enum Placed<'a> {
    /// There, where nothing is mapped.
    Free(Found<'a>),
    /// There, for which something has to go.
    Over(Removal<'a>),
}

impl<'a> AddressMap<'a> {
    /// Maps memory or a file, and answers where. Nothing is read or allocated for it yet, but what a file maps at once.
    ///
    /// # Errors
    ///
    /// - [`MapError::Empty`], [`MapError::TooLarge`], [`MapError::Unaligned`], [`MapError::OffsetTooLarge`],
    ///   [`MapError::BadFlags`]: the request.
    /// - [`MapError::WriteExec`], [`MapError::Access`]: the access, by itself or by what the file permits.
    /// - [`MapError::BelowMinimum`], [`MapError::OutsideSpace`], [`MapError::Exists`], [`MapError::Sealed`],
    ///   [`MapError::NoGap`]: the place.
    /// - [`MapError::LockedLimit`], [`MapError::AddressSpaceLimit`], [`MapError::DataLimit`], [`MapError::MapCount`],
    ///   [`MapError::NoMemory`], [`MapError::File`].
    ///
    /// Nothing has changed then.
    pub fn mmap<H: MapHal<'a>>(&mut self, with: &H, request: &MmapRequest) -> Result<UserAddr, MapError> {
        let (flags, object) = request.checked_flags()?;
        if request.size == 0 {
            return Err(MapError::Empty);
        }
        if request.size > self.layout.task_size.get() {
            return Err(MapError::TooLarge(request.size));
        }
        // The end of the space is that of a page: what is not larger can be rounded up.
        let size = request.size.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        let pages = size >> PAGE_SHIFT;
        if object.is_some() {
            if !UserAddr::new(request.offset).is_aligned(PAGE_SIZE) {
                return Err(MapError::Unaligned(request.offset));
            }
            request.offset.checked_add(size).ok_or(MapError::OffsetTooLarge(request.offset))?;
        }
        self.may_lock(flags, pages)?;
        let (low, prev) = match request.place {
            Place::Anywhere => self.free_addresses(size, request.align)?,
            _ => match self.place(request, size)? {
                Placed::Free(found) => found,
                Placed::Over(removal) => {
                    self.may_replace(flags, pages, &removal.usage)?;
                    let low = removal.low;
                    let mut range = Self::proposal(request, (low, size), flags, object);
                    let mut fill = None;
                    Self::ask(with, &mut range, &mut fill)?;
                    self.map_over(with, removal, &range, fill.as_ref())?;
                    return Ok(UserAddr::new(low));
                }
            },
        };
        self.may_expand(flags, pages)?;
        let mut range = Self::proposal(request, (low, size), flags, object);
        let mut fill = None;
        Self::ask(with, &mut range, &mut fill)?;
        self.map_free(with, prev, &range, fill.as_ref())?;
        Ok(UserAddr::new(low))
    }

    /// The area that is asked for.
    #[inline(always)]
    fn proposal(request: &MmapRequest, (low, size): (u64, u64), flags: VmFlags, object: Option<ObjectId>) -> Proposal {
        let offset = if object.is_some() { request.offset } else { low } >> PAGE_SHIFT;
        Proposal { low, high: low.wrapping_add(size), offset, flags, object }
    }

    /// The file's own operation, if the area has a file: the flags become what it permits, and `fill` what it maps at once. Both
    /// stay where they are, since nearly always nothing is asked.
    #[inline(always)]
    fn ask<H: MapHal<'a>>(with: &H, range: &mut Proposal, fill: &mut Option<Fill>) -> Result<(), MapError> {
        match range.object.filter(|_| range.flags.contains(VmFlags::FILE)) {
            Some(file) => Self::ask_file(with, file, range, fill),
            None => Ok(()),
        }
    }

    #[inline(never)]
    fn ask_file<H: MapHal<'a>>(
        with: &H,
        file: ObjectId,
        range: &mut Proposal,
        fill: &mut Option<Fill>,
    ) -> Result<(), MapError> {
        const MAY_ADD: VmFlags = VmFlags::SPECIAL.union(VmFlags::DONTCOPY).union(VmFlags::HOOKS);
        let asked = range.flags;
        let mut area =
            NewArea { range: user_range(range.low, range.high), page_offset: range.offset, flags: asked, fill: None };
        with.mmap(file, &mut area)?;
        let refused = VmFlags::MAYACCESS - area.flags;
        let mut flags = (asked - refused) | (area.flags & MAY_ADD);
        if let Some(fill) = &area.fill {
            flags = (flags | fill.flags()) - VmFlags::MAYEXEC;
            // A write goes to the device and not to a copy, which only a shared mapping may mean.
            if !flags.contains(VmFlags::SHARED) {
                flags -= VmFlags::MAYWRITE;
            }
        }
        // Memory that can be written to through one mapping is not executed through another.
        if flags.contains(VmFlags::SHARED | VmFlags::MAYWRITE) {
            flags -= VmFlags::MAYEXEC;
        }
        if !flags.access_is_allowed() {
            return Err(MapError::Access(flags));
        }
        (range.flags, *fill) = (flags, area.fill);
        Ok(())
    }

    /// Where the request goes.
    #[inline(never)]
    fn place(&self, request: &MmapRequest, size: u64) -> Result<Placed<'a>, MapError> {
        let (addr, replaces) = match request.place {
            Place::Anywhere => return self.free_addresses(size, request.align).map(Placed::Free),
            Place::Hint(hint) => {
                let low = hint.align_down(PAGE_SIZE).max(self.layout.mmap_min).get();
                return match self.free_at(low, size) {
                    Some(found) => Ok(Placed::Free(found)),
                    None => self.free_addresses(size, request.align).map(Placed::Free),
                };
            }
            Place::Fixed(addr) => (addr, true),
            Place::FixedNoReplace(addr) => (addr, false),
        };
        let (low, high) = self.fixed(addr, size)?;
        let first = self.tree.find(low);
        if let Some(first) = first.filter(|first| first.low() < high) {
            if !replaces {
                return Err(MapError::Exists(first.range()));
            }
            return self.plan_removal(low, high).map(Placed::Over);
        }
        Ok(Placed::Free((low, self.before(first))))
    }

    /// The range at a fixed address.
    ///
    /// # Errors
    ///
    /// [`MapError::Unaligned`], [`MapError::BelowMinimum`], [`MapError::OutsideSpace`].
    pub(super) fn fixed(&self, addr: UserAddr, size: u64) -> Result<(u64, u64), MapError> {
        if !addr.is_aligned(PAGE_SIZE) {
            return Err(MapError::Unaligned(addr.get()));
        }
        if addr < self.layout.mmap_min {
            return Err(MapError::BelowMinimum(addr));
        }
        match addr.get().checked_add(size) {
            Some(high) if high <= self.layout.task_size.get() => Ok((addr.get(), high)),
            _ => Err(MapError::OutsideSpace(addr)),
        }
    }

    /// The area before `area`, or the last.
    pub(super) fn before(&self, area: Option<&'a Record<'a>>) -> Option<&'a Record<'a>> {
        match area {
            Some(area) => self.tree.prev(area),
            None => self.tree.last().map(Cursor::node),
        }
    }

    /// `low`, if `size` bytes are free there.
    fn free_at(&self, low: u64, size: u64) -> Option<Found<'a>> {
        let high = low.checked_add(size).filter(|high| *high <= self.layout.task_size.get())?;
        let next = self.tree.find(low);
        if next.is_some_and(|next| start_with_guard(next) < high) {
            return None;
        }
        Some((low, self.before(next)))
    }

    /// Free addresses: from the base in the direction of the layout, and if there are none, on its other side.
    #[inline]
    pub(super) fn free_addresses(&self, size: u64, align: u64) -> Result<Found<'a>, MapError> {
        let MapLayout { mmap_min, task_size, mmap_base, placement } = &self.layout;
        let (min, base, end) = (mmap_min.get(), mmap_base.get(), task_size.get());
        let align = align.max(PAGE_SIZE);
        let (low, high) = if *placement == Placement::TopDown { (min, base) } else { (base, end) };
        match self.tree.find_gap(&Request { size, align, low, high }, *placement) {
            Some(found) => Ok(found),
            None => self.free_on_other_side(size, align),
        }
    }

    #[cold]
    fn free_on_other_side(&self, size: u64, align: u64) -> Result<Found<'a>, MapError> {
        let MapLayout { mmap_min, task_size, mmap_base, placement } = &self.layout;
        let (low, high) =
            if *placement == Placement::TopDown { (*mmap_base, *task_size) } else { (*mmap_min, *mmap_base) };
        let request = Request { size, align, low: low.get(), high: high.get() };
        self.tree.find_gap(&request, Placement::BottomUp).ok_or(MapError::NoGap(size))
    }

    /// Maps a range where nothing is mapped, behind `prev`.
    #[inline(always)]
    fn map_free<H: MapHal<'a>>(
        &mut self,
        with: &H,
        prev: Option<&'a Record<'a>>,
        range: &Proposal,
        fill: Option<&Fill>,
    ) -> Result<(), MapError> {
        let next = self.tree.next_of(prev);
        let join = Join::of_new(prev.map(|prev| prev.payload()), next.map(|next| next.payload()), range);
        let mut records = Records::none();
        if join.is_none() {
            self.may_add_areas(1)?;
            records.take_one(with)?;
        }
        if let Some(fill) = fill
            && let Err(error) = with.fill(user_range(range.low, range.high), fill, range.flags)
        {
            records.give_back(with);
            return Err(error);
        }
        if self.enter(with, (prev, next), join, range, &mut records) {
            range.tell_opened(with);
        }
        records.give_back(with);
        Ok(())
    }

    /// Maps a range in place of what is there.
    #[inline(never)]
    fn map_over<H: MapHal<'a>>(
        &mut self,
        with: &H,
        removal: Removal<'a>,
        range: &Proposal,
        fill: Option<&Fill>,
    ) -> Result<(), MapError> {
        // The record of an area that goes serves for the one that comes.
        let needed = removal.records() + usize::from(removal.whole == 0);
        self.may_add_areas(needed)?;
        let mut records = Records::take(with, needed)?;
        let filled = || match fill {
            Some(fill) => with.fill(user_range(range.low, range.high), fill, range.flags),
            None => Ok(()),
        };
        if let Err(error) = removal.cut(with).and_then(|()| filled()) {
            records.give_back(with);
            return Err(error);
        }
        if fill.is_none() {
            removal.unmap(with, user_range(range.low, range.high));
        }
        let prev = self.remove(with, removal, &mut records);
        if self.enter_after(with, prev, range, &mut records) {
            range.tell_opened(with);
        }
        records.give_back(with);
        Ok(())
    }

    /// Puts in an area behind `prev`, merged if it can be.
    pub(super) fn enter_after<H: MapHal<'a>>(
        &mut self,
        with: &H,
        prev: Option<&'a Record<'a>>,
        range: &Proposal,
        records: &mut Records<'a>,
    ) -> bool {
        let next = self.tree.next_of(prev);
        let join = Join::of_new(prev.map(|prev| prev.payload()), next.map(|next| next.payload()), range);
        self.enter(with, (prev, next), join, range, records)
    }

    /// Puts in an area, for which `records` has a record unless it joins others, and counts it: whether it is an area of its
    /// own. Telling its file is the caller's part.
    #[inline(always)]
    pub(super) fn enter<H: MapHal<'a>>(
        &mut self,
        with: &H,
        (prev, next): (Option<&'a Record<'a>>, Option<&'a Record<'a>>),
        join: Option<Join>,
        range: &Proposal,
        records: &mut Records<'a>,
    ) -> bool {
        if let Some(join) = join {
            self.tree.join_new(with, (prev, next), join, range, records);
        } else {
            let Some(record) = records.pop() else { return false };
            record.set_low(range.low);
            record.set_high(range.high);
            record.set_page_offset(range.offset);
            record.set_flags(range.flags);
            record.set_object(range.object);
            if let Err(record) = self.tree.insert(prev, record) {
                // Impossible: the range is free, and behind `prev`.
                records.push(record);
                return false;
            }
            if let Some(object) = range.object {
                with.get(object);
            }
        }
        // INVARIANT: VMA-5.
        self.usage.add(range.flags, range.pages());
        join.is_none()
    }
}
