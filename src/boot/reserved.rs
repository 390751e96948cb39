//! A list of the memory that the device tree reserves, which may be read in any context.
#![forbid(unsafe_code)]

use crate::fdt::{ReservedMemory, Tree};
use crate::gfp::Gfp;
use crate::global::{KBox, KVec, memblock};
use crate::mm::io::{ReservedMap, ReservedRange};
use crate::mm::memblock::{Discovery, Surroundings};
use crate::mm::slab::SlabAllocError;

/// Records it for good. Boot CPU, when objects can be allocated.
pub(crate) fn reserved_map(tree: &Tree<'static>, found: &Discovery) -> Result<ReservedMap<'static>, SlabAllocError> {
    let mut ranges = KVec::new();
    if found.reserved_regions != 0 {
        let around = Surroundings { other_cma: found.passed_over != 0, ..Surroundings::NONE };
        let region = |node| tree.node_at(node).and_then(ReservedMemory::from_node);
        let is_passed_over =
            |range: &ReservedRange| region(range.node).is_some_and(|region| around.passes_over(&region));
        let placed = |node| memblock().reserved().reserved_for(node);
        let is_mapped = |range| memblock().maps_any(range);
        let ranges_of = ReservedMap::ranges_of(tree, placed, is_mapped);
        for range in ranges_of.filter(|range| !is_passed_over(range)) {
            ranges.reserve(1, Gfp::KERNEL)?;
            // There is room.
            let _ = ranges.push_within_capacity(range);
        }
    }
    let ranges = ranges.into_boxed_slice(Gfp::KERNEL).map_err(|refused| refused.error)?;
    Ok(ReservedMap::new(tree, KBox::leak(ranges)))
}
