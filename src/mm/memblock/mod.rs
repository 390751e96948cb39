//! memblock: the boot-time memory manager, from the device tree to the page allocator.
//!
//! Two lists of address ranges say everything: **memory** has all RAM, **reserved** has the parts of the address space that are
//! taken. Memory that is not reserved and not `NOMAP` is free. The lists are independent: a reservation may overlap another
//! one, lie outside memory, or be made before the memory is known; ranges arrive in any order, overlap and touch, and each list
//! stays sorted, disjoint and merged.
//!
//! ```text
//!   memory    |======== mapped ========|-- NOMAP --|=== mapped ===|
//!   reserved       |##|     |####|                       |######|    |##|
//!   free      |====|  |=====|    |=====|           |=====|      |=|
//! ```
//!
//! Each list starts with an array of 128 regions inside the value. A full array doubles into memory that the memblock
//! hands out to itself, once the linear map exists and [`Memblock::allow_resize`] has been called; before that it moves
//! into an array that was lent ([`Memblock::lend_slots`]), and without one a full list is an error. The array never goes
//! where a range that is being reserved, removed or marked lies, and moves away when such a range is about to cover it.
//!
//! A memblock is used by the boot CPU alone, before anything else allocates, and is handed over exactly once
//! ([`Memblock::retire`]). Until then everything allocates from here; afterwards it can only be read.
//!
//! Model: Linux `mm/memblock.c`. The names are Linux's without the prefix.
#![forbid(unsafe_code)]

mod alloc;
mod bootmem;
mod check;
mod contiguous;
mod discover;
mod dump;
mod error;
mod free;
mod handover;
mod list;
mod region;
mod repaint;
mod storage;
mod trim;
mod window;

pub use bootmem::SMP_CACHE_BYTES;
pub use check::{ListView, check_lists};
pub use contiguous::{CONTIGUOUS_ALIGN, ContiguousRequest};
pub use discover::{Cut, DiscoverError, Discovery, InitrdError, Surroundings};
pub use error::{MemblockBroken, MemblockError};
pub use free::FreeRanges;
pub use handover::HandOver;
pub use list::{LentSlots, RegionList};
pub use region::{BOOT_ONLY, Region, RegionFlags, RegionOwner};
pub use window::{Direction, Window};

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::hal::BootMemory;
use core::panic::Location;
use region::PHYS_END;
use repaint::Paint;

/// Regions that each list holds before it grows (Linux: `INIT_MEMBLOCK_REGIONS`).
pub const INIT_REGIONS: usize = 128;

/// The boot-time memory manager.
///
/// `M` reaches the bytes of the memory, `'m` is how long that memory lives, `INIT` is the number of regions that each
/// list holds before it grows (at least 2).
///
/// Contexts: the boot CPU, while it is the only one; no call sleeps. Cost: O(regions) a call, O(log regions) for
/// questions about one address, unless the call says otherwise. No call allocates except to grow a list.
///
/// # Invariants
///
/// Those of [`RegionList`] for both lists, and
///
/// - `MEMB-7`: an array that has moved out lies in whole pages of mapped memory, is reserved, overlaps no other array,
///   and is large enough for its capacity.
/// - `MEMB-8`: reserved regions have no flags, and memory has no owners.
#[derive(Debug)]
pub struct Memblock<'m, M, const INIT: usize = INIT_REGIONS> {
    memory: RegionList<'m, INIT>,
    reserved: RegionList<'m, INIT>,
    backing: M,
    direction: Direction,
    limit: PhysAddr,
    low_limit: PhysAddr,
    may_resize: bool,
    retired: bool,
}

