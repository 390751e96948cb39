//! Page descriptors: the kernel's record of each frame of RAM (Linux: `struct page`).
//!
//! A [`Page`] names a frame, its [`PageDescriptor`] (32 bytes) says how the frame is used, and a [`PageMap`] finds the one from
//! the other: by a shift and an addition in the kernel, whose descriptors lie in one virtual array that is mapped only where
//! RAM is.
//!
//! Frames come in *blocks* of 2^order frames, aligned to their size. The first frame of a block is its **head** and says
//! everything; the descriptors of the others are [`Kind::Inside`] and say nothing, so that allocating and freeing a block costs
//! the same for every order. Every frame that has a descriptor belongs to exactly one block: free, on a per-CPU list,
//! allocated, reserved, or a hole. The head of any frame is found by at most eleven probes, one for each order that its block
//! could have ([`find_head`]). In a compound block the others are [`Kind::Tail`] and point to the head directly.
//!
//! The owner of a block owns its descriptor. The owner of an allocated block may note its kind and a word of its own; the
//! zone's lock protects descriptors of free blocks; the CPU protects those of blocks on its lists.

mod flags;
mod frame;
mod head;
mod map;
mod meta;

pub use flags::{Kind, MigrateType, PageState, ZoneId};
pub use frame::Page;
pub use head::find_head;
pub use map::{Bank, BankMap, MAX_SPAN, PageMap, SECTION_PAGES, Section, Vmemmap, sections_of};
pub(in crate::mm) use map::{find_far, find_near, is_undescribed};
pub use meta::PageDescriptor;

use crate::addr::MAX_ORDER;

/// log2 of the frames in a page block: 2 MiB, the unit that has a [`MigrateType`].
pub const PAGEBLOCK_ORDER: u8 = 9;
/// Frames in a page block.
pub const PAGEBLOCK_PAGES: u32 = 1 << PAGEBLOCK_ORDER;

const _: () = assert!(PAGEBLOCK_ORDER <= MAX_ORDER);
