//! When areas become one (Linux: `vma_merge_new_range`, `vma_merge_existing_range`, `vma_expand`).
//!
//! Two areas can be one if they touch, behave alike, and their objects and offsets continue. A merge needs no memory. It
//! never deletes an area whose file wants to hear of that ([`VmFlags::HOOKS`]); such an area may be extended.
#![forbid(unsafe_code)]

use super::VmFlags;
use super::records::Records;
use super::translations::Objects;
use super::tree::VmaTree;
use super::vma::{ObjectId, Record, Vma, user_range};
use crate::addr::PAGE_SHIFT;

/// A range, and what an area there would be (Linux: `vma_merge_struct`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Proposal {
    pub(super) low: u64,
    pub(super) high: u64,
    /// In pages.
    pub(super) offset: u64,
    pub(super) flags: VmFlags,
    pub(super) object: Option<ObjectId>,
}

impl Proposal {
    /// The part of `area` from `low` to `high`, with other flags.
    #[inline]
    pub(super) fn part_of(area: &Vma, low: u64, high: u64, flags: VmFlags) -> Self {
        let offset = area.page_offset().wrapping_add(low.wrapping_sub(area.low()) >> PAGE_SHIFT);
        Self { low, high, offset, flags, object: area.object() }
    }

    #[inline(always)]
    pub(super) const fn pages(&self) -> u64 {
        self.high.wrapping_sub(self.low) >> PAGE_SHIFT
    }

    /// The file that wants to hear of its areas.
    #[inline]
    fn listener(&self) -> Option<ObjectId> {
        self.object.filter(|_| self.flags.contains(VmFlags::HOOKS))
    }

    /// Tells the file of an area that is made here.
    #[inline]
    pub(super) fn tell_opened(&self, with: &impl Objects) {
        if let Some(file) = self.listener() {
            with.opened(file, user_range(self.low, self.high));
        }
    }

    /// Tells the file that there is no area of its own here.
    pub(super) fn tell_closed(&self, with: &impl Objects) {
        if let Some(file) = self.listener() {
            with.closed(file, user_range(self.low, self.high));
        }
    }

    /// Whether the range can be one with the area before it.
    #[inline(always)]
    pub(super) fn continues(&self, prev: &Vma) -> bool {
        prev.high() == self.low
            && prev.flags().merges_with(self.flags)
            && prev.page_offset().wrapping_add(prev.pages()) == self.offset
            && objects_agree(self.flags, prev.object(), self.object)
    }

    /// Whether it can be one with the area behind it.
    #[inline(always)]
    fn is_continued_by(&self, next: &Vma) -> bool {
        next.low() == self.high
            && next.flags().merges_with(self.flags)
            && self.offset.wrapping_add(self.pages()) == next.page_offset()
            && objects_agree(self.flags, next.object(), self.object)
    }
}

/// Whether areas with these objects can be one. An object that is attached to private anonymous memory agrees with none.
#[inline(always)]
fn objects_agree(flags: VmFlags, one: Option<ObjectId>, other: Option<ObjectId>) -> bool {
    one == other || !flags.has_named_object() && (one.is_none() || other.is_none())
}

/// With which neighbours a range becomes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Join {
    Prev,
    Next,
    /// With both; the next one is deleted.
    Both,
}

impl Join {
    /// With neighbours that suit by themselves, if they suit each other.
    #[inline(always)]
    fn of(left: Option<&Vma>, right: Option<&Vma>, flags: VmFlags) -> Option<Self> {
        match (left, right) {
            (None, None) => None,
            (Some(_), None) => Some(Self::Prev),
            (None, Some(_)) => Some(Self::Next),
            // Both agree with the range, and do not agree with each other for that: two objects that are attached.
            (Some(left), Some(right)) if !objects_agree(flags, left.object(), right.object()) => Some(Self::Prev),
            // The next one would be deleted.
            (Some(_), Some(right)) if right.flags().contains(VmFlags::HOOKS) => Some(Self::Prev),
            (Some(_), Some(_)) => Some(Self::Both),
        }
    }

    /// How a new range joins the areas before and behind it.
    #[inline(always)]
    pub(super) fn of_new(prev: Option<&Vma>, next: Option<&Vma>, range: &Proposal) -> Option<Self> {
        let prev = prev.filter(|prev| range.continues(prev));
        let next = next.filter(|next| range.is_continued_by(next));
        Self::of(prev, next, range.flags)
    }
}

/// How a part of an area is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// It goes over to neighbours.
    Join(Join),
    /// It becomes an area of its own; what is below or above in the old area stays as it was.
    Split {
        /// Something is below.
        below: bool,
        /// Something is above.
        above: bool,
    },
}

impl Change {
    /// Records that it needs.
    pub(super) fn records(self) -> usize {
        match self {
            Self::Join(_) => 0,
            Self::Split { below, above } => usize::from(below) + usize::from(above),
        }
    }
}

/// `target` takes over what is attached to memory that is merged into it. `whole`: the other area is deleted, and its
/// reference moves or goes; otherwise it stays, and `target` gets one of its own.
#[inline]
fn adopt(with: &impl Objects, target: &Vma, object: Option<ObjectId>, whole: bool) {
    let Some(object) = object else { return };
    match (target.object().is_none(), whole) {
        (true, _) => {
            target.set_object(Some(object));
            if !whole {
                with.get(object);
            }
        }
        (false, true) => with.put(object),
        (false, false) => {}
    }
}

