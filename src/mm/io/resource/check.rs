//! The invariants of a tree.
#![forbid(unsafe_code)]

use super::ResourceTree;
use super::slots::Link;
use crate::ds::Broken;

impl ResourceTree<'_> {
    /// Tests `RES-1` to `RES-4`. O(records × log n), and O(children²).
    ///
    /// # Errors
    ///
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        const LINKS: Broken = Broken { tag: "RES-3", what: "a record that is not where its links say" };
        const INDEX: Broken = Broken { tag: "RES-4", what: "an index that is not that of the ranges inside" };
        let all = self.slots.all().count();
        if !self.is_indexed(Link::ROOT, all) {
            return Err(INDEX);
        }
        let mut seen = 0;
        // Every step visits a record, and a tree without circles has no more than there are.
        let mut ranges = self.iter();
        while let Some(info) = ranges.next().filter(|_| seen <= all) {
            seen += 1;
            let Some(slot) = self.slots.get(info.id.link) else { return Err(LINKS) };
            let Some(parent) = self.slots.get(slot.parent) else { return Err(LINKS) };
            if !slot.used || !parent.used || !self.children(slot.parent).take(all + 1).any(|link| link == info.id.link)
            {
                return Err(LINKS);
            }
            // The neighbour before, or the parent, leads here, and the first child has none before.
            let leads = match self.slots.inner(slot.before) {
                Some(before) => before.sibling,
                None => parent.child,
            };
            if leads != info.id.link || slot.before == info.id.link {
                return Err(LINKS);
            }
            if !parent.span.contains(slot.span) {
                return Err(Broken { tag: "RES-1", what: "a range that is not inside the one above" });
            }
            if !self.is_indexed(info.id.link, all) {
                return Err(INDEX);
            }
            if let Some(next) = slot.sibling.some().and_then(|next| self.slots.get(next))
                && (next.span.start() <= slot.span.last() || next.parent != slot.parent)
            {
                return Err(Broken { tag: "RES-2", what: "neighbours that are not in order" });
            }
        }
        let free =
            core::iter::successors(self.slots.first_free().some(), |link: &Link| self.slots.get(*link)?.sibling.some());
        let (mut waiting, mut lies) = (0, false);
        for link in free.take(all + 1) {
            waiting += 1;
            lies |= self.slots.get(link).is_none_or(|slot| slot.used);
        }
        if lies || seen != self.len() || seen + waiting != all {
            return Err(LINKS);
        }
        Ok(())
    }
}
