//! Finding a place for a range of a given size.
#![forbid(unsafe_code)]

use super::slots::Link;
use super::{Request, ResourceError, ResourceFlags, ResourceId, ResourceTree, Span};
use crate::addr::PhysAddr;

impl<'a> ResourceTree<'a> {
    /// Enters `size` bytes in the lowest gap directly inside `parent` that has room for them, at a multiple of `align`, a power
    /// of two, and within `bounds` (Linux: `allocate_resource`). Returns its place and its name. O(children).
    ///
    /// # Errors
    ///
    /// [`ResourceError::NoGap`]; [`Empty`](ResourceError::Empty) for no bytes;
    /// [`BadAlignment`](ResourceError::BadAlignment), [`Stale`](ResourceError::Stale),
    /// [`NoMemory`](ResourceError::NoMemory).
    pub fn allocate(
        &mut self,
        parent: ResourceId,
        (size, align): (u64, u64),
        bounds: Span,
        (name, flags): (&'a str, ResourceFlags),
    ) -> Result<(ResourceId, Span), ResourceError<'a>> {
        let link = self.live(parent)?;
        if size == 0 {
            return Err(ResourceError::Empty);
        }
        if !align.is_power_of_two() {
            return Err(ResourceError::BadAlignment(align));
        }
        let within = self.span(link).and_then(|of| of.intersection(bounds)).ok_or(ResourceError::NoGap)?;
        let span = self.gaps(link, within).find_map(|gap| gap.lowest(size, align)).ok_or(ResourceError::NoGap)?;
        self.request(parent, &Request { span, name, flags }).map(|id| (id, span))
    }

    /// The free ranges directly inside `parent` and within `within`, by address.
    fn gaps(&self, parent: Link, within: Span) -> impl Iterator<Item = Span> + '_ {
        // Earliest start of the next gap; `None` when the last address has been passed.
        let mut from = Some(within.start());
        let mut children = self.children(parent);
        core::iter::from_fn(move || {
            loop {
                let start = from.filter(|start| *start <= within.last())?;
                let Some(child) = children.next().and_then(|child| self.span(child)) else {
                    from = None;
                    return Span::new(start, within.last());
                };
                from = child.last().checked_add(1).map(|next: PhysAddr| next.max(start));
                let end = child.start().checked_sub(1).map(|last| last.min(within.last()));
                if let Some(gap) = end.and_then(|last| Span::new(start, last)) {
                    return Some(gap);
                }
            }
        })
    }
}
