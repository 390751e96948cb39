//! Releasing ranges. No memory is needed.
#![forbid(unsafe_code)]

use super::slots::Link;
use super::{ResourceError, ResourceFlags, ResourceId, ResourceTree, Span};

impl<'a> ResourceTree<'a> {
    /// Releases a range that has nothing inside (Linux: `release_resource`). O(log n).
    ///
    /// # Errors
    ///
    /// [`ResourceError::Stale`] if that has happened; [`HasChildren`](ResourceError::HasChildren),
    /// [`Root`](ResourceError::Root).
    pub fn release(&mut self, id: ResourceId) -> Result<(), ResourceError<'a>> {
        let link = self.live(id)?;
        if self.slots.get(link).is_some_and(|slot| slot.child.some().is_some()) {
            return Err(self.about(link, ResourceError::HasChildren));
        }
        self.remove(id)
    }

    /// Releases a range; the ranges directly inside it move directly into the one above (Linux: `remove_resource`). O(log n),
    /// and as much for each of them.
    ///
    /// # Errors
    ///
    /// [`ResourceError::Stale`], [`ResourceError::Root`].
    pub fn remove(&mut self, id: ResourceId) -> Result<(), ResourceError<'a>> {
        let link = self.live(id)?;
        if link == Link::ROOT {
            return Err(ResourceError::Root);
        }
        let Some(slot) = self.slots.get(link) else { return Err(ResourceError::Stale) };
        let (parent, before, behind, first) = (slot.parent, slot.before, slot.sibling, slot.child);
        self.unindex(parent, link);
        let Some(first) = first.some() else {
            self.unlink(parent, link);
            return Ok(());
        };
        // INVARIANT: RES-2: the ranges inside lie between the same neighbours. RES-3: it gets its new parent.
        let last = self.adopt(first, parent);
        let mut at = Some(first);
        while let Some(child) = at {
            self.index(parent, child);
            at = self.slots.get(child).and_then(|slot| slot.sibling.some());
        }
        self.join(parent, before, first);
        self.join(parent, last, behind);
        self.slots.free(link);
        Ok(())
    }

    /// Frees a record that has nothing inside and is in no index.
    #[inline(always)]
    fn unlink(&mut self, parent: Link, link: Link) {
        let Some(slot) = self.slots.inner(link) else { return };
        let (before, behind) = (slot.before, slot.sibling);
        self.join(parent, before, behind);
        self.slots.free(link);
    }

    /// Releases a range that [`ResourceTree::request_region`] has entered inside `parent`, by its addresses (Linux:
    /// `release_region`). O(depth × log n).
    ///
    /// # Errors
    ///
    /// [`ResourceError::NotThere`] if this is not exactly a requested range; [`HasChildren`](ResourceError::HasChildren),
    /// [`Stale`](ResourceError::Stale).
    pub fn release_region(&mut self, parent: ResourceId, span: Span) -> Result<(), ResourceError<'a>> {
        let mut parent = self.live(parent)?;
        loop {
            let (child, above) = self.floor(parent, span.start());
            let Some(slot) = self.slots.inner(child).filter(|slot| slot.span.contains(span)) else {
                return Err(ResourceError::NotThere(span));
            };
            if !slot.flags.contains(ResourceFlags::BUSY) {
                parent = child;
                continue;
            }
            if slot.span != span {
                return Err(ResourceError::NotThere(span));
            }
            if slot.child != Link::NONE {
                return Err(self.about(child, ResourceError::HasChildren));
            }
            self.unindex_at(parent, above, child);
            self.unlink(parent, child);
            return Ok(());
        }
    }

    /// Gives a range other bounds: inside its parent, apart from its neighbours, around its children (Linux:
    /// `adjust_resource`). O(children).
    ///
    /// # Errors
    ///
    /// [`ResourceError::Outside`], [`Busy`](ResourceError::Busy) for a neighbour, [`Across`](ResourceError::Across) for
    /// its children; [`Root`](ResourceError::Root), [`Stale`](ResourceError::Stale).
    pub fn adjust(&mut self, id: ResourceId, span: Span) -> Result<(), ResourceError<'a>> {
        let link = self.live(id)?;
        if link == Link::ROOT {
            return Err(ResourceError::Root);
        }
        let Some(parent) = self.slots.get(link).map(|slot| slot.parent) else { return Err(ResourceError::Stale) };
        if !self.span(parent).is_some_and(|of| of.contains(span)) {
            return Err(self.about(parent, |info| ResourceError::Outside(span, info)));
        }
        let meets = |other: &Link| *other != link && self.span(*other).is_some_and(|of| of.overlaps(span));
        if let Some(other) = self.children(parent).find(meets) {
            return Err(self.about(other, ResourceError::Busy));
        }
        if !self.keeps_its_place(link, span) {
            return Err(self.about(link, ResourceError::Across));
        }
        if let Some(out) = self.children(link).find(|child| !self.span(*child).is_some_and(|of| span.contains(of))) {
            return Err(self.about(out, ResourceError::Across));
        }
        if let Some(slot) = self.slots.get_mut(link) {
            // INVARIANT: RES-1, RES-2 by the comparisons.
            slot.span = span;
        }
        Ok(())
    }

    /// Whether `link` stays between its neighbours when it has the addresses `span`, which belong to none of them.
    fn keeps_its_place(&self, link: Link, span: Span) -> bool {
        let neighbours = self.slots.inner(link).map(|slot| (slot.before, slot.sibling));
        let (below, above) = neighbours.unwrap_or((Link::NONE, Link::NONE));
        let (below, above) = (self.span(below), self.span(above));
        below.is_none_or(|below| below.last() < span.start()) && above.is_none_or(|above| span.last() < above.start())
    }
}
