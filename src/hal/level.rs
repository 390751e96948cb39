//! The geometry of the tables: four levels of 512 entries, 9 bits of address each, above a 4 KiB page.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SHIFT, VirtAddr, to_usize};
use core::fmt;

/// Entries in a table, at every level.
pub const ENTRIES: usize = 512;
/// Neighbouring entries that the contiguous bit joins, at every level (Arm ARM D8.7.1, 4 KiB granule).
pub const CONTIGUOUS_ENTRIES: usize = 1 << CONTIGUOUS_SHIFT;
/// log2 of [`CONTIGUOUS_ENTRIES`].
const CONTIGUOUS_SHIFT: u32 = 4;

/// A level of the tables, the root first. The Arm ARM calls them levels 0 to 3; the names are Linux's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Level {
    /// The root: an entry spans 512 GiB and is always a table.
    Pgd = 0,
    /// An entry spans 1 GiB.
    Pud = 1,
    /// An entry spans 2 MiB.
    Pmd = 2,
    /// An entry spans a page.
    Pte = 3,
}

impl Level {
    /// log2 of the bytes that an entry spans.
    #[must_use]
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + 9 * (3 - self as u32)
    }

    /// Bytes that an entry spans.
    #[must_use]
    pub const fn size(self) -> u64 {
        1 << self.shift()
    }

    /// The level of the tables that this level's entries point to; none below the last.
    #[must_use]
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::Pgd => Some(Self::Pud),
            Self::Pud => Some(Self::Pmd),
            Self::Pmd => Some(Self::Pte),
            Self::Pte => None,
        }
    }

    /// The same level as one that can map memory. The root cannot.
    #[must_use]
    pub const fn leaf(self) -> Option<LeafLevel> {
        match self {
            Self::Pgd => None,
            Self::Pud => Some(LeafLevel::Pud),
            Self::Pmd => Some(LeafLevel::Pmd),
            Self::Pte => Some(LeafLevel::Pte),
        }
    }

    /// Address of the entry for `addr` in a table of this level.
    #[must_use]
    pub const fn slot(self, addr: VirtAddr) -> Slot {
        Slot::wrapping(addr.get() >> self.shift())
    }
}

/// A level whose entries can map memory. A block at the root has no encoding (Arm ARM D8.3), and none here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum LeafLevel {
    /// A 1 GiB block.
    Pud = 1,
    /// A 2 MiB block.
    Pmd = 2,
    /// A 4 KiB page.
    Pte = 3,
}

impl LeafLevel {
    /// The same level among all.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Pud => Level::Pud,
            Self::Pmd => Level::Pmd,
            Self::Pte => Level::Pte,
        }
    }

    /// log2 of the bytes that a leaf at this level maps.
    #[must_use]
    pub const fn shift(self) -> u32 {
        self.level().shift()
    }

    /// Bytes that a leaf at this level maps.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.level().size()
    }

    /// Bytes that a contiguous group of leaves at this level maps.
    #[must_use]
    pub const fn contiguous_size(self) -> u64 {
        self.size() << CONTIGUOUS_SHIFT
    }

    /// The next smaller leaf, if there is one.
    #[must_use]
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::Pud => Some(Self::Pmd),
            Self::Pmd => Some(Self::Pte),
            Self::Pte => None,
        }
    }
}

/// The place of an entry in its table.
///
/// # Invariants
///
/// - `SLOT-1`: below [`ENTRIES`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Slot(usize);

impl Slot {
    /// The first entry of a table.
    pub const FIRST: Self = Self(0);

    /// The slot `raw`, or `None` past the table's end.
    #[must_use]
    pub const fn new(raw: usize) -> Option<Self> {
        // INVARIANT: SLOT-1 by the comparison.
        if raw < ENTRIES { Some(Self(raw)) } else { None }
    }

    /// The slot that the low nine bits of `raw` name.
    #[must_use]
    pub const fn wrapping(raw: u64) -> Self {
        // INVARIANT: SLOT-1 by the mask.
        Self(to_usize(raw) & (ENTRIES - 1))
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }

    /// The first slot of the contiguous group that this one belongs to.
    #[must_use]
    pub const fn group_start(self) -> Self {
        // INVARIANT: SLOT-1, as the number only falls.
        Self(self.0 & !(CONTIGUOUS_ENTRIES - 1))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// Neighbouring entries of one table.
///
/// # Invariants
///
/// - `RUN-1`: the last slot is below [`ENTRIES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    first: Slot,
    count: usize,
}

impl Run {
    /// A whole table.
    pub const TABLE: Self = Self { first: Slot::FIRST, count: ENTRIES };

    /// Up to `count` entries from `first` on, cut at the table's end.
    #[must_use]
    pub const fn from_slot(first: Slot, count: u64) -> Self {
        let room = ENTRIES - first.0;
        // INVARIANT: RUN-1, as `count` is at most the room behind `first`.
        Self { first, count: if count < room as u64 { to_usize(count) } else { room } }
    }

    /// The contiguous group that `slot` belongs to.
    #[must_use]
    pub const fn group(slot: Slot) -> Self {
        // INVARIANT: RUN-1, as 512 is a multiple of 16.
        Self { first: slot.group_start(), count: CONTIGUOUS_ENTRIES }
    }

    /// The first slot.
    #[must_use]
    pub const fn first(self) -> Slot {
        self.first
    }

    /// Number of entries.
    #[must_use]
    pub const fn count(self) -> usize {
        self.count
    }

    /// The run in pieces that lie in one contiguous group each.
    pub(crate) fn groups(self) -> impl Iterator<Item = Self> {
        let end = self.first.0 + self.count;
        (self.first.group_start().0..end).step_by(CONTIGUOUS_ENTRIES).map(move |start| {
            // INVARIANT: SLOT-1, RUN-1: no further than this run.
            let first = start.max(self.first.0);
            Self { first: Slot(first), count: (start + CONTIGUOUS_ENTRIES).min(end) - first }
        })
    }

    /// The slots in order.
    pub fn slots(self) -> impl DoubleEndedIterator<Item = Slot> {
        // INVARIANT: SLOT-1 by RUN-1.
        (self.first.0..self.first.0 + self.count).map(Slot)
    }

    /// The slot `index` behind the first, if it belongs to the run.
    #[inline]
    pub(crate) const fn get(self, index: usize) -> Option<Slot> {
        // INVARIANT: SLOT-1 by RUN-1.
        if index < self.count { Some(Slot(self.first.0 + index)) } else { None }
    }
}
