//! The kernel's contiguous areas, and who moves the pages that they lend.

use super::{memblock, page_allocator};
use crate::addr::{Bytes, PAGE_SIZE, Pfn, PhysRange};
use crate::arch::aarch64::cpu::Relax;
use crate::fdt::{ReservedMemory, Tree};
use crate::mm::memblock::CONTIGUOUS_ALIGN;
use crate::mm::page::PageMap as _;
use crate::mm::zone::{CmaArea, ContigError, Mover, PageHal as _, Registry};
use crate::sync::Once;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Contiguous areas that there can be (Linux: `CONFIG_CMA_AREAS`).
pub const MAX_CMA_AREAS: usize = 16;

/// A contiguous area of the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelCmaArea {
    /// The area, as the page allocator knows it.
    pub area: CmaArea,
    /// Where it lies.
    pub range: PhysRange,
    /// The node of the device tree that states it, by [`Node::offset`](crate::fdt::Node::offset); `None` for that of `cma=`.
    pub node: Option<usize>,
    /// Whether devices without an area of their own allocate from it.
    pub is_default: bool,
}

static AREAS: [Once<KernelCmaArea, Relax>; MAX_CMA_AREAS] = [const { Once::new() }; MAX_CMA_AREAS];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static MOVERS: Registry<dyn Mover, Relax> = Registry::new();

/// Reason why memory has not become a contiguous area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AreaRefused {
    /// There are [`MAX_CMA_AREAS`].
    TooMany,
    /// It is not reserved RAM in whole page blocks of one zone.
    Contig(ContigError),
}

impl fmt::Display for AreaRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => f.write_str("there are as many areas as there can be"),
            Self::Contig(error) => error.fmt(f),
        }
    }
}

/// The contiguous areas, in the order in which they came. Any context.
pub fn cma_areas() -> impl Iterator<Item = KernelCmaArea> {
    let count = COUNT.load(Ordering::Acquire);
    AREAS.iter().take(count).filter_map(|area| area.get().copied())
}

/// The area for devices that have none of their own, if there is one. Any context.
#[must_use]
pub fn cma_default() -> Option<CmaArea> {
    cma_areas().find(|area| area.is_default).map(|area| area.area)
}

/// The area that a node of the device tree states, by [`Node::offset`](crate::fdt::Node::offset). Any context.
#[must_use]
pub fn cma_area_of(node: usize) -> Option<CmaArea> {
    cma_areas().find(|area| area.node == Some(node)).map(|area| area.area)
}

/// Where owners of movable pages register, so that contiguous allocations can have the memory that they borrow.
#[must_use]
pub fn movers() -> &'static Registry<dyn Mover, Relax> {
    &MOVERS
}

/// Makes reserved memory a contiguous area. Boot CPU.
///
/// # Safety
///
/// The memory was reserved for this, and nobody has it.
pub(crate) unsafe fn add_cma_area(range: PhysRange, node: Option<usize>, is_default: bool) -> Result<(), AreaRefused> {
    let count = COUNT.load(Ordering::Relaxed);
    let place = AREAS.get(count).ok_or(AreaRefused::TooMany)?;
    let none = AreaRefused::Contig(ContigError::NoRange);
    let pages = page_allocator();
    let first = pages.hal().map().find(Pfn::containing(range.start())).ok_or(none)?;
    let number = u32::try_from(range.size() / PAGE_SIZE).map_err(|_| none)?;
    // SAFETY: by this function's `# Safety`, the memory was reserved for this, and nobody has it.
    let area = unsafe { pages.add_cma(first, number) }.map_err(AreaRefused::Contig)?;
    let is_default = is_default && cma_default().is_none();
    place.call_once(|| KernelCmaArea { area, range, node, is_default });
    COUNT.store(count + 1, Ordering::Release);
    let what = if is_default { ", the default" } else { "" };
    log::info!("contiguous area: {} at {range}{what}", Bytes(range.size()));
    Ok(())
}

/// Makes the pools of a device tree that are `reusable` contiguous areas. A pool that cannot be one is logged with the property
/// that is wrong, and stays reserved. Boot CPU, once, when the page allocator has its memory.
pub(crate) fn cma_areas_of(tree: &Tree<'_>) {
    let has_default = cma_default().is_some();
    for region in tree.reserved_memory().filter(|region| region.is_enabled() && region.is_contiguous_area()) {
        if has_default && region.is_cma_default() {
            continue;
        }
        let node = region.node().offset();
        let place = memblock().reserved().reserved_for(node);
        let Some(range) = place.filter(|range| range.size().is_multiple_of(CONTIGUOUS_ALIGN)) else {
            log::warn!("no contiguous area {}: {}", region.node().path(), why_not(region, place));
            continue;
        };
        // SAFETY: memblock reserved it for this node, and for nobody else.
        if let Err(error) = unsafe { add_cma_area(range, Some(node), region.is_cma_default()) } {
            log::warn!("no contiguous area {} at {range}: {error}", region.node().path());
        }
    }
}

/// Which property of a region is wrong, and how.
fn why_not(region: ReservedMemory<'_, '_>, place: Option<PhysRange>) -> &'static str {
    if region.is_dynamic() {
        return match place {
            Some(_) => "size is no multiple of 2 MiB",
            None => "there is no room for it within alloc-ranges",
        };
    }
    let aligned =
        |range: PhysRange| range.start().is_aligned(CONTIGUOUS_ALIGN) && range.size().is_multiple_of(CONTIGUOUS_ALIGN);
    match region.ranges().next() {
        Some(Ok(range)) if !aligned(range) => "reg does not start and end at multiples of 2 MiB",
        Some(Ok(_)) => "reg lies over memory that somebody else has, or where no RAM is",
        _ => "reg states no memory",
    }
}
