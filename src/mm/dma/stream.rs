//! Streaming mappings: memory of the CPU's that a device gets for a while (Linux: `kernel/dma/direct.c`).
//!
//! Between mapping and unmapping the memory is the device's, but for what [`sync_for_cpu`](Dma::sync_for_cpu) gives back until
//! [`sync_for_device`](Dma::sync_for_device). Nothing here takes a lock, unless the buffer is bounced.
#![forbid(unsafe_code)]

use super::device::Near;
use super::{Device, Direction, Dma, DmaError, DmaHal, MappingKind};
use crate::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, VirtRange};
use crate::hal::Internal;
use crate::hal::cache::DataCache as _;
use crate::mm::page::{Page, PageMap as _};
use crate::mm::zone::PageHal as _;

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    /// [`Self::map_single`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn do_map_single<D: Direction>(
        &self,
        device: &Device,
        at: VirtAddr,
        size: u64,
    ) -> Result<DmaAddr, DmaError> {
        let Some(phys) = self.hal.to_phys(at) else { return self.not_linear::<D>(device, at, size) };
        self.map_memory::<D>(device, phys, at, size)
    }

    /// [`Self::map_page`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    #[track_caller]
    pub(crate) fn do_map_page<D: Direction>(
        &self,
        device: &Device,
        page: Page,
        (offset, size): (u64, u64),
    ) -> Result<DmaAddr, DmaError> {
        let pages = self.hal.pages();
        let (head, state) = pages.head(page)?;
        // Pages of the block from this one on.
        let behind = state.order().pages() - u64::from(page.index() - head.index());
        let room = behind * PAGE_SIZE;
        if offset > room || size > room - offset {
            return Err(DmaError::NotInPage(offset, size));
        }
        let phys = PhysAddr::new(pages.hal().map().phys(page).get() + offset);
        self.map_memory::<D>(device, phys, self.hal.to_virt(phys), size)
    }

    #[inline(always)]
    #[track_caller]
    fn map_memory<D: Direction>(
        &self,
        device: &Device,
        phys: PhysAddr,
        at: VirtAddr,
        size: u64,
    ) -> Result<DmaAddr, DmaError> {
        let reach = (device.near(), device.is_coherent());
        let Some(bus) = self.map_quietly::<D, true>(reach, phys, at, size) else {
            return self.map_slow::<D>(device, phys, size);
        };
        self.watch_map::<D>(device, MappingKind::Single, (bus, phys, size), 1);
        Ok(bus)
    }

    /// Maps what needs neither another window nor a copy, for a device that reaches so much and is coherent or not; with the barrier that completes the maintenance or without.
    #[inline(always)]
    pub(super) fn map_quietly<D: Direction, const BARRIER: bool>(
        &self,
        (near, coherent): (Near, bool),
        phys: PhysAddr,
        at: VirtAddr,
        size: u64,
    ) -> Option<DmaAddr> {
        let bus = near.reach(phys, size)?;
        if !coherent {
            let cache = self.hal.cache();
            // A buffer that shares a cache line with others would lose their writes, or they the device's.
            if D::FROM_DEVICE && (phys.get() | size) & (cache.granule().wrapping_sub(1)) != 0 {
                return None;
            }
            // Of what the device will write too: a dirty line could be written back over it.
            cache.clean(Internal::CALL, span(at, size));
            if BARRIER {
                cache.complete();
            }
        }
        Some(bus)
    }

    /// Maps through another window, or by a copy.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn map_slow<D: Direction>(&self, device: &Device, phys: PhysAddr, size: u64) -> Result<DmaAddr, DmaError> {
        let bus = self.map_any::<D>(device, phys, size)?;
        if !device.is_coherent() {
            self.hal.cache().complete();
        }
        self.watch_map::<D>(device, MappingKind::Single, (bus, phys, size), 1);
        Ok(bus)
    }

    /// Maps by any means, but for the last barrier.
    pub(super) fn map_any<D: Direction>(
        &self,
        device: &Device,
        phys: PhysAddr,
        size: u64,
    ) -> Result<DmaAddr, DmaError> {
        if size == 0 {
            return Err(DmaError::Empty);
        }
        let range = PhysRange::from_size(phys, size).ok_or(DmaError::Wraps(phys, size))?;
        let shares = !device.is_coherent()
            && D::FROM_DEVICE
            && (phys.get() | size) & (self.hal.cache().granule().wrapping_sub(1)) != 0;
        match device.translate(range, device.mask()) {
            Some(bus) if !shares && !device.is_restricted() => {
                if !device.is_coherent() {
                    self.hal.cache().clean(Internal::CALL, self.bytes(phys, size));
                }
                Ok(bus)
            }
            Some(_) => self.bounce_in::<D>(device, phys, size),
            // Without slots it is the reach that is missing.
            None => self.bounce_in::<D>(device, phys, size).map_err(|error| match error {
                DmaError::NoBounceSlots => DmaError::Unreachable(range),
                other => other,
            }),
        }
    }

    /// An address with a memory tag, or a wrong one.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn not_linear<D: Direction>(&self, device: &Device, at: VirtAddr, size: u64) -> Result<DmaAddr, DmaError> {
        if let Some(phys) = self.hal.to_phys(at.untagged()) {
            return self.map_memory::<D>(device, phys, at.untagged(), size);
        }
        self.watch_wild(device, at, size);
        Err(DmaError::NotLinear(at))
    }

    /// [`Self::unmap_single`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn do_unmap_single<D: Direction>(
        &self,
        device: &Device,
        bus: DmaAddr,
        size: u64,
    ) -> Result<(), DmaError> {
        self.watch_unmap::<D>(device, MappingKind::Single, (bus, size), 1)?;
        if device.has_bounced() {
            return self.unmap_slow::<D>(device, bus, size);
        }
        self.after::<D>(device, bus, size)
    }

    /// The maintenance after a transfer, of memory that the device reached itself.
    #[inline(always)]
    fn after<D: Direction>(&self, device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
        if device.is_coherent() || !D::FROM_DEVICE {
            return Ok(());
        }
        match device.reached_at(bus, size) {
            Some(phys) => {
                self.drop_lines(phys, size);
                Ok(())
            }
            None => self.after_slow(device, bus, size),
        }
    }

    /// The CPU reads what the device wrote: lines may have been fetched while it did.
    #[inline(always)]
    fn drop_lines(&self, phys: PhysAddr, size: u64) {
        self.hal.cache().invalidate(Internal::CALL, span(self.hal.to_virt(phys), size));
        self.hal.cache().complete();
    }

    #[cold]
    #[inline(never)]
    fn after_slow(&self, device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
        let phys = device.phys(bus, size).ok_or(DmaError::NoWindow(bus))?;
        self.drop_lines(phys, size);
        Ok(())
    }

    /// Where a bounce slot is, if it is one that the device finds at `bus`.
    #[inline(always)]
    pub(super) fn slot_at(&self, device: &Device, bus: DmaAddr, size: u64) -> Option<PhysAddr> {
        if !device.has_bounced() {
            return None;
        }
        device.phys(bus, size).filter(|phys| self.bounce_of(device).contains(*phys))
    }

    #[cold]
    #[inline(never)]
    fn unmap_slow<D: Direction>(&self, device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
        match self.slot_at(device, bus, size) {
            Some(slot) => self.bounce_out::<D>(device, slot, (bus, size)),
            None => self.after::<D>(device, bus, size),
        }
    }

    /// [`Self::sync_for_cpu`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn do_sync_for_cpu<D: Direction>(
        &self,
        device: &Device,
        bus: DmaAddr,
        size: u64,
    ) -> Result<(), DmaError> {
        self.watch_sync::<D>(device, (bus, size))?;
        if device.has_bounced() {
            return self.cpu_slow::<D>(device, bus, size);
        }
        self.after::<D>(device, bus, size)
    }

    #[cold]
    #[inline(never)]
    fn cpu_slow<D: Direction>(&self, device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
        match self.slot_at(device, bus, size) {
            Some(slot) => self.bounce_for_cpu::<D>(device, slot, (bus, size)),
            None => self.after::<D>(device, bus, size),
        }
    }

    /// [`Self::sync_for_device`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn do_sync_for_device<D: Direction>(
        &self,
        device: &Device,
        bus: DmaAddr,
        size: u64,
    ) -> Result<(), DmaError> {
        self.watch_sync::<D>(device, (bus, size))?;
        if device.has_bounced() {
            return self.sync_slow::<D>(device, bus, size);
        }
        if device.is_coherent() {
            return Ok(());
        }
        match device.reached_at(bus, size) {
            Some(phys) => {
                self.hal.cache().clean(Internal::CALL, span(self.hal.to_virt(phys), size));
                self.hal.cache().complete();
                Ok(())
            }
            None => self.sync_slow::<D>(device, bus, size),
        }
    }

    #[cold]
    #[inline(never)]
    fn sync_slow<D: Direction>(&self, device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
        if let Some(slot) = self.slot_at(device, bus, size) {
            self.bounce_for_device::<D>(device, slot, (bus, size))?;
            if !D::TO_DEVICE {
                return Ok(());
            }
        } else if !device.is_coherent() {
            let phys = device.phys(bus, size).ok_or(DmaError::NoWindow(bus))?;
            self.hal.cache().clean(Internal::CALL, span(self.hal.to_virt(phys), size));
        }
        if !device.is_coherent() {
            self.hal.cache().complete();
        }
        Ok(())
    }

    /// [`Self::map_resource`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[track_caller]
    pub(crate) fn do_map_resource<D: Direction>(&self, device: &Device, range: PhysRange) -> Result<DmaAddr, DmaError> {
        if range.is_empty() {
            return Err(DmaError::Empty);
        }
        if self.ram().any(|ram| ram.overlaps(range)) {
            return Err(DmaError::Ram(range));
        }
        let bus = device.translate(range, device.mask()).ok_or(DmaError::Unreachable(range))?;
        self.watch_map::<D>(device, MappingKind::Resource, (bus, range.start(), range.size()), 1);
        Ok(bus)
    }

    /// [`Self::unmap_resource`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[track_caller]
    pub(crate) fn do_unmap_resource<D: Direction>(
        &self,
        device: &Device,
        bus: DmaAddr,
        size: u64,
    ) -> Result<(), DmaError> {
        self.watch_unmap::<D>(device, MappingKind::Resource, (bus, size), 1)
    }
}

/// Bytes that are known not to wrap: a device reaches them.
#[inline(always)]
fn span(at: VirtAddr, size: u64) -> VirtRange {
    VirtRange::within_space(at, size)
}
