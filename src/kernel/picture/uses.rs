//! The uses of RAM that the physical map shows: those of page descriptors, and the owners of memory that has none.
#![forbid(unsafe_code)]

use super::Ink;
use crate::addr::MAX_ORDER;
use crate::kernel::owner_map::Owner;
use crate::mm::page::{Kind, MigrateType, PageState};

/// Orders of free blocks.
const ORDERS: usize = MAX_ORDER as usize + 1;

/// A use that is no free block of the buddy allocator: its number behind the orders is its place here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Ram {
    /// Free, and kept for contiguous allocations.
    CmaFree,
    /// Free, on a CPU's list.
    Pcp,
    /// Allocated, without a stated use.
    Allocated,
    /// Slabs.
    Slab,
    /// Large objects of `kmalloc`.
    LargeKmalloc,
    /// Pages of vmalloc areas.
    Vmalloc,
    /// Page tables.
    PageTable,
    /// Pages of user address spaces.
    User,
    /// Buffers for devices, contiguous allocations among them.
    Dma,
    /// Per-CPU memory.
    PerCpu,
    /// The kernel image.
    Kernel,
    /// Memory that booting took.
    Boot,
    /// Reserved by the firmware, the loader or a device.
    Reserved,
    /// As that, and not even mapped.
    NoMap,
    /// RAM that is not used.
    LeftOut,
    /// Came to the page allocator, or left it, while the picture was made.
    Moved,
}

/// Number of a use among [`Use::INKS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use(u8);

impl Use {
    /// Number of uses.
    pub const COUNT: usize = ORDERS + Ram::Moved as usize + 1;

    /// All of them, in the order of the legend.
    pub const INKS: [Ink; Self::COUNT] = [
        ink(b'0', 22, "free, order 0 (4 KiB)"),
        ink(b'1', 28, "free, order 1"),
        ink(b'2', 28, "free, order 2"),
        ink(b'3', 34, "free, order 3"),
        ink(b'4', 34, "free, order 4"),
        ink(b'5', 40, "free, order 5"),
        ink(b'6', 40, "free, order 6"),
        ink(b'7', 77, "free, order 7"),
        ink(b'8', 77, "free, order 8"),
        ink(b'9', 114, "free, order 9 (2 MiB)"),
        ink(b'.', 151, "free, order 10"),
        ink(b':', 152, "contiguous area, free"),
        ink(b'-', 30, "free, per-CPU lists"),
        ink(b'A', 250, "allocated"),
        ink(b'S', 220, "slab"),
        ink(b'L', 214, "large kmalloc"),
        ink(b'V', 39, "vmalloc"),
        ink(b'T', 201, "page tables"),
        ink(b'U', 99, "user"),
        ink(b'D', 208, "DMA, contiguous"),
        ink(b'P', 51, "per-CPU memory"),
        ink(b'K', 196, "kernel image"),
        ink(b'B', 131, "boot"),
        ink(b'R', 88, "reserved"),
        ink(b'X', 236, "no-map"),
        ink(b'O', 240, "left out"),
        ink(b'?', 255, "moved meanwhile"),
    ];

    /// The use of a block, by its descriptor. `None` for one that does not belong to the page allocator: its owner is known
    /// otherwise.
    #[must_use]
    pub const fn of_block(state: PageState) -> Option<Self> {
        let ram = match state.kind() {
            Kind::Free if matches!(state.list(), MigrateType::Cma) => Ram::CmaFree,
            Kind::Free => return Some(Self::free(state.raw_order())),
            Kind::Pcp => Ram::Pcp,
            Kind::Block => Ram::Allocated,
            Kind::Slab => Ram::Slab,
            Kind::LargeKmalloc => Ram::LargeKmalloc,
            Kind::Vmalloc => Ram::Vmalloc,
            Kind::PageTable => Ram::PageTable,
            Kind::User => Ram::User,
            Kind::Dma => Ram::Dma,
            Kind::PerCpu => Ram::PerCpu,
            Kind::Inside | Kind::Tail | Kind::Reserved | Kind::Hole => return None,
        };
        Some(Self::of(ram))
    }

    /// The use of memory without blocks, by its owner.
    #[must_use]
    pub const fn of_owner(owner: Owner) -> Self {
        Self::of(match owner {
            Owner::Unclaimed | Owner::Pages => Ram::Moved,
            Owner::LeftOut => Ram::LeftOut,
            Owner::Reserved(_) | Owner::Remainder => Ram::Reserved,
            Owner::NoMap(_) => Ram::NoMap,
            Owner::Kernel(_) => Ram::Kernel,
            Owner::Boot(_) => Ram::Boot,
        })
    }

    /// Free, in a block of this order.
    #[must_use]
    pub const fn free(order: u8) -> Self {
        Self(if order > MAX_ORDER { MAX_ORDER } else { order })
    }

    /// Any other use.
    #[must_use]
    pub const fn of(ram: Ram) -> Self {
        Self(MAX_ORDER + 1 + ram as u8)
    }

    /// Its place among [`Use::INKS`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

const fn ink(letter: u8, colour: u8, name: &'static str) -> Ink {
    Ink { letter, colour, name }
}
