//! The state word of a page descriptor: kind, order, zone, migrate type, flags and reference count in 64 bits.
//!
//! ```text
//!  63           32 31  28 27    18 17    16    15   14  12 11   8  7 6    4 3    2 1       0
//! | reference count| kind |mappings|acct|comp|brief|memory|order | 0|list  |zone  |mobility |
//! ```
//!
//! The field of the mappings counts the pins of a page of user memory: no area maps what has an owner.
//!
//! The layout serves the two hot paths. An allocated, unclaimed, write-back block with one reference differs from the
//! constant [`PageState::allocated`] only in its lowest four bits, and those four are the number of the per-CPU list it
//! belongs to: one exclusive-or and one comparison check everything that a free must check, and yield the list.
#![forbid(unsafe_code)]

mod pins;

use crate::addr::{MAX_ORDER, Order};
use crate::gfp::Mobility;
use crate::hal::prot::MemoryType;

/// Use of a block of frames.
///
/// All-zero is [`Kind::Inside`]. The kinds from [`Kind::Block`] on are allocated: their top bit is set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Not the first frame of its block.
    Inside = 0,
    /// Free, on a list of its zone.
    Free = 1,
    /// Free, on a list of a CPU.
    Pcp = 2,
    /// RAM that was in use before there was a page allocator: firmware, kernel image, boot-time allocations.
    Reserved = 3,
    /// No RAM, or RAM that the kernel may not touch.
    Hole = 4,
    /// Not the first frame of a compound block; points to the head.
    Tail = 5,
    /// Allocated, without a stated use.
    Block = 8,
    /// A slab: many small objects.
    Slab = 9,
    /// One large object of `kmalloc`.
    LargeKmalloc = 10,
    /// Memory behind a vmalloc area.
    Vmalloc = 11,
    /// A page table.
    PageTable = 12,
    /// Memory of a user address space.
    User = 13,
    /// A buffer for a device.
    Dma = 14,
    /// Memory of each CPU.
    PerCpu = 15,
}

impl Kind {
    /// One past the highest number of a kind.
    pub const COUNT: usize = 16;
    /// All of them, by number.
    pub const ALL: [Self; 14] = [
        Self::Inside,
        Self::Free,
        Self::Pcp,
        Self::Reserved,
        Self::Hole,
        Self::Tail,
        Self::Block,
        Self::Slab,
        Self::LargeKmalloc,
        Self::Vmalloc,
        Self::PageTable,
        Self::User,
        Self::Dma,
        Self::PerCpu,
    ];

    const fn from_bits(bits: u64) -> Self {
        match bits & 0xf {
            1 => Self::Free,
            2 => Self::Pcp,
            3 => Self::Reserved,
            4 => Self::Hole,
            5 => Self::Tail,
            8 => Self::Block,
            9 => Self::Slab,
            10 => Self::LargeKmalloc,
            11 => Self::Vmalloc,
            12 => Self::PageTable,
            13 => Self::User,
            14 => Self::Dma,
            15 => Self::PerCpu,
            _ => Self::Inside,
        }
    }

    /// Whether this block has an owner.
    #[must_use]
    pub const fn is_allocated(self) -> bool {
        self as u8 >= Self::Block as u8
    }

    /// Whether a descriptor of this kind speaks for a whole block.
    #[must_use]
    pub const fn is_head(self) -> bool {
        !matches!(self, Self::Inside | Self::Tail)
    }

    /// Whether an owner may change a block from this kind to `to`: from unclaimed to claimed and back, never from one
    /// owner to another.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        self.is_allocated() && to.is_allocated() && (matches!(self, Self::Block) != matches!(to, Self::Block))
    }

    /// Name used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inside => "inside a block",
            Self::Free => "free",
            Self::Pcp => "free, on a per-CPU list",
            Self::Reserved => "reserved",
            Self::Hole => "hole",
            Self::Tail => "tail of a compound page",
            Self::Block => "allocated",
            Self::Slab => "slab",
            Self::LargeKmalloc => "large kmalloc",
            Self::Vmalloc => "vmalloc",
            Self::PageTable => "page table",
            Self::User => "user",
            Self::Dma => "DMA",
            Self::PerCpu => "per-CPU memory",
        }
    }
}