impl<'a> VmaTree<'a> {
    /// How the part `range` of `at` gets its new flags.
    #[inline]
    pub(super) fn change_of(&self, at: &'a Record<'a>, range: &Proposal) -> Change {
        let (left_side, right_side) = (range.low == at.low(), range.high == at.high());
        let split = Change::Split { below: !left_side, above: !right_side };
        // The area would be deleted.
        if left_side && right_side && at.flags().contains(VmFlags::HOOKS) {
            return split;
        }
        let prev = if left_side { self.prev(at).filter(|prev| range.continues(prev)) } else { None };
        let next = if right_side { self.next(at).filter(|next| range.is_continued_by(next)) } else { None };
        Join::of(prev.map(|prev| prev.payload()), next.map(|next| next.payload()), range.flags)
            .map_or(split, Change::Join)
    }

    /// Makes a new range part of its neighbours, of which those exist that `join` names. The area that has it now.
    #[inline]
    pub(super) fn join_new(
        &mut self,
        with: &impl Objects,
        (prev, next): (Option<&'a Record<'a>>, Option<&'a Record<'a>>),
        join: Join,
        range: &Proposal,
        records: &mut Records<'a>,
    ) -> Option<&'a Record<'a>> {
        let target = match join {
            Join::Prev => {
                let prev = prev?;
                self.set_end(prev, range.high);
                prev
            }
            Join::Next => {
                let next = next?;
                self.set_start(next, range.low);
                next
            }
            Join::Both => self.swallow(with, prev?, next?, records),
        };
        // A range that is not an area yet has no reference.
        adopt(with, target, range.object, false);
        target.set_flags(target.flags() | range.flags & VmFlags::STICKY);
        Some(target)
    }

    /// `target` takes over `other`, deletes it, and ends where that did.
    fn swallow(
        &mut self,
        with: &impl Objects,
        target: &'a Record<'a>,
        other: &'a Record<'a>,
        records: &mut Records<'a>,
    ) -> &'a Record<'a> {
        let end = other.high();
        target.set_flags(target.flags() | other.flags() & VmFlags::STICKY);
        adopt(with, target, other.object(), true);
        if let Some(record) = self.remove(other) {
            records.push(record);
        }
        self.set_end(target, end);
        target
    }

    /// Changes the part `range` of `at` as [`Self::change_of`] says. `records` has those that a split needs, and gets those
    /// of areas that are no more. The area that has the range now.
    pub(super) fn change(
        &mut self,
        with: &impl Objects,
        at: &'a Record<'a>,
        range: &Proposal,
        change: Change,
        records: &mut Records<'a>,
    ) -> &'a Record<'a> {
        match change {
            Change::Join(join) => self.join_part(with, at, range, join, records).unwrap_or(at),
            Change::Split { .. } => {
                let at = self.isolate(with, at, (range.low, range.high), records);
                at.set_flags(range.flags);
                at
            }
        }
    }

    fn join_part(
        &mut self,
        with: &impl Objects,
        at: &'a Record<'a>,
        range: &Proposal,
        join: Join,
        records: &mut Records<'a>,
    ) -> Option<&'a Record<'a>> {
        let (prev, next) = (self.prev(at), self.next(at));
        let whole = range.low == at.low() && range.high == at.high();
        let target = if join == Join::Next { next? } else { prev? };
        let object = at.object();
        if whole {
            if let Some(record) = self.remove(at) {
                records.push(record);
            }
        } else if join == Join::Next {
            self.set_end(at, range.low);
        } else {
            self.set_start(at, range.high);
        }
        adopt(with, target, object, whole);
        target.set_flags(target.flags() | range.flags & VmFlags::STICKY);
        match join {
            Join::Prev => self.set_end(target, range.high),
            Join::Next => self.set_start(target, range.low),
            Join::Both => {
                self.swallow(with, target, next?, records);
            }
        }
        Some(target)
    }

    /// Cuts `at` so that an area has just `low..high` of it, which is the answer.
    pub(super) fn isolate(
        &mut self,
        with: &impl Objects,
        mut at: &'a Record<'a>,
        (low, high): (u64, u64),
        records: &mut Records<'a>,
    ) -> &'a Record<'a> {
        if at.low() < low
            && let Some(upper) = self.split_with(with, at, low, records)
        {
            at = upper;
        }
        if at.high() > high {
            self.split_with(with, at, high, records);
        }
        at
    }

    /// Cuts `at` in two, and tells its object: the upper part.
    pub(super) fn split_with(
        &mut self,
        with: &impl Objects,
        at: &'a Record<'a>,
        addr: u64,
        records: &mut Records<'a>,
    ) -> Option<&'a Record<'a>> {
        match self.split(at, addr, records.pop()?) {
            Ok(upper) => {
                if let Some(object) = upper.object() {
                    with.get(object);
                    if upper.flags().contains(VmFlags::HOOKS) {
                        with.opened(object, upper.range());
                    }
                }
                Some(upper)
            }
            Err(record) => {
                records.push(record);
                None
            }
        }
    }
}
