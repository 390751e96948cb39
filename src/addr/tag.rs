//! Memory tags as values (FEAT_MTE): four bits that a pointer carries in its top byte, and each 16 bytes of memory beside
//! their content. An access whose two tags differ faults. Pure arithmetic; what sets and reads tags is `hal::tags`.
#![forbid(unsafe_code)]

use super::VirtAddr;
use core::fmt;

/// Bytes of memory that share a tag (Arm ARM D10, "tag granule").
pub const TAG_GRANULE: u64 = 16;

/// A memory tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tag(u8);

impl Tag {
    /// Tag of an ordinary kernel address, whose top byte is 0xff: with `TCR_EL1.TCMA1` its accesses are not checked. Never
    /// given out.
    pub const MATCH_ALL: Self = Self(0xf);
    /// Tag of free memory (Linux: `KASAN_TAG_INVALID`). Never given out, so that a use after the free faults.
    pub const FREE: Self = Self(0xe);

    /// The tag in the low four bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self((bits & 0xf) as u8)
    }

    /// The tag as a number, 0 to 15.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A set of tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TagSet(u16);

impl TagSet {
    /// The tags that memory in use may have: all but the one of free memory and the one that matches all.
    pub const OWNERS: Self = Self(0x3fff);
    /// The even ones of them.
    pub const EVEN: Self = Self(0x1555);
    /// The odd ones of them.
    pub const ODD: Self = Self(0x2aaa);

    /// The set without a tag.
    #[must_use]
    pub const fn without(self, tag: Tag) -> Self {
        Self(self.0 & !(1 << tag.0))
    }

    /// Whether a tag is in it.
    #[must_use]
    pub const fn contains(self, tag: Tag) -> bool {
        self.0 >> tag.0 & 1 != 0
    }

    /// Tags in it.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// A bit for each tag, that of tag 0 the lowest.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

/// The lowest bit of the top byte, which the CPU leaves out of an address (`TCR_EL1.TBI1`).
const TOP: u32 = 56;

impl VirtAddr {
    /// The tag that the address carries; [`Tag::MATCH_ALL`] if it carries none. Of a fault address too, whose highest four
    /// bits are undefined (Arm ARM D24.2, `FAR_EL1`).
    #[must_use]
    pub const fn tag(self) -> Tag {
        if self.is_untagged() { Tag::MATCH_ALL } else { Tag::from_bits(self.get() >> TOP) }
    }

    /// The same byte of memory, by a pointer with this tag.
    #[must_use]
    pub const fn with_tag(self, tag: Tag) -> Self {
        if tag.0 == Tag::MATCH_ALL.0 {
            return self.untagged();
        }
        Self::new(self.get() << 8 >> 8 | (0xf0 | tag.0 as u64) << TOP)
    }

    /// The address itself, as arithmetic, comparisons and tables want it (Linux: `kasan_reset_tag`). An access by it is not
    /// checked.
    #[must_use]
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_wrap, reason = "bit 55 fills the top byte")]
    pub const fn untagged(self) -> Self {
        Self::new(((self.get() << 8) as i64 >> 8) as u64)
    }

    /// Whether the address carries no tag.
    #[must_use]
    pub const fn is_untagged(self) -> bool {
        self.get() == self.untagged().get()
    }

    /// Whether both name the same byte; tags are ignored.
    #[must_use]
    pub const fn same_byte(self, other: Self) -> bool {
        self.get() << 8 == other.get() << 8
    }

    /// Bytes from `earlier` to `self`; tags are ignored; `None` if `earlier` lies behind `self`.
    #[must_use]
    pub const fn distance_from(self, earlier: Self) -> Option<u64> {
        self.untagged().offset_from(earlier.untagged())
    }
}

const _: () = {
    let at = VirtAddr::new(0xffff_0000_1234_5670);
    assert!(at.with_tag(Tag(3)).get() == 0xf3ff_0000_1234_5670 && at.with_tag(Tag(3)).untagged().get() == at.get());
    assert!(at.tag().0 == Tag::MATCH_ALL.0 && at.with_tag(Tag(3)).tag().0 == 3);
    assert!(at.with_tag(Tag(3)).with_tag(Tag::MATCH_ALL).get() == at.get());
    assert!(TagSet::EVEN.0 | TagSet::ODD.0 == TagSet::OWNERS.0 && TagSet::EVEN.0 & TagSet::ODD.0 == 0);
};