/// Purpose of the free memory of a page block (Linux: `enum migratetype`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum MigrateType {
    /// Allocations that cannot be moved.
    Unmovable = 0,
    /// Allocations that can be moved or dropped.
    Movable = 1,
    /// Allocations that a shrinker frees.
    Reclaimable = 2,
    /// Kept for allocations of order 1 and more that may not wait.
    HighAtomic = 3,
    /// Kept for contiguous allocations; movable ones may borrow it.
    Cma = 4,
    /// For no allocation: the whole range is about to be taken.
    Isolate = 5,
}

impl MigrateType {
    /// Number of types.
    pub const COUNT: usize = 6;
    /// Bits that a number takes.
    pub const BITS: u32 = 3;
    /// All of them, by number.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Unmovable, Self::Movable, Self::Reclaimable, Self::HighAtomic, Self::Cma, Self::Isolate];

    /// The type whose number the low three bits hold. Invalid numbers count as [`MigrateType::Isolate`], from which no call
    /// allocates.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b111 {
            0 => Self::Unmovable,
            1 => Self::Movable,
            2 => Self::Reclaimable,
            3 => Self::HighAtomic,
            4 => Self::Cma,
            _ => Self::Isolate,
        }
    }

    /// The type of blocks for this use.
    #[must_use]
    #[inline]
    pub const fn of(mobility: Mobility) -> Self {
        match mobility {
            Mobility::Unmovable => Self::Unmovable,
            Mobility::Movable => Self::Movable,
            Mobility::Reclaimable => Self::Reclaimable,
        }
    }

    /// The position in [`MigrateType::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether free blocks of this type may grow across the edge of a page block (Linux: `migratetype_is_mergeable`).
    #[must_use]
    pub const fn is_mergeable(self) -> bool {
        (self as u8) < Self::HighAtomic as u8
    }

    /// The name that `pagetypeinfo` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmovable => "Unmovable",
            Self::Movable => "Movable",
            Self::Reclaimable => "Reclaimable",
            Self::HighAtomic => "HighAtomic",
            Self::Cma => "CMA",
            Self::Isolate => "Isolate",
        }
    }
}

/// The number of a zone that has memory: its position in the zonelist, the highest zone first.
///
/// # Invariants
///
/// - `ZID-1`: less than the number of zone types, three.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ZoneId(u8);

impl ZoneId {
    /// The highest zone that has memory: where allocations without a zone modifier come from.
    pub const PREFERRED: Self = Self(0);

    /// The zone at this position.
    #[must_use]
    pub const fn new(position: u8) -> Option<Self> {
        // INVARIANT: ZID-1 by the comparison.
        if position < 3 { Some(Self(position)) } else { None }
    }

