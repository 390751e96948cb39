//! Areas that exist before the space does.

use super::machine::{Machine, memory};
use super::{GIB, START, Space, all_free, alloc, free, of_pages, pages_at};
use quarry::addr::{PAGE_SIZE, PhysAddr};
use quarry::mm::vmalloc::{AreaError, Tuning, VmFlags, VmapSetupError};

#[test]
fn early_areas_are_taken_over() {
    let mut nodes = memory(64);
    let space = Space::new(Machine::new(4, &mut nodes));
    let region = pages_at(0, 1024);
    let device = PhysAddr::new(0x0900_0000);
    space.add_early(pages_at(0, 2), VmFlags::MAP, None).unwrap();
    space.add_early(pages_at(100, 20), VmFlags::IOREMAP, Some(device)).unwrap();
    let next = space.place_early(region, 8 * PAGE_SIZE).unwrap();
    assert_eq!(next, pages_at(120, 1).start());
    assert_eq!(space.add_early(pages_at(119, 2), VmFlags::MAP, None), Err(AreaError::Overlap(pages_at(100, 20))));
    space.set_up(&Tuning { region, ram_pages: GIB / PAGE_SIZE }).unwrap();
    space.check().unwrap();
    let listed: Vec<_> = space.iter().map(|area| (area.range, area.flags, area.phys)).collect();
    let expected = [(pages_at(0, 2), VmFlags::MAP, None), (pages_at(100, 20), VmFlags::IOREMAP, Some(device))];
    assert_eq!(listed, expected);
    assert_eq!(space.add_early(pages_at(500, 1), VmFlags::MAP, None), Err(AreaError::AlreadyReady));
    // Nothing is put over them.
    let area = alloc(&space, &of_pages(97)).unwrap();
    assert_eq!(area.start().get(), START + 2 * PAGE_SIZE);
    assert_eq!(alloc(&space, &of_pages(1)).unwrap().start(), pages_at(120, 1).start());
    free(&space, area.start());
    free(&space, pages_at(120, 1).start());
    for start in [0, 100] {
        raw!(space.recycle(space.remove(pages_at(start, 1).start(), VmFlags::empty()).unwrap()));
    }
    all_free(&space);
}

#[test]
fn an_early_area_outside_the_region_is_refused() {
    let mut nodes = memory(64);
    let space = Space::new(Machine::new(1, &mut nodes));
    space.add_early(pages_at(10, 2), VmFlags::MAP, None).unwrap();
    let small = Tuning { region: pages_at(0, 11), ram_pages: 1024 };
    assert_eq!(space.set_up(&small), Err(VmapSetupError::EarlyOutside(pages_at(10, 2))));
    assert!(matches!(space.alloc(&of_pages(1)), Err(AreaError::NotReady)));
    space.set_up(&Tuning { region: pages_at(0, 12), ..small }).unwrap();
    space.check().unwrap();
}
