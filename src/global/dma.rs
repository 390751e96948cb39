//! The kernel's DMA, and Linux's names for it as free functions.

use super::vmalloc::VMALLOC;
use super::{KBox, KVec, KernelPages, Kmalloc, PAGES, context, reclaim};
use crate::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange, Pointer, VirtAddr, to_usize};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::dcache::Caches;
use crate::arch::aarch64::mem;
use crate::ds::Broken;
use crate::fdt::Node;
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::dma::{
    BounceSlot, BounceStats, CoherentBlock, Device, DeviceSpec, Direction, Dma, DmaError, DmaHal, Entry, PoolError,
    PoolShape, SLOT_SIZE, SgEntry, SpecError,
};
use crate::mm::page::Page;
use crate::mm::vmalloc::{SetMemoryError, Uncached};
use crate::mm::zone::{CmaArea, PageAllocator, Purge, RegistryError};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

pub(super) static DMA: Dma<'static, KernelPages> = Dma::new(KernelPages(()));
/// Bounce slots that are made when the first device comes that may need them.
static BOUNCE_SLOTS: AtomicU64 = AtomicU64::new(DEFAULT_SLOTS);
/// 1 MiB.
const DEFAULT_SLOTS: u64 = (1 << 20) / SLOT_SIZE;

/// Records that stay for good.
fn records<T: Copy>(none: T, count: usize) -> Option<&'static mut [T]> {
    let row = KVec::from_elem(none, count, Gfp::KERNEL | Gfp::NOWARN).ok()?;
    Some(KBox::leak(row.into_boxed_slice(Gfp::KERNEL).ok()?))
}

// SAFETY: HAL-13: MACH-1 for the linear map; an uncached block has no other mapping than its area, by HAL-9 and HAL-10; records
// are fresh allocations.
unsafe impl DmaHal<'static> for KernelPages {
    type Cache = Caches;
    type Pages = Self;
    type Relax = Relax;

    #[inline(always)]
    fn cache(&self) -> &Caches {
        &Caches
    }

    #[inline(always)]
    fn pages(&self) -> &PageAllocator<Self> {
        &PAGES
    }

    #[inline(always)]
    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        super::linear::linear(phys)
    }

    #[inline(always)]
    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        super::linear::linear_to_phys(virt)
    }

    fn slots(&self, count: usize) -> Option<&'static mut [BounceSlot]> {
        records(BounceSlot::FREE, count)
    }

    fn entries(&self, count: usize) -> Option<&'static mut [Entry]> {
        records(Entry::NONE, count)
    }

    fn words(&self, count: usize) -> Option<&'static mut [u64]> {
        records(0, count)
    }

    fn contiguous_area(&self) -> Option<CmaArea> {
        super::cma_default()
    }

    #[inline]
    fn copy(&self, _: Internal, to: VirtAddr, from: VirtAddr, bytes: u64) {
        if (to.get() | from.get() | bytes) & (PAGE_SIZE - 1) != 0 {
            // SAFETY: a buffer of the caller's and bounce slots that are this mapping's, which are apart.
            return unsafe { to.as_ptr::<u8>().copy_from_nonoverlapping(from.as_ptr(), to_usize(bytes)) };
        }
        for offset in (0..bytes).step_by(to_usize(PAGE_SIZE)) {
            let page = |at: VirtAddr| NonNull::new(VirtAddr::new(at.get() + offset).as_ptr::<mem::Page>());
            if let (Some(to), Some(from)) = (page(to), page(from)) {
                // SAFETY: whole pages of the caller's buffer and of bounce slots that are this mapping's, which are apart.
                unsafe { mem::copy_page(to, from) };
            }
        }
    }

    #[inline]
    fn zero(&self, _: Internal, at: VirtAddr, bytes: u64) {
        let whole = (at.get() | bytes) & (PAGE_SIZE - 1) == 0 && bytes != 0;
        match NonNull::new(at.as_ptr::<mem::Page>()).filter(|_| whole) {
            // SAFETY: memory that was just taken for the caller, and is mapped there as Normal memory, cached or not.
            Some(first) => unsafe { mem::clear_pages(first, bytes / PAGE_SIZE) },
            // SAFETY: memory that was just taken for the caller, and is mapped there as Normal memory, cached or not.
            None => unsafe { at.as_ptr::<u8>().write_bytes(0, to_usize(bytes)) },
        }
    }

    fn fill(&self, _: Internal, at: VirtAddr, bytes: u64, byte: u8) {
        // SAFETY: bytes that are the caller's alone, mapped as Normal memory, cached or not.
        unsafe { at.as_ptr::<u8>().write_bytes(byte, to_usize(bytes)) };
    }

    fn find_other(&self, _: Internal, at: VirtAddr, bytes: u64, byte: u8) -> Option<(u64, u8)> {
        // SAFETY: bytes that are the caller's alone; a device may write to them all the same, so each is read by itself.
        let read = |offset| unsafe { at.as_ptr::<u8>().wrapping_add(to_usize(offset)).read_volatile() };
        (0..bytes).map(|offset| (offset, read(offset))).find(|(_, found)| *found != byte)
    }

    fn uncache(&self, _: Internal, block: PhysRange) -> Result<Uncached, SetMemoryError> {
        VMALLOC.do_uncache(block)
    }

    fn recache(&self, _: Internal, block: PhysRange, uncached: Uncached) -> Result<(), SetMemoryError> {
        VMALLOC.do_recache(block, uncached)
    }
}

