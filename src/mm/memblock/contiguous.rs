//! Memory for a contiguous area: placing it, and which regions of the device tree are one (Linux: `cma_declare_contiguous`,
//! `rmem_cma_setup`).
#![forbid(unsafe_code)]

use super::repaint::Paint;
use super::window::Window;
use super::{Memblock, MemblockError, RegionOwner, Which};
use crate::addr::{PHYS_SIZE_MAX, PMD_SIZE, PhysAddr, PhysRange};
use crate::fdt::ReservedMemory;
use crate::hal::BootMemory;

/// Start and size of a contiguous area are multiples of this: migrate types are those of whole page blocks.
pub const CONTIGUOUS_ALIGN: u64 = PMD_SIZE;

/// A request for a contiguous area: `cma=SIZE[@START[-END]]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContiguousRequest {
    /// Bytes; none means that there is to be no area.
    pub size: u64,
    /// Where it starts; with an end, where it starts at the lowest.
    pub start: Option<PhysAddr>,
    /// One past its last byte, at the highest.
    pub end: Option<PhysAddr>,
}

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// Reserves a contiguous area that ends at or below `limit`, its size rounded up to [`CONTIGUOUS_ALIGN`]: at its start if
    /// only that is given, else as high as there is room. Cost: O(regions).
    ///
    /// # Errors
    ///
    /// [`MemblockError::ZeroSize`], [`MemblockError::BadAlignment`] for a start that is not aligned,
    /// [`MemblockError::OutOfMemory`] where there is no room.
    pub fn reserve_contiguous(
        &mut self,
        request: ContiguousRequest,
        limit: PhysAddr,
    ) -> Result<PhysRange, MemblockError> {
        let align = CONTIGUOUS_ALIGN;
        let no_room = MemblockError::OutOfMemory { size: request.size, align };
        let size = request.size.checked_next_multiple_of(align).ok_or(no_room)?;
        let start = request.start.unwrap_or(PhysAddr::ZERO);
        let end = match (request.start, request.end) {
            (Some(start), None) if !start.is_aligned(align) => return Err(MemblockError::BadAlignment { align }),
            (Some(start), None) => start.checked_add(size).filter(|end| *end <= limit).ok_or(no_room)?,
            (_, end) => end.unwrap_or(PhysAddr::new(PHYS_SIZE_MAX)).min(limit),
        };
        let window = PhysRange::new(start, end).ok_or(no_room)?;
        self.alloc_raw(size, align, Window::exactly(window))
    }

    /// Reserves what the tree states of a region that may be a contiguous area: for its owner, if it is free memory of whole
    /// page blocks, so that [`RegionList::reserved_for`](super::RegionList::reserved_for) finds it; otherwise like any other.
    pub(super) fn reserve_area(
        &mut self,
        region: ReservedMemory<'_, '_>,
        range: PhysRange,
    ) -> Result<(), MemblockError> {
        let owner = u32::try_from(region.node().offset()).ok().and_then(RegionOwner::new);
        let aligned = range.start().is_aligned(CONTIGUOUS_ALIGN) && range.size().is_multiple_of(CONTIGUOUS_ALIGN);
        let inside =
            self.memory.find(range.start()).is_some_and(|bank| bank.is_mapped() && bank.range.contains_range(range));
        match owner.filter(|_| aligned && inside && !range.is_empty() && !self.reserved.overlaps(range)) {
            Some(owner) => self.change(Which::Reserved, range, Paint::CoverFor(owner)).map(drop),
            None => self.reserve_stated(range),
        }
    }
}
