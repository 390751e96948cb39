//! Entering ranges: as neighbours, inside the range that holds them, around existing ranges, and into free addresses.
#![forbid(unsafe_code)]

use super::index::Spot;
use super::slots::Link;
use super::{Request, ResourceError, ResourceFlags, ResourceId, ResourceTree, Span};

/// Place for a span among the children of a range.
enum Place {
    /// Free; the record that is next to be used belongs here in the index.
    Free(Spot),
    /// This is the first child that shares an address with it.
    Taken(Link),
}

impl<'a> ResourceTree<'a> {
    /// Place for `span` inside `parent`. O(log n), one way down.
    #[inline(always)]
    fn place(&self, parent: Link, span: Span) -> Result<Place, ResourceError<'a>> {
        if !self.span(parent).is_some_and(|of| of.contains(span)) {
            return Err(self.about(parent, |info| ResourceError::Outside(span, info)));
        }
        let spot = self.spot(parent, self.slots.drawn(), span.start());
        let next = match self.slots.inner(spot.before) {
            Some(before) if before.span.overlaps(span) => return Ok(Place::Taken(spot.before)),
            Some(before) => before.sibling,
            None => self.slots.get(parent).map_or(Link::NONE, |slot| slot.child),
        };
        match self.slots.inner(next) {
            Some(child) if child.span.start() <= span.last() => Ok(Place::Taken(next)),
            _ => Ok(Place::Free(spot)),
        }
    }

    /// Links a record for `request` inside `parent`, where there is room for it at `spot`.
    #[inline(always)]
    fn link(
        &mut self,
        parent: Link,
        spot: Spot,
        (request, flags): (&Request<'a>, ResourceFlags),
    ) -> Result<ResourceId, ResourceError<'a>> {
        let before = spot.before;
        let sibling = match self.slots.inner(before) {
            Some(slot) => slot.sibling,
            None => self.slots.get(parent).map_or(Link::NONE, |slot| slot.child),
        };
        let what = (request.span, request.name, flags);
        let taken = self.slots.alloc(what, (parent, before, sibling));
        let (link, generation) = taken.ok_or(ResourceError::NoMemory)?;
        // INVARIANT: RES-1 and RES-2 by the caller's search, RES-3 by this.
        self.join(parent, before, link);
        self.join(parent, link, sibling);
        self.index_at(parent, spot, (link, request.span.start()));
        Ok(ResourceId { link, generation })
    }

    /// Enters a range directly inside `parent` (Linux: `request_resource`). O(log n).
    ///
    /// # Errors
    ///
    /// [`ResourceError::Outside`]; [`Busy`](ResourceError::Busy) if any range is there already;
    /// [`Stale`](ResourceError::Stale), [`NoMemory`](ResourceError::NoMemory).
    pub fn request(&mut self, parent: ResourceId, request: &Request<'a>) -> Result<ResourceId, ResourceError<'a>> {
        let parent = self.live(parent)?;
        match self.place(parent, request.span)? {
            Place::Free(spot) => self.link(parent, spot, (request, request.flags)),
            Place::Taken(child) => Err(self.about(child, ResourceError::Busy)),
        }
    }

    /// Enters a range that has an owner from now on, as far inside `parent` as the ranges around it have no owner (Linux:
    /// `request_region`): it is marked busy. O(depth × log n).
    ///
    /// # Errors
    ///
    /// [`ResourceError::Busy`] if a part of it has an owner, or it lies across a border of a range on the way;
    /// [`Outside`](ResourceError::Outside), [`Stale`](ResourceError::Stale), [`NoMemory`](ResourceError::NoMemory).
    pub fn request_region(
        &mut self,
        parent: ResourceId,
        request: &Request<'a>,
    ) -> Result<ResourceId, ResourceError<'a>> {
        let mut parent = self.live(parent)?;
        let mut entered = false;
        loop {
            let place = match self.place(parent, request.span) {
                // Only the border of a range without an owner is crossed.
                Err(ResourceError::Outside(_, info)) if entered => return Err(ResourceError::Busy(info)),
                place => place?,
            };
            match place {
                Place::Free(spot) => {
                    return self.link(parent, spot, (request, request.flags | ResourceFlags::BUSY));
                }
                Place::Taken(child) => {
                    if self.slots.get(child).is_none_or(|slot| slot.flags.contains(ResourceFlags::BUSY)) {
                        return Err(self.about(child, ResourceError::Busy));
                    }
                    parent = child;
                    entered = true;
                }
            }
        }
    }

    /// Enters a range wherever it belongs inside `parent` (Linux: `insert_resource`): inside a child that spans it,
    /// around the children that it spans, or beside them. Of two equal ranges the new one is the outer. O(depth × log n),
    /// and O(log n) for each child that it spans.
    ///
    /// # Errors
    ///
    /// [`ResourceError::Across`] if it would contain only a part of a range; [`Outside`](ResourceError::Outside),
    /// [`Stale`](ResourceError::Stale), [`NoMemory`](ResourceError::NoMemory).
    pub fn insert(&mut self, parent: ResourceId, request: &Request<'a>) -> Result<ResourceId, ResourceError<'a>> {
        let mut parent = self.live(parent)?;
        loop {
            match self.place(parent, request.span)? {
                Place::Free(spot) => return self.link(parent, spot, (request, request.flags)),
                Place::Taken(first) => {
                    let of = self.span(first).ok_or(ResourceError::Stale)?;
                    if of == request.span || !of.contains(request.span) {
                        return self.wrap(parent, first, request);
                    }
                    parent = first;
                }
            }
        }
    }

    /// Enters a range around the children of `parent` from `first` on that it spans.
    fn wrap(&mut self, parent: Link, first: Link, request: &Request<'a>) -> Result<ResourceId, ResourceError<'a>> {
        let span = request.span;
        let mut inside = core::iter::successors(Some(first), |link| self.slots.get(*link)?.sibling.some())
            .take_while(|link| self.span(*link).is_some_and(|of| of.overlaps(span)));
        if let Some(across) = inside.clone().find(|link| !self.span(*link).is_some_and(|of| span.contains(of))) {
            return Err(self.about(across, ResourceError::Across));
        }
        let last = inside.by_ref().last().unwrap_or(first);
        let behind = self.slots.get(last).map_or(Link::NONE, |slot| slot.sibling);
        let before = self.slots.get(first).map_or(Link::NONE, |slot| slot.before);
        let what = (span, request.name, request.flags);
        let taken = self.slots.alloc(what, (parent, before, behind));
        let (link, generation) = taken.ok_or(ResourceError::NoMemory)?;
        // INVARIANT: RES-1 and RES-2: all that it overlaps lies in it. RES-3 by the rest of this.
        self.join(parent, before, link);
        self.join(parent, link, behind);
        self.join(link, Link::NONE, first);
        self.join(link, last, Link::NONE);
        let mut at = Some(first);
        while let Some(child) = at {
            self.unindex(parent, child);
            self.index(link, child);
            at = self.slots.get(child).and_then(|slot| slot.sibling.some());
        }
        self.index(parent, link);
        self.adopt(first, link);
        Ok(ResourceId { link, generation })
    }

    /// Makes `parent` the parent of `first` and the records linked behind it. Returns the last of them.
    pub(super) fn adopt(&mut self, first: Link, parent: Link) -> Link {
        let mut last = first;
        let mut at = Some(first);
        while let Some(link) = at {
            last = link;
            at = self.slots.get_mut(link).and_then(|slot| {
                slot.parent = parent;
                slot.sibling.some()
            });
        }
        last
    }

    /// Enters `request` in pieces where nothing is yet directly inside `parent` (Linux: `reserve_region_with_split`). Returns
    /// the number of pieces. Parts outside `parent` are left out. O(pieces × log n).
    ///
    /// # Errors
    ///
    /// [`ResourceError::Stale`]; [`NoMemory`](ResourceError::NoMemory), with the pieces before it entered.
    pub fn reserve_with_split(
        &mut self,
        parent: ResourceId,
        request: &Request<'a>,
    ) -> Result<usize, ResourceError<'a>> {
        let link = self.live(parent)?;
        let mut rest = self.span(link).and_then(|of| of.intersection(request.span));
        let mut pieces = 0;
        while let Some(span) = rest {
            let (piece, behind) = match self.place(link, span)? {
                Place::Free(_) => (Some(span), None),
                Place::Taken(child) => {
                    let of = self.span(child).ok_or(ResourceError::Stale)?;
                    let piece = of.start().checked_sub(1).and_then(|last| Span::new(span.start(), last));
                    (piece, of.last().checked_add(1).and_then(|next| Span::new(next, span.last())))
                }
            };
            if let Some(span) = piece {
                self.request(parent, &Request { span, ..*request })?;
                pieces += 1;
            }
            rest = behind;
        }
        Ok(pieces)
    }
}
