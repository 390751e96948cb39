//! Lists of buffers that are mapped together (Linux: `dma_map_sg`).
#![forbid(unsafe_code)]

use super::{Device, Direction, Dma, DmaError, DmaHal, MappingKind};
use crate::addr::{DmaAddr, VirtAddr};
use crate::hal::Internal;
use crate::hal::cache::DataCache as _;

/// One buffer of a list (Linux: `struct scatterlist`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SgEntry {
    /// Its first byte, in the linear map.
    pub addr: VirtAddr,
    /// Its bytes.
    pub length: u32,
    bus: DmaAddr,
}

impl SgEntry {
    /// A buffer that is not mapped yet.
    #[must_use]
    pub const fn new(addr: VirtAddr, length: u32) -> Self {
        Self { addr, length, bus: DmaAddr::ZERO }
    }

    /// Where the device finds it, once it is mapped (Linux: `sg_dma_address`).
    #[must_use]
    pub const fn bus(&self) -> DmaAddr {
        self.bus
    }
}

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    /// [`Self::map_sg`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[track_caller]
    pub(crate) fn do_map_sg<D: Direction>(&self, device: &Device, list: &mut [SgEntry]) -> Result<(), DmaError> {
        if list.is_empty() {
            return Err(DmaError::Empty);
        }
        let reach = (device.near(), device.is_coherent());
        for index in 0..list.len() {
            let Some(entry) = list.get_mut(index) else { break };
            let near = self
                .hal
                .to_phys(entry.addr)
                .and_then(|phys| self.map_quietly::<D, false>(reach, phys, entry.addr, u64::from(entry.length)));
            match near {
                Some(bus) => entry.bus = bus,
                None => match self.map_entry::<D>(device, entry) {
                    Ok(bus) => entry.bus = bus,
                    Err(error) => return self.undo::<D>(device, list.get(..index).unwrap_or_default(), error),
                },
            }
        }
        // One barrier for all of them.
        if !device.is_coherent() {
            self.hal.cache().complete();
        }
        self.watch_list::<D>(device, list);
        Ok(())
    }

    /// Ends what was mapped of a list that is not mapped whole.
    #[cold]
    #[inline(never)]
    fn undo<D: Direction>(&self, device: &Device, mapped: &[SgEntry], error: DmaError) -> Result<(), DmaError> {
        if !device.is_coherent() {
            self.hal.cache().complete();
        }
        self.end_entries::<D>(device, mapped)?;
        Err(error)
    }

    /// Maps an entry by any means.
    #[cold]
    #[inline(never)]
    fn map_entry<D: Direction>(&self, device: &Device, entry: &SgEntry) -> Result<DmaAddr, DmaError> {
        let phys = self.hal.to_phys(entry.addr.untagged()).ok_or(DmaError::NotLinear(entry.addr))?;
        self.map_any::<D>(device, phys, u64::from(entry.length))
    }

    /// [`Self::unmap_sg`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[track_caller]
    #[inline]
    pub(crate) fn do_unmap_sg<D: Direction>(&self, device: &Device, list: &[SgEntry]) -> Result<(), DmaError> {
        self.unwatch_list::<D>(device, list)?;
        self.end_entries::<D>(device, list)
    }

    /// Ends the mappings of entries: all of them, whatever becomes of one; the first error.
    #[inline]
    fn end_entries<D: Direction>(&self, device: &Device, list: &[SgEntry]) -> Result<(), DmaError> {
        // Nothing is to be done for what only the device read, or what it wrote through the caches.
        if !device.has_bounced() && (device.is_coherent() || !D::FROM_DEVICE) {
            return Ok(());
        }
        self.give_back::<D>(device, list, |slot, bus, size| self.bounce_out::<D>(device, slot, (bus, size)))
    }

    fn give_back<D: Direction>(
        &self,
        device: &Device,
        list: &[SgEntry],
        bounced: impl Fn(crate::addr::PhysAddr, DmaAddr, u64) -> Result<(), DmaError>,
    ) -> Result<(), DmaError> {
        let (mut result, mut begun) = (Ok(()), false);
        for entry in list {
            let size = u64::from(entry.length);
            let ended = match self.slot_at(device, entry.bus, size) {
                Some(slot) => bounced(slot, entry.bus, size),
                None => {
                    if D::FROM_DEVICE && !device.is_coherent() {
                        self.hal.cache().invalidate(Internal::CALL, self.entry_bytes(entry));
                        begun = true;
                    }
                    Ok(())
                }
            };
            result = result.and(ended);
        }
        // Bounced entries are complete.
        if begun {
            self.hal.cache().complete();
        }
        result
    }

    fn entry_bytes(&self, entry: &SgEntry) -> crate::addr::VirtRange {
        crate::addr::VirtRange::from_size(entry.addr, u64::from(entry.length)).unwrap_or_default()
    }

    /// [`Self::sync_sg_for_cpu`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[track_caller]
    pub(crate) fn do_sync_sg_for_cpu<D: Direction>(&self, device: &Device, list: &[SgEntry]) -> Result<(), DmaError> {
        self.watch_sync_list::<D>(device, list)?;
        self.give_back::<D>(device, list, |slot, bus, size| self.bounce_for_cpu::<D>(device, slot, (bus, size)))
    }

    /// [`Self::sync_sg_for_device`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[track_caller]
    pub(crate) fn do_sync_sg_for_device<D: Direction>(
        &self,
        device: &Device,
        list: &[SgEntry],
    ) -> Result<(), DmaError> {
        self.watch_sync_list::<D>(device, list)?;
        let (mut result, mut begun) = (Ok(()), false);
        for entry in list {
            let size = u64::from(entry.length);
            let done = match self.slot_at(device, entry.bus, size) {
                Some(slot) => {
                    begun |= D::TO_DEVICE && !device.is_coherent();
                    self.bounce_for_device::<D>(device, slot, (entry.bus, size))
                }
                None => {
                    if !device.is_coherent() {
                        self.hal.cache().clean(Internal::CALL, self.entry_bytes(entry));
                        begun = true;
                    }
                    Ok(())
                }
            };
            result = result.and(done);
        }
        if begun {
            self.hal.cache().complete();
        }
        result
    }

    /// Tells the checks of a list.
    #[inline(always)]
    #[track_caller]
    fn watch_list<D: Direction>(&self, device: &Device, list: &[SgEntry]) {
        if self.is_watching() {
            for entry in list {
                let phys = self.hal.to_phys(entry.addr.untagged()).unwrap_or_default();
                let place = (entry.bus, phys, u64::from(entry.length));
                self.watch_map::<D>(device, MappingKind::List, place, list.len());
            }
        }
    }

    #[inline(always)]
    #[track_caller]
    fn unwatch_list<D: Direction>(&self, device: &Device, list: &[SgEntry]) -> Result<(), DmaError> {
        if self.is_watching() {
            for entry in list {
                let place = (entry.bus, u64::from(entry.length));
                self.watch_unmap::<D>(device, MappingKind::List, place, list.len())?;
            }
        }
        Ok(())
    }

    #[inline(always)]
    #[track_caller]
    fn watch_sync_list<D: Direction>(&self, device: &Device, list: &[SgEntry]) -> Result<(), DmaError> {
        if self.is_watching() {
            for entry in list {
                self.watch_sync::<D>(device, (entry.bus, u64::from(entry.length)))?;
            }
        }
        Ok(())
    }
}