    /// The position.
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

const MOBILITY: u64 = 0b11;
const ZONE_SHIFT: u32 = 2;
const LIST_SHIFT: u32 = 4;
const LIST: u64 = 0b111 << LIST_SHIFT;
const ORDER_SHIFT: u32 = 8;
const MEMORY_SHIFT: u32 = 12;
const MEMORY: u64 = 0b111 << MEMORY_SHIFT;
const BRIEF: u64 = 1 << 15;
const COMPOUND: u64 = 1 << 16;
const ACCOUNTED: u64 = 1 << 17;
const MAPPINGS_SHIFT: u32 = 18;
const MAPPINGS: u64 = (PageState::MAX_MAPPINGS as u64) << MAPPINGS_SHIFT;
const KIND_SHIFT: u32 = 28;
const KIND: u64 = 0b1111 << KIND_SHIFT;
const COUNT_SHIFT: u32 = 32;

/// Bits that may be set in a head that is not free.
const KNOWN: u64 = 0xf
    | 0xf << ORDER_SHIFT
    | MEMORY
    | BRIEF
    | COMPOUND
    | ACCOUNTED
    | MAPPINGS
    | KIND
    | (u32::MAX as u64) << COUNT_SHIFT;

/// The state word of a page descriptor, as a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PageState(u64);

impl PageState {
    /// The state of every frame that is not the first of its block.
    pub const INSIDE: Self = Self(0);
    /// The state of every frame of a compound block but the first.
    pub const TAIL: Self = Self((Kind::Tail as u64) << KIND_SHIFT);
    /// One reference.
    pub(super) const ONE_REFERENCE: u64 = 1 << COUNT_SHIFT;
    /// One mapping.
    pub(super) const ONE_MAPPING: u64 = 1 << MAPPINGS_SHIFT;
    /// Mappings of a block that can be counted; of a page of user memory, pins that its state can count.
    pub const MAX_MAPPINGS: u32 = 0x3ff;
    /// Per-CPU lists of one order: four mobilities (one of them unused) for each of three zones.
    pub const LISTS: usize = 12;

    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    /// The per-CPU list for this zone and use.
    #[must_use]
    #[inline]
    pub const fn list_number(zone: ZoneId, mobility: Mobility) -> usize {
        zone.index() << ZONE_SHIFT | mobility as usize
    }

    /// An allocated block, unclaimed, with one reference, from the per-CPU list number `list`.
    #[must_use]
    #[inline]
    pub const fn allocated(list: usize, order: Order) -> Self {
        Self(
            list as u64
                | (order.get() as u64) << ORDER_SHIFT
                | (Kind::Block as u64) << KIND_SHIFT
                | Self::ONE_REFERENCE,
        )
    }

    /// A free block on the per-CPU list number `list`.
    #[must_use]
    #[inline]
    pub const fn on_pcp(list: usize, order: Order) -> Self {
        Self(list as u64 | (order.get() as u64) << ORDER_SHIFT | (Kind::Pcp as u64) << KIND_SHIFT)
    }

    /// A free block on the list of its zone for `list`.
    #[must_use]
    #[inline]
    pub const fn free(zone: ZoneId, order: u8, list: MigrateType) -> Self {
        Self(
            (zone.index() as u64) << ZONE_SHIFT
                | (list as u64) << LIST_SHIFT
                | (order as u64) << ORDER_SHIFT
                | (Kind::Free as u64) << KIND_SHIFT,
        )
    }

    /// A block that no allocator has: reserved or a hole.
    #[must_use]
    pub const fn outside(zone: ZoneId, order: Order, kind: Kind) -> Self {
        Self((zone.index() as u64) << ZONE_SHIFT | (order.get() as u64) << ORDER_SHIFT | (kind as u64) << KIND_SHIFT)
    }

    /// If this is an allocated block of `order` that may be freed without further ado (unclaimed, one reference,
    /// write-back, no flag): the number of its per-CPU list. Otherwise an invalid number, at least [`PageState::LISTS`].
    #[must_use]
    #[inline]
    pub const fn plain_list(self, order: Order) -> usize {
        crate::addr::to_usize(self.0 ^ Self::allocated(0, order).0)
    }

    /// The same for a block that is claimed as `kind`, of any order.
    #[must_use]
    #[inline]
    pub(in crate::mm) const fn claimed_list(self, kind: Kind) -> usize {
        crate::addr::to_usize(self.0 ^ Self::allocated(0, self.order()).with_kind(kind).0)
    }

    /// Whether this is a free block of this zone and order, on any list.
    #[must_use]
    #[inline]
    pub const fn is_free_buddy(self, zone: ZoneId, order: u8) -> bool {
        self.0 & !LIST == Self::free(zone, order, MigrateType::Unmovable).0
    }

    /// Use of the block.
    #[must_use]
    pub const fn kind(self) -> Kind {
        Kind::from_bits(self.0 >> KIND_SHIFT)
    }

