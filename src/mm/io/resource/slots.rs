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
    /// Drawn for each range: in an index it is above those of lower priority.
    pub(super) priority: u32,
    pub(super) parent: Link,
    /// The next lower range with the same parent.
    pub(super) before: Link,
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
        priority: 0,
        parent: Link::NONE,
        before: Link::NONE,
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

/// The first priority, and the steps from one to the next: a linear congruential sequence (Numerical Recipes, 3rd edition, 7.1),
/// which visits all values. Reproducible, since balance is all that it is for.
const FIRST_PRIORITY: u32 = 0x9e37_79b1;
const PRIORITY_FACTOR: u32 = 1_664_525;
const PRIORITY_STEP: u32 = 1_013_904_223;

/// All records of a tree.
#[derive(Debug)]
pub(super) struct Slots<'a> {
    root: ResourceRecord<'a>,
    rows: Rows<'a, ResourceRecord<'a>>,
    free: Link,
    /// Records in use, without the root's.
    used: usize,
    /// The priority of the next range.
    drawn: u32,
}

impl<'a> Slots<'a> {
    pub(super) const fn new(root: ResourceRecord<'a>) -> Self {
        Self { root, rows: Rows::new(), free: Link::NONE, used: 0, drawn: FIRST_PRIORITY }
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

    /// The first unused record: the next range gets it.
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

    /// A record that is not the root's: no index has that.
    #[inline]
    pub(super) fn inner(&self, link: Link) -> Option<&ResourceRecord<'a>> {
        self.rows.get(link.0)
    }

    /// The same to change it.
    #[inline]
    pub(super) fn inner_mut(&mut self, link: Link) -> Option<&mut ResourceRecord<'a>> {
        self.rows.get_mut(link.0)
    }

    /// A record to change.
    #[inline]
    pub(super) fn get_mut(&mut self, link: Link) -> Option<&mut ResourceRecord<'a>> {
        if link == Link::ROOT {
            return Some(&mut self.root);
        }
        self.rows.get_mut(link.0)
    }

    /// The priority that the next range gets.
    #[inline]
    pub(super) const fn drawn(&self) -> u32 {
        self.drawn
    }

    /// Allocates a record for a range: in no index yet, and with nothing inside. Returns it with its generation.
    #[inline(always)]
    pub(super) fn alloc(
        &mut self,
        (span, name, flags): (Span, &'a str, ResourceFlags),
        (parent, before, sibling): (Link, Link, Link),
    ) -> Option<(Link, u32)> {
        let link = self.free.some()?;
        let slot = self.rows.get_mut(link.0)?;
        self.free = slot.sibling;
        (slot.span, slot.name, slot.flags, slot.used) = (span, name, flags, true);
        (slot.parent, slot.before, slot.sibling, slot.child) = (parent, before, sibling, Link::NONE);
        (slot.top, slot.left, slot.right, slot.priority) = (Link::NONE, Link::NONE, Link::NONE, self.drawn);
        self.drawn = self.drawn.wrapping_mul(PRIORITY_FACTOR).wrapping_add(PRIORITY_STEP);
        self.used += 1;
        Some((link, slot.generation))
    }

    /// Frees a record to which nothing points any more.
    #[inline(always)]
    pub(super) fn free(&mut self, link: Link) {
        if let Some(slot) = self.rows.get_mut(link.0) {
            slot.generation = slot.generation.wrapping_add(1);
            slot.sibling = self.free;
            slot.used = false;
            self.free = link;
            self.used -= 1;
        }
    }
}