/// Which of the two lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    Memory,
    Reserved,
}

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// A memblock that knows of no memory. It allocates top-down and without a limit, and may not grow its lists.
    pub const fn new(backing: M) -> Self {
        Self {
            memory: RegionList::new("memory"),
            reserved: RegionList::new("reserved"),
            backing,
            direction: Direction::TopDown,
            limit: PHYS_END,
            low_limit: window::LOW_LIMIT,
            may_resize: false,
            retired: false,
        }
    }

    /// Replaces the access to memory, for example when the linear map has come up. Arrays that have moved out stay reachable
    /// the old way, so their mapping must stay, too.
    pub fn set_backing(&mut self, backing: M) {
        self.backing = backing;
    }

    /// From now on a full list grows. Call it when the memory below the limit is mapped and everything that is in use
    /// has been reserved (Linux: `memblock_allow_resize`).
    pub const fn allow_resize(&mut self) {
        self.may_resize = true;
    }

    /// Adds the `size` bytes from `base` as memory. Bytes that are memory already stay as they are.
    ///
    /// A range that runs past the end of the physical address space, or past 2^64, is cut there. No bytes: no change.
    ///
    /// # Errors
    ///
    /// [`OutsidePhysicalSpace`](MemblockError::OutsidePhysicalSpace), [`Retired`](MemblockError::Retired), and the
    /// three of a list that cannot grow: [`ListFull`](MemblockError::ListFull),
    /// [`NoRoomForList`](MemblockError::NoRoomForList), [`Unreachable`](MemblockError::Unreachable).
    #[track_caller]
    pub fn add(&mut self, base: PhysAddr, size: u64) -> Result<(), MemblockError> {
        self.add_with_flags(base, size, RegionFlags::empty())
    }

    /// Adds memory like [`add`](Self::add), with flags. Bytes that are memory already keep the flags they have.
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add).
    #[track_caller]
    pub fn add_with_flags(&mut self, base: PhysAddr, size: u64, flags: RegionFlags) -> Result<(), MemblockError> {
        self.open("add")?;
        self.change(Which::Memory, clamp(base, size)?, Paint::Cover(flags))
    }

    /// Removes the `size` bytes from `base` from memory. Reservations stay. Cut at the end like [`add`](Self::add).
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add); removing the middle of a region takes a slot.
    #[track_caller]
    pub fn remove(&mut self, base: PhysAddr, size: u64) -> Result<(), MemblockError> {
        self.open("remove")?;
        self.change(Which::Memory, clamp(base, size)?, Paint::Erase)
    }

    /// Reserves the `size` bytes from `base`, whether or not they are memory or reserved already. The reservation is
    /// exact to the byte; [`retire`](Self::retire) leaves every page that it touches out. Cut at the end like
    /// [`add`](Self::add).
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add).
    #[track_caller]
    pub fn reserve(&mut self, base: PhysAddr, size: u64) -> Result<(), MemblockError> {
        self.open("reserve")?;
        self.change(Which::Reserved, clamp(base, size)?, Paint::Cover(RegionFlags::empty()))
    }

    /// Ends the reservation of `range`: the range of an allocation, or part of it. Bytes that are not reserved stay as they
    /// are.
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add), and [`HoldsList`](MemblockError::HoldsList) for memory that the memblock itself uses.
    #[track_caller]
    pub fn free(&mut self, range: PhysRange) -> Result<(), MemblockError> {
        self.open("free")?;
        let range = clamp(range.start(), range.size())?;
        for which in [Which::Memory, Which::Reserved] {
            if let Some(storage) = self.list(which).storage().filter(|storage| storage.overlaps(range)) {
                return Err(MemblockError::HoldsList { storage });
            }
        }
        self.change(Which::Reserved, range, Paint::Erase)
    }

    /// Takes the memory among the `size` bytes from `base` out of the linear map and out of every allocation. The range
    /// is rounded outwards to whole pages, since a page is mapped or it is not. Cut at the end like [`add`](Self::add).
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add); marking the middle of a region takes two slots.
    #[track_caller]
    pub fn mark_nomap(&mut self, base: PhysAddr, size: u64) -> Result<(), MemblockError> {
        self.open("mark_nomap")?;
        let range = clamp(base, size)?;
        let pages = range.align_outwards(PAGE_SIZE).unwrap_or(range);
        self.change(Which::Memory, pages, Paint::Set(RegionFlags::NOMAP))
    }

    /// Undoes [`mark_nomap`](Self::mark_nomap) for the whole pages among the `size` bytes from `base`.
    ///
    /// # Errors
    ///
    /// As for [`mark_nomap`](Self::mark_nomap).
    #[track_caller]
    pub fn clear_nomap(&mut self, base: PhysAddr, size: u64) -> Result<(), MemblockError> {
        self.open("clear_nomap")?;
        match clamp(base, size)?.align_inwards(PAGE_SIZE) {
            Some(pages) => self.change(Which::Memory, pages, Paint::Clear(RegionFlags::NOMAP)),
            None => Ok(()),
        }
    }

    /// All memory.
    #[must_use]
    pub const fn memory(&self) -> &RegionList<'m, INIT> {
        &self.memory
    }

    /// The reserved memory.
    #[must_use]
    pub const fn reserved(&self) -> &RegionList<'m, INIT> {
        &self.reserved
    }

    /// The memory that the linear map holds, by ascending address: all but `NOMAP`, reserved or not.
    pub fn mapped_ranges(&self) -> impl DoubleEndedIterator<Item = PhysRange> + Clone {
        self.memory.regions().iter().filter(|region| region.is_mapped()).map(|region| region.range)
    }

    /// The first of [`mapped_ranges`](Self::mapped_ranges) that starts at or above `addr`. Cost: O(log regions), and O(1)
    /// for each region that is not mapped.
    #[must_use]
    pub fn mapped_range_from(&self, addr: PhysAddr) -> Option<PhysRange> {
        let regions = self.memory.regions();
        let above = regions.get(regions.partition_point(|region| region.start() < addr)..)?;
        above.iter().find(|region| region.is_mapped()).map(|region| region.range)
    }

    /// Whether the linear map holds a byte of `range`. Cost: O(log regions), and O(1) for each region of the range.
    #[must_use]
    pub fn maps_any(&self, range: PhysRange) -> bool {
        let regions = self.memory.regions();
        let at = regions.partition_point(|region| region.end() <= range.start());
        let mut inside = regions.iter().skip(at).take_while(|region| region.range.overlaps(range));
        inside.any(Region::is_mapped)
    }

    /// The free ranges by ascending address, as large as they come: memory that is neither `NOMAP` nor reserved.
    pub fn free_ranges(&self) -> FreeRanges<'_> {
        FreeRanges::new(self.memory.regions(), self.reserved.regions())
    }

    /// Bytes in all free ranges.
    #[must_use]
    pub fn free_size(&self) -> u64 {
        self.free_ranges().map(PhysRange::size).sum()
    }

    /// Bytes of mapped memory, reserved or not.
    ///
    /// # Errors
    ///
    /// [`NoMemory`](MemblockError::NoMemory) if there are none: no kernel can continue then.
    pub fn usable_size(&self) -> Result<u64, MemblockError> {
        Some(self.mapped_ranges().map(PhysRange::size).sum()).filter(|&bytes| bytes != 0).ok_or(MemblockError::NoMemory)
    }

    /// The lowest address of memory, or `None` without memory.
    #[must_use]
    pub fn start_of_dram(&self) -> Option<PhysAddr> {
        self.memory.regions().first().map(Region::start)
    }

    /// One past the highest address of memory, or `None` without memory.
    #[must_use]
    pub fn end_of_dram(&self) -> Option<PhysAddr> {
        self.memory.regions().last().map(Region::end)
    }

    /// Whether the memory has been handed over.
    #[must_use]
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    const fn list(&self, which: Which) -> &RegionList<'m, INIT> {
        match which {
            Which::Memory => &self.memory,
            Which::Reserved => &self.reserved,
        }
    }

    const fn list_mut(&mut self, which: Which) -> &mut RegionList<'m, INIT> {
        match which {
            Which::Memory => &mut self.memory,
            Which::Reserved => &mut self.reserved,
        }
    }

    /// Refuses a call after the hand-over and logs it: its caller takes memory for free that is not.
    #[track_caller]
    fn open(&self, call: &str) -> Result<(), MemblockError> {
        if self.retired {
            log::error!("memblock: {call} after the hand-over, from {}", Location::caller());
            return Err(MemblockError::Retired);
        }
        Ok(())
    }

    /// Repaints `range` in one of the lists, growing it if need be.
    fn change(&mut self, which: Which, range: PhysRange, paint: Paint) -> Result<(), MemblockError> {
        if range.is_empty() {
            return Ok(());
        }
        // Adding memory and clearing a mark change nothing about mapped memory, so an array may lie there. No other
        // change may get an array in its way.
        let avoid = match (which, paint) {
            (Which::Memory, Paint::Cover(_) | Paint::CoverFor(_) | Paint::Clear(_)) => None,
            _ => Some(range),
        };
        if avoid.is_some() {
            self.vacate(range)?;
        }
        while !self.list_mut(which).repaint(range, paint) {
            self.grow(which, avoid)?;
        }
        Ok(())
    }
}

/// The range of `size` bytes from `base`, cut at the end of the physical address space.
fn clamp(base: PhysAddr, size: u64) -> Result<PhysRange, MemblockError> {
    if size == 0 {
        return Ok(Region::EMPTY.range);
    }
    // INVARIANT: MEMB-6, no range gets into a list except through here or from one that is in a list.
    let end = base.checked_add(size).unwrap_or(PHYS_END).min(PHYS_END);
    region::span(base, end).ok_or(MemblockError::OutsidePhysicalSpace { base })
}
