//! Resizing an area in place: the part of `vrealloc` that needs no copy.
#![forbid(unsafe_code)]

use super::hal::TABLE_GFP;
use super::pages::Blocks;
use super::{AreaRef, VmFlags, VmallocError, VmallocHal, VmapSpace};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::mm::pgtable::{PgtableError, UnmapFlags};

/// Result of a request to change an area's length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resized {
    /// The area has this number of bytes now, which may be more than requested.
    InPlace(u64),
    /// It still has this number of bytes, and the addresses behind it belong to another owner: its contents have to move.
    MustMove(u64),
}

impl<'a, H: VmallocHal<'a>> VmapSpace<'a, H> {
    /// Resizes an area of [`VmapSpace::vmalloc`] to `size` bytes, as far as that is possible in place. Pages that are not
    /// needed any more are unmapped, invalidated and freed, in whole blocks; the addresses stay with the area, so that it can
    /// grow again. More pages, and tables for them, come as `gfp` says. A free of the area is refused meanwhile. Any context that
    /// `gfp` allows; the caller must make sure that nobody uses the pages that are freed.
    ///
    /// # Errors
    ///
    /// [`VmallocError::Empty`], [`VmallocError::TooLarge`], [`VmallocError::Area`]; [`VmallocError::NotWritable`] if the area is read-only or
    /// its permissions have been changed; [`VmallocError::Pages`], [`VmallocError::Tables`]. The area is unchanged then.
    pub fn resize(&self, addr: VirtAddr, size: u64, gfp: Gfp) -> Result<Resized, VmallocError> {
        let wanted = size.div_ceil(PAGE_SIZE);
        if wanted == 0 {
            return Err(VmallocError::Empty);
        }
        if wanted > self.ram_pages() {
            return Err(VmallocError::TooLarge(size));
        }
        let area = self.claim(addr, VmFlags::ALLOC)?;
        // New pages would need the permissions of the old ones, and old ones their linear map back; and a caller that may not
        // write to an area may not move, zero or cut it either.
        let writable = self.hal().tables().do_translate(addr).is_some_and(|at| at.leaf.prot.is_writable());
        if !writable || area.info().flags.contains(VmFlags::FLUSH_RESET_PERMS) {
            area.do_complete();
            return Err(VmallocError::NotWritable(area.info()));
        }
        let have = u64::from(area.info().pages);
        let resized = if wanted > have {
            self.grow(area, wanted, have, gfp)
        } else {
            Ok(Resized::InPlace(self.shrink(area, wanted, have) << PAGE_SHIFT))
        };
        area.do_complete();
        resized
    }

    /// Adds pages behind those of an area, if its address range has room.
    fn grow(&self, area: AreaRef<'a>, wanted: u64, have: u64, gfp: Gfp) -> Result<Resized, VmallocError> {
        let (hal, start) = (self.hal(), area.start());
        let more = u32::try_from(wanted - have).map_err(|_| VmallocError::TooLarge(wanted << PAGE_SHIFT))?;
        let (end, first) = (start.checked_add(have << PAGE_SHIFT), hal.tables().do_translate(start));
        let (Some(end), Some(first)) = (end, first) else {
            return Err(VmallocError::Tables(PgtableError::OutsideSpace));
        };
        if wanted > area.area().mapped_pages() {
            return Ok(Resized::MustMove(have << PAGE_SHIFT));
        }
        let blocks = Blocks::alloc(hal.pages(), more, gfp, start.get()).map_err(VmallocError::Pages)?;
        // With the mapping of the existing pages.
        if let Err(error) = self.map_blocks(end, blocks, first.leaf.prot, area.info().flags, gfp) {
            blocks.free(hal.pages());
            return Err(VmallocError::Tables(error));
        }
        let joined = Blocks::from_pages(&area.area().take_pages()).followed_by(hal.pages(), blocks);
        let given = area.do_give_pages(joined.into_pages());
        debug_assert!(given.is_ok(), "its pages have just been taken out");
        Ok(Resized::InPlace(wanted << PAGE_SHIFT))
    }

    /// Unmaps and frees the pages behind the first `wanted` ones, in whole blocks. Returns the number of remaining pages.
    fn shrink(&self, area: AreaRef<'a>, wanted: u64, have: u64) -> u64 {
        let hal = self.hal();
        let kept = Blocks::from_pages(&area.area().peek_pages()).pages_up_to(hal.pages(), wanted);
        let bounds = (area.start().checked_add(kept << PAGE_SHIFT), area.start().checked_add(have << PAGE_SHIFT));
        let (Some(from), Some(to)) = bounds else { return have };
        let Some(range) = VirtRange::new(from, to).filter(|range| !range.is_empty()) else { return have };
        // Promise 3: no CPU translates them any more, or nothing has changed: a leaf may reach across the edge.
        if hal.tables().do_unmap_and_flush(&hal.frames(TABLE_GFP), range, UnmapFlags::KEEP_TABLES).is_err() {
            return have;
        }
        let (kept_blocks, rest) = Blocks::from_pages(&area.area().take_pages()).split(hal.pages(), kept);
        let given = area.do_give_pages(kept_blocks.into_pages());
        debug_assert!(given.is_ok(), "its pages have just been taken out");
        rest.free(hal.pages());
        kept
    }
}
