//! Blocks of RAM that are uncached temporarily, for devices that are not coherent: their only mapping is an area's.
//!
//! A frame has one memory type (promise 9). So the linear map loses the block first; only then, when no CPU can fetch a line
//! of it any more, is it mapped anew, and the caller writes back and drops the lines that the caches still hold of it.
#![forbid(unsafe_code)]

use super::hal::TABLE_GFP;
use super::{AreaRequest, SetMemoryError, SetMemoryHal, VmFlags, VmapSpace};
use crate::addr::{PhysRange, VirtAddr, VirtRange};
use crate::hal::prot::{Access, MemoryType, Prot};
use crate::mm::pgtable::{MapFlags, PgtableError, UnmapFlags};
use crate::mm::zone::PageHal as _;
use core::panic::Location;

/// A block that is mapped uncached: its address, and its old mapping in the linear map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uncached {
    /// The first address.
    pub at: VirtAddr,
    /// Protection in the linear map where the block is not uncached.
    pub linear: Prot,
}

impl<'a, H: SetMemoryHal<'a>> VmapSpace<'a, H> {
    /// Takes a block that the caller owns out of the linear map and maps it uncached. The caches may still hold lines of it:
    /// the caller cleans and invalidates it through the new address before anybody uses that.
    pub(crate) fn do_uncache(&self, block: PhysRange) -> Result<Uncached, SetMemoryError> {
        let (hal, tables) = (self.hal(), self.hal().tables());
        let alias = hal.pages().hal().range_to_virt(block).ok_or(PgtableError::OutsideSpace)?;
        let found = tables.do_translate(alias.start()).ok_or(PgtableError::NotMapped(alias.start()))?;
        let linear = found.leaf.prot;
        let request = AreaRequest {
            size: block.size(),
            // As large a mapping as its size admits.
            align: 1 << block.size().trailing_zeros(),
            within: None,
            flags: VmFlags::DMA_COHERENT | VmFlags::UNINITIALIZED,
            caller: Some(Location::caller()),
        };
        let area = self.alloc(&request)?;
        let cancelled = |error: SetMemoryError| {
            self.cancel(area);
            error
        };
        let carved = hal.change_live(&mut |policy| {
            // A split changes no permission, so a failure changes nothing.
            Ok(tables.do_carve(&hal.frames(TABLE_GFP), alias, policy)?)
        });
        carved.map_err(cancelled)?;
        let frames = hal.frames(TABLE_GFP);
        tables.do_unmap_and_flush(&frames, alias, UnmapFlags::empty()).map_err(|error| cancelled(error.into()))?;
        let uncached = Prot::kernel(Access::ReadWrite).with_memory(MemoryType::NonCacheable);
        let range = VirtRange::from_size(area.start(), block.size()).ok_or(PgtableError::OutsideSpace);
        let mapped = uncached
            .map_err(PgtableError::Prot)
            .and_then(|prot| tables.do_map(&frames, range?, block.start(), prot, MapFlags::REPLACE_TABLES));
        if let Err(error) = mapped {
            self.map_linear(alias, block, linear);
            return Err(cancelled(error.into()));
        }
        area.set_phys(block.start());
        area.do_complete();
        Ok(Uncached { at: area.start(), linear })
    }

    /// Undoes [`Self::do_uncache`], for a block that nobody uses.
    pub(crate) fn do_recache(&self, block: PhysRange, uncached: Uncached) -> Result<(), SetMemoryError> {
        let alias = self.hal().pages().hal().range_to_virt(block).ok_or(PgtableError::OutsideSpace)?;
        let area = self.do_remove(uncached.at, VmFlags::DMA_COHERENT)?;
        self.unmap(area.mapped().start(), area.mapped().end());
        self.do_recycle(area);
        let frames = self.hal().frames(TABLE_GFP);
        let flags = MapFlags::REPLACE_TABLES;
        Ok(self.hal().tables().do_map(&frames, alias, block.start(), uncached.linear, flags)?)
    }

    /// Maps a block in the linear map again, at its old addresses.
    #[cold]
    fn map_linear(&self, alias: VirtRange, block: PhysRange, linear: Prot) {
        let frames = self.hal().frames(TABLE_GFP);
        let mapped = self.hal().tables().do_map(&frames, alias, block.start(), linear, MapFlags::REPLACE_TABLES);
        if let Err(error) = mapped {
            log::error!("{block} stays out of the linear map: {error}");
        }
    }
}
