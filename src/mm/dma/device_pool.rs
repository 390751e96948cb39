//! Pools of coherent memory that the device tree sets aside, each for some devices or for all (Linux: `kernel/dma/coherent.c`,
//! `shared-dma-pool`).
//!
//! A pool is memory that is mapped uncached and nowhere else. A device that has one gets coherent memory from there and from
//! nowhere else; the default pool comes first for devices without one that are not coherent.
#![forbid(unsafe_code)]

use super::page_bits::{BITS, PageBits};
use super::pool_id::{MAX_DEVICE_POOLS, PoolId};
use super::{CoherentBlock, Device, Dma, DmaError, DmaHal};
use crate::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, VirtRange, to_usize};
use crate::ds::Broken;
use crate::hal::Internal;
use crate::hal::cache::DataCache as _;
use core::sync::atomic::Ordering;

/// A pool.
///
/// # Invariants
///
/// - `DPL-1`: a page that starts an allocation is in use, and `used` are.
struct DevicePool<'a> {
    range: PhysRange,
    at: VirtAddr,
    busy: &'a mut [u64],
    starts: &'a mut [u64],
    used: u64,
    is_default: bool,
}

impl DevicePool<'_> {
    const fn pages(&self) -> u64 {
        self.range.size() / PAGE_SIZE
    }

    fn bits(&mut self) -> PageBits<'_> {
        let pages = self.pages();
        PageBits::new(self.busy, self.starts, pages)
    }
}

/// All pools.
///
/// # Invariants
///
/// - `DPL-2`: the first `count` are there, no two of them share memory, and one at most is the default.
pub(super) struct DevicePools<'a> {
    list: [Option<DevicePool<'a>>; MAX_DEVICE_POOLS],
    count: usize,
}

impl<'a> DevicePools<'a> {
    pub(super) const fn new() -> Self {
        Self { list: [const { None }; MAX_DEVICE_POOLS], count: 0 }
    }

