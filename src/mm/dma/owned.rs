//! Owning types: coherent memory as values, and a buffer that is a device's for a while.
//!
//! A device may write whatever bits it likes at any time. So values in coherent memory are of types that any bits are a value of,
//! and are read and written by volatile accesses, never by a reference.

use super::{CoherentBlock, CpuReads, CpuWrites, Device, Direction, Dma, DmaError, DmaHal};
use crate::addr::{DmaAddr, VirtAddr};
use crate::gfp::Gfp;
use core::fmt;
use core::marker::PhantomData;

/// Types that any bits are a value of.
///
/// # Safety
///
/// Every pattern of bits is a value, and there is no padding.
pub unsafe trait AnyBits: Copy + 'static {}

macro_rules! any_bits {
    ($($name:ty),*) => {
        $(
            // SAFETY: an integer.
            unsafe impl AnyBits for $name {}
        )*
    };
}

any_bits!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

// SAFETY: no padding between values that have none.
unsafe impl<T: AnyBits, const N: usize> AnyBits for [T; N] {}

/// Values in a row in coherent memory, zero at first; freed with this (Linux: `CoherentAllocation`).
///
/// ```compile_fail,E0277
/// # use quarry::mm::dma::{CoherentVec, Device, Dma, DmaHal};
/// # use quarry::gfp::Gfp;
/// fn references<'a, H: DmaHal<'a>>(dma: &Dma<'a, H>, device: &Device) {
///     let _ = CoherentVec::<&u8, H>::new(dma, device, 4, Gfp::KERNEL);
/// }
/// ```
///
/// # Invariants
///
/// - `COH-1`: at `block` is coherent memory of `device`, of room for `len` values, which is this one's and the device's.
pub struct CoherentVec<'d, 'a, T: AnyBits, H: DmaHal<'a>> {
    dma: &'d Dma<'a, H>,
    device: &'d Device,
    block: CoherentBlock,
    len: usize,
    holds: PhantomData<T>,
}

impl<'d, 'a, T: AnyBits, H: DmaHal<'a>> CoherentVec<'d, 'a, T, H> {
    /// `len` values, zero. Context as for [`Dma::alloc_coherent`].
    ///
    /// # Errors
    ///
    /// Those of [`Dma::alloc_coherent`]; [`DmaError::Empty`] for no values, or those of no size.
    #[track_caller]
    pub fn new(dma: &'d Dma<'a, H>, device: &'d Device, len: usize, gfp: Gfp) -> Result<Self, DmaError> {
        const { assert!(align_of::<T>() <= 4096, "memory is aligned to a page") };
        let size = (len as u64).checked_mul(size_of::<T>() as u64).ok_or(DmaError::TooLarge(u64::MAX))?;
        // INVARIANT: COH-1.
        let block = dma.alloc_coherent(device, size, gfp)?;
        Ok(Self { dma, device, block, len, holds: PhantomData })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none, which cannot be.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the device finds the first.
    #[must_use]
    pub const fn bus(&self) -> DmaAddr {
        self.block.bus
    }

    /// Where the device finds one of them.
    #[must_use]
    pub fn bus_of(&self, index: usize) -> Option<DmaAddr> {
        (index < self.len).then(|| DmaAddr::new(self.block.bus.get() + (index * size_of::<T>()) as u64))
    }

    fn place(&self, index: usize) -> Option<*mut T> {
        let offset = index.checked_mul(size_of::<T>()).filter(|_| index < self.len)?;
        Some(VirtAddr::new(self.block.addr.get() + offset as u64).as_ptr())
    }

    /// Reads one of them, as it is now; `None` if there are not so many.
    #[must_use]
    #[inline]
    pub fn read(&self, index: usize) -> Option<T> {
        // SAFETY: COH-1; whatever the device has written, it is a value.
        self.place(index).map(|place| unsafe { place.read_volatile() })
    }

    /// Writes one of them: whether there are so many.
    #[inline]
    pub fn write(&mut self, index: usize, value: T) -> bool {
        // SAFETY: COH-1, and no other CPU has this one.
        self.place(index).map(|place| unsafe { place.write_volatile(value) }).is_some()
    }
}

impl<'a, T: AnyBits, H: DmaHal<'a>> Drop for CoherentVec<'_, 'a, T, H> {
    fn drop(&mut self) {
        let size = (self.len * size_of::<T>()) as u64;
        if let Err(error) = self.dma.do_free_coherent(self.device, size, self.block) {
            log::error!("coherent memory of {}: {error}", self.device.name());
        }
    }
}

impl<'a, T: AnyBits, H: DmaHal<'a>> fmt::Debug for CoherentVec<'_, 'a, T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoherentVec").field("block", &self.block).field("len", &self.len).finish_non_exhaustive()
    }
}

/// A value in coherent memory, zero at first; freed with this.
pub struct CoherentBox<'d, 'a, T: AnyBits, H: DmaHal<'a>>(CoherentVec<'d, 'a, T, H>);

impl<'d, 'a, T: AnyBits, H: DmaHal<'a>> CoherentBox<'d, 'a, T, H> {
    /// A value, zero. Context as for [`Dma::alloc_coherent`].
    ///
    /// # Errors
    ///
    /// Those of [`CoherentVec::new`].
    #[track_caller]
    pub fn new(dma: &'d Dma<'a, H>, device: &'d Device, gfp: Gfp) -> Result<Self, DmaError> {
        CoherentVec::new(dma, device, 1, gfp).map(Self)
    }

    /// Where the device finds it.
    #[must_use]
    pub const fn bus(&self) -> DmaAddr {
        self.0.bus()
    }

    /// The value as it is now.
    #[must_use]
    #[inline]
    pub fn read(&self) -> T {
        // SAFETY: COH-1, and there is one.
        unsafe { self.0.block.addr.as_ptr::<T>().read_volatile() }
    }

    /// Writes the value.
    #[inline]
    pub fn write(&mut self, value: T) {
        self.0.write(0, value);
    }
}

