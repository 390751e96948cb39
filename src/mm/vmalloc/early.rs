//! Areas that are placed before there is memory for descriptors, and taken over when the space is set up (Linux:
//! `vm_area_register_early`, `vmalloc_init`).
#![forbid(unsafe_code)]

use super::early_areas::EarlyArea;
use super::layout::Layout;
use super::space::DESCRIPTOR_GFP;
use super::{Area, AreaError, AreaHal, VmFlags, VmapSetupError, VmapSpace};
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr, VirtRange};
use crate::ds::rbtree::Owned;
use crate::ds::rbtree::fit::Request;
use core::panic::Location;

impl<'a, H: AreaHal<'a>> VmapSpace<'a, H> {
    /// Places an area at `range`, which includes its guard page, before the space is set up (Linux:
    /// `vm_area_add_early`).
    ///
    /// # Errors
    ///
    /// [`AreaError::AlreadyReady`], [`Empty`](AreaError::Empty), [`Overlap`](AreaError::Overlap) with another early
    /// area, [`TooManyEarly`](AreaError::TooManyEarly).
    #[track_caller]
    pub fn add_early(&self, range: VirtRange, flags: VmFlags, phys: Option<PhysAddr>) -> Result<(), AreaError> {
        let caller = Location::caller();
        let range = range.align_outwards(PAGE_SIZE).filter(|range| !range.is_empty()).ok_or(AreaError::Empty)?;
        let saved = self.hal.save();
        let mut early = self.early.lock();
        let placed = if early.taken_over {
            Err(AreaError::AlreadyReady)
        } else if let Some(other) = early.areas.iter().flatten().find(|other| other.range.overlaps(range)) {
            Err(AreaError::Overlap(other.range))
        } else {
            match early.areas.iter_mut().find(|place| place.is_none()) {
                Some(place) => {
                    *place = Some(EarlyArea { range, flags, phys, caller });
                    Ok(())
                }
                None => Err(AreaError::TooManyEarly),
            }
        };
        drop(early);
        self.hal.restore(saved);
        placed
    }

    /// Makes all of the region free except the early areas, and the space ready.
    pub(super) fn take_over(&self, layout: Layout) -> Result<(), VmapSetupError> {
        let region = layout.region;
        let saved = self.hal.save();
        let mut early = self.early.lock();
        early.taken_over = true;
        let areas = early.areas;
        drop(early);
        self.hal.restore(saved);
        if let Some(outside) = areas.iter().flatten().find(|area| !region.contains_range(area.range)) {
            return Err(VmapSetupError::EarlyOutside(outside.range));
        }
        let whole = self.descriptor(region)?;
        // Into an empty tree: it fits.
        let _ = self.with_free(|free| free.free(whole));
        for area in areas.into_iter().flatten() {
            let EarlyArea { range, flags, phys, caller } = area;
            let request = Request {
                size: range.size(),
                align: PAGE_SIZE,
                granule: PAGE_SIZE,
                min: range.start().get(),
                max: range.end().get(),
            };
            for _ in 0..super::free_tree::RESERVE {
                let spare = self.hal.descriptor(DESCRIPTOR_GFP).ok_or(VmapSetupError::NoDescriptor)?;
                self.with_free(|free| free.add_spare(spare));
            }
            // Early areas do not overlap, so each still lies in a gap.
            let taken = self.with_free(|free| free.alloc(&request)).map_err(|_| VmapSetupError::NoDescriptor)?;
            let taken = taken.ok_or(VmapSetupError::EarlyOutside(range))?;
            taken.begin(flags, Some(caller));
            let entered = self.publish(&layout, taken).map_err(|_| VmapSetupError::EarlyOutside(range))?;
            if let Some(phys) = phys {
                entered.set_phys(phys);
            }
        }
        self.layout.call_once(|| layout);
        Ok(())
    }

    /// A descriptor of `range`.
    fn descriptor(&self, range: VirtRange) -> Result<Owned<'a, Area>, VmapSetupError> {
        let descriptor = self.hal.descriptor(DESCRIPTOR_GFP).ok_or(VmapSetupError::NoDescriptor)?;
        descriptor.set_start(range.start().get());
        descriptor.set_end(range.end().get());
        Ok(descriptor)
    }

    /// The lowest address of `size` bytes in `region`, behind all early areas there, for one more (Linux:
    /// `vm_area_register_early`).
    #[must_use]
    pub fn place_early(&self, region: VirtRange, size: u64) -> Option<VirtAddr> {
        let saved = self.hal.save();
        let early = self.early.lock();
        let behind = early.areas.iter().flatten().filter(|area| area.range.overlaps(region));
        let start = behind.map(|area| area.range.end()).max().unwrap_or(region.start());
        drop(early);
        self.hal.restore(saved);
        let range = VirtRange::from_size(start, size)?;
        region.contains_range(range).then_some(start)
    }
}
