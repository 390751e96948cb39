//! The tree, and how to walk it.
#![forbid(unsafe_code)]

use super::info::{ResourceId, ResourceInfo};
use super::slots::{Link, Slots};
use super::{ResourceError, ResourceFlags, ResourceRecord, Span};
use crate::addr::PhysAddr;

/// Arguments of a request for a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// The addresses.
    pub span: Span,
    /// Name of the owner, or of the device.
    pub name: &'a str,
    /// Flags of the range.
    pub flags: ResourceFlags,
}

/// Named ranges in named ranges.
///
/// # Invariants
///
/// - `RES-1`: a range lies in its parent's.
/// - `RES-2`: ranges with one parent are linked by address, both ways, and share none.
/// - `RES-3`: every record in use is reached from the root once, with the right parent; all others are on the free list.
/// - `RES-4`: the index of a range has the ranges directly inside it, by address, and nothing else.
#[derive(Debug)]
pub struct ResourceTree<'a> {
    pub(super) slots: Slots<'a>,
}

impl<'a> ResourceTree<'a> {
    /// An empty tree of `span`, without memory for records.
    #[must_use]
    pub const fn new(span: Span, name: &'a str, flags: ResourceFlags) -> Self {
        Self { slots: Slots::new(ResourceRecord::used(span, name, flags)) }
    }

    /// Gives the tree an array of records, for good. Returns whether it had room: it can have [`ROWS`](crate::ds::rows::ROWS).
    pub fn add_row(&mut self, row: &'a mut [ResourceRecord<'a>]) -> bool {
        self.slots.add_row(row)
    }

    /// Number of its arrays of records.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.slots.rows()
    }

    /// Ranges, without the tree's own.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.used()
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tree's own range, in which all others are.
    #[must_use]
    pub const fn root(&self) -> ResourceId {
        ResourceId { link: Link::ROOT, generation: 0 }
    }

    /// Describes a range.
    ///
    /// # Errors
    ///
    /// [`ResourceError::Stale`].
    pub fn info(&self, id: ResourceId) -> Result<ResourceInfo<'a>, ResourceError<'a>> {
        let link = self.live(id)?;
        self.info_of(link).ok_or(ResourceError::Stale)
    }

    /// Every range but the tree's own, each followed by those inside it, by address.
    pub fn iter(&self) -> impl Iterator<Item = ResourceInfo<'a>> + '_ {
        let mut at = self.slots.get(Link::ROOT).and_then(|root| root.child.some()).map(|first| (first, 1));
        core::iter::from_fn(move || {
            let (link, depth) = at?;
            let slot = self.slots.get(link)?;
            at = self.after(link, slot, depth);
            Some(Self::describe(link, slot, depth))
        })
    }

    /// The range that is visited after this one, with its depth.
    fn after(&self, mut link: Link, slot: &ResourceRecord<'a>, mut depth: usize) -> Option<(Link, usize)> {
        if let Some(child) = slot.child.some() {
            return Some((child, depth + 1));
        }
        loop {
            let slot = self.slots.get(link)?;
            if let Some(sibling) = slot.sibling.some() {
                return Some((sibling, depth));
            }
            link = slot.parent;
            depth = depth.checked_sub(1)?;
        }
    }

    /// The innermost range that `addr` lies in. O(depth × log n).
    #[must_use]
    pub fn at(&self, addr: PhysAddr) -> Option<ResourceInfo<'a>> {
        let span = Span::new(addr, addr)?;
        let mut inner = Link::ROOT;
        while let Some(child) = self.around(inner, span) {
            inner = child;
        }
        self.info_of(inner).filter(|info| info.span.contains(span))
    }

    /// The link of a range that still exists.
    pub(super) fn live(&self, id: ResourceId) -> Result<Link, ResourceError<'a>> {
        match self.slots.get(id.link) {
            Some(slot) if slot.used && slot.generation == id.generation => Ok(id.link),
            _ => Err(ResourceError::Stale),
        }
    }

    fn describe(link: Link, slot: &ResourceRecord<'a>, depth: usize) -> ResourceInfo<'a> {
        let id = ResourceId { link, generation: slot.generation };
        ResourceInfo { id, span: slot.span, name: slot.name, flags: slot.flags, depth }
    }

    pub(super) fn info_of(&self, link: Link) -> Option<ResourceInfo<'a>> {
        let slot = self.slots.get(link)?;
        let above = core::iter::successors(slot.parent.some(), |up| self.slots.get(*up)?.parent.some());
        Some(Self::describe(link, slot, above.count()))
    }

    /// An error about a range.
    pub(super) fn about(
        &self,
        link: Link,
        error: impl FnOnce(ResourceInfo<'a>) -> ResourceError<'a>,
    ) -> ResourceError<'a> {
        self.info_of(link).map_or(ResourceError::Stale, error)
    }

    pub(super) fn span(&self, link: Link) -> Option<Span> {
        self.slots.get(link).map(|slot| slot.span)
    }

    /// The range directly inside `parent` that spans all of `span`. O(log n).
    pub(super) fn around(&self, parent: Link, span: Span) -> Option<Link> {
        let (link, _) = self.floor(parent, span.start());
        link.some().filter(|child| self.span(*child).is_some_and(|of| of.contains(span)))
    }

    /// The ranges directly inside one, by address.
    pub(super) fn children(&self, parent: Link) -> impl Iterator<Item = Link> + Clone + '_ {
        let first = self.slots.get(parent).and_then(|slot| slot.child.some());
        core::iter::successors(first, |link| self.slots.get(*link)?.sibling.some())
    }

    /// Makes `before` and `behind` neighbours among the children of `parent`; no link stands for its end on that side.
    #[inline(always)]
    pub(super) fn join(&mut self, parent: Link, before: Link, behind: Link) {
        if let Some(slot) = self.slots.inner_mut(before) {
            slot.sibling = behind;
        } else if let Some(slot) = self.slots.get_mut(parent) {
            slot.child = behind;
        }
        if let Some(slot) = self.slots.inner_mut(behind) {
            slot.before = before;
        }
    }
}
