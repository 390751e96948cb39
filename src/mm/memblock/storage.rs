//! Arrays of the lists that have outgrown the value: they lie in memory that the memblock reserves for itself.
#![forbid(unsafe_code)]

use super::region::{Region, span};
use super::repaint::Paint;
use super::{LentSlots, Memblock, MemblockError, PhysAddr, PhysRange, RegionFlags, Which};
use crate::addr::PAGE_SIZE;
use crate::hal::BootMemory;

/// Slots of the reserved list that moving an array takes: one for the new array, and one more while the old one is
/// cut out of the middle of a region.
const MOVING: usize = 2;

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// Lends each list an array, into which it moves should it be full before [`allow_resize`](Self::allow_resize):
    /// while memory is not mapped, or not all memory in use is known. An array that is no larger than what the list has is not
    /// used.
    pub const fn lend_slots(&mut self, memory: LentSlots<'m>, reserved: LentSlots<'m>) {
        self.memory.lend(Some(memory));
        self.reserved.lend(Some(reserved));
    }

    /// Moves each list that is in an array of [`lend_slots`](Self::lend_slots) out of it, into the value or into memory,
    /// so that the arrays can become something else. They are not used from here on.
    ///
    /// # Errors
    ///
    /// Those of a list that cannot grow, as for [`add`](Self::add); a list that could not move stays where it is
    /// ([`is_lent`](Self::is_lent)).
    #[track_caller]
    pub fn leave_lent_slots(&mut self) -> Result<(), MemblockError> {
        self.open("leave_lent_slots")?;
        for which in [Which::Reserved, Which::Memory] {
            self.list_mut(which).lend(None);
            if self.list(which).is_lent() && !self.list_mut(which).move_home() {
                self.grow(which, None)?;
            }
        }
        Ok(())
    }

    /// Whether a list is in an array of [`lend_slots`](Self::lend_slots).
    #[must_use]
    pub const fn is_lent(&self) -> bool {
        self.memory.is_lent() || self.reserved.is_lent()
    }

    /// Doubles the slots of a list, in an array outside `avoid`.
    pub(super) fn grow(&mut self, which: Which, avoid: Option<PhysRange>) -> Result<(), MemblockError> {
        if !self.may_resize {
            let list = self.list_mut(which);
            let full = MemblockError::ListFull { list: list.name(), slots: list.capacity() };
            return if list.move_into_lent() { Ok(()) } else { Err(full) };
        }
        if which == Which::Memory && self.reserved.spare() < MOVING {
            self.grow(Which::Reserved, avoid)?;
        }
        self.move_list(which, self.list(which).capacity().saturating_mul(2), avoid)
    }

    /// Moves every array that overlaps `range` to a place outside it: the range is about to become memory that nobody
    /// may touch, or to belong to another owner, and is then not freed when the array moves on.
    pub(super) fn vacate(&mut self, range: PhysRange) -> Result<(), MemblockError> {
        for which in [Which::Reserved, Which::Memory] {
            if !self.list(which).stored_in(range) {
                continue;
            }
            if self.reserved.spare() < MOVING {
                self.grow(Which::Reserved, Some(range))?;
            }
            // Growing may have done it.
            if self.list(which).stored_in(range) {
                self.move_list(which, self.list(which).capacity(), Some(range))?;
            }
        }
        Ok(())
    }

    /// Moves a list into a new array of `capacity` slots outside `avoid`. The reserved list has [`MOVING`] slots to
    /// spare, now or in the new array.
    fn move_list(&mut self, which: Which, capacity: usize, avoid: Option<PhysRange>) -> Result<(), MemblockError> {
        let list = self.list(which).name();
        let size = array_size(capacity);
        let place = self
            .find(size, PAGE_SIZE, span(PhysAddr::ZERO, self.limit), avoid)
            .ok_or(MemblockError::NoRoomForList { list, size })?;
        let unreachable = MemblockError::Unreachable { range: place };
        let slots = self.backing.claim(place, Region::EMPTY).map_err(|_| unreachable)?;
        let slots = slots.get_mut(..capacity).ok_or(unreachable)?;
        let old = self.list_mut(which).move_into(slots, place);

        // INVARIANT: MEMB-7, the new array is reserved before anything else can be placed, and `find` gave whole pages
        // of free memory. The slots suffice by the condition above, so neither change can fail.
        let taken = self.reserved.repaint(place, Paint::Cover(RegionFlags::empty()));
        let given_back = old.is_none_or(|old| self.reserved.repaint(old, Paint::Erase));
        debug_assert!(taken && given_back, "an array moved without slots to spare");
        Ok(())
    }
}

/// Bytes of an array of `capacity` slots, in whole pages.
pub(super) const fn array_size(capacity: usize) -> u64 {
    let bytes = (capacity as u64).saturating_mul(size_of::<Region>() as u64);
    bytes.div_ceil(PAGE_SIZE).saturating_mul(PAGE_SIZE)
}
