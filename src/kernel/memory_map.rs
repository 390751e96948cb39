//! The memory map of the running machine: what memblock knows, with the names that the image and the device tree give.

use super::init::Machine;
use super::memmap::{MemoryMap, Owner};
use crate::addr::PhysRange;
use crate::arch::aarch64::boot;
use crate::instance;

/// Who has each byte of RAM, now.
pub(super) fn of(machine: &Machine) -> MemoryMap {
    let memblock = instance::memblock();
    let mut map = MemoryMap::new(memblock.memory().regions().iter().map(|region| region.range));
    for region in memblock.reserved().regions() {
        map.paint(region.range, Owner::Boot("tables, early heap"));
    }
    drop(memblock);

    for range in machine.tree.reservations().flatten() {
        map.paint(range, Owner::Reserved("/memreserve/"));
    }
    for region in machine.tree.reserved_memory().filter(|region| region.is_enabled()) {
        for range in region.ranges().flatten() {
            let owner = if region.is_no_map() { Owner::NoMap } else { Owner::Reserved };
            map.paint(range, owner(region.name()));
        }
    }
    for (name, range) in machine.found.placed.iter().flatten() {
        map.paint(*range, Owner::Reserved(name));
    }
    if let Some(initrd) = machine.found.initrd {
        map.paint(initrd, Owner::Reserved("initrd"));
    }
    map.paint(machine.tree_range, Owner::Reserved("device tree"));
    map.paint(machine.boot.image_range(), Owner::Kernel("padding, guard pages"));
    for (name, virt) in boot::image_sections() {
        if let Some(range) = PhysRange::from_size(machine.boot.image_phys(virt.start()), virt.size()) {
            map.paint(range, Owner::Kernel(name));
        }
    }
    map
}
