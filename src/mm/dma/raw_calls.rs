//! Calls on buffers and mappings that somebody names: whether they are the caller's, only the caller knows.
//!
//! Each is declared `unsafe` here for everybody else, and is a `do_…` function inside this crate. Nothing here does anything.

use super::{
    CoherentBlock, Device, Direction, Dma, DmaError, DmaHal, DmaPool, PoolError, PoolId, RestrictedPool, SgEntry,
};
use crate::addr::{DmaAddr, PhysRange, VirtAddr};
use crate::mm::alloc::Stateless;
use crate::mm::page::Page;

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    /// Gives `size` bytes at `at`, in the linear map, to the device: where it finds them (Linux: `dma_map_single`). Until they
    /// are unmapped the CPU leaves them alone. They may start and end anywhere; of a device that is not coherent and writes,
    /// whatever shares a cache line with others is bounced. Any context. Cost: a range check and an addition, and an
    /// instruction or two for each cache line of a device that is not coherent.
    ///
    /// A caller has to check the result before it can use the address (Linux: `dma_mapping_error`, and its check that a driver
    /// has called it):
    ///
    /// ```compile_fail,E0308
    /// # use quarry::addr::{DmaAddr, VirtAddr};
    /// # use quarry::mm::dma::{Device, Dma, DmaHal, ToDevice};
    /// fn unasked<H: DmaHal<'static>>(dma: &Dma<'static, H>, device: &Device, at: VirtAddr) -> DmaAddr {
    ///     unsafe { dma.map_single::<ToDevice>(device, at, 64) }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DmaError::NotLinear`], [`DmaError::Empty`], [`DmaError::Wraps`], [`DmaError::Unreachable`]; of bouncing
    /// [`DmaError::NoBounceSlots`], [`DmaError::BounceFull`], [`DmaError::BounceTooLarge`], [`DmaError::BounceUnreachable`].
    ///
    /// # Safety
    ///
    /// The bytes are RAM that the caller owns. While they are mapped nobody accesses them, except the part that is synced for
    /// the CPU. The mapping is ended before the memory is freed.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn map_single<D: Direction>(
        &self,
        device: &Device,
        at: VirtAddr,
        size: u64,
    ) -> Result<DmaAddr, DmaError> {
        self.do_map_single::<D>(device, at, size)
    }

    /// [`Self::map_single`] of bytes that are named by their page: the first byte is `place.0` bytes into it, and they are
    /// `place.1`, all of them in the page's block (Linux: `dma_map_page`).
    ///
    /// # Errors
    ///
    /// Those of [`Self::map_single`]; [`DmaError::NotInPage`], [`DmaError::Free`] for a page of no block.
    ///
    /// # Safety
    ///
    /// As for [`Self::map_single`].
    #[inline]
    #[track_caller]
    pub unsafe fn map_page<D: Direction>(
        &self,
        device: &Device,
        page: Page,
        place: (u64, u64),
    ) -> Result<DmaAddr, DmaError> {
        self.do_map_page::<D>(device, page, place)
    }

    /// Lets devices have coherent memory of `range`, whole pages, which the CPU finds at `at`: those that are given the pool
    /// ([`Device::set_pool`]), or, for the default pool, every device that is not coherent and has none. For good. May wait.
    ///
    /// # Errors
    ///
    /// [`DmaError::BadPool`], [`DmaError::NoRecords`], [`DmaError::TooManyPools`]; [`DmaError::AlreadySetUp`] if a pool has some of
    /// it already, or there is a default pool.
    ///
    /// # Safety
    ///
    /// The memory is the caller's, mapped uncached at `at` for good, and nowhere cached.
    pub unsafe fn add_pool(&self, range: PhysRange, at: VirtAddr, is_default: bool) -> Result<PoolId, DmaError> {
        self.do_add_pool(range, at, is_default)
    }

    /// Makes bounce slots of `slots`, whole pages, for the devices that are restricted to them and to `pool`
    /// ([`Device::set_restricted_pool`]), and for no other. For good. May wait.
    ///
    /// # Errors
    ///
    /// [`DmaError::BadPool`], [`DmaError::NoRecords`], [`DmaError::TooManyPools`]; [`DmaError::AlreadySetUp`] if a restricted pool has
    /// some of it already.
    ///
    /// # Safety
    ///
    /// The memory is the caller's for good, and in the linear map.
    pub unsafe fn add_restricted_pool(&self, slots: PhysRange, pool: PoolId) -> Result<RestrictedPool, DmaError> {
        self.do_add_restricted_pool(slots, pool)
    }

    /// Ends a mapping: the bytes are the CPU's again, which reads what the device wrote (Linux: `dma_unmap_single`,
    /// `dma_unmap_page`). Any context. Cost: as to map.
    ///
    /// # Errors
    ///
    /// [`DmaError::NoWindow`], [`DmaError::NotBounced`] for what cannot be a mapping of this device; with checks on
    /// [`DmaError::Misused`] for whatever is not one.
    ///
    /// # Safety
    ///
    /// The device, direction, address and size are those of a mapping of the caller's, and the device does not access it
    /// any more.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn unmap_single<D: Direction>(&self, device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
        self.do_unmap_single::<D>(device, bus, size)
    }

    /// Gives bytes of a mapping back to the CPU, which reads what the device wrote (Linux: `dma_sync_single_for_cpu`). By
    /// whole cache lines. Any context.
    ///
    /// # Errors
    ///
    /// As for [`Self::unmap_single`].
    ///
    /// # Safety
    ///
    /// The bytes are part of a mapping of the caller's for this device and direction, and the device leaves their cache
    /// lines alone until [`Self::sync_for_device`].
    #[inline(always)]
    #[track_caller]
    pub unsafe fn sync_for_cpu<D: Direction>(&self, device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
        self.do_sync_for_cpu::<D>(device, bus, size)
    }

    /// Gives bytes of a mapping to the device again, which reads what the CPU wrote (Linux: `dma_sync_single_for_device`).
    /// Any context.
    ///
    /// # Errors
    ///
    /// As for [`Self::unmap_single`].
    ///
    /// # Safety
    ///
    /// The bytes are part of a mapping of the caller's for this device and direction, which leaves them alone from now on.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn sync_for_device<D: Direction>(
        &self,
        device: &Device,
        bus: DmaAddr,
        size: u64,
    ) -> Result<(), DmaError> {
        self.do_sync_for_device::<D>(device, bus, size)
    }

    /// Lets the device access registers of another one (Linux: `dma_map_resource`). Any context.
    ///
    /// # Errors
    ///
    /// [`DmaError::Empty`], [`DmaError::Ram`], [`DmaError::Unreachable`].
    ///
    /// # Safety
    ///
    /// The caller owns the registers, and what the device does to them is right.
    #[track_caller]
    pub unsafe fn map_resource<D: Direction>(&self, device: &Device, range: PhysRange) -> Result<DmaAddr, DmaError> {
        self.do_map_resource::<D>(device, range)
    }

    /// Ends what [`Self::map_resource`] began. Any context.
    ///
    /// # Errors
    ///
    /// With checks on [`DmaError::Misused`].
    ///
    /// # Safety
    ///
    /// As for [`Self::unmap_single`].
    #[track_caller]
    pub unsafe fn unmap_resource<D: Direction>(
        &self,
        device: &Device,
        bus: DmaAddr,
        size: u64,
    ) -> Result<(), DmaError> {
        self.do_unmap_resource::<D>(device, bus, size)
    }

    /// Maps every buffer of a list: all or none (Linux: `dma_map_sg`). Each entry says afterwards where the device finds it;
    /// none are joined. Any context. Cost: that of [`Self::map_single`] for each, and one barrier.
    ///
    /// # Errors
    ///
    /// [`DmaError::Empty`] for no entries; those of [`Self::map_single`] for one of them.
    ///
    /// # Safety
    ///
    /// As for [`Self::map_single`], for each.
    #[inline]
    #[track_caller]
    pub unsafe fn map_sg<D: Direction>(&self, device: &Device, list: &mut [SgEntry]) -> Result<(), DmaError> {
        self.do_map_sg::<D>(device, list)
    }

    /// Ends the mapping of a list (Linux: `dma_unmap_sg`). Any context.
    ///
    /// # Errors
    ///
    /// As for [`Self::unmap_single`], the first; every other entry is unmapped all the same.
    ///
    /// # Safety
    ///
    /// As for [`Self::unmap_single`]; the list is as it was mapped.
    #[inline]
    #[track_caller]
    pub unsafe fn unmap_sg<D: Direction>(&self, device: &Device, list: &[SgEntry]) -> Result<(), DmaError> {
        self.do_unmap_sg::<D>(device, list)
    }

    /// [`Self::sync_for_cpu`] of a list (Linux: `dma_sync_sg_for_cpu`).
    ///
    /// # Errors
    ///
    /// As for [`Self::unmap_sg`].
    ///
    /// # Safety
    ///
    /// As for [`Self::sync_for_cpu`]; the list is as it was mapped.
    #[track_caller]
    pub unsafe fn sync_sg_for_cpu<D: Direction>(&self, device: &Device, list: &[SgEntry]) -> Result<(), DmaError> {
        self.do_sync_sg_for_cpu::<D>(device, list)
    }

    /// [`Self::sync_for_device`] of a list (Linux: `dma_sync_sg_for_device`).
    ///
    /// # Errors
    ///
    /// As for [`Self::unmap_sg`].
    ///
    /// # Safety
    ///
    /// As for [`Self::sync_for_device`]; the list is as it was mapped.
    #[track_caller]
    pub unsafe fn sync_sg_for_device<D: Direction>(&self, device: &Device, list: &[SgEntry]) -> Result<(), DmaError> {
        self.do_sync_sg_for_device::<D>(device, list)
    }

    /// Frees what [`Dma::alloc_coherent`] or a sister of it gave (Linux: `dma_free_coherent`). Any context; needs no memory.
    ///
    /// # Errors
    ///
    /// [`DmaError::NotAllocated`] for what was not allocated so, [`DmaError::Free`].
    ///
    /// # Safety
    ///
    /// The caller owns the memory, and neither CPU nor device uses it any more.
    #[inline]
    pub unsafe fn free_coherent(&self, device: &Device, size: u64, block: CoherentBlock) -> Result<(), DmaError> {
        self.do_free_coherent(device, size, block)
    }
}

impl<'d, 'a, H: DmaHal<'a>, A: Stateless> DmaPool<'d, 'a, H, A> {
    /// Frees a block (Linux: `dma_pool_free`). Any context; needs no memory.
    ///
    /// # Errors
    ///
    /// [`PoolError::DoubleFree`], [`PoolError::NotOfPool`].
    ///
    /// # Safety
    ///
    /// The caller owns the block, and neither CPU nor device uses it any more.
    #[inline]
    pub unsafe fn free(&self, block: CoherentBlock) -> Result<(), PoolError> {
        self.do_free(block)
    }
}
