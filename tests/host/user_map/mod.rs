//! The map of areas of a user address space, over page tables and files that the tests play themselves.

mod advice;
mod calls;
mod gaps;
mod histories;
mod layouts;
mod page_model;
mod text;
mod world;

use quarry::mm::user::map::VmFlags;
use world::World;

const RW: VmFlags = VmFlags::READ.union(VmFlags::WRITE);
const RX: VmFlags = VmFlags::READ.union(VmFlags::EXEC);
const R: VmFlags = VmFlags::READ;

/// Where the tests count pages from: page 0 of a layout.
const BASE: u64 = 0x10_0000;

fn page(number: u64) -> u64 {
    BASE + number * 4096
}

/// Expected area of a layout: first page, one past the last, page offset from that of page 0.
fn layout(world: &World) -> Vec<(u64, u64)> {
    world.areas().map(|area| ((area.start().get() - BASE) / 4096, (area.end().get() - BASE) / 4096)).collect()
}