/// Reserves of uncached memory of which nothing is in use, for allocations that run short of memory.
struct Idle;

impl Purge for Idle {
    fn name(&self) -> &'static str {
        "uncached DMA memory"
    }

    fn lazy_pages(&self) -> u64 {
        DMA.idle_pages()
    }

    fn purge(&self, _: Gfp) {
        DMA.trim_reserves();
    }
}

/// Lets reserves that are idle be reclaimed when memory is short; `slots` bounce slots, if that is said, are made when the
/// first device comes that may need them (`swiotlb=`). Boot CPU, once.
///
/// # Errors
///
/// [`RegistryError::Full`].
pub fn dma_init(slots: Option<u64>) -> Result<(), RegistryError> {
    if let Some(slots) = slots {
        BOUNCE_SLOTS.store(slots, Ordering::Relaxed);
    }
    // For good.
    reclaim().purges().register(context(), &Idle).map(drop)
}

/// The kernel's DMA, for reports and checks.
#[must_use]
pub fn dma() -> &'static Dma<'static, KernelPages> {
    &DMA
}

/// Tests every invariant of DMA. Nothing may be mapped or allocated meanwhile.
///
/// # Errors
///
/// The first that does not hold.
pub fn check_dma() -> Result<(), Broken> {
    DMA.check()
}

/// How the bounce slots are used. Any context.
#[must_use]
pub fn bounce_stats() -> BounceStats {
    DMA.bounce_stats()
}

/// A device that accesses memory by itself, with masks of 32 bits. The first that may need them has bounce slots made,
/// and may wait for them; without memory for them there are none, which is logged.
#[must_use]
pub fn dma_device(spec: &DeviceSpec<'_>) -> Device {
    let device = DMA.device(spec);
    make_slots_for(&device);
    device
}

/// Makes bounce slots if there are none and this device may need them.
fn make_slots_for(device: &Device) {
    if DMA.may_bounce(device) && DMA.bounce_stats().slots == 0 {
        match BOUNCE_SLOTS.load(Ordering::Relaxed) {
            0 => {}
            slots => match DMA.set_up_bounce(slots) {
                Ok(()) | Err(DmaError::AlreadySetUp) => {}
                Err(error) => log::warn!("no bounce slots: {error}"),
            },
        }
    }
}

/// The device that a node of the device tree stands for; see [`DeviceSpec::from_node`] and [`dma_device`].
///
/// # Errors
///
/// [`SpecError`].
pub fn dma_device_of(node: Node<'_, '_>) -> Result<Device, SpecError> {
    Ok(dma_device(&DeviceSpec::from_node(node)?))
}

/// Makes reserves of uncached memory of so many bytes together beforehand (`coherent_pool=`); see [`Dma::set_up_reserves`].
/// May wait.
///
/// # Errors
///
/// [`DmaError`].
pub fn dma_coherent_pool(bytes: u64) -> Result<(), DmaError> {
    let mut anybody = DMA.device(&DeviceSpec::new("coherent_pool"));
    DMA.set_coherent_mask(&mut anybody, u64::MAX)?;
    DMA.set_up_reserves(&anybody, bytes)
}

