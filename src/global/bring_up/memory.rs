//! Tells memblock of all memory.
#![forbid(unsafe_code)]

use super::{BringUpError, Memory};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::global::linear::phys_range_to_virt;
use crate::global::memblock;
use crate::mm::layout::{LINEAR_MAP_SIZE, REGIONS};
use crate::mm::memblock::{ContiguousRequest, Surroundings};
use crate::mm::page::MAX_SPAN;

/// Fills memblock; with `cma` the default contiguous area is not the tree's. Sees that the linear map of all RAM fits into the address map.
pub(super) fn fill(memory: &Memory<'_>, physical_bits: u8, cma: Option<ContiguousRequest>) -> Result<(), BringUpError> {
    let end = PhysAddr::new((1_u64 << physical_bits.min(63)).min(LINEAR_MAP_SIZE));
    let mut memblock = memblock();
    match *memory {
        Memory::Known => return Ok(()),
        Memory::Ranges { ram, reserved } => {
            for bank in ram {
                memblock.add(bank.start(), bank.size())?;
            }
            memblock.trim_memory(PAGE_SIZE)?;
            memblock.cap_memory_end(end)?;
            for range in reserved {
                memblock.reserve(range.start(), range.size())?;
            }
        }
        Memory::Tree { tree, range, image } => {
            let around = Surroundings {
                image,
                boot_only: PhysRange::EMPTY,
                device_tree: range,
                end,
                span: MAX_SPAN,
                limit: None,
                other_cma: cma.is_some(),
            };
            let _ = memblock.discover(tree, &around)?;
        }
    }
    memblock.usable_size()?;
    // Nothing is ever at the address zero.
    if phys_range_to_virt(PhysRange::from_size(PhysAddr::ZERO, PAGE_SIZE).unwrap_or_default())
        .is_some_and(|page| page.start().get() == 0)
    {
        memblock.reserve(PhysAddr::ZERO, PAGE_SIZE)?;
    }
    for bank in memblock.mapped_ranges() {
        let virt = phys_range_to_virt(bank).ok_or(BringUpError::LinearMap(bank))?;
        let [_, others @ ..] = &REGIONS;
        if others.iter().any(|region| region.start < virt.end() && virt.start() < region.end) {
            return Err(BringUpError::LinearMap(bank));
        }
    }
    Ok(())
}
