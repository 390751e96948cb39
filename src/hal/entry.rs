//! Page-table entries: the raw 64 bits, their meaning, and the trait by which an architecture says how the one becomes the
//! other.
#![forbid(unsafe_code)]

use super::level::{LeafLevel, Level};
use super::prot::Prot;
use crate::addr::{Pfn, PhysAddr};
use core::fmt;

/// An entry as it stands in memory. Zero is an absent entry in every format.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct RawEntry(u64);

impl RawEntry {
    /// No translation.
    pub const ABSENT: Self = Self(0);

    /// Names 64 bits as an entry.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The 64 bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether the entry is absent.
    #[must_use]
    pub const fn is_absent(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for RawEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {:#018x}", self.0)
    }
}

/// An entry that maps memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The first byte mapped; a multiple of the level's size.
    pub phys: PhysAddr,
    /// The level, and so the size.
    pub level: LeafLevel,
    /// Permissions and memory type of the mapping.
    pub prot: Prot,
    /// Whether the entry belongs to a contiguous group.
    pub contiguous: bool,
}

/// Decoded entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// No translation.
    Absent,
    /// No translation, and none to be made: an access is an error ([`EntryFormat::GUARD`]).
    Guard,
    /// No translation, and memory that stays behind it until there is one again ([`EntryFormat::park`]).
    Parked(Leaf),
    /// The next level's table lies at this address.
    Table(PhysAddr),
    /// Memory is mapped.
    Leaf(Leaf),
    /// Bits that this code never writes.
    Malformed(Defect),
}

/// Defect of an entry that this code did not write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Defect {
    /// Invalid, but not zero.
    Leftover,
    /// A block at a level that has none, or the reserved type at the last level.
    BadType,
    /// A table entry with hierarchical permissions (`APTable`, `XNTable`, `PXNTable`, `NSTable`): they would change what
    /// the leaves say.
    TableAttributes,
    /// A block whose output address is not a multiple of its size, or bits that must be zero.
    ReservedBits,
    /// Not inner shareable: other CPUs would not see the same memory.
    Shareability,
    /// Writable and executable at the same or a lower privilege.
    WritableExecutable,
    /// A kernel entry without `UXN`: user space could execute it, even though it cannot read it.
    KernelWithoutUxn,
    /// A user entry without `PXN`: the kernel could be tricked into executing it.
    UserWithoutPxn,
    /// Executable Device memory.
    ExecutableDevice,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leftover => "invalid entry that is not zero",
            Self::BadType => "entry type that the level does not have",
            Self::TableAttributes => "hierarchical permissions in a table entry",
            Self::ReservedBits => "address or reserved bits where zeros belong",
            Self::Shareability => "not inner shareable",
            Self::WritableExecutable => "writable and executable",
            Self::KernelWithoutUxn => "kernel entry without UXN",
            Self::UserWithoutPxn => "user entry without PXN",
            Self::ExecutableDevice => "executable Device memory",
        })
    }
}

/// Format of an architecture's entries. All functions are pure and cheap; none touches memory.
///
/// An output address stands in the entry at its own bit positions: the leaf for the next unit of memory is this leaf
/// plus the unit's size. [`super::mmu::Mmu::fill`] relies on it.
pub trait EntryFormat {
    /// One past the highest output address that an entry can hold: adding a unit to a leaf must stay below.
    const OUTPUT_END: u64;

    /// An invalid entry of the last level by which software marks a page that is not to be used (Linux: `PTE_MARKER_GUARD`).
    /// It is no leaf made invalid.
    const GUARD: RawEntry;

    /// The bits that every leaf with this protection has in common: all but address, size and contiguous bit.
    fn attributes(prot: Prot) -> RawEntry;

    /// The leaf with these attributes that maps the memory at `phys`, which must be a multiple of the level's size.
    /// Bits of `phys` that have no place in an entry are cut.
    fn leaf_with(attributes: RawEntry, level: LeafLevel, phys: PhysAddr, contiguous: bool) -> RawEntry;

    /// The leaf that maps the memory at `phys` with the protection `prot`.
    #[inline]
    fn leaf(level: LeafLevel, phys: PhysAddr, prot: Prot, contiguous: bool) -> RawEntry {
        Self::leaf_with(Self::attributes(prot), level, phys, contiguous)
    }

    /// The entry that points to the table at `table`.
    fn table(table: PhysAddr) -> RawEntry;

    /// One of the number that software keeps in an entry that points to a table, where no walker looks: it counts up to
    /// [`ENTRIES`](super::level::ENTRIES), and is zero in what [`EntryFormat::table`] makes.
    const LIVE: RawEntry;

    /// That number.
    fn live(entry: RawEntry) -> usize;

    /// The entry with so many more.
    #[inline(always)]
    fn with_more(entry: RawEntry, live: usize) -> RawEntry {
        RawEntry::new(entry.get().wrapping_add((live as u64).wrapping_mul(Self::LIVE.get())))
    }

    /// The entry with so many fewer.
    #[inline(always)]
    fn with_fewer(entry: RawEntry, live: usize) -> RawEntry {
        RawEntry::new(entry.get().wrapping_sub((live as u64).wrapping_mul(Self::LIVE.get())))
    }

    /// Decodes `entry`, found in a table of `level`.
    fn decode(level: Level, entry: RawEntry) -> Entry;

    /// The table that a valid entry above the last level points to; `None` for an absent entry and for a block. The
    /// quick form of [`EntryFormat::decode`] for the descent.
    fn next_table(entry: RawEntry) -> Option<PhysAddr>;

    /// Whether hardware walkers use the entry.
    fn is_valid(entry: RawEntry) -> bool;

    /// The leaf or table entry made invalid, with all else kept, so that [`EntryFormat::revalidate`] gives it back: the
    /// "break" of break-before-make.
    fn invalidate(entry: RawEntry) -> RawEntry;

    /// The entry that [`EntryFormat::invalidate`] was given.
    fn revalidate(entry: RawEntry) -> RawEntry;

    /// The leaf made invalid for as long as nobody may access its memory, which stays (Linux: an entry with `PROT_NONE`).
    /// It belongs to no contiguous group. Unlike what [`EntryFormat::invalidate`] gives, it decodes, as [`Entry::Parked`].
    fn park(leaf: RawEntry) -> RawEntry;

    /// Whether the entry is one that [`EntryFormat::park`] gave.
    fn is_parked(entry: RawEntry) -> bool;

    /// The memory that a leaf of the last level maps, or would map if it were valid.
    fn frame_of(entry: RawEntry) -> Pfn;

    /// Whether the contiguous bit is set. Meaningful for leaves only.
    fn is_contiguous(entry: RawEntry) -> bool;

    /// The leaf with or without the contiguous bit.
    fn with_contiguous(entry: RawEntry, contiguous: bool) -> RawEntry;
}
