//! Filling the memblock from the device tree, and logging the result.

use super::early_regions;
use crate::addr::{Bytes, PhysAddr, PhysRange};
use crate::arch::aarch64::boot::{self, BootInfo};
use crate::arch::aarch64::features::IdRegisters;
use crate::fdt::Tree;
use crate::global;
use crate::mm::layout;
use crate::mm::memblock::{DiscoverError, Discovery, InitrdError, Surroundings};
use crate::mm::page::MAX_SPAN;
use ::log::{info, warn};

/// Fills the memblock; `limit` is that of `mem=`; with `other_cma` the default contiguous area is not the tree's, as `cma=` says
/// another. Boot CPU, once, before the final tables.
pub(crate) fn fill(
    boot: &BootInfo,
    tree: &Tree<'static>,
    tree_range: PhysRange,
    cpu: &IdRegisters,
    limit: Option<u64>,
    other_cma: bool,
) -> Result<Discovery, DiscoverError> {
    let boot_only = PhysRange::new(boot.image_phys(boot::init_start()), boot.image_phys(boot::init_end()));
    let around = Surroundings {
        image: boot.image_range(),
        boot_only: boot_only.unwrap_or_default(),
        device_tree: tree_range,
        end: PhysAddr::new((1_u64 << cpu.physical_bits().min(63)).min(layout::LINEAR_MAP_SIZE)),
        span: MAX_SPAN,
        limit,
        other_cma,
    };
    let mut memblock = global::memblock();
    memblock.lend_slots(early_regions::for_memory, early_regions::for_reserved);
    let found = memblock.discover(tree, &around)?;
    info!(
        "memory: {} in {} regions, {} free",
        Bytes(memblock.usable_size()?),
        memblock.memory().regions().len(),
        Bytes(memblock.free_size())
    );
    for region in memblock.memory().regions() {
        info!("  memory   {} {}", region.range, Bytes(region.range.size()));
    }
    for region in memblock.reserved().regions() {
        info!("  reserved {} {}", region.range, Bytes(region.range.size()));
    }
    if found.beyond != 0 {
        warn!("memory: {} left out, beyond what this CPU and the kernel reach", Bytes(found.beyond));
        let span = memblock.start_of_dram().and_then(|start| start.checked_add(around.span));
        let end = span.map_or(around.end, |span| span.min(around.end));
        let beyond = |bank: &PhysRange| bank.end() > end;
        for bank in tree.memory().flatten().filter(beyond) {
            warn!("  left out {bank} {}", Bytes(bank.size()));
        }
    }
    if found.withheld != 0 {
        warn!("memory: {} left out, outside linux,usable-memory-range of /chosen", Bytes(found.withheld));
    }
    if found.limited != 0 {
        warn!("memory: {} left out by the boot argument mem=", Bytes(found.limited));
    }
    match found.initrd_error {
        Some(InitrdError::Tree(error)) => warn!("no initrd: {}", tree.locate(error)),
        Some(error) => warn!("no initrd: {error}"),
        None => {}
    }
    if found.still_mapped != 0 {
        warn!("memory: {} ranges of no-map regions stay mapped, as they are in use", found.still_mapped);
        for region in tree.reserved_memory().filter(|region| region.is_enabled() && region.is_no_map()) {
            for range in region.ranges().flatten().filter(|range| memblock.maps_any(*range)) {
                warn!("  {} {range} lies over the kernel image, the device tree or the initrd", region.node().path());
            }
        }
    }
    if found.passed_over != 0 {
        for region in tree.reserved_memory().filter(|region| around.passes_over(region)) {
            info!("memory: {} is not reserved, since cma= says what the default area is", region.node().path());
        }
    }
    if found.unplaced != 0 {
        warn!("memory: no room for {} reserved-memory regions without an address", found.unplaced);
        let reserved = memblock.reserved();
        let dynamic = tree.reserved_memory().filter(|region| region.is_enabled() && region.is_dynamic());
        for region in dynamic.filter(|region| reserved.reserved_for(region.node().offset()).is_none()) {
            warn!("  no room for {}", region.node().path());
        }
    }
    Ok(found)
}
