//! Memory that devices access by themselves (Linux: `kernel/dma`).
//!
//! A [`Device`] says what a device reaches and where. **Coherent** memory is both CPU's and device's at all times; a
//! **streaming** mapping gives a buffer to the device for a while. Where the device does not reach the buffer, or is not
//! coherent and the buffer shares a cache line with something else, a copy is made in **bounce slots**.
//!
//! # Locks and contexts
//!
//! A streaming mapping takes no lock unless it bounces. The bounce slots, the reserves of uncached memory, the pools of devices and
//! the notes of the checks have a lock each, with interrupts masked; memory is copied, zeroed and asked for outside of them.
//! Each function documents its contexts: any, but for set-up and a new reserve.

mod coherent;
mod contiguous;
mod debug;
mod device;
mod device_pool;
mod direction;
mod error;
mod hal;
mod owned;
mod page_bits;
mod pool;
mod pool_id;
mod raw_calls;
mod reserve;
mod restricted;
mod sg;
mod stream;
mod swiotlb;

pub use coherent::CoherentBlock;
pub use debug::{Entry, MappingKind, Misuse, Report};
pub use device::{Device, DeviceSpec, DmaWindow, MAX_WINDOWS, SpecError};
pub use direction::{Bidirectional, CpuReads, CpuWrites, Direction, DmaDirection, FromDevice, ToDevice};
pub use error::DmaError;
pub use hal::DmaHal;
pub use owned::{AnyBits, CoherentBox, CoherentVec, DmaMapping};
pub use pool::{DmaPool, POISON_FREED, PoolError, PoolShape};
pub use pool_id::{MAX_DEVICE_POOLS, MAX_RESTRICTED_POOLS, PoolId, RestrictedPool};
pub use sg::SgEntry;
pub use swiotlb::{BounceSlot, BounceStats, MAX_BOUNCE, SLOT_SIZE};

use crate::addr::{PAGE_SIZE, PhysRange};
use crate::mm::page::PageMap as _;
use crate::mm::zone::PageHal as _;
use crate::sync::{OrderedLock, class};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use debug::Notes;
use device_pool::DevicePools;
use reserve::Reserves;
use swiotlb::Bounce;

/// A machine's DMA: bounce slots, reserves of uncached memory, pools of devices, checks.
///
/// # Invariants
///
/// `BNC-1`, `BNC-2`: of the bounce slots. `RSV-1` to `RSV-3`: of the reserves; `RSV-3`: each is a block of [`Kind::Dma`] whose
/// descriptor says that it is not cached. `DPL-1`, `DPL-2`: of the pools of devices. `DDBG-1`: of the notes. [`Dma::check`] tests them all.
///
/// [`Kind::Dma`]: crate::mm::page::Kind::Dma
pub struct Dma<'a, H: DmaHal<'a>> {
    hal: H,
    watching: AtomicBool,
    devices: AtomicU32,
    /// The bounce slots for everybody, then those of each restricted pool.
    bounce: [Bounce<'a, H>; 1 + MAX_RESTRICTED_POOLS],
    reserves: OrderedLock<Reserves, class::DmaReserves, H::Relax>,
    notes: OrderedLock<Notes<'a>, class::DmaMappings, H::Relax>,
    pools: OrderedLock<DevicePools<'a>, class::DmaDevicePools, H::Relax>,
    /// Whether there is a pool for devices without one: nobody looks for it otherwise.
    has_default_pool: AtomicBool,
}

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    /// DMA without bounce slots, reserves and checks.
    pub const fn new(hal: H) -> Self {
        Self {
            hal,
            watching: AtomicBool::new(false),
            devices: AtomicU32::new(0),
            bounce: [const { Bounce::new() }; 1 + MAX_RESTRICTED_POOLS],
            reserves: OrderedLock::new(Reserves::new()),
            notes: OrderedLock::new(Notes::new()),
            pools: OrderedLock::new(DevicePools::new()),
            has_default_pool: AtomicBool::new(false),
        }
    }

    /// The machine.
    pub const fn hal(&self) -> &H {
        &self.hal
    }

    /// A device, with masks of 32 bits.
    #[must_use]
    pub fn device(&self, spec: &DeviceSpec<'_>) -> Device {
        Device::new(spec, self.devices.fetch_add(1, Ordering::Relaxed))
    }

    /// Where there is RAM, holes that its descriptors span included.
    fn ram(&self) -> impl Iterator<Item = PhysRange> {
        let map = self.hal.pages().hal().map();
        let origin = map.origin().get();
        let sections = map.sections().len();
        (0..sections).filter_map(move |index| {
            let section = map.sections().get(index)?;
            let start = crate::addr::Pfn::new(origin + u64::from(section.first)).start();
            PhysRange::from_size(start, (u64::from(section.end) - u64::from(section.first)) * PAGE_SIZE)
        })
    }

    /// Whether a device reaches any RAM with this mask.
    fn reaches_ram(&self, device: &Device, mask: u64) -> bool {
        device.reached(mask).any(|range| self.ram().any(|ram| ram.overlaps(range)))
    }

    /// Sets how far the device's addresses reach, for streaming mappings (Linux: `dma_set_mask`).
    ///
    /// # Errors
    ///
    /// [`DmaError::MaskTooNarrow`] if no RAM is in reach then: the old mask stays.
    pub fn set_mask(&self, device: &mut Device, mask: u64) -> Result<(), DmaError> {
        if !self.reaches_ram(device, mask) {
            return Err(DmaError::MaskTooNarrow(mask));
        }
        device.set_mask(mask);
        Ok(())
    }

    /// The same for coherent memory (Linux: `dma_set_coherent_mask`).
    ///
    /// # Errors
    ///
    /// As for [`Dma::set_mask`].
    pub fn set_coherent_mask(&self, device: &mut Device, mask: u64) -> Result<(), DmaError> {
        if !self.reaches_ram(device, mask) {
            return Err(DmaError::MaskTooNarrow(mask));
        }
        device.set_coherent_mask(mask);
        Ok(())
    }

    /// Whether the device may need bounce slots: it is not coherent, or some RAM is out of its reach.
    #[must_use]
    pub fn may_bounce(&self, device: &Device) -> bool {
        !device.is_coherent() || !self.ram().all(|ram| device.translate(ram, device.mask()).is_some())
    }

    /// Tests every invariant. Nothing may be mapped or allocated meanwhile.
    ///
    /// # Errors
    ///
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), crate::ds::Broken> {
        self.check_bounce()?;
        self.check_reserves()?;
        self.check_pools()?;
        self.check_notes()
    }
}
