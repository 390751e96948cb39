//! The reserve of a pool: which elements are in it, and how many there shall be.
#![forbid(unsafe_code)]

use super::poison::Element;
use crate::mm::alloc::{Allocator, KVec};

/// State protected by the pool's lock.
///
/// # Invariants
///
/// - `POOL-1`: `elements` has room for `wanted` elements, and holds each at most once.
/// - `POOL-3`: `owed` of the elements that are in use came out of the reserve, no more than it lacks.
pub(super) struct Reserve<A: Allocator> {
    elements: KVec<Element, A>,
    wanted: u32,
    owed: u32,
    set_aside: u32,
}

impl<A: Allocator> Reserve<A> {
    /// An empty one of `wanted` elements, for which `elements` has room.
    pub(super) const fn new(elements: KVec<Element, A>, wanted: u32) -> Self {
        Self { elements, wanted, owed: 0, set_aside: 0 }
    }

    /// Number of elements that the reserve should have.
    pub(super) const fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Number of elements in it.
    #[expect(clippy::cast_possible_truncation, reason = "POOL-1: no more than there ever were wanted")]
    pub(super) const fn count(&self) -> u32 {
        self.elements.len() as u32
    }

    /// Number of missing elements.
    pub(super) const fn lacking(&self) -> u32 {
        self.wanted.saturating_sub(self.count())
    }

    /// Number of its elements that are in use.
    pub(super) const fn owed(&self) -> u32 {
        self.owed
    }

    /// Number of elements found damaged.
    pub(super) const fn set_aside(&self) -> u32 {
        self.set_aside
    }

    pub(super) const fn elements(&self) -> &[Element] {
        self.elements.as_slice()
    }

    pub(super) const fn room(&self) -> usize {
        self.elements.capacity()
    }

    /// Takes an element out, the one that came last: it is in a cache if any is.
    pub(super) fn take(&mut self) -> Option<Element> {
        let element = self.elements.pop()?;
        // INVARIANT: POOL-3.
        self.owed = self.owed.saturating_add(1);
        Some(element)
    }

    /// An element that was taken out is damaged: nobody gets it.
    pub(super) const fn set_one_aside(&mut self) {
        self.owed = self.owed.saturating_sub(1);
        self.set_aside = self.set_aside.saturating_add(1);
    }

    /// Whether an element is in it. O(count).
    pub(super) fn holds(&self, element: Element) -> bool {
        self.elements.as_slice().contains(&element)
    }

    /// Puts an element in that is in use no longer, unless nothing is missing.
    pub(super) fn put(&mut self, element: Element) -> Result<(), Element> {
        self.fill(element)?;
        self.owed = self.owed.saturating_sub(1);
        Ok(())
    }

    /// Puts an element in that nobody has had, unless nothing is missing.
    pub(super) fn fill(&mut self, element: Element) -> Result<(), Element> {
        if self.lacking() == 0 {
            return Err(element);
        }
        self.elements.push_within_capacity(element)?;
        self.settle();
        Ok(())
    }

    /// From now on there shall be `wanted` elements. `larger`, with as much room, takes the place of a list that has too
    /// little; the list that is not used comes back.
    pub(super) fn resize(&mut self, wanted: u32, mut larger: KVec<Element, A>) -> KVec<Element, A> {
        if larger.capacity() > self.room() {
            for element in self.elements.as_slice() {
                // INVARIANT: POOL-1: there is room for more than there are.
                let _ = larger.push_within_capacity(*element);
            }
            core::mem::swap(&mut self.elements, &mut larger);
            larger.clear();
        }
        self.wanted = wanted.min(u32::try_from(self.room()).unwrap_or(u32::MAX));
        self.settle();
        larger
    }

    /// Takes an element out that is one too many.
    pub(super) fn take_surplus(&mut self) -> Option<Element> {
        if self.count() > self.wanted { self.elements.pop() } else { None }
    }

    /// Takes an element out to free it to the backing: the pool ends.
    pub(super) fn empty(&mut self) -> Option<Element> {
        self.elements.pop()
    }

    /// The list, when there is no pool any more.
    pub(super) fn replace_list(&mut self, empty: KVec<Element, A>) -> KVec<Element, A> {
        core::mem::replace(&mut self.elements, empty)
    }

    fn settle(&mut self) {
        // INVARIANT: POOL-3.
        self.owed = self.owed.min(self.lacking());
    }
}
