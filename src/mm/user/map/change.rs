//! Changing the flags of a range of areas: split where an edge is inside an area, merged where it can be.
#![forbid(unsafe_code)]

use super::limits::Usage;
use super::merge::{Change, Proposal};
use super::munmap::whole_pages;
use super::records::Records;
use super::translations::MapHal;
use super::vma::{Record, Vma, user_range};
use super::{AddressMap, MapError, VmFlags};
use crate::addr::{PAGE_SHIFT, UserAddr, UserRange};

/// How far a call gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// All or nothing.
    All,
    /// Up to what is refused (`mprotect`).
    UpToRefusal,
}

/// The areas of a range, as far as a call gets.
struct Plan<'a> {
    first: &'a Record<'a>,
    last: &'a Record<'a>,
    /// One past what is changed.
    upto: u64,
    /// Reason why it is not the whole range.
    refused: Option<MapError>,
}

impl<'a> AddressMap<'a> {
    /// Gives every area in `low..high` the flags that `rule` says, and calls `act` for what has changed.
    ///
    /// # Errors
    ///
    /// Those of `rule`; [`MapError::NotMapped`] where nothing is mapped; the limits; [`MapError::NoMemory`]. `extent`
    /// decides how much has changed then; upon a lack of memory or areas, nothing has.
    pub(super) fn change_flags<H: MapHal<'a>>(
        &mut self,
        with: &H,
        (low, high): (u64, u64),
        extent: Extent,
        rule: impl Fn(&Vma) -> Result<VmFlags, MapError>,
        act: impl Fn(&H, UserRange, VmFlags),
    ) -> Result<(), MapError> {
        // The usual case is a range in one area.
        if let Some(area) = self.tree.find(low).filter(|area| area.low() <= low && area.high() >= high) {
            return self.change_one(with, area, (low, high), rule(area)?, act);
        }
        let Plan { first, last, upto, refused } = self.plan_change((low, high), &rule)?;
        if let Some(error) = refused
            && (extent == Extent::All || upto == low)
        {
            return Err(error);
        }
        let result = refused.map_or(Ok(()), Err);
        // Of a range in one area the number of records is known exactly.
        let (mut only, needed) = if core::ptr::eq(first, last) {
            let flags = rule(first)?;
            if flags == first.flags() {
                return result;
            }
            let change = self.tree.change_of(first, &Proposal::part_of(first, low, upto, flags));
            (Some(change), change.records())
        } else {
            (None, usize::from(first.low() < low) + usize::from(last.high() > upto))
        };
        self.may_add_areas(needed)?;
        let mut records = Records::take(with, needed)?;
        let mut cut = Ok(());
        if first.low() < low {
            cut = with.cut(UserAddr::new(low));
        }
        if last.high() > upto && cut.is_ok() {
            cut = with.cut(UserAddr::new(upto));
        }
        if let Err(error) = cut {
            records.give_back(with);
            return Err(error.into());
        }
        let (mut at, mut pos) = (first, low);
        while pos < upto {
            let (end, old) = (at.high().min(upto), at.flags());
            let Ok(flags) = rule(at) else { break };
            if flags != old {
                let part = Proposal::part_of(at, pos, end, flags);
                let change = only.take().unwrap_or_else(|| self.tree.change_of(at, &part));
                at = self.tree.change(with, at, &part, change, &mut records);
                // INVARIANT: VMA-5.
                self.usage.sub(old, part.pages());
                self.usage.add(flags, part.pages());
                act(with, user_range(pos, end), flags);
            }
            pos = end;
            if at.high() <= pos {
                let Some(next) = self.tree.next(at) else { break };
                at = next;
            }
        }
        records.give_back(with);
        result
    }

    /// [`Self::change_flags`] for a range that lies in `area`.
    fn change_one<H: MapHal<'a>>(
        &mut self,
        with: &H,
        area: &'a Record<'a>,
        (low, high): (u64, u64),
        flags: VmFlags,
        act: impl Fn(&H, UserRange, VmFlags),
    ) -> Result<(), MapError> {
        let old = area.flags();
        if flags == old {
            return Ok(());
        }
        let part = Proposal::part_of(area, low, high, flags);
        self.admit(area, flags, part.pages(), &mut Usage::default())?;
        let change = self.tree.change_of(area, &part);
        if change == (Change::Split { below: false, above: false }) {
            area.set_flags(flags);
        } else {
            let needed = change.records();
            self.may_add_areas(needed)?;
            let mut records = Records::take(with, needed)?;
            let below = if area.low() < low { with.cut(UserAddr::new(low)) } else { Ok(()) };
            let cut = below.and_then(|()| if area.high() > high { with.cut(UserAddr::new(high)) } else { Ok(()) });
            if let Err(error) = cut {
                records.give_back(with);
                return Err(error.into());
            }
            self.tree.change(with, area, &part, change, &mut records);
            records.give_back(with);
        }
        // INVARIANT: VMA-5.
        self.usage.sub(old, part.pages());
        self.usage.add(flags, part.pages());
        act(with, user_range(low, high), flags);
        Ok(())
    }

    fn plan_change(
        &self,
        (low, high): (u64, u64),
        rule: &impl Fn(&Vma) -> Result<VmFlags, MapError>,
    ) -> Result<Plan<'a>, MapError> {
        let first = self.at(low)?;
        let mut plan = Plan { first, last: first, upto: low, refused: None };
        let (mut at, mut more) = (Some(first), Usage::default());
        while plan.upto < high {
            let Some(area) = at.filter(|area| area.low() <= plan.upto) else {
                plan.refused = Some(MapError::NotMapped(UserAddr::new(plan.upto)));
                break;
            };
            let end = area.high().min(high);
            if let Err(error) =
                rule(area).and_then(|flags| self.admit(area, flags, (end - plan.upto) >> PAGE_SHIFT, &mut more))
            {
                plan.refused = Some(error);
                break;
            }
            (plan.last, plan.upto) = (area, end);
            at = self.tree.next(area);
        }
        Ok(plan)
    }

    /// Counts what `pages` of `area` come to with other flags, if the limits allow it.
    #[inline]
    fn admit(&self, area: &Vma, flags: VmFlags, pages: u64, more: &mut Usage) -> Result<(), MapError> {
        let old = area.flags();
        if flags.is_data() && !old.is_data() {
            more.data += pages;
            if self.usage.data.saturating_add(more.data) > self.limits.data {
                return Err(MapError::DataLimit(self.limits.data));
            }
        }
        if (flags - old).contains(VmFlags::LOCKED) {
            more.locked += pages;
            self.may_lock(VmFlags::LOCKED, more.locked)?;
        }
        Ok(())
    }

    /// Locks the pages of a range: they count against the limit, and are not taken away. Bringing them in is the caller's
    /// part. Areas of devices are passed over.
    ///
    /// # Errors
    ///
    /// [`MapError::LockedLimit`], [`MapError::NotMapped`], and those of a range. Nothing has changed then.
    pub fn mlock<H: MapHal<'a>>(&mut self, with: &H, addr: UserAddr, size: u64) -> Result<(), MapError> {
        let rule = |area: &Vma| {
            let flags = area.flags();
            Ok(if flags.intersects(VmFlags::SPECIAL) { flags } else { flags | VmFlags::LOCKED })
        };
        self.change_all(with, addr, size, rule)
    }

    /// Unlocks the pages of a range.
    ///
    /// # Errors
    ///
    /// [`MapError::NotMapped`], and those of a range. Nothing has changed then.
    pub fn munlock<H: MapHal<'a>>(&mut self, with: &H, addr: UserAddr, size: u64) -> Result<(), MapError> {
        self.change_all(with, addr, size, |area| Ok(area.flags() - VmFlags::LOCKED))
    }

    /// Seals a range for good: it can no longer be unmapped, moved, or given other permissions.
    ///
    /// # Errors
    ///
    /// [`MapError::NotMapped`], and those of a range. Nothing has changed then.
    pub fn mseal<H: MapHal<'a>>(&mut self, with: &H, addr: UserAddr, size: u64) -> Result<(), MapError> {
        self.change_all(with, addr, size, |area| Ok(area.flags() | VmFlags::SEALED))
    }

    /// Changes flags that no translation shows.
    pub(super) fn change_all<H: MapHal<'a>>(
        &mut self,
        with: &H,
        addr: UserAddr,
        size: u64,
        rule: impl Fn(&Vma) -> Result<VmFlags, MapError>,
    ) -> Result<(), MapError> {
        let range = whole_pages(addr, size, self.layout.task_size)?;
        self.change_flags(with, range, Extent::All, rule, |_, _, _| ())
    }
}
