//! Address spaces: Linux's cases by name, behaviours by number, several CPUs, and random histories against a model.

mod areas;
mod block;
mod cpus;
mod deferred;
mod early;
mod edges;
mod held;
pub(crate) mod kernel;
mod late;
mod lazy;
mod linux;
pub(crate) mod machine;
mod mapping;
mod model;
mod resize;

use machine::{Machine, Space, run_on};
use quarry::addr::{PAGE_SIZE, VirtAddr, VirtRange};
use quarry::mm::vmalloc::{AreaRef, AreaRequest, Tuning, VmFlags};

const START: u64 = 0xffff_8001_0000_0000;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// `pages` pages from the start of the region, `first` pages further on.
fn pages_at(first: u64, pages: u64) -> VirtRange {
    VirtRange::from_size(VirtAddr::new(START + first * PAGE_SIZE), pages * PAGE_SIZE).unwrap()
}

/// A space of `pages` pages on a machine with 1 GiB of RAM.
fn space<'a>(machine: Machine<'a>, pages: u64) -> Space<'a> {
    run_on(0);
    let space = Space::new(machine);
    space.set_up(&Tuning { region: pages_at(0, pages), ram_pages: GIB / PAGE_SIZE }).unwrap();
    space.check().unwrap();
    space
}

/// An area with pages of its own, as `vmalloc` makes them.
fn alloc<'a>(space: &Space<'a>, request: &AreaRequest) -> Option<AreaRef<'a>> {
    let area = space.alloc(request).ok()?;
    raw!(area.give_pages(space.hal().map(area.info().range))).unwrap();
    raw!(area.complete());
    Some(area)
}

/// As `vfree` gives it back.
fn free(space: &Space<'_>, start: VirtAddr) {
    space.retire(raw!(space.remove(start, VmFlags::empty())).unwrap());
}

/// `pages` pages with a guard page.
fn of_pages(pages: u64) -> AreaRequest {
    AreaRequest::new(pages * PAGE_SIZE, VmFlags::ALLOC)
}

/// Purges everything, and sees that the whole region is one gap again and nothing is translated.
fn all_free(space: &Space<'_>) {
    space.purge_all();
    space.check().unwrap();
    assert_eq!(space.iter().count(), 0);
    let region = space.region().unwrap();
    let whole = AreaRequest::new(region.size(), VmFlags::NO_GUARD);
    let area = space.alloc(&whole).expect("one gap");
    raw!(space.recycle(space.abandon(area).unwrap()));
    assert_eq!(space.hal().translated(), 0);
    assert_eq!(space.hal().too_early.load(std::sync::atomic::Ordering::Relaxed), 0, "promise 3");
}
