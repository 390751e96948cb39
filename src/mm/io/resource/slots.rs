//! The memory of a tree: arrays of records, and the list of unused ones.
#![forbid(unsafe_code)]

use super::{ResourceFlags, Span};
use crate::ds::rows::Rows;

/// A link to a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link(u32);

impl Link {
    /// To no record.
    pub(super) const NONE: Self = Self(u32::MAX);
    /// To the tree's own range, which is in no array.
    pub(super) const ROOT: Self = Self(u32::MAX - 1);

    /// The record's place in an index is above those of lower priority.
    #[inline]
    pub(super) const fn priority(self) -> u32 {
        self.0.wrapping_mul(0x9e37_79b1)
    }

    /// The link, unless it points to nothing.
    #[inline]
    pub(super) fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

/// A record: a range of the tree, or an unused one.
#[derive(Clone, Copy, Debug)]
pub struct ResourceRecord<'a> {
    pub(super) span: Span,
    pub(super) name: &'a str,
    pub(super) flags: ResourceFlags,
    /// Number of uses of the record, which distinguishes an old handle.
    pub(super) generation: u32,
    pub(super) parent: Link,
    /// The next higher range with the same parent; the next free record.
    pub(super) sibling: Link,
    /// The lowest range inside.
    pub(super) child: Link,
    /// The topmost record of the index over the ranges inside.
    pub(super) top: Link,
    /// Subtrees in the parent's index: the records below these addresses, and those above.
    pub(super) left: Link,
    pub(super) right: Link,
    pub(super) used: bool,
}

impl<'a> ResourceRecord<'a> {
    /// A record that is not in use.
    pub const FREE: Self = Self {
        span: Span::ALL,
        name: "",
        flags: ResourceFlags::empty(),
        generation: 0,
        parent: Link::NONE,
        sibling: Link::NONE,
        child: Link::NONE,
        top: Link::NONE,
        left: Link::NONE,
        right: Link::NONE,
        used: false,
    };

    /// A record in use, linked to nothing.
    pub(super) const fn used(span: Span, name: &'a str, flags: ResourceFlags) -> Self {
        Self { span, name, flags, used: true, ..Self::FREE }
    }
}

/// All records of a tree.
#[derive(Debug)]
pub(super) struct Slots<'a> {
    root: ResourceRecord<'a>,
    rows: Rows<'a, ResourceRecord<'a>>,
    free: Link,
    /// Records in use, without the root's.
    used: usize,
}

impl<'a> Slots<'a> {
    pub(super) const fn new(root: ResourceRecord<'a>) -> Self {
        Self { root, rows: Rows::new(), free: Link::NONE, used: 0 }
    }

    /// Takes an array for good, as far as a link can name its records. Returns whether there was room for it.
    pub(super) fn add_row(&mut self, row: &'a mut [ResourceRecord<'a>]) -> bool {
        let Some(numbers) = self.rows.add(row) else { return false };
        for number in numbers.rev() {
            if let Some(slot) = self.rows.get_mut(number) {
                *slot = ResourceRecord { sibling: self.free, ..ResourceRecord::FREE };
                self.free = Link(number);
            }
        }
        true
    }

    /// Number of arrays.
    pub(super) fn rows(&self) -> usize {
        self.rows.rows()
    }

    /// Records in use, without the root's.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// All records, without the root's.
    pub(super) fn all(&self) -> impl Iterator<Item = &ResourceRecord<'a>> {
        self.rows.iter().map(|(_, slot)| slot)
    }

    /// The first unused record.
    pub(super) const fn first_free(&self) -> Link {
        self.free
    }

    /// A record of the tree, or `None` for no link.
    #[inline]
    pub(super) fn get(&self, link: Link) -> Option<&ResourceRecord<'a>> {
        if link == Link::ROOT {
            return Some(&self.root);
        }
        self.rows.get(link.0)
    }

    /// The same to change it.
    #[inline]
    pub(super) fn get_mut(&mut self, link: Link) -> Option<&mut ResourceRecord<'a>> {
        if link == Link::ROOT {
            return Some(&mut self.root);
        }
        self.rows.get_mut(link.0)
    }

    /// Takes a free record for a range that is linked to nothing yet.
    pub(super) fn take(&mut self, slot: ResourceRecord<'a>) -> Option<Link> {
        let link = self.free.some()?;
        let place = self.get_mut(link)?;
        let (next, generation) = (place.sibling, place.generation);
        *place = ResourceRecord { generation, ..slot };
        self.free = next;
        self.used += 1;
        Some(link)
    }

    /// Frees a record to which nothing points any more.
    pub(super) fn give_back(&mut self, link: Link) {
        let free = self.free;
        if let Some(slot) = self.get_mut(link) {
            *slot =
                ResourceRecord { generation: slot.generation.wrapping_add(1), sibling: free, ..ResourceRecord::FREE };
            self.free = link;
            self.used -= 1;
        }
    }
}
