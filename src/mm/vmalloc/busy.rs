//! The areas in use of a node: the latest ones in slots, since short-lived mappings are unmapped first; the others in a tree,
//! where each finds its neighbours.
#![forbid(unsafe_code)]

use super::{Area, AreaRef};
use crate::ds::Broken;
use crate::ds::rbtree::{Owned, Payload, RbTree};

/// Number of slots: few enough that a scan costs less than inserting an area into a tree.
const RECENT: usize = 4;
/// Start value of an empty slot: no area starts there, as no page does.
const NONE: u64 = u64::MAX;

/// Areas in use, by their start.
///
/// # Invariants
///
/// - `BUSY-1`: a slot has a start other than [`NONE`] exactly if it has an area, and the start is the area's.
/// - `BUSY-2`: no area in a slot has the start of one in the tree.
pub(super) struct Busy<'a> {
    starts: [u64; RECENT],
    recent: [Option<Owned<'a, Area>>; RECENT],
    /// The slot whose area goes to the tree when all are taken.
    oldest: usize,
    tree: RbTree<'a, Area>,
}

impl<'a> Busy<'a> {
    pub(super) const fn new() -> Self {
        Self { starts: [NONE; RECENT], recent: [const { None }; RECENT], oldest: 0, tree: RbTree::new() }
    }

    #[inline]
    fn place_of(&self, start: u64) -> Option<usize> {
        self.starts.iter().position(|other| *other == start)
    }

    /// Enters an area. O(1), or O(log n) if another has to make room for it.
    ///
    /// # Errors
    ///
    /// Returns the area if the tree already has an entry at the place of the area that is moved there: damage.
    #[inline]
    pub(super) fn insert(&mut self, area: Owned<'a, Area>) -> Result<AreaRef<'a>, Owned<'a, Area>> {
        let place = match self.place_of(NONE) {
            Some(free) => free,
            None => match self.settle() {
                Some(place) => place,
                None => return Err(area),
            },
        };
        match (self.starts.get_mut(place), self.recent.get_mut(place)) {
            (Some(start), Some(recent)) => {
                // INVARIANT: BUSY-1.
                *start = area.key();
                let area = recent.insert(area);
                Ok(AreaRef::new(area.payload()))
            }
            _ => Err(area),
        }
    }

    /// Moves the area that has been in its slot longest to the tree. Returns the slot, if the tree took the area.
    #[inline(never)]
    fn settle(&mut self) -> Option<usize> {
        let place = self.oldest;
        let (start, recent) = (self.starts.get_mut(place)?, self.recent.get_mut(place)?);
        self.oldest = (place + 1) % RECENT;
        // INVARIANT: BUSY-2 by the tree's own refusal; the area stays where it is then.
        if let Err(area) = self.tree.insert(recent.take()?) {
            *recent = Some(area);
            return None;
        }
        // INVARIANT: BUSY-1.
        *start = NONE;
        Some(place)
    }

    /// The area that starts at `start`.
    #[inline]
    pub(super) fn find(&self, start: u64) -> Option<AreaRef<'a>> {
        match self.place_of(start).and_then(|place| self.recent.get(place)?.as_ref()) {
            Some(area) => Some(AreaRef::new(area.payload())),
            None => Some(AreaRef::new(self.tree.find(start)?.node().payload())),
        }
    }

    /// Removes the area that starts at `start`, if `accept` permits it. `None` if no area starts there.
    ///
    /// # Errors
    ///
    /// Those of `accept`; the area stays.
    #[inline(always)]
    pub(super) fn remove_if<E>(
        &mut self,
        start: u64,
        accept: impl Fn(&Area) -> Result<(), E>,
    ) -> Option<Result<Owned<'a, Area>, E>> {
        if let Some(place) = self.place_of(start)
            && let (Some(start), Some(recent)) = (self.starts.get_mut(place), self.recent.get_mut(place))
            && let Some(area) = recent.as_deref()
        {
            if let Err(error) = accept(area) {
                return Some(Err(error));
            }
            // INVARIANT: BUSY-1.
            *start = NONE;
            return recent.take().map(Ok);
        }
        let area = self.tree.find(start)?.node();
        match accept(area) {
            Ok(()) => self.tree.erase(area).map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    /// The areas in slots.
    fn recent(&self) -> impl Iterator<Item = &Area> {
        self.recent.iter().flatten().map(|area| &**area)
    }

    /// The area with the highest start that is not above `addr`.
    pub(super) fn last_at_or_below(&self, addr: u64) -> Option<&Area> {
        let settled = self.tree.last_at_or_below(addr).map(|area| area.node().payload());
        let recent = self.recent().filter(|area| area.key() <= addr);
        recent.chain(settled).max_by_key(|area| area.key())
    }

    /// The area with the lowest start that is not below `addr`.
    pub(super) fn first_at_or_above(&self, addr: u64) -> Option<&Area> {
        let settled = self.tree.first_at_or_above(addr).map(|area| area.node().payload());
        let recent = self.recent().filter(|area| area.key() >= addr);
        recent.chain(settled).min_by_key(|area| area.key())
    }

    /// All areas, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Area> {
        self.recent().chain(self.tree.into_iter().map(|area| area.payload()))
    }

    /// Tests the tree, `BUSY-1` and `BUSY-2`.
    pub(super) fn check(&self) -> Result<(), Broken> {
        const PLACES: Broken = Broken { tag: "BUSY-1", what: "a place with another area, or none" };
        const TWICE: Broken = Broken { tag: "BUSY-2", what: "two areas with one start" };
        self.tree.check()?;
        for (index, (start, recent)) in self.starts.iter().zip(&self.recent).enumerate() {
            if *start != recent.as_ref().map_or(NONE, |area| area.key()) {
                return Err(PLACES);
            }
            let twice = self.place_of(*start).is_some_and(|place| place != index) || self.tree.find(*start).is_some();
            if *start != NONE && twice {
                return Err(TWICE);
            }
        }
        Ok(())
    }
}