/// Checks every call from now on, with room for so many mappings (`dma_debug=`); see [`Dma::watch`]. May wait
/// allowed; once.
///
/// # Errors
///
/// [`DmaError`].
pub fn dma_debug(mappings: usize) -> Result<(), DmaError> {
    DMA.watch(mappings)
}

/// The device goes: reports what it has left mapped, as far as calls are checked, and how much that is.
#[track_caller]
pub fn dma_device_gone(device: Device) -> u64 {
    DMA.device_gone(&device)
}

/// Sets how far the device's addresses reach; see [`Dma::set_mask`]. The first device that may need bounce slots has them made,
/// and may wait for them.
///
/// # Errors
///
/// [`DmaError::MaskTooNarrow`].
pub fn dma_set_mask(device: &mut Device, mask: u64) -> Result<(), DmaError> {
    DMA.set_mask(device, mask)?;
    make_slots_for(device);
    Ok(())
}

/// The same for coherent memory; see [`Dma::set_coherent_mask`].
///
/// # Errors
///
/// [`DmaError::MaskTooNarrow`].
pub fn dma_set_coherent_mask(device: &mut Device, mask: u64) -> Result<(), DmaError> {
    DMA.set_coherent_mask(device, mask)
}

/// Both masks (Linux: `dma_set_mask_and_coherent`).
///
/// # Errors
///
/// [`DmaError::MaskTooNarrow`]; both are as before then.
pub fn dma_set_mask_and_coherent(device: &mut Device, mask: u64) -> Result<(), DmaError> {
    // The same RAM is in reach or out of it for both.
    dma_set_mask(device, mask)?;
    DMA.set_coherent_mask(device, mask)
}

/// Linux's mask of so many low bits.
#[must_use]
pub const fn dma_bit_mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// Memory that device and CPU see alike; see [`Dma::alloc_coherent`].
///
/// # Errors
///
/// [`DmaError`].
#[inline]
#[track_caller]
pub fn dma_alloc_coherent(device: &Device, size: u64, gfp: Gfp) -> Result<CoherentBlock, DmaError> {
    DMA.alloc_coherent(device, size, gfp)
}

/// The same, uncached for any device; see [`Dma::alloc_wc`].
///
/// # Errors
///
/// [`DmaError`].
#[track_caller]
pub fn dma_alloc_wc(device: &Device, size: u64, gfp: Gfp) -> Result<CoherentBlock, DmaError> {
    DMA.alloc_wc(device, size, gfp)
}

/// The same, cached for any device, to be synced; see [`Dma::alloc_noncoherent`].
///
/// # Errors
///
/// [`DmaError`].
#[track_caller]
pub fn dma_alloc_noncoherent(device: &Device, size: u64, gfp: Gfp) -> Result<CoherentBlock, DmaError> {
    DMA.alloc_noncoherent(device, size, gfp)
}

/// Logs an error of a raw call: it is the driver's mistake.
#[cold]
fn complain(call: &'static str, device: &Device, error: impl fmt::Display) {
    log::error!("{call}({}): {error}", device.name());
}

/// Frees what [`dma_alloc_coherent`] or a sister of it gave; see [`Dma::free_coherent`]. Any context.
///
/// # Errors
///
/// [`DmaError`], also logged: nothing has changed then.
///
/// # Safety
///
/// The caller owns the memory, and neither CPU nor device uses it any more.
#[inline]
#[track_caller]
pub unsafe fn dma_free_coherent(device: &Device, size: u64, block: CoherentBlock) -> Result<(), DmaError> {
    DMA.do_free_coherent(device, size, block).inspect_err(|error| complain("dma_free_coherent", device, error))
}

/// A pool of small blocks of coherent memory; see [`mm::dma::DmaPool`](crate::mm::dma::DmaPool).
pub type DmaPool<'d> = crate::mm::dma::DmaPool<'d, 'static, KernelPages, Kmalloc>;
/// Values in a row in coherent memory.
pub type CoherentVec<'d, T> = crate::mm::dma::CoherentVec<'d, 'static, T, KernelPages>;
/// A value in coherent memory.
pub type CoherentBox<'d, T> = crate::mm::dma::CoherentBox<'d, 'static, T, KernelPages>;
/// A buffer that is a device's.
pub type DmaMapping<'b, 'd, D> = crate::mm::dma::DmaMapping<'b, 'd, 'static, D, KernelPages>;