impl<'a, T: AnyBits, H: DmaHal<'a>> fmt::Debug for CoherentBox<'_, 'a, T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A buffer that is a device's. It is borrowed meanwhile, so that nobody reads, writes or frees it:
///
/// ```compile_fail,E0502
/// # use quarry::mm::dma::{Device, Dma, DmaHal, DmaMapping, ToDevice};
/// fn a_reader<'a, H: DmaHal<'a>>(dma: &Dma<'a, H>, device: &Device, buffer: &mut [u8]) {
///     // SAFETY: it is dropped below.
///     let mapping = unsafe { DmaMapping::<ToDevice, H>::new(dma, device, buffer) };
///     let _ = buffer.first();
///     drop(mapping);
/// }
/// ```
///
/// The CPU has it for the time of [`DmaMapping::sync_for_cpu`], to read what the device wrote, or of [`DmaMapping::fill`], to
/// write what it reads. A buffer that goes to the device alone is not read back:
///
/// ```compile_fail,E0277
/// # use quarry::mm::dma::{DmaHal, DmaMapping, ToDevice};
/// fn reads_back<'a, H: DmaHal<'a>>(mapping: &mut DmaMapping<'_, '_, 'a, ToDevice, H>) {
///     let _ = mapping.sync_for_cpu(|bytes| bytes.len());
/// }
/// ```
///
/// # Invariants
///
/// - `DMAP-1`: `buffer` is mapped at `bus` for `device` in the direction `D`.
pub struct DmaMapping<'b, 'd, 'a, D: Direction, H: DmaHal<'a>> {
    dma: &'d Dma<'a, H>,
    device: &'d Device,
    buffer: &'b mut [u8],
    bus: DmaAddr,
    direction: PhantomData<D>,
}

impl<'b, 'd, 'a, D: Direction, H: DmaHal<'a>> DmaMapping<'b, 'd, 'a, D, H> {
    /// Maps a buffer until this is dropped. Any context.
    ///
    /// # Errors
    ///
    /// Those of [`Dma::map_single`]: [`DmaError::NotLinear`] for one on a stack or of vmalloc, for example.
    ///
    /// # Safety
    ///
    /// The value is dropped, not forgotten, and when it is, the device does not access the buffer any more.
    #[track_caller]
    pub unsafe fn new(dma: &'d Dma<'a, H>, device: &'d Device, buffer: &'b mut [u8]) -> Result<Self, DmaError> {
        Self::map(dma, device, buffer)
    }

    #[track_caller]
    fn map(dma: &'d Dma<'a, H>, device: &'d Device, buffer: &'b mut [u8]) -> Result<Self, DmaError> {
        let at = VirtAddr::new(buffer.as_mut_ptr().expose_provenance() as u64);
        // INVARIANT: DMAP-1.
        let bus = dma.do_map_single::<D>(device, at, buffer.len() as u64)?;
        Ok(Self { dma, device, buffer, bus, direction: PhantomData })
    }

    /// Maps a buffer while `f` runs. Transfers that `f` starts must be over when `f` returns. Any context.
    ///
    /// # Errors
    ///
    /// Those of [`Dma::map_single`].
    #[track_caller]
    pub fn scope<R>(
        dma: &'d Dma<'a, H>,
        device: &'d Device,
        buffer: &'b mut [u8],
        f: impl FnOnce(&mut Self) -> R,
    ) -> Result<R, DmaError> {
        Ok(f(&mut Self::map(dma, device, buffer)?))
    }

    /// Where the device finds the buffer.
    #[must_use]
    pub const fn bus(&self) -> DmaAddr {
        self.bus
    }

    /// Its bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether it has none, which cannot be.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Lends `f` the data that the device wrote so far; the device leaves the buffer alone meanwhile.
    ///
    /// # Errors
    ///
    /// With checks on [`DmaError::Misused`].
    #[track_caller]
    pub fn sync_for_cpu<R>(&mut self, f: impl FnOnce(&[u8]) -> R) -> Result<R, DmaError>
    where
        D: CpuReads,
    {
        let size = self.buffer.len() as u64;
        self.dma.do_sync_for_cpu::<D>(self.device, self.bus, size)?;
        let result = f(self.buffer);
        self.dma.do_sync_for_device::<D>(self.device, self.bus, size)?;
        Ok(result)
    }

    /// Lets `f` write what the device reads next; the device leaves the buffer alone meanwhile.
    ///
    /// # Errors
    ///
    /// With checks on [`DmaError::Misused`].
    #[track_caller]
    pub fn fill<R>(&mut self, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, DmaError>
    where
        D: CpuWrites,
    {
        let size = self.buffer.len() as u64;
        self.dma.do_sync_for_cpu::<D>(self.device, self.bus, size)?;
        let result = f(self.buffer);
        self.dma.do_sync_for_device::<D>(self.device, self.bus, size)?;
        Ok(result)
    }
}

impl<'a, D: Direction, H: DmaHal<'a>> Drop for DmaMapping<'_, '_, 'a, D, H> {
    fn drop(&mut self) {
        let size = self.buffer.len() as u64;
        // DMAP-1.
        if let Err(error) = self.dma.do_unmap_single::<D>(self.device, self.bus, size) {
            log::error!("a buffer of {}: {error}", self.device.name());
        }
    }
}

impl<'a, D: Direction, H: DmaHal<'a>> fmt::Debug for DmaMapping<'_, '_, 'a, D, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaMapping").field("bus", &self.bus).field("len", &self.len()).finish_non_exhaustive()
    }
}