    /// The block's order; meaningful for heads. A damaged descriptor may say any number up to 15.
    #[must_use]
    pub const fn raw_order(self) -> u8 {
        (self.0 >> ORDER_SHIFT & 0xf) as u8
    }

    /// The block's order, at most [`Order::MAX`].
    #[must_use]
    pub const fn order(self) -> Order {
        match Order::new(self.raw_order()) {
            Some(order) => order,
            None => Order::MAX,
        }
    }

    /// The zone of a free, allocated or reserved block.
    #[must_use]
    pub const fn zone(self) -> Option<ZoneId> {
        ZoneId::new((self.0 >> ZONE_SHIFT & 0b11) as u8)
    }

    /// The list of its zone that a free block is on.
    #[must_use]
    #[inline]
    pub const fn list(self) -> MigrateType {
        MigrateType::from_bits((self.0 >> LIST_SHIFT & 0b111) as u8)
    }

    /// Mobility with which an allocated block was requested; `None` in a damaged descriptor.
    #[must_use]
    pub const fn mobility(self) -> Option<Mobility> {
        match self.0 & MOBILITY {
            0 => Some(Mobility::Unmovable),
            1 => Some(Mobility::Movable),
            2 => Some(Mobility::Reclaimable),
            _ => None,
        }
    }

    /// The number of the per-CPU list that an allocated block came from.
    #[must_use]
    pub const fn pcp_list(self) -> usize {
        (self.0 & 0xf) as usize
    }

    /// References to an allocated block.
    #[must_use]
    pub const fn references(self) -> u32 {
        (self.0 >> COUNT_SHIFT) as u32
    }

    /// Areas that map pages of the block (Linux: what `get_page` counts for `vmap`). Of a page of user memory, which no area maps:
    /// its pins.
    #[must_use]
    #[inline]
    pub const fn mappings(self) -> u32 {
        ((self.0 & MAPPINGS) >> MAPPINGS_SHIFT) as u32
    }

    /// Whether pages of the block are, or were, mapped by `vm_map_ram`. If so, the block is allocated, unclaimed and
    /// write-back.
    #[must_use]
    #[inline]
    pub const fn is_brief(self) -> bool {
        self.0 & BRIEF != 0
    }

    /// Whether the block's owner may map its pages: it is allocated, not claimed, and its linear alias is ordinary memory.
    #[must_use]
    #[inline]
    pub(in crate::mm) const fn may_be_mapped(self) -> bool {
        const TAGGED: u64 = (MemoryType::WriteBackTagged.index() ^ MemoryType::WriteBack.index()) as u64;
        let memory = (self.0 & MEMORY) >> MEMORY_SHIFT;
        self.0 & KIND == (Kind::Block as u64) << KIND_SHIFT && (memory == 0 || memory == TAGGED)
    }

    /// The same with one more mapping, if it is a block that may be mapped and there is room for the count. Pages that carry
    /// memory tags may be mapped as well ([`PageState::may_be_mapped`]), which is not asked here.
    #[inline(always)]
    pub(in crate::mm) const fn with_one_mapping(self) -> Option<Self> {
        let more = self.0.wrapping_add(Self::ONE_MAPPING);
        // If the count had no room, the kind is another one now.
        if more & (KIND | MEMORY) == (Kind::Block as u64) << KIND_SHIFT { Some(Self(more)) } else { None }
    }

    /// The same with one mapping less, of the existing ones.
    #[inline(always)]
    pub(in crate::mm) const fn with_one_mapping_less(self) -> Option<Self> {
        if self.0 & MAPPINGS != 0 { Some(Self(self.0.wrapping_sub(Self::ONE_MAPPING))) } else { None }
    }

    /// The same, noted as mapped by `vm_map_ram`.
    pub(super) const fn with_brief(self) -> Self {
        Self(self.0 | BRIEF)
    }

