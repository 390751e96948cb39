//! The areas of a user address space: policy, without page tables.
//!
//! An [`AddressMap`] knows which addresses a process may use and how; it makes, changes, merges and removes areas by the
//! rules of Linux 6.12 and later (`mm/vma.c`, `mm/mmap.c`, `mm/mprotect.c`, `mm/mremap.c`). The traits
//! of [`translations`] connect it to page tables, to the objects that areas map, and to the source of records.
//!
//! Every call first finds out whether it can succeed, takes the records and tables that it needs, and then changes: a
//! failure leaves the map as it was. The two exceptions are Linux's, and documented at [`AddressMap::mprotect`] and
//! [`AddressMap::madvise`].
//!
//! A map has no lock: a space holds one around it, for reading to look and for writing to change. Calls that change it take
//! records with [`Gfp::KERNEL_ACCOUNT`](crate::gfp::Gfp::KERNEL_ACCOUNT), so they are for threads; what only looks is for any
//! context.

mod accounting;
mod address_map;
mod brk;
mod change;
mod check;
mod error;
pub(in crate::mm::user) mod fill;
mod flags;
mod fork;
mod gap;
mod limits;
mod madvise;
mod maps_text;
mod merge;
mod mmap;
mod mprotect;
mod mremap;
mod munmap;
mod records;
mod stack;
mod summary;
pub mod translations;
mod tree;
mod vma;

pub use address_map::AddressMap;
pub use error::MapError;
pub use fill::{FilePage, Fill, NewArea, NoFilePage, PageOf};
pub use flags::VmFlags;
pub use limits::{Limits, MapLayout, Placement, Usage};
pub use madvise::Advice;
pub use maps_text::MapsLine;
pub use mmap::{Backing, MmapRequest, Place};
pub use mremap::MremapRequest;
pub use summary::{MaxGap, STACK_GUARD_GAP};
pub use translations::{Discard, MapHal, NoMemory, Objects, Translations, VmaSource};
pub use vma::{ObjectId, Record, Vma};
