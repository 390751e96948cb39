//! Memory that the device tree sets aside for devices to allocate from, and giving it to them (Linux:
//! `drivers/of/of_reserved_mem.c`, `rmem_dma_setup`).

use super::dma::DMA;
use super::vmalloc::VMALLOC;
use super::{cma_area_of, io_space, page_allocator};
use crate::addr::{PAGE_SIZE, Pfn, PhysRange, VirtAddr};
#[cfg(feature = "boot")]
use crate::fdt::Tree;
use crate::fdt::{Node, ReservedMemory};
use crate::hal::prot::{Access, MemoryType, Prot};
use crate::mm::dma::{Device, DmaError, PoolId, RestrictedPool};
use crate::mm::io::{IoError, RegionError, ReservedRegion};
use crate::mm::page::{Kind, Page, PageMap as _};
use crate::mm::vmalloc::SetMemoryError;
use crate::mm::zone::{FreeError, PageHal as _};
use core::fmt;

/// The owner's word in the descriptors of a pool's pages.
const POOL: u64 = 3;

/// Reason why a device has no memory of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DeviceMemoryError {
    /// The reference in its `memory-region`.
    Region(RegionError),
    /// Its `memory-region-names` has no such name.
    NoName(&'static str),
    /// The region's `compatible` is not `shared-dma-pool`: its driver maps it.
    NotAPool(&'static str),
    /// The region is a `restricted-dma-pool` with `no-map`: its bounce slots have to be in the linear map.
    RestrictedNoMap(&'static str),
    /// The region is `reusable`, and has not become a contiguous area while booting; the log has why.
    NoArea(&'static str),
    /// It cannot be mapped.
    Map(IoError),
    /// It cannot be taken out of the linear map.
    Alias(SetMemoryError),
    /// Its pages are not reserved for it alone.
    Pages(FreeError),
    /// It cannot be a pool.
    Pool(DmaError),
}

impl fmt::Display for DeviceMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(error) => error.fmt(f),
            Self::NoName(name) => write!(f, "memory-region-names has no {name}"),
            Self::NotAPool(region) => write!(f, "compatible of {region} is not shared-dma-pool"),
            Self::RestrictedNoMap(region) => write!(f, "{region} is a restricted-dma-pool, which cannot be no-map"),
            Self::NoArea(region) => write!(f, "{region} is reusable, and is no contiguous area"),
            Self::Map(error) => error.fmt(f),
            Self::Alias(error) => error.fmt(f),
            Self::Pages(error) => error.fmt(f),
            Self::Pool(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DeviceMemoryError {}

/// Gives the device the memory that the first reference in the `memory-region` of its node names, to allocate coherent memory
/// from (Linux: `of_reserved_mem_device_init`). Of a pool (`shared-dma-pool`) that is all that it gets; a contiguous area (with
/// `reusable`) comes before other memory. To a `restricted-dma-pool` everything that the device maps is copied, too. May wait; not in an interrupt handler.
///
/// # Errors
///
/// [`DeviceMemoryError`]; the device is as before then.
pub fn of_reserved_mem_device_init(device: &mut Device, node: Node<'_, 'static>) -> Result<(), DeviceMemoryError> {
    of_reserved_mem_device_init_by_idx(device, node, 0)
}

/// The same by the name that `memory-region-names` has for it.
///
/// # Errors
///
/// [`DeviceMemoryError`]; the device is as before then.
pub fn of_reserved_mem_device_init_by_name(
    device: &mut Device,
    node: Node<'_, 'static>,
    name: &'static str,
) -> Result<(), DeviceMemoryError> {
    let index = node.memory_region_index(name).ok_or(DeviceMemoryError::NoName(name))?;
    of_reserved_mem_device_init_by_idx(device, node, index)
}

/// The same by the number of the reference, counted from 0.
///
/// # Errors
///
/// [`DeviceMemoryError`]; the device is as before then.
pub fn of_reserved_mem_device_init_by_idx(
    device: &mut Device,
    node: Node<'_, 'static>,
    index: usize,
) -> Result<(), DeviceMemoryError> {
    let name = node.name();
    let wrong = |error| DeviceMemoryError::Region(error);
    let region = node.memory_region(index).ok_or(wrong(RegionError::NoIndex { device: name, index }))?;
    let region = region.map_err(|error| wrong(RegionError::LeadsNowhere { device: name, index, error }))?;
    if !region.is_enabled() {
        return Err(wrong(RegionError::Disabled { region: region.name() }));
    }
    if region.is_contiguous_area() {
        let area = cma_area_of(region.node().offset()).ok_or(DeviceMemoryError::NoArea(region.name()))?;
        device.set_area(Some(area));
    } else if region.is_restricted_pool() {
        device.set_restricted_pool(restricted_pool_of(region)?);
    } else if region.is_dma_pool() {
        device.set_pool(Some(pool_of(region)?));
    } else {
        return Err(DeviceMemoryError::NotAPool(region.name()));
    }
    Ok(())
}

/// Takes the memory away from the device that [`of_reserved_mem_device_init`] or a sister of it gave. It has freed what it had
/// allocated from there: freed later, it is refused.
pub fn of_reserved_mem_device_release(device: &mut Device) {
    // With it goes what restricts it.
    device.set_pool(None);
    device.set_area(None);
}

/// Makes the tree's default pool of coherent memory (`linux,dma-default`) that of every device that is not coherent and has none.
/// Boot CPU, once, when memory can be mapped.
#[cfg(feature = "boot")]
pub(crate) fn default_pool_of(tree: &Tree<'static>) {
    let is_default = |region: &ReservedMemory<'_, '_>| {
        region.is_enabled() && region.is_dma_pool() && region.is_dma_default() && !region.is_contiguous_area()
    };
    for region in tree.reserved_memory().filter(is_default) {
        match pool_of(region) {
            Ok(id) => log::info!("DMA: {} is the default pool, {} pages", region.name(), DMA.pool_pages(id).0),
            Err(error) => log::warn!("no default pool {} (linux,dma-default): {error}", region.node().path()),
        }
    }
}

/// The memory of a region, whole pages.
fn memory_of(region: ReservedMemory<'_, 'static>) -> Result<ReservedRegion<'static>, DeviceMemoryError> {
    let no_place = DeviceMemoryError::Region(RegionError::NoPlace { region: region.name() });
    let reserved = io_space().own_region(region.node().offset()).ok_or(no_place)?;
    let range = reserved.range();
    if !range.start().is_aligned(PAGE_SIZE) || !range.size().is_multiple_of(PAGE_SIZE) {
        return Err(DeviceMemoryError::Pool(DmaError::BadPool(range)));
    }
    Ok(reserved)
}

/// The pool that a region is, made when the first device asks.
fn pool_of(region: ReservedMemory<'_, 'static>) -> Result<PoolId, DeviceMemoryError> {
    let reserved = memory_of(region)?;
    let range = reserved.range();
    let map = || if reserved.first().no_map { Mapping::new(&reserved) } else { Mapping::of_linear(range) };
    pool_in(range, map, region.is_dma_default())
}

/// The pool in `range`, made of its uncached mapping if there is none.
fn pool_in(
    range: PhysRange,
    map: impl FnOnce() -> Result<Mapping, DeviceMemoryError>,
    is_default: bool,
) -> Result<PoolId, DeviceMemoryError> {
    if let Some(id) = DMA.pool_at(range.start()) {
        return Ok(id);
    }
    let mapping = match map() {
        Ok(mapping) => mapping,
        // Another CPU was faster.
        Err(error) => return DMA.pool_at(range.start()).ok_or(error),
    };
    // SAFETY: the memory is reserved for this pool, and mapped uncached there and nowhere else.
    let added = unsafe { DMA.add_pool(range, mapping.at, is_default) };
    added.or_else(|error| {
        mapping.undo(range);
        DMA.pool_at(range.start()).ok_or(DeviceMemoryError::Pool(error))
    })
}

/// The restricted pool that a region is, made when the first device asks: the lower half for coherent memory, the upper half in
/// bounce slots.
fn restricted_pool_of(region: ReservedMemory<'_, 'static>) -> Result<RestrictedPool, DeviceMemoryError> {
    let reserved = memory_of(region)?;
    if reserved.first().no_map {
        return Err(DeviceMemoryError::RestrictedNoMap(region.name()));
    }
    let range = reserved.range();
    let half = range.size() / 2 / PAGE_SIZE * PAGE_SIZE;
    let lower = PhysRange::from_size(range.start(), half).filter(|lower| !lower.is_empty());
    let lower = lower.ok_or(DeviceMemoryError::Pool(DmaError::BadPool(range)))?;
    let upper = PhysRange::new(lower.end(), range.end()).unwrap_or_default();
    let pool = pool_in(lower, || Mapping::of_linear(lower), false)?;
    if let Some(found) = DMA.restricted_pool_at(upper.start(), pool) {
        return Ok(found);
    }
    let (first, count) = match adopt(upper) {
        Ok(adopted) => adopted,
        // Another CPU was faster.
        Err(error) => return DMA.restricted_pool_at(upper.start(), pool).ok_or(error),
    };
    // SAFETY: the memory is reserved for this pool, and its pages were adopted for it above.
    let added = unsafe { DMA.add_restricted_pool(upper, pool) };
    added.map_err(|error| {
        reserve_again(first, count);
        DeviceMemoryError::Pool(error)
    })
}

/// An uncached mapping of a region.
struct Mapping {
    at: VirtAddr,
    /// Of a region in the linear map: its first page, and how it was mapped there.
    linear: Option<(Page, crate::mm::vmalloc::Uncached)>,
}

impl Mapping {
    /// Of a region that the kernel has not mapped.
    fn new(region: &ReservedRegion<'static>) -> Result<Self, DeviceMemoryError> {
        let prot = Prot::kernel(Access::ReadWrite).with_memory(MemoryType::NonCacheable);
        let prot = prot.map_err(|_| DeviceMemoryError::Map(IoError::BadProt))?;
        let range = region.range();
        let at = io_space().ioremap_region(region, range.start(), range.size(), prot);
        Ok(Self { at: at.map_err(DeviceMemoryError::Map)?, linear: None })
    }

    /// Of a region that the linear map has, which loses it: its pages become allocated ones, so that their descriptors say what
    /// they are, and nobody else maps them.
    fn of_linear(range: PhysRange) -> Result<Self, DeviceMemoryError> {
        let (first, count) = adopt(range)?;
        match VMALLOC.do_uncache(range) {
            Ok(uncached) => {
                set_type(first, count, MemoryType::NonCacheable);
                Ok(Self { at: uncached.at, linear: Some((first, uncached)) })
            }
            Err(error) => {
                reserve_again(first, count);
                Err(DeviceMemoryError::Alias(error))
            }
        }
    }

    /// Takes it back.
    fn undo(self, range: PhysRange) {
        let Some((first, uncached)) = self.linear else {
            // A mapping of ours that nobody else knows of.
            let _ = io_space().do_iounmap(self.at);
            return;
        };
        if let Err(error) = VMALLOC.do_recache(range, uncached) {
            return log::error!("{range} stays out of the linear map: {error}");
        }
        let count = u32::try_from(range.size() / PAGE_SIZE).unwrap_or(0);
        set_type(first, count, MemoryType::WriteBack);
        reserve_again(first, count);
    }
}

/// Makes the pages of a region allocated ones, which are a pool's.
fn adopt(range: PhysRange) -> Result<(Page, u32), DeviceMemoryError> {
    let pages = page_allocator();
    let none = DeviceMemoryError::Pages(FreeError::NoDescriptor(range.start()));
    let first = pages.hal().map().find(Pfn::containing(range.start())).ok_or(none)?;
    let count = u32::try_from(range.size() / PAGE_SIZE).map_err(|_| none)?;
    // SAFETY: the region is reserved for this.
    unsafe { pages.adopt_reserved(first, count) }.map_err(DeviceMemoryError::Pages)?;
    for page in (0..count).map(|index| first.offset(index)) {
        // Fresh, so that it is unclaimed.
        let _ = pages.do_claim(page, Kind::Dma, POOL);
    }
    Ok((first, count))
}

fn set_type(first: Page, count: u32, memory: MemoryType) {
    for page in (0..count).map(|index| first.offset(index)) {
        // Ours, and mapped by nobody else.
        let _ = page_allocator().do_set_memory_type(page, memory);
    }
}

fn reserve_again(first: Page, count: u32) {
    for page in (0..count).map(|index| first.offset(index)) {
        let _ = page_allocator().do_disown(page, Kind::Dma);
    }
    // SAFETY: adopted by `adopt`, for which they are reserved.
    unsafe { page_allocator().reserve_again(first, count) };
}