/// A pool of blocks (Linux: `dma_pool_create`).
///
/// # Errors
///
/// [`PoolError::BadShape`].
pub fn dma_pool_create<'d>(name: &'static str, device: &'d Device, shape: PoolShape) -> Result<DmaPool<'d>, PoolError> {
    DmaPool::new(&DMA, device, name, shape)
}

/// Gives bytes in the linear map to the device; see [`Dma::map_single`]. Any context.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// The bytes are RAM that the caller owns, and nobody accesses them as long as they are mapped, but for what is synced for
/// the CPU. The mapping is ended before the memory goes.
#[inline(always)]
#[track_caller]
pub unsafe fn dma_map_single<D: Direction>(device: &Device, at: impl Pointer, size: u64) -> Result<DmaAddr, DmaError> {
    DMA.do_map_single::<D>(device, at.at(), size)
}

/// The same of bytes in a page, from `offset` on; see [`Dma::map_page`]. Any context.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// As for [`dma_map_single`].
#[track_caller]
pub unsafe fn dma_map_page<D: Direction>(
    device: &Device,
    page: Page,
    offset: u64,
    size: u64,
) -> Result<DmaAddr, DmaError> {
    DMA.do_map_page::<D>(device, page, (offset, size))
}

/// Ends a mapping; see [`Dma::unmap_single`]. Any context.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// The device, direction, address and size are those of a mapping of the caller's, and the device does not access it any
/// more.
#[inline(always)]
#[track_caller]
pub unsafe fn dma_unmap_single<D: Direction>(device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
    DMA.do_unmap_single::<D>(device, bus, size)
}

/// [`dma_unmap_single`] of what [`dma_map_page`] mapped.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// As for [`dma_unmap_single`].
#[inline(always)]
#[track_caller]
pub unsafe fn dma_unmap_page<D: Direction>(device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
    DMA.do_unmap_single::<D>(device, bus, size)
}

/// Gives bytes of a mapping back to the CPU; see [`Dma::sync_for_cpu`]. Any context.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// The bytes are part of a mapping of the caller's for this device and direction, and the device leaves their cache lines
/// alone until [`dma_sync_single_for_device`].
#[inline(always)]
#[track_caller]
pub unsafe fn dma_sync_single_for_cpu<D: Direction>(device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
    DMA.do_sync_for_cpu::<D>(device, bus, size)
}

/// Gives bytes of a mapping to the device again; see [`Dma::sync_for_device`]. Any context.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// The bytes are part of a mapping of the caller's for this device and direction, which leaves them alone from now on.
#[inline(always)]
#[track_caller]
pub unsafe fn dma_sync_single_for_device<D: Direction>(
    device: &Device,
    bus: DmaAddr,
    size: u64,
) -> Result<(), DmaError> {
    DMA.do_sync_for_device::<D>(device, bus, size)
}

/// Maps every buffer of a list, or none; see [`Dma::map_sg`]. Any context.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// As for [`dma_map_single`], for each.
#[inline]
#[track_caller]
pub unsafe fn dma_map_sg<D: Direction>(device: &Device, list: &mut [SgEntry]) -> Result<(), DmaError> {
    DMA.do_map_sg::<D>(device, list)
}

/// Ends the mapping of a list; see [`Dma::unmap_sg`]. Any context.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// As for [`dma_unmap_single`]; the list is as it was mapped.
#[inline]
#[track_caller]
pub unsafe fn dma_unmap_sg<D: Direction>(device: &Device, list: &[SgEntry]) -> Result<(), DmaError> {
    DMA.do_unmap_sg::<D>(device, list)
}

/// Lets the device access registers of another one; see [`Dma::map_resource`]. Any context.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// The caller owns the registers, and what the device does to them is right.
#[track_caller]
pub unsafe fn dma_map_resource<D: Direction>(device: &Device, range: PhysRange) -> Result<DmaAddr, DmaError> {
    DMA.do_map_resource::<D>(device, range)
}

/// Ends what [`dma_map_resource`] began. Any context.
///
/// # Errors
///
/// [`DmaError`].
///
/// # Safety
///
/// As for [`dma_unmap_single`].
#[track_caller]
pub unsafe fn dma_unmap_resource<D: Direction>(device: &Device, bus: DmaAddr, size: u64) -> Result<(), DmaError> {
    DMA.do_unmap_resource::<D>(device, bus, size)
}
