//! memblock: the behaviours by number, growth at every position, and random operations against a model.

mod add;
mod alloc;
mod arena;
mod bootmem;
mod contiguous;
mod damage;
mod device_tree;
mod discover;
mod grow;
mod handover;
mod limits;
mod model;
mod nomap;
mod properties;
mod remove;

use arena::Access;
use quarry::addr::{PhysAddr, PhysRange};
use quarry::fdt::Tree;
use quarry::mm::io::{ReservedMap, ReservedRange};
use quarry::mm::memblock::{Memblock, RegionList, Surroundings};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Miri takes a thousand times as long: of a hundred positions it tries a few.
const STRIDE: usize = if cfg!(miri) { 50 } else { 1 };

/// A memblock that cannot reach memory, as before the linear map exists.
type Unmapped = Memblock<'static, Option<Access<'static>>>;

fn unmapped() -> Unmapped {
    Memblock::new(None)
}

/// The reserved regions of a tree, on a machine whose kernel lies in `image`.
pub(crate) fn reserved_ranges(tree: &Tree<'static>, image: PhysRange) -> Vec<ReservedRange> {
    let mut memblock = unmapped();
    memblock.discover(tree, &Surroundings { image, ..Surroundings::NONE }).unwrap();
    let placed = |node| memblock.reserved().reserved_for(node);
    ReservedMap::ranges_of(tree, placed, |range| memblock.maps_any(range)).collect()
}

/// One that knows of the memory `size` bytes from `base`.
fn with_memory(base: u64, size: u64) -> Unmapped {
    let mut memblock = unmapped();
    memblock.add(at(base), size).unwrap();
    memblock
}

fn at(addr: u64) -> PhysAddr {
    PhysAddr::new(addr)
}

fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(at(start), size).unwrap()
}

/// The regions of a list as base and size.
fn regions<const INIT: usize>(list: &RegionList<'_, INIT>) -> Vec<(u64, u64)> {
    list.regions().iter().map(|region| (region.start().get(), region.range.size())).collect()
}