    /// Whether a head that is not free has bits set that are never set.
    #[must_use]
    pub(in crate::mm) const fn has_unknown_bits(self) -> bool {
        let mapped = self.0 & (BRIEF | MAPPINGS) != 0 && !self.may_be_mapped();
        let pinned = matches!(self.kind(), Kind::User) && self.raw_order() == 0 && !self.is_brief();
        self.0 & !KNOWN != 0 || (mapped && !pinned) || (self.is_compound() && self.raw_order() == 0)
    }

    /// Whether this is the head of a compound block.
    #[must_use]
    pub const fn is_compound(self) -> bool {
        self.0 & COMPOUND != 0
    }

    /// Whether the block counts as memory that user space has caused.
    #[must_use]
    pub const fn is_accounted(self) -> bool {
        self.0 & ACCOUNTED != 0
    }

    /// The memory type that every mapping of the block has.
    #[must_use]
    pub const fn memory_type(self) -> MemoryType {
        let stored = (self.0 >> MEMORY_SHIFT & 0b111) as u8;
        // Stored so that write-back, the usual type, is zero.
        MemoryType::from_index(stored ^ MemoryType::WriteBack.index())
    }

    /// The same as a compound head or not.
    #[must_use]
    pub const fn with_compound(self, compound: bool) -> Self {
        if compound { Self(self.0 | COMPOUND) } else { Self(self.0 & !COMPOUND) }
    }

    /// The same, accounted or not.
    #[must_use]
    pub const fn with_accounted(self, accounted: bool) -> Self {
        if accounted { Self(self.0 | ACCOUNTED) } else { Self(self.0 & !ACCOUNTED) }
    }

    /// The same as a block of another order.
    #[must_use]
    pub const fn with_order(self, order: Order) -> Self {
        Self(self.0 & !(0xf << ORDER_SHIFT) | (order.get() as u64) << ORDER_SHIFT)
    }

    /// The same as an allocated block that is not claimed.
    #[must_use]
    #[inline]
    pub(in crate::mm) const fn unclaimed(self) -> Self {
        self.with_kind(Kind::Block)
    }

    /// The same with another kind, and not mapped by `vm_map_ram`.
    #[must_use]
    pub(super) const fn with_kind(self, kind: Kind) -> Self {
        Self(self.0 & !(KIND | BRIEF) | (kind as u64) << KIND_SHIFT)
    }

    /// The same with one reference less, of the existing ones.
    #[must_use]
    pub(in crate::mm) const fn with_one_less(self) -> Self {
        Self(self.0.wrapping_sub(Self::ONE_REFERENCE))
    }

    /// The same with a second reference to a block that has one.
    #[must_use]
    #[inline(always)]
    pub(in crate::mm) const fn with_one_more(self) -> Self {
        Self(self.0.wrapping_add(Self::ONE_REFERENCE))
    }

    /// The same with `more` references; `None` if they cannot be counted.
    #[must_use]
    #[inline(always)]
    pub(in crate::mm) const fn with_more(self, more: u32) -> Option<Self> {
        match self.0.checked_add((more as u64) << COUNT_SHIFT) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The same with another memory type, and not mapped by `vm_map_ram`.
    #[must_use]
    pub(super) const fn with_memory_type(self, memory: MemoryType) -> Self {
        let stored = memory.index() ^ MemoryType::WriteBack.index();
        Self(self.0 & !(MEMORY | BRIEF) | (stored as u64) << MEMORY_SHIFT)
    }
}

impl core::fmt::Debug for PageState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (kind, order, references) = (self.kind().name(), self.raw_order(), self.references());
        write!(f, "{kind} order {order} references {references} mappings {} ({:#x})", self.mappings(), self.0)
    }
}

const _: () = {
    assert!(PageState::INSIDE.raw() == 0, "zeroed descriptors are inside a block");
    assert!(PageState::LISTS > PageState::list_number(ZoneId(2), Mobility::Reclaimable));
    assert!(MAX_ORDER <= 0xf, "the order has four bits");
};
