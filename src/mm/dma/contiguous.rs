//! Coherent memory out of contiguous areas: a device's own, or that of every device (Linux: `kernel/dma/contiguous.c`).
//!
//! The pages stay in the area's accounts, and go back to it whole. Of a device that is not coherent a large allocation is a
//! reserve of its own; smaller ones share a reserve, whose memory may be a contiguous allocation, too.
#![forbid(unsafe_code)]

use super::reserve::Origin;
use super::{CoherentBlock, Device, Dma, DmaHal};
use crate::addr::{DmaAddr, Order, PAGE_SIZE, PMD_SIZE, Pfn, PhysAddr, PhysRange};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::page::{Page, PageMap as _};
use crate::mm::zone::{CmaArea, PageHal as _};

/// Bytes that the page allocator has in one piece as a rule, so that the area for everybody is left alone (Linux:
/// `PAGE_ALLOC_COSTLY_ORDER`, and draws on the area from two pages on, which has every CPU give its pages back).
pub(super) const LARGE: u64 = 64 << 10;
/// Pages of what linear maps are split at.
const UNIT: u64 = PMD_SIZE / PAGE_SIZE;

/// The alignment of so many pages: the power of two above, but no more than the largest block's.
fn align_of(pages: u64) -> u64 {
    pages.checked_next_power_of_two().unwrap_or(u64::MAX).min(Order::MAX.pages())
}

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    /// Takes pages of an area that the device reaches with its coherent mask, `pages.0` of them at a multiple of `pages.1`.
    /// Nothing for who may not wait.
    pub(super) fn take_contiguous(
        &self,
        device: &Device,
        area: CmaArea,
        (pages, align): (u64, u64),
        gfp: Gfp,
    ) -> Option<(Page, PhysRange, DmaAddr)> {
        let (count, align) = (u32::try_from(pages).ok()?, u32::try_from(align).ok()?);
        if !gfp.may_wait() {
            return None;
        }
        let allocator = self.hal.pages();
        let gfp = gfp.intersection(Gfp::RECLAIM | Gfp::IO | Gfp::FS) | Gfp::NOWARN;
        let first = allocator.cma_alloc(area, count, align, gfp).ok()?;
        let range = PhysRange::from_size(allocator.hal().map().phys(first), pages * PAGE_SIZE);
        let reached = range.and_then(|range| Some((range, device.translate_coherent(range)?)));
        let Some((range, bus)) = reached else {
            // Fresh, so that it goes back.
            let _ = allocator.do_cma_release(first, count);
            return None;
        };
        Some((first, range, bus))
    }

    /// Cached memory of the device's area, or of that for everybody.
    #[cold]
    pub(super) fn alloc_contiguous(&self, device: &Device, size: u64, gfp: Gfp) -> Option<CoherentBlock> {
        let pages = size.div_ceil(PAGE_SIZE);
        let area = device.area().or_else(|| self.hal.contiguous_area()).filter(|_| pages != 0)?;
        let (_, range, bus) = self.take_contiguous(device, area, (pages, align_of(pages)), gfp)?;
        let addr = self.hal.to_virt(range.start());
        self.hal.zero(Internal::CALL, addr, range.size());
        Some(CoherentBlock { addr, bus })
    }

    /// Frees cached memory of an area: whether it was allocated so, or `None` if no contiguous allocation starts there.
    #[cold]
    pub(super) fn free_contiguous(&self, device: &Device, phys: PhysAddr, (bus, size): (DmaAddr, u64)) -> Option<bool> {
        let allocator = self.hal.pages();
        let first = allocator.hal().map().find(Pfn::containing(phys)).filter(|_| phys.is_aligned(PAGE_SIZE))?;
        let count = allocator.contiguous_pages(first)?;
        let range = PhysRange::from_size(phys, u64::from(count) * PAGE_SIZE)?;
        let exact = size.div_ceil(PAGE_SIZE) == u64::from(count) && device.translate_coherent(range) == Some(bus);
        // Uncached pages are refused.
        Some(exact && allocator.do_cma_release(first, count).is_ok())
    }

    /// Uncached memory of the device's area, or of that for everybody, as a reserve of its own.
    #[cold]
    pub(super) fn alloc_whole(&self, device: &Device, pages: u64, gfp: Gfp) -> Option<CoherentBlock> {
        if self.with_reserves(|reserves| reserves.is_full()) {
            return None;
        }
        let area = device.area().or_else(|| self.hal.contiguous_area())?;
        let whole = pages.checked_next_multiple_of(UNIT)?;
        let take = || self.take_contiguous(device, area, (whole, align_of(whole)), gfp);
        let taken = take().or_else(|| {
            // Reserves that are idle may have its memory.
            let may_help = gfp.may_wait() && self.trim(false) != 0;
            if may_help { take() } else { None }
        });
        let (first, range, bus) = taken?;
        let origin = Origin { contiguous: true, of: device.area(), whole: true };
        let reserve = self.make_reserve((first, range, origin)).ok()?.taken(pages);
        if !self.with_reserves(|reserves| reserves.add(reserve)) {
            // Others have filled the list meanwhile.
            let _ = self.give_reserve_back(reserve);
            return None;
        }
        let addr = reserve.uncached().at;
        self.hal.zero(Internal::CALL, addr, pages * PAGE_SIZE);
        Some(CoherentBlock { addr, bus })
    }
}
