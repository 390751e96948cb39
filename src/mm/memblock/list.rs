//! A region list: sorted, disjoint, merged, in an array that starts inside the value and moves out when it grows.
#![forbid(unsafe_code)]

use super::region::{Region, RegionOwner};
use super::repaint::{Paint, Plan};
use crate::addr::{PhysAddr, PhysRange};

/// One of the two region lists of a [`Memblock`](super::Memblock): the existing memory, or the reserved part of it.
///
/// # Invariants
///
/// - `MEMB-1`: the regions are sorted by address and share no byte.
/// - `MEMB-2`: no region is empty.
/// - `MEMB-3`: two regions that touch differ in their flags or their owners.
/// - `MEMB-4`: `total` is the sum of the regions' sizes.
/// - `MEMB-5`: there are no more regions than slots, and the slots behind the last region are [`Region::EMPTY`].
/// - `MEMB-6`: no region ends above [`PHYS_SIZE_MAX`](crate::addr::PHYS_SIZE_MAX).
///
/// `INIT` is the number of slots inside the value.
#[derive(Debug)]
pub struct RegionList<'m, const INIT: usize> {
    name: &'static str,
    slots: Slots<'m, INIT>,
    /// Place for the regions when they outgrow the value and no memory can be allocated yet.
    lent: Option<LentSlots<'m>>,
    count: usize,
    total: u64,
}

/// Makes the slots of an array that is lent ([`Memblock::lend_slots`](super::Memblock::lend_slots)); called when the array is
/// needed, and no more than once. The contents of the slots do not matter.
pub type LentSlots<'m> = fn() -> &'m mut [Region];

