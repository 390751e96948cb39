//! The choice of tags for memory, and the meaning of a wrong tag: the policy of memory tagging (Linux: `mm/kasan`, hardware
//! tags).
//!
//! - Memory in use has one of fourteen tags, and its owner's pointer the same. Free memory has [`Tag::FREE`], which no
//!   pointer carries, so every use after free faults as long as nobody else has the memory.
//! - Neighbours are never alike, so that every overflow by less than an object faults: objects of a slab have even and odd tags
//!   by turns, and an allocation at the edge of a block avoids the tag across the edge.
//! - A new owner of memory gets a tag that differs from the previous owner's, so that a stale pointer faults for sure the first
//!   time, and with a chance of six in seven from then on.
#![forbid(unsafe_code)]

mod ring;

pub use ring::{Owner, OwnerRing, RingEntry};

use crate::addr::{TAG_GRANULE, Tag, TagSet};
use core::fmt;

/// `bytes` up to whole granules.
#[must_use]
pub const fn whole_granules(bytes: u64) -> u64 {
    bytes.next_multiple_of(TAG_GRANULE)
}

/// The tags that object number `index` of a slab may get: those of its turn but those across the edges of the slab, and the
/// one that it had before. Never empty: seven less three.
#[must_use]
pub fn for_object(index: u32, across: [Option<Tag>; 2], before: Option<Tag>) -> TagSet {
    let turn = if index.is_multiple_of(2) { TagSet::EVEN } else { TagSet::ODD };
    across.into_iter().chain([before]).flatten().fold(turn, TagSet::without)
}

/// The tags that a block of pages may get: not those across its edges. Never empty.
#[must_use]
pub fn for_block(across: [Option<Tag>; 2]) -> TagSet {
    across.into_iter().flatten().fold(TagSet::OWNERS, TagSet::without)
}

/// Facts about an access that failed its tag check.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// The pointer's tag.
    pub pointer: Tag,
    /// The memory's.
    pub memory: Tag,
    /// Bytes from the end of the nearest lower memory with the pointer's tag to the address, if there is any nearby.
    pub behind: Option<u64>,
    /// Bytes from the address to the nearest higher one.
    pub before: Option<u64>,
    /// Whether memory at the address was freed by the owner with the pointer's tag.
    pub freed: bool,
}

/// Kind of error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The tags agree, or the pointer matches all.
    Fine,
    /// The memory is free, or has a new owner since.
    UseAfterFree,
    /// This number of bytes behind the memory of the pointer, 0 for the first.
    Overflow(u64),
    /// This number of bytes before it, 1 for the last.
    Underflow(u64),
    /// No memory nearby has the pointer's tag, and no record names one.
    Stale,
}

impl Evidence {
    /// The most likely explanation.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.pointer == self.memory || self.pointer == Tag::MATCH_ALL {
            return Verdict::Fine;
        }
        match (self.freed, self.behind, self.before) {
            (true, ..) => Verdict::UseAfterFree,
            (_, Some(behind), before) if before.is_none_or(|before| behind <= before) => Verdict::Overflow(behind),
            (_, _, Some(before)) => Verdict::Underflow(before),
            _ if self.memory == Tag::FREE => Verdict::UseAfterFree,
            _ => Verdict::Stale,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine => f.write_str("the tags agree"),
            Self::UseAfterFree => f.write_str("use after free"),
            Self::Overflow(bytes) => write!(f, "out of bounds, byte {bytes} behind the memory with the pointer's tag"),
            Self::Underflow(bytes) => {
                write!(f, "out of bounds, {bytes} bytes before the memory with the pointer's tag")
            }
            Self::Stale => f.write_str("use after free by somebody who had the memory long ago, or a wild pointer"),
        }
    }
}