    fn iter(&self) -> impl Iterator<Item = &DevicePool<'a>> {
        self.list.iter().take(self.count).flatten()
    }

    /// The pool that a device without one of its own uses first.
    fn default(&self) -> Option<PoolId> {
        let index = self.iter().position(|pool| pool.is_default)?;
        u8::try_from(index).ok().map(PoolId)
    }

    fn get(&mut self, id: PoolId) -> Option<&mut DevicePool<'a>> {
        self.list.get_mut(usize::from(id.0))?.as_mut()
    }

    fn check(&mut self) -> Result<(), Broken> {
        let overlap = |(index, one): (usize, &DevicePool<'_>)| {
            self.iter().skip(index + 1).any(|other| one.range.overlaps(other.range))
        };
        let there = self.list.iter().flatten().count() == self.count && self.iter().count() == self.count;
        let defaults = self.iter().filter(|pool| pool.is_default).count();
        if !there || defaults > 1 || self.iter().enumerate().any(overlap) {
            return Err(Broken { tag: "DPL-2", what: "the pools of devices are miscounted, or overlap" });
        }
        for pool in self.list.iter_mut().flatten() {
            if pool.bits().used() != Some(pool.used) {
                return Err(Broken { tag: "DPL-1", what: "the pages of a device's pool are miscounted" });
            }
        }
        Ok(())
    }
}

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    fn with_pools<R>(&self, f: impl FnOnce(&mut DevicePools<'a>) -> R) -> R {
        let saved = self.hal.save();
        let result = f(&mut self.pools.lock());
        self.hal.restore(saved);
        result
    }

    /// The pool at a physical address, if there is one. Any context.
    #[must_use]
    pub fn pool_at(&self, start: PhysAddr) -> Option<PoolId> {
        let index = self.with_pools(|pools| pools.iter().position(|pool| pool.range.start() == start))?;
        u8::try_from(index).ok().map(PoolId)
    }

    /// [`Self::add_pool`], for memory that this crate knows to be its own, or that its caller promises to be.
    pub(crate) fn do_add_pool(&self, range: PhysRange, at: VirtAddr, is_default: bool) -> Result<PoolId, DmaError> {
        let whole = range.start().is_aligned(PAGE_SIZE) && range.size().is_multiple_of(PAGE_SIZE);
        if range.is_empty() || !whole {
            return Err(DmaError::BadPool(range));
        }
        let words = to_usize((range.size() / PAGE_SIZE).div_ceil(BITS));
        let (busy, starts) = self.hal.words(words).zip(self.hal.words(words)).ok_or(DmaError::NoRecords)?;
        let mut pool = DevicePool { range, at, busy, starts, used: 0, is_default };
        // INVARIANT: DPL-1.
        pool.bits().clear();
        // Dirty lines of the firmware would be written back over what the device writes.
        let bytes = VirtRange::from_size(at, range.size()).unwrap_or_default();
        self.hal.cache().clean_and_invalidate(Internal::CALL, bytes);
        self.hal.cache().complete();
        self.with_pools(|pools| {
            // INVARIANT: DPL-2.
            if pools.iter().any(|other| other.range.overlaps(range) || (is_default && other.is_default)) {
                return Err(DmaError::AlreadySetUp);
            }
            let id = u8::try_from(pools.count).map_err(|_| DmaError::TooManyPools)?;
            *pools.list.get_mut(pools.count).ok_or(DmaError::TooManyPools)? = Some(pool);
            pools.count += 1;
            if is_default {
                self.has_default_pool.store(true, Ordering::Relaxed);
            }
            Ok(PoolId(id))
        })
    }

    /// Memory of the device's pool, or of the default one while that has some; `None` if the device has none and the default has
    /// no room.
    pub(super) fn take_from_pool(&self, device: &Device, pages: u64) -> Option<Result<CoherentBlock, DmaError>> {
        let own = device.pool();
        let by_default = own.is_none() && device.area().is_none() && self.has_default_pool.load(Ordering::Relaxed);
        if pages == 0 || (own.is_none() && !by_default) {
            return None;
        }
        let taken = self.with_pools(|pools| {
            let id = own.or_else(|| pools.default().filter(|_| !device.is_coherent()))?;
            let pool = pools.get(id)?;
            let bus = device.translate_coherent(pool.range)?;
            let offset = pool.bits().take(pages)? * PAGE_SIZE;
            // INVARIANT: DPL-1.
            pool.used += pages;
            Some((VirtAddr::new(pool.at.get() + offset), DmaAddr::new(bus.get() + offset)))
        });
        match (taken, own) {
            (Some((addr, bus)), _) => {
                self.hal.zero(Internal::CALL, addr, pages * PAGE_SIZE);
                Some(Ok(CoherentBlock { addr, bus }))
            }
            (None, Some(_)) => Some(Err(DmaError::PoolFull(pages * PAGE_SIZE))),
            (None, None) => None,
        }
    }

    /// Frees memory of a pool: whether it was allocated so, or `None` if no pool of the device's has the address.
    pub(super) fn free_to_pool(&self, device: &Device, addr: VirtAddr, bus: DmaAddr, pages: u64) -> Option<bool> {
        self.with_pools(|pools| {
            let id = device.pool().or_else(|| pools.default())?;
            let pool = pools.get(id)?;
            let offset = addr.offset_from(pool.at).filter(|offset| *offset < pool.range.size())?;
            let phys = PhysAddr::new(pool.range.start().get() + offset);
            let here = PhysRange::from_size(phys, PAGE_SIZE).and_then(|page| device.translate(page, u64::MAX));
            let right = offset.is_multiple_of(PAGE_SIZE) && here == Some(bus);
            let freed = right && pool.bits().free(offset / PAGE_SIZE, pages);
            // INVARIANT: DPL-1.
            pool.used -= if freed { pages } else { 0 };
            Some(freed)
        })
    }

    /// Pages of a pool, and how many of them are in use. Any context.
    #[must_use]
    pub fn pool_pages(&self, id: PoolId) -> (u64, u64) {
        self.with_pools(|pools| pools.get(id).map_or((0, 0), |pool| (pool.pages(), pool.used)))
    }

    /// Tests `DPL-1` and `DPL-2`.
    pub(super) fn check_pools(&self) -> Result<(), Broken> {
        self.with_pools(DevicePools::check)
    }
}