/// Place of the slots.
#[derive(Debug)]
enum Slots<'m, const INIT: usize> {
    Initial([Region; INIT]),
    Lent(&'m mut [Region]),
    Grown { slots: &'m mut [Region], place: PhysRange },
}

impl<'m, const INIT: usize> RegionList<'m, INIT> {
    /// An empty list.
    pub(super) const fn new(name: &'static str) -> Self {
        const { assert!(INIT >= 2, "growth needs two slots to spare in an array twice as large") };
        Self { name, slots: Slots::Initial([Region::EMPTY; INIT]), lent: None, count: 0, total: 0 }
    }

    /// `memory` or `reserved`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The regions by ascending address.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        self.slots().get(..self.count).unwrap_or_default()
    }

    /// All slots, those in use first.
    pub(super) fn slots(&self) -> &[Region] {
        match &self.slots {
            Slots::Initial(slots) => slots,
            Slots::Lent(slots) | Slots::Grown { slots, .. } => slots,
        }
    }

    /// Number of regions.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether the list is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Regions that the list can hold without growing.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots().len()
    }

    /// Bytes in all regions together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The memory that holds the slots, or `None` as long as they are inside the value or lent.
    #[must_use]
    pub const fn storage(&self) -> Option<PhysRange> {
        match &self.slots {
            Slots::Initial(_) | Slots::Lent(_) => None,
            Slots::Grown { place, .. } => Some(*place),
        }
    }

    /// The region that holds the byte at `addr`. Cost: O(log regions).
    #[must_use]
    pub fn find(&self, addr: PhysAddr) -> Option<&Region> {
        let index = self.regions().partition_point(|region| region.end() <= addr);
        self.regions().get(index).filter(|region| region.range.contains(addr))
    }

    /// Whether a region shares a byte with `range`. Cost: O(log regions).
    #[must_use]
    pub fn overlaps(&self, range: PhysRange) -> bool {
        let index = self.regions().partition_point(|region| region.end() <= range.start());
        self.regions().get(index).is_some_and(|region| region.range.overlaps(range))
    }

    /// The region that was reserved for `owner`, by [`Node::offset`](crate::fdt::Node::offset). Cost: O(regions).
    #[must_use]
    pub fn reserved_for(&self, owner: usize) -> Option<PhysRange> {
        let owner = RegionOwner::new(u32::try_from(owner).ok()?)?;
        self.regions().iter().find(|region| region.owner == Some(owner)).map(|region| region.range)
    }

    /// Slots that are not in use.
    pub(super) fn spare(&self) -> usize {
        self.capacity() - self.count
    }

    /// Whether the slots lie in memory that overlaps `range`.
    pub(super) fn stored_in(&self, range: PhysRange) -> bool {
        self.storage().is_some_and(|place| place.overlaps(range))
    }

    /// Repaints `range`, or answers `false` and changes nothing if the slots do not suffice. Cost: O(regions).
    #[must_use = "a change that does not fit was not made"]
    pub(super) fn repaint(&mut self, range: PhysRange, paint: Paint) -> bool {
        let plan = Plan::new(self.regions(), range, paint);
        if plan.slots(self.count) > self.capacity() {
            return false;
        }
        let count = self.count;
        let outcome = plan.commit(self.slots_mut(), count);
        self.count = outcome.count;
        // INVARIANT: MEMB-4, the bytes that the change took away were part of the total.
        self.total = self.total - outcome.removed + outcome.added;
        true
    }

    /// Rounds every region inwards to whole units of `align`, a power of two; those without a whole unit vanish.
    /// Cost: O(regions).
    pub(super) fn trim(&mut self, align: u64) {
        let count = self.count;
        let mut kept = 0;
        let mut total = 0;
        let slots = self.slots_mut();
        for index in 0..count {
            let Some(region) = slots.get(index).copied() else { break };
            let Some(range) = region.range.align_inwards(align) else { continue };
            if let Some(slot) = slots.get_mut(kept) {
                *slot = Region { range, ..region };
                kept += 1;
                total += range.size();
            }
        }
        // INVARIANT: MEMB-5, vacated slots are empty again.
        for slot in slots.iter_mut().take(count).skip(kept) {
            *slot = Region::EMPTY;
        }
        self.count = kept;
        self.total = total;
    }

    /// Whether the slots are lent.
    #[must_use]
    pub const fn is_lent(&self) -> bool {
        matches!(self.slots, Slots::Lent(_))
    }

    /// Keeps `slots` for when the regions outgrow the value; `None`: nothing moves into lent slots any more.
    pub(super) const fn lend(&mut self, slots: Option<LentSlots<'m>>) {
        self.lent = slots;
    }

    /// Moves the regions into the lent slots. Returns `false` if there are none, or no more than now.
    #[must_use = "without room the list is full"]
    pub(super) fn move_into_lent(&mut self) -> bool {
        let Some(slots) = self.lent.take().map(|make| make()) else { return false };
        if slots.len() <= self.capacity() {
            return false;
        }
        // INVARIANT: MEMB-5, slots behind the last region are empty.
        slots.fill(Region::EMPTY);
        for (to, from) in slots.iter_mut().zip(self.regions()) {
            *to = *from;
        }
        self.slots = Slots::Lent(slots);
        true
    }

    /// Moves the regions back into the value, or answers `false` if they do not fit.
    #[must_use = "regions that do not fit have to go elsewhere"]
    pub(super) fn move_home(&mut self) -> bool {
        let mut home = [Region::EMPTY; INIT];
        let Some(slots) = home.get_mut(..self.count) else { return false };
        slots.copy_from_slice(self.regions());
        self.slots = Slots::Initial(home);
        true
    }

    /// Moves the regions into `slots`, which lie at `place`, and answers where they lay before. The slots are
    /// [`Region::EMPTY`] and suffice for all regions.
    pub(super) fn move_into(&mut self, slots: &'m mut [Region], place: PhysRange) -> Option<PhysRange> {
        let before = self.storage();
        for (to, from) in slots.iter_mut().zip(self.regions()) {
            *to = *from;
        }
        self.slots = Slots::Grown { slots, place };
        before
    }

    fn slots_mut(&mut self) -> &mut [Region] {
        match &mut self.slots {
            Slots::Initial(slots) => slots,
            Slots::Lent(slots) | Slots::Grown { slots, .. } => slots,
        }
    }
}
