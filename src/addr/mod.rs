//! L0 vocabulary: addresses, frame numbers, orders and CPU numbers, each a type of its own.
//!
//! No type converts silently into another or from an integer: a physical address cannot be dereferenced, a frame
//! number cannot be mistaken for an address. The only conversions that need the linear map live in `mm::layout`.
//!
//! ```compile_fail,E0308
//! use quarry::addr::{PhysAddr, VirtAddr};
//! let address: VirtAddr = PhysAddr::new(0x4000_0000);
//! ```

mod bytes;
mod frame;
mod pointer;
mod range;
mod tag;
mod types;

pub use bytes::Bytes;
pub use frame::{CpuId, MAX_ORDER, Order, Pfn};
pub use pointer::{Address, Pointer};
pub use range::{PhysRange, Range, UserRange, VirtRange};
pub use tag::{TAG_GRANULE, Tag, TagSet};
pub use types::{DmaAddr, PhysAddr, UserAddr, VirtAddr};

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page frame: the 4 KiB granule.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// [`PAGE_SIZE`] as Rust's own index type: for bytes of memory, as the allocators take them.
pub const PAGE_BYTES: usize = 1 << PAGE_SHIFT;
/// log2 of the PMD block size, 2 MiB.
pub const PMD_SHIFT: u32 = 21;
/// Bytes that a block entry at the PMD level maps, 2 MiB.
pub const PMD_SIZE: u64 = 1 << PMD_SHIFT;
/// log2 of the PUD block size, 1 GiB.
pub const PUD_SHIFT: u32 = 30;
/// Bytes that a block entry at the PUD level maps, 1 GiB.
pub const PUD_SIZE: u64 = 1 << PUD_SHIFT;
/// log2 of [`PHYS_SIZE_MAX`].
pub const PHYS_SHIFT_MAX: u32 = 48;
/// One past the highest physical address that a 4 KiB-granule descriptor without FEAT_LPA2 can hold (Arm ARM D8.3).
pub const PHYS_SIZE_MAX: u64 = 1 << PHYS_SHIFT_MAX;

const _: () = assert!(usize::BITS == 64, "Quarry is for 64-bit machines");

/// A size or offset as Rust's own index type; nothing is lost on the 64-bit machines that Quarry is for.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "usize is 64 bits wide, asserted above")]
pub const fn to_usize(value: u64) -> usize {
    value as usize
}
