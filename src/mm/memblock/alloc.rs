//! Allocation: finding a free range from the top or from the bottom, and reserving it.
#![forbid(unsafe_code)]

use super::region::{PHYS_END, span};
use super::repaint::Paint;
use super::window::{Direction, Window};
use super::{Memblock, MemblockError, PhysAddr, PhysRange, RegionFlags, RegionOwner, Which};
use crate::hal::BootMemory;

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// From which end allocations are served.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// Serves allocations from that end from now on.
    pub const fn set_direction(&mut self, direction: Direction) {
        self.direction = direction;
    }

    /// The address below which every allocation ends.
    #[must_use]
    pub const fn limit(&self) -> PhysAddr {
        self.limit
    }

    /// From now on every allocation, and every array of a list, must end at or below `limit`, the end of the memory mapped so
    /// far (Linux: `memblock_set_current_limit`).
    pub fn set_limit(&mut self, limit: PhysAddr) {
        self.limit = limit.min(PHYS_END);
    }

    /// Reserves `size` free bytes at a multiple of `align`, a power of two, and zeroes them.
    ///
    /// Cost: O(regions + size).
    ///
    /// # Errors
    ///
    /// [`ZeroSize`](MemblockError::ZeroSize), [`BadAlignment`](MemblockError::BadAlignment),
    /// [`OutOfMemory`](MemblockError::OutOfMemory) if no free range fits,
    /// [`Unreachable`](MemblockError::Unreachable) if the range cannot be zeroed yet, and those of
    /// [`reserve`](Self::reserve).
    #[track_caller]
    pub fn alloc(&mut self, size: u64, align: u64, window: Window) -> Result<PhysRange, MemblockError> {
        self.open("alloc")?;
        let range = self.place(size, align, window)?;
        // Before the reservation, so that there is nothing to undo.
        self.backing.zero(range).map_err(|_| MemblockError::Unreachable { range })?;
        self.take(range)
    }

    /// Like [`alloc`](Self::alloc), without touching the bytes: they keep their contents, and need not be mapped.
    ///
    /// Cost: O(regions).
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_raw(&mut self, size: u64, align: u64, window: Window) -> Result<PhysRange, MemblockError> {
        self.open("alloc_raw")?;
        let range = self.place(size, align, window)?;
        self.take(range)
    }

    /// Like [`alloc_raw`](Self::alloc_raw), for an owner whose reservation stays apart from its neighbours and is found by its
    /// owner ([`RegionList::reserved_for`](super::RegionList::reserved_for)).
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_raw_for(
        &mut self,
        owner: RegionOwner,
        size: u64,
        align: u64,
        window: Window,
    ) -> Result<PhysRange, MemblockError> {
        self.open("alloc_raw_for")?;
        let range = self.place(size, align, window)?;
        self.change(Which::Reserved, range, Paint::CoverFor(owner))?;
        Ok(range)
    }

    /// Reserves what [`place`](Self::place) found.
    fn take(&mut self, range: PhysRange) -> Result<PhysRange, MemblockError> {
        self.change(Which::Reserved, range, Paint::Cover(RegionFlags::empty()))?;
        Ok(range)
    }

    /// The free range that a request gets.
    fn place(&self, size: u64, align: u64, window: Window) -> Result<PhysRange, MemblockError> {
        if size == 0 {
            return Err(MemblockError::ZeroSize);
        }
        if !align.is_power_of_two() {
            return Err(MemblockError::BadAlignment { align });
        }
        let max = window.max.min(self.limit);
        let floor = if window.min_binds { window.min } else { PhysAddr::ZERO };
        self.find(size, align, span(window.min, max), None)
            .or_else(|| self.find(size, align, span(floor, max), None))
            .ok_or(MemblockError::OutOfMemory { size, align })
    }

    /// The first fit inside `within` and outside `avoid`, in the current direction.
    pub(super) fn find(
        &self,
        size: u64,
        align: u64,
        within: Option<PhysRange>,
        avoid: Option<PhysRange>,
    ) -> Option<PhysRange> {
        let within = within?;
        let allowed = |free: PhysRange| free.intersection(within);
        let below = |free: PhysRange| avoid.map_or(Some(free), |hole| span(free.start(), free.end().min(hole.start())));
        let above = |free: PhysRange| avoid.and_then(|hole| span(free.start().max(hole.end()), free.end()));
        let mut free = self.free_ranges().filter_map(allowed);
        match self.direction {
            Direction::TopDown => free.rev().find_map(|range| {
                above(range)
                    .and_then(|part| highest(part, size, align))
                    .or_else(|| below(range).and_then(|part| highest(part, size, align)))
            }),
            Direction::BottomUp => free.find_map(|range| {
                below(range)
                    .and_then(|part| lowest(part, size, align))
                    .or_else(|| above(range).and_then(|part| lowest(part, size, align)))
            }),
        }
    }
}

/// The highest aligned `size` bytes of `free`.
fn highest(free: PhysRange, size: u64, align: u64) -> Option<PhysRange> {
    let start = free.end().checked_sub(size)?.align_down(align);
    PhysRange::from_size(start, size).filter(|&fit| free.contains_range(fit))
}

/// The lowest aligned `size` bytes of `free`.
fn lowest(free: PhysRange, size: u64, align: u64) -> Option<PhysRange> {
    let start = free.start().align_up(align)?;
    PhysRange::from_size(start, size).filter(|&fit| free.contains_range(fit))
}
