//! Temporary mappings during boot, before anything can be allocated: the owners of a few slots (Linux: `mm/early_ioremap.c`).
#![forbid(unsafe_code)]

use crate::addr::PhysRange;
use core::fmt;
use core::panic::Location;

/// Slots (Linux: `FIX_BTMAPS_SLOTS`).
pub const EARLY_SLOTS: usize = 7;
/// Pages of each (Linux: `NR_FIX_BTMAPS`).
pub const EARLY_SLOT_PAGES: u64 = 64;

/// A slot in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EarlyMapping {
    /// The slot's number.
    pub slot: usize,
    /// The physical range mapped there.
    pub range: PhysRange,
    /// The requester.
    pub caller: &'static Location<'static>,
}

impl fmt::Display for EarlyMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}: {}, from {}", self.slot, self.range, self.caller)
    }
}

/// Reason why there is no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EarlyError {
    /// The size is 0.
    Empty,
    /// More pages than a slot has.
    TooLarge(PhysRange),
    /// All slots are in use; this one has been for longest.
    NoSlot(EarlyMapping),
    /// Nothing is mapped there.
    NotMapped(usize),
}

impl fmt::Display for EarlyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an early mapping of nothing"),
            Self::TooLarge(range) => write!(f, "{range} has more than the {EARLY_SLOT_PAGES} pages of a slot"),
            Self::NoSlot(oldest) => write!(f, "all {EARLY_SLOTS} slots are in use, the first as {oldest}"),
            Self::NotMapped(slot) => write!(f, "nothing is mapped in slot {slot}"),
        }
    }
}

impl core::error::Error for EarlyError {}

/// Slots in use.
#[derive(Debug, Default)]
pub struct EarlySlots {
    slots: [Option<(PhysRange, &'static Location<'static>)>; EARLY_SLOTS],
}

impl EarlySlots {
    /// All slots are free.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: [None; EARLY_SLOTS] }
    }

    /// Takes a slot for the pages that `range` touches. Returns its number.
    ///
    /// # Errors
    ///
    /// [`EarlyError::Empty`], [`EarlyError::TooLarge`], [`EarlyError::NoSlot`].
    #[track_caller]
    pub fn take(&mut self, range: PhysRange) -> Result<usize, EarlyError> {
        let pages = range.align_outwards(crate::addr::PAGE_SIZE).ok_or(EarlyError::TooLarge(range))?;
        if range.is_empty() {
            return Err(EarlyError::Empty);
        }
        if pages.size() > EARLY_SLOT_PAGES * crate::addr::PAGE_SIZE {
            return Err(EarlyError::TooLarge(range));
        }
        match self.slots.iter_mut().enumerate().find(|(_, place)| place.is_none()) {
            Some((slot, place)) => {
                *place = Some((range, Location::caller()));
                Ok(slot)
            }
            // All are taken, so there is a first.
            None => Err(self.in_use().next().map_or(EarlyError::Empty, EarlyError::NoSlot)),
        }
    }

    /// Frees a slot. Returns the range that was mapped there.
    ///
    /// # Errors
    ///
    /// [`EarlyError::NotMapped`].
    pub fn give_back(&mut self, slot: usize) -> Result<PhysRange, EarlyError> {
        let place = self.slots.get_mut(slot).and_then(Option::take);
        place.map(|(range, _)| range).ok_or(EarlyError::NotMapped(slot))
    }

    /// The slots in use: at the end of booting, forgotten ones (Linux: `check_early_ioremap_leak`).
    pub fn in_use(&self) -> impl Iterator<Item = EarlyMapping> {
        let places = self.slots.iter().enumerate();
        places.filter_map(|(slot, place)| place.map(|(range, caller)| EarlyMapping { slot, range, caller }))
    }
}
