//! The calls one by one, each with what it refuses.

use super::world::{Entry, LAYOUT, REGISTERS, World, addr, object};
use super::{R, RW, RX, layout, page};
use quarry::mm::user::map::{
    Backing, Limits, MapError, MapLayout, MmapRequest, Place, Placement, STACK_GUARD_GAP, Usage, VmFlags,
};

const PAGE: u64 = 4096;
const END: u64 = LAYOUT.task_size.get();

fn fixed(low: u64, pages: u64) -> MmapRequest {
    MmapRequest::anonymous(pages * PAGE, RW).at(Place::Fixed(addr(low)))
}

fn limited(limits: Limits) -> World {
    World::with(LAYOUT, limits)
}

// Behaviour 417
#[test]
fn mmap_refuses_what_lies_outside_the_space_or_has_no_size() {
    let mut world = World::new();
    let errno = |world: &mut World, request: &MmapRequest| world.mmap(request).map_err(MapError::errno);
    assert_eq!(errno(&mut world, &fixed(0, 1)), Err(1));
    assert_eq!(errno(&mut world, &fixed(LAYOUT.mmap_min.get() - PAGE, 1)), Err(1));
    assert_eq!(errno(&mut world, &fixed(END - PAGE, 1)), Ok(END - PAGE));
    assert_eq!(errno(&mut world, &fixed(END, 1)), Err(12));
    assert_eq!(errno(&mut world, &fixed(END - PAGE, 2)), Err(12));
    assert_eq!(errno(&mut world, &fixed(!4095, 2)), Err(12));
    assert_eq!(errno(&mut world, &fixed(page(0), 0)), Err(22));
    assert_eq!(errno(&mut world, &fixed(page(0) + 1, 1)), Err(22));
    for size in [u64::MAX, u64::MAX - 4096, END + 1] {
        assert_eq!(errno(&mut world, &MmapRequest::anonymous(size, RW)), Err(12), "{size:#x}");
    }
    assert_eq!(errno(&mut world, &MmapRequest::anonymous(END, RW)), Err(12));
    assert_eq!(errno(&mut world, &MmapRequest::anonymous(PAGE, RW | RX)), Err(13));
    assert_eq!(errno(&mut world, &MmapRequest::anonymous(PAGE, RW | VmFlags::SEALED)), Err(22));
    assert_eq!(errno(&mut world, &MmapRequest::anonymous(PAGE, RW | VmFlags::SHARED)), Err(22));
    assert_eq!(errno(&mut world, &MmapRequest { align: 3, ..MmapRequest::anonymous(PAGE, RW) }), Err(22));
    let unaligned = MmapRequest { backing: Backing::File(object(1)), offset: 8, ..MmapRequest::anonymous(PAGE, R) };
    assert_eq!(errno(&mut world, &unaligned), Err(22));
    assert_eq!(world.map.map_count(), 1);
}

// Behaviour 417
#[test]
fn a_hint_is_followed_where_it_is_free() {
    let mut world = World::new();
    let hint = |low, pages: u64| MmapRequest::anonymous(pages * PAGE, R).at(Place::Hint(addr(low)));
    assert_eq!(world.mmap(&hint(page(3) + 5, 2)), Ok(page(3)), "rounded down to a page");
    let base = LAYOUT.mmap_base.get();
    assert_eq!(world.mmap(&hint(page(4), 2)), Ok(base - 2 * PAGE), "taken: anywhere");
    assert_eq!(world.mmap(&hint(0, 1)), Ok(LAYOUT.mmap_min.get()), "raised to the lowest address");
    assert_eq!(world.mmap(&hint(END, 1)), Ok(base - 3 * PAGE), "outside: anywhere");
    let exclusive = MmapRequest::anonymous(PAGE, R).at(Place::FixedNoReplace(addr(page(4))));
    assert_eq!(world.mmap(&exclusive).map_err(MapError::errno), Err(17));
}

#[test]
fn what_others_may_write_to_is_not_executed() {
    let mut world = World::new();
    let shared = |access, backing| MmapRequest { backing, ..MmapRequest::anonymous(PAGE, access | VmFlags::SHARED) };
    let errno = |result: Result<u64, MapError>| result.map_err(MapError::errno);
    assert_eq!(errno(world.mmap(&shared(RX, Backing::Shared(object(1))))), Err(13));
    let low = world.mmap(&shared(R, Backing::Shared(object(1)))).unwrap();
    assert_eq!(world.mprotect(low, low + PAGE, RX).map_err(MapError::errno), Err(13));
    assert_eq!(errno(world.mmap(&shared(RX, Backing::File(object(2))))), Err(13));
    // A file that nobody may write to.
    world.below.file_takes.set(VmFlags::MAYWRITE);
    assert!(world.mmap(&shared(RX, Backing::File(object(2)))).is_ok());
}

#[test]
fn mappings_go_below_one_another_or_above() {
    for (placement, places) in [(Placement::TopDown, [1, 2, 3]), (Placement::BottomUp, [0, 1, 2])] {
        let mut world = World::with(MapLayout { placement, ..LAYOUT }, Limits::DEFAULT);
        let base = LAYOUT.mmap_base.get();
        for place in places {
            let expected = if placement == Placement::TopDown { base - place * PAGE } else { base + place * PAGE };
            assert_eq!(world.mmap(&MmapRequest::anonymous(1, RW)), Ok(expected));
        }
        assert_eq!(world.map.map_count(), 1, "all of them are one area");
        // No record is needed for that.
        world.below.fail_after.set(Some(0));
        assert!(world.mmap(&MmapRequest::anonymous(1, RW)).is_ok());
        assert_eq!(world.mmap(&MmapRequest::anonymous(1, R)), Err(MapError::NoMemory));
        world.below.fail_after.set(None);
    }
}

#[test]
fn where_the_base_has_no_room_its_other_side_has() {
    let layout = MapLayout { mmap_base: addr(page(4)), mmap_min: addr(page(0)), task_size: addr(page(10)), ..LAYOUT };
    let mut world = World::with(layout, Limits::DEFAULT);
    assert_eq!(world.mmap(&MmapRequest::anonymous(5 * PAGE, RW)), Ok(page(4)));
    assert_eq!(world.mmap(&MmapRequest::anonymous(4 * PAGE, RW)), Ok(page(0)));
    assert_eq!(world.mmap(&MmapRequest::anonymous(PAGE, RW)), Ok(page(9)));
    assert_eq!(world.mmap(&MmapRequest::anonymous(PAGE, RW)).map_err(MapError::errno), Err(12));
}

#[test]
fn a_fixed_mapping_takes_the_place_of_what_is_there() {
    let mut world = World::new();
    world.anonymous(page(0), page(4), RW);
    world.file(1, page(4), page(8), R);
    for number in 0..4 {
        world.touch(page(number), number).unwrap();
    }
    let (_, failures) = world.fail_every(|world| world.mmap(&fixed(page(2), 4)));
    assert_eq!(failures, 3, "two edges, and a record for what is new");
    assert_eq!(layout(&world), [(0, 6), (6, 8)]);
    assert_eq!(world.below.entries.borrow().len(), 2);
    // Of which the limits count the difference.
    let pages = world.map.usage().total;
    world.map.set_limits(Limits { address_space: pages, ..Limits::DEFAULT });
    assert!(world.mmap(&fixed(page(0), 8)).is_ok());
    assert_eq!(world.mmap(&fixed(page(0), 9)), Err(MapError::AddressSpaceLimit(pages)));
    assert_eq!(layout(&world), [(0, 8)]);
}

#[test]
fn a_device_is_mapped_with_its_frames_or_not_at_all() {
    let mut world = World::new();
    world.anonymous(page(0), page(4), RW);
    world.touch(page(1), 11).unwrap();
    world.below.file_adds.set(VmFlags::IO | VmFlags::PFNMAP | VmFlags::DONTEXPAND | VmFlags::HOOKS);
    world.below.file_fills.set(Some(REGISTERS));
    let request = MmapRequest {
        backing: Backing::File(object(7)),
        flags: RW | VmFlags::SHARED,
        ..MmapRequest::anonymous(PAGE, RW).at(Place::Fixed(addr(page(1))))
    };
    let (_, failures) = world.fail_every(|world| world.mmap(&request));
    assert_eq!(failures, 6, "the file, two records, two edges, the frames");
    assert_eq!(world.below.entries.borrow()[&(page(1) >> 12)], Entry::Page(0x9010, RW));
    let (_, failures) = world.fail_every(|world| world.mmap(&MmapRequest { place: Place::Anywhere, ..request }));
    assert_eq!(failures, 3);
    assert_eq!(world.below.opened.get(), 2);
    // A file that is not to be written to.
    world.below.file_takes.set(VmFlags::MAYWRITE);
    assert_eq!(world.mmap(&request).map_err(MapError::errno), Err(13));
    // Device memory is not executable; a private mapping cannot be written to; both whatever the file says.
    world.below.file_takes.set(VmFlags::empty());
    let exec = MmapRequest { flags: RX, place: Place::Anywhere, ..request };
    assert_eq!(world.mmap(&exec).map_err(MapError::errno), Err(13));
    let private = MmapRequest { flags: RW, place: Place::Anywhere, ..request };
    assert_eq!(world.mmap(&private).map_err(MapError::errno), Err(13));
    let low = world.mmap(&MmapRequest { flags: R, ..private }).unwrap();
    assert_eq!(world.mprotect(low, low + PAGE, RW).map_err(MapError::errno), Err(13));
    world.munmap(low, low + PAGE).unwrap();
    world.below.file_takes.set(VmFlags::MAYWRITE);
    world.below.file_fills.set(None);
    world.below.file_adds.set(VmFlags::WRITE | VmFlags::SEALED | VmFlags::LOCKED);
    let low = world.mmap(&MmapRequest { flags: R, place: Place::Anywhere, ..request }).unwrap();
    let flags = world.map.area_at(addr(low)).unwrap().flags();
    assert_eq!(flags, R | VmFlags::MAYREAD | VmFlags::MAYEXEC | VmFlags::FILE, "a file adds no more than it may");
}

// Behaviour 419
#[test]
fn munmap_trims_splits_and_refuses() {
    let mut world = World::new();
    for (low, high, access) in [(0, 4, RW), (4, 8, R), (8, 12, RW), (20, 24, RW)] {
        world.anonymous(page(low), page(high), access);
    }
    let errno = |result: Result<(), MapError>| result.map_err(MapError::errno);
    assert_eq!(world.munmap(page(12), page(20)), Ok(()), "a hole");
    assert_eq!(world.map.map_count(), 4);
    assert_eq!(errno(world.munmap(page(0) + 1, page(1))), Err(22));
    assert_eq!(errno(world.munmap(page(0), page(0))), Err(22));
    assert_eq!(errno(world.munmap(page(0), END + PAGE)), Err(22));
    assert_eq!(errno(world.map.munmap(&world.below, addr(page(0)), u64::MAX)), Err(22));
    world.touch(page(3), 3).unwrap();
    world.munmap(page(2), page(10)).unwrap();
    assert_eq!(layout(&world), [(0, 2), (10, 12), (20, 24)]);
    assert_eq!(*world.below.unmapped.borrow(), [(page(2), page(10))], "one invalidation");
    assert!(world.below.entries.borrow().is_empty());
    // In the middle an area is cut in two.
    let ((), failures) = world.fail_every(|world| world.munmap(page(21), page(22)));
    assert_eq!(failures, 3);
    assert_eq!(layout(&world), [(0, 2), (10, 12), (20, 21), (22, 24)]);
    world.map.set_limits(Limits { map_count: 4, ..Limits::DEFAULT });
    world.anonymous(page(12), page(16), RW);
    let before = world.state();
    assert_eq!(errno(world.munmap(page(13), page(14))), Err(12));
    assert_eq!(errno(world.mprotect(page(13), page(14), R)), Err(12));
    assert_eq!(world.mmap(&fixed(page(40), 1)).map_err(MapError::errno), Err(12));
    assert_eq!(world.state(), before);
    assert_eq!(world.munmap(page(14), page(16)), Ok(()), "an end is trimmed without");
    world.munmap(0, END).unwrap();
    assert_eq!(world.map.map_count(), 0);
}

// Behaviour 420
#[test]
fn mprotect_stops_where_nothing_is_mapped_or_not_permitted() {
    let mut world = World::new();
    world.anonymous(page(0), page(4), RW);
    world.anonymous(page(6), page(8), RW);
    let errno = |result: Result<(), MapError>| result.map_err(MapError::errno);
    assert_eq!(errno(world.mprotect(page(2), page(8), R)), Err(12), "over a hole");
    assert_eq!(layout(&world), [(0, 2), (2, 4), (6, 8)], "the part before it is done");
    assert_eq!(errno(world.mprotect(page(4), page(8), R)), Err(12));
    assert_eq!(errno(world.mprotect(page(0), page(1), RW | RX)), Err(13), "writable and executable");
    assert_eq!(errno(world.mprotect(page(0) + 8, page(1), R)), Err(22));
    assert_eq!(world.mprotect(page(0), page(0), R), Ok(()));
    assert_eq!(errno(world.mprotect(page(0), page(1), VmFlags::LOCKED)), Err(22));
    // A file that may not be written to, behind memory that may.
    world.below.file_takes.set(VmFlags::MAYWRITE);
    world.file(1, page(8), page(10), R);
    assert_eq!(errno(world.mprotect(page(6), page(10), R)), Ok(()));
    assert_eq!(errno(world.mprotect(page(7), page(10), RW)), Err(13));
    assert_eq!(layout(&world), [(0, 2), (2, 4), (6, 7), (7, 8), (8, 10)]);
    // An area that turns writable counts as data.
    let data = world.map.usage().data;
    world.map.set_limits(Limits { data, ..Limits::DEFAULT });
    assert_eq!(world.mprotect(page(2), page(4), RW), Err(MapError::DataLimit(data)));
    assert_eq!(world.mprotect(page(0), page(2), RX), Ok(()));
    assert_eq!(world.mprotect(page(2), page(4), RW), Ok(()));
}

#[test]
fn mprotect_goes_over_many_areas_and_makes_one_of_them() {
    let mut world = World::new();
    for number in 0..8 {
        world.anonymous(page(number), page(number + 1), if number % 2 == 0 { RW } else { R });
        world.touch(page(number), number).unwrap();
    }
    let ((), failures) = world.fail_every(|world| world.map.mprotect(&world.below, addr(page(1)), 6 * PAGE, RX));
    assert_eq!(failures, 0, "no edge inside an area");
    assert_eq!(layout(&world), [(0, 1), (1, 7), (7, 8)]);
    world.mprotect(page(0), page(8), RW).unwrap();
    assert_eq!(layout(&world), [(0, 8)]);
    assert_eq!(world.below.entries.borrow().len(), 8);
    let ((), failures) = world.fail_every(|world| world.mprotect(page(3), page(8), R));
    assert_eq!(failures, 2);
}

// Behaviour 421
#[test]
fn mremap_shrinks_grows_and_moves() {
    let mut world = World::new();
    world.anonymous(page(0), page(4), RW);
    for number in 0..4 {
        world.touch(page(number), 100 + number).unwrap();
    }
    assert_eq!(world.mremap(page(0), 4 * PAGE, 2 * PAGE, None), Ok(page(0)));
    assert_eq!(layout(&world), [(0, 2)]);
    assert_eq!(world.mremap(page(0), 2 * PAGE, 6 * PAGE, None), Ok(page(0)));
    assert_eq!((layout(&world), world.below.entries.borrow().len()), (vec![(0, 6)], 2));
    world.anonymous(page(8), page(9), R);
    assert_eq!(world.mremap(page(0), 6 * PAGE, 9 * PAGE, None).map_err(MapError::errno), Err(12), "no room");
    // It moves to where there is room.
    let request = quarry::mm::user::map::MremapRequest {
        addr: addr(page(0)),
        old_size: 6 * PAGE,
        new_size: 9 * PAGE,
        may_move: true,
        to: None,
    };
    let (moved, failures) = world.fail_every(|world| world.map.mremap(&world.below, &request));
    assert_eq!(failures, 1, "its record goes with it");
    let moved = moved.get();
    assert_eq!(moved, LAYOUT.mmap_base.get() - 9 * PAGE);
    let content = |world: &World, at: u64| world.below.entries.borrow().get(&(at >> 12)).copied();
    assert_eq!(content(&world, moved + PAGE), Some(Entry::Page(101, RW)));
    assert_eq!(layout(&world)[0], (8, 9), "the old range is gone");
    // A part of it moves over what is there, and gets smaller.
    let (_, failures) = world.fail_every(|world| world.mremap(moved, 3 * PAGE, 2 * PAGE, Some(page(7))));
    assert_eq!(failures, 3, "an edge at its end, an edge where it is cut, the tables");
    assert_eq!(content(&world, page(8)), Some(Entry::Page(101, RW)));
    assert_eq!(layout(&world)[0], (7, 9));
    let errno = |result: Result<u64, MapError>| result.map_err(MapError::errno);
    assert_eq!(errno(world.mremap(page(7), 2 * PAGE, 2 * PAGE, Some(page(8)))), Err(22), "overlap");
    assert_eq!(errno(world.mremap(page(7), 2 * PAGE, 2 * PAGE, Some(page(6)))), Err(22), "overlap");
    assert_eq!(errno(world.mremap(page(7), 3 * PAGE, 4 * PAGE, None)), Err(14), "more than one area");
    assert_eq!(errno(world.mremap(page(70), PAGE, 4 * PAGE, None)), Err(14), "nothing there");
    assert_eq!(errno(world.mremap(page(7), PAGE, 0, None)), Err(22));
    assert_eq!(errno(world.mremap(page(7) + 1, PAGE, PAGE, None)), Err(22));
    assert_eq!(errno(world.mremap(page(7), PAGE, PAGE, Some(END - PAGE + 1))), Err(22));
    assert_eq!(errno(world.mremap(page(7), PAGE, PAGE, Some(END))), Err(22));
    assert_eq!(errno(world.mremap(page(7), PAGE, PAGE, Some(0))), Err(1));
    assert_eq!(errno(world.mremap(page(7), PAGE, END + 1, None)), Err(12));
}

#[test]
fn an_area_of_a_device_moves_and_does_not_grow() {
    let mut world = World::new();
    world.below.file_adds.set(VmFlags::IO | VmFlags::PFNMAP | VmFlags::DONTEXPAND | VmFlags::HOOKS);
    world.below.file_fills.set(Some(REGISTERS));
    world.file(1, page(0), page(2), R);
    assert_eq!(world.mremap(page(0), 2 * PAGE, 3 * PAGE, None).map_err(MapError::errno), Err(14));
    assert_eq!(world.mremap(page(0), 2 * PAGE, 2 * PAGE, Some(page(4))), Ok(page(4)));
    assert_eq!(world.map.area_at(addr(page(4))).unwrap().page_offset(), page(0) >> 12);
    assert_eq!(world.below.entries.borrow()[&(page(5) >> 12)], Entry::Page(0x9011, R));
    assert_eq!(world.below.opened.get(), 1);
}

#[test]
fn a_range_moves_out_of_the_middle_into_the_same_area() {
    let mut world = World::new();
    world.anonymous(page(0), page(10), RW);
    for number in 0..10 {
        world.touch(page(number), number).unwrap();
    }
    let (_, failures) = world.fail_every(|world| world.mremap(page(2), PAGE, PAGE, Some(page(6))));
    assert_eq!(failures, 8, "three records, four edges, the tables");
    assert_eq!(layout(&world), [(0, 2), (3, 10)]);
    assert_eq!(world.below.entries.borrow()[&(page(6) >> 12)], Entry::Page(2, RW));
}

// Behaviour 422
#[test]
fn a_stack_grows_when_it_is_touched_up_to_its_limit_or_the_guard_gap() {
    let mut world = limited(Limits { stack: 300, ..Limits::DEFAULT });
    let top = page(1000);
    let stack = MmapRequest::anonymous(2 * PAGE, RW | VmFlags::GROWSDOWN).at(Place::Fixed(addr(top - 2 * PAGE)));
    world.mmap(&stack).unwrap();
    let grow = |world: &mut World, at: u64| world.map.expand_stack(addr(at)).map(|area| area.start().get());
    assert_eq!(grow(&mut world, top - 3 * PAGE + 8), Ok(top - 3 * PAGE));
    assert_eq!(grow(&mut world, top - 1), Ok(top - 3 * PAGE), "inside already");
    assert_eq!(world.areas().next().unwrap().page_offset(), (top - 3 * PAGE) >> 12);
    // Everything that is placed keeps away from it.
    let base = top - 3 * PAGE - STACK_GUARD_GAP;
    let hint = MmapRequest::anonymous(PAGE, RW).at(Place::Hint(addr(base - PAGE)));
    assert_eq!(world.mmap(&hint), Ok(base - PAGE));
    let near = MmapRequest::anonymous(PAGE, RW).at(Place::Hint(addr(base)));
    assert_ne!(world.mmap(&near), Ok(base));
    // One page further down it would be inside the gap.
    assert_eq!(
        grow(&mut world, top - 4 * PAGE),
        Err(MapError::GuardGap(world.map.area_at(addr(base - PAGE)).unwrap().range()))
    );
    world.mprotect(base - PAGE, base, VmFlags::empty()).unwrap();
    assert_eq!(grow(&mut world, top - 4 * PAGE), Ok(top - 4 * PAGE), "what cannot be accessed needs no gap");
    world.munmap(base - PAGE, base).unwrap();
    assert_eq!(grow(&mut world, top - 300 * PAGE), Ok(top - 300 * PAGE));
    assert_eq!(grow(&mut world, top - 301 * PAGE), Err(MapError::StackLimit(300)));
    assert_eq!(grow(&mut world, 0).map_err(MapError::errno), Err(1));
    assert_eq!(world.map.usage(), Usage { total: 301, data: 1, locked: 0 });
    world.map.set_limits(Limits { address_space: 301, ..Limits::DEFAULT });
    assert_eq!(grow(&mut world, top - 301 * PAGE), Err(MapError::AddressSpaceLimit(301)));
    assert_eq!(grow(&mut world, LAYOUT.mmap_base.get() - 2 * PAGE).map_err(MapError::errno), Err(12), "no stack");
    world.check();
}

// Behaviour 429
#[test]
fn pages_are_locked_and_pinned_up_to_the_limit() {
    let mut world = limited(Limits { locked: 4, ..Limits::DEFAULT });
    let errno = |result: Result<(), MapError>| result.map_err(MapError::errno);
    world.anonymous(page(0), page(8), RW);
    assert_eq!(errno(world.map.mlock(&world.below, addr(page(0)), 5 * PAGE)), Err(11));
    assert_eq!(world.map.usage().locked, 0);
    world.map.mlock(&world.below, addr(page(2)), 3 * PAGE).unwrap();
    assert_eq!(layout(&world), [(0, 2), (2, 5), (5, 8)]);
    // Locked areas do not count twice.
    world.map.mlock(&world.below, addr(page(1)), 4 * PAGE).unwrap();
    assert_eq!((layout(&world), world.map.usage().locked), (vec![(0, 1), (1, 5), (5, 8)], 4));
    let locked = MmapRequest::anonymous(PAGE, RW | VmFlags::LOCKED);
    assert_eq!(world.mmap(&locked).map_err(MapError::errno), Err(11));
    world.mprotect(page(5), page(6), R).unwrap();
    assert_eq!(world.mremap(page(1), 4 * PAGE, 5 * PAGE, None).map_err(MapError::errno), Err(11));
    assert_eq!(errno(world.map.munlock(&world.below, addr(page(7)), 2 * PAGE)), Err(12), "a hole");
    world.map.munlock(&world.below, addr(page(0)), 2 * PAGE).unwrap();
    assert_eq!(world.map.usage().locked, 3);
    world.munmap(page(3), page(4)).unwrap();
    assert_eq!(world.map.usage().locked, 2);
    assert!(world.mmap(&locked).is_ok());
    // Pinned pages have the same limit, and their own count.
    world.map.account_pinned(4).unwrap();
    assert_eq!(errno(world.map.account_pinned(1)), Err(11));
    assert_eq!(errno(world.map.account_pinned(u64::MAX)), Err(11));
    world.map.unaccount_pinned(1);
    assert_eq!((world.map.account_pinned(1), world.map.pinned()), (Ok(()), 4));
    world.check();
}

// Behaviour 436
#[test]
fn a_sealed_area_is_not_unmapped_protected_or_moved() {
    let mut world = World::new();
    world.anonymous(page(0), page(9), R);
    world.touch(page(4), 4).unwrap();
    world.map.mseal(&world.below, addr(page(3)), 3 * PAGE).unwrap();
    assert_eq!(layout(&world), [(0, 3), (3, 6), (6, 9)]);
    let before = world.state();
    let errno = |result: Result<(), MapError>| result.map_err(MapError::errno);
    assert_eq!(errno(world.munmap(page(4), page(5))), Err(1));
    assert_eq!(errno(world.munmap(page(0), page(9))), Err(1));
    assert_eq!(errno(world.mprotect(page(4), page(5), RW)), Err(1));
    assert_eq!(world.mmap(&fixed(page(5), 2)).map_err(MapError::errno), Err(1));
    for (new, to) in [(1, None), (2, Some(page(20))), (4, None)] {
        assert_eq!(world.mremap(page(4), 2 * PAGE, new * PAGE, to).map_err(MapError::errno), Err(1), "{new} {to:?}");
    }
    assert_eq!(world.mremap(page(6), PAGE, PAGE, Some(page(4))).map_err(MapError::errno), Err(1), "onto it");
    for advice in [super::advice::DONTNEED, super::advice::FREE, super::advice::GUARD] {
        assert_eq!(errno(world.map.madvise(&world.below, addr(page(4)), PAGE, advice)), Err(1));
    }
    assert_eq!(world.state(), before);
    assert_eq!(errno(world.mprotect(page(0), page(9), RW)), Err(1));
    assert_eq!(layout(&world), [(0, 3), (3, 6), (6, 9)]);
    assert!(world.areas().next().unwrap().flags().contains(VmFlags::WRITE), "the part before it is done");
    assert_eq!(errno(world.map.mseal(&world.below, addr(page(8)), 2 * PAGE)), Err(12));
}

#[test]
fn the_heap_grows_and_shrinks_at_its_end() {
    let mut world = limited(Limits { data: 16, ..Limits::DEFAULT });
    world.map.set_start_brk(addr(page(0) + 8));
    let brk = |world: &mut World, to: u64| world.map.brk(&world.below, addr(to)).map(|end| end.get());
    assert_eq!(brk(&mut world, page(0) + 100), Ok(page(0) + 100));
    assert_eq!(layout(&world), [(1, 1); 0], "in the page of the program");
    assert_eq!(brk(&mut world, page(3)), Ok(page(3)));
    world.touch(page(2), 2).unwrap();
    // Growing needs no record any more.
    world.below.fail_after.set(Some(0));
    assert_eq!(brk(&mut world, page(4) + 1), Ok(page(4) + 1));
    world.below.fail_after.set(None);
    assert_eq!(layout(&world), [(1, 5)]);
    assert_eq!(brk(&mut world, page(2)), Ok(page(2)));
    assert_eq!((layout(&world), world.below.entries.borrow().len()), (vec![(1, 2)], 0));
    assert_eq!(brk(&mut world, page(0)).map_err(MapError::errno), Err(22));
    world.anonymous(page(8), page(9), R);
    assert_eq!(brk(&mut world, page(7)), Ok(page(7)), "a page stays free");
    assert!(brk(&mut world, page(7) + 1).is_err());
    assert_eq!(world.map.current_brk().get(), page(7));
    world.munmap(page(8), page(9)).unwrap();
    assert_eq!(brk(&mut world, page(18)), Err(MapError::DataLimit(16)));
    assert_eq!(brk(&mut world, page(17)), Ok(page(17)));
    assert!(brk(&mut world, u64::MAX).is_err());
    // A mapping in the place into which the area would grow.
    world.munmap(page(16), page(17)).unwrap();
    world.anonymous(page(16), page(18), R);
    assert!(brk(&mut world, page(19)).is_err());
    world.check();
}

#[test]
fn a_child_gets_what_is_to_be_copied_with_nothing_locked() {
    let mut world = World::new();
    world.below.file_adds.set(VmFlags::HOOKS);
    world.file(1, page(0), page(4), RW);
    world.anonymous(page(4), page(6), RW);
    world.map.madvise(&world.below, addr(page(4)), PAGE, quarry::mm::user::map::Advice::DontFork).unwrap();
    world.map.mlock(&world.below, addr(page(5)), PAGE).unwrap();
    world.map.set_start_brk(addr(page(8)));
    world.map.brk(&world.below, addr(page(9))).unwrap();
    for failures in 0..3 {
        world.below.fail_after.set(Some(failures));
        assert_eq!(world.map.fork(&world.below).err(), Some(MapError::NoMemory));
        world.below.fail_after.set(None);
        world.check();
    }
    let mut child = world.map.fork(&world.below).ok().unwrap();
    child.check().unwrap();
    let areas: Vec<_> = child.areas().map(|area| ((area.start().get() - page(0)) / PAGE, area.pages())).collect();
    assert_eq!(areas, [(0, 4), (5, 1), (8, 1)]);
    assert_eq!(child.usage(), Usage { total: 6, data: 6, locked: 0 });
    assert_eq!((child.current_brk().get(), child.start_brk().get()), (page(9), page(8)));
    assert_eq!((world.below.references.borrow()[&object(1)], world.below.opened.get()), (2, 2));
    child.clear(&world.below);
    assert_eq!(child.map_count(), 0);
}

#[test]
fn areas_are_found_by_address() {
    let mut world = World::new();
    world.anonymous(page(2), page(4), RW);
    world.anonymous(page(6), page(8), RW);
    let start = |area: Option<&quarry::mm::user::map::Vma>| area.map(|area| (area.start().get() - page(0)) / PAGE);
    let map = &world.map;
    assert_eq!(start(map.find_vma(addr(0))), Some(2));
    assert_eq!(start(map.find_vma(addr(page(4) - 1))), Some(2));
    assert_eq!(start(map.find_vma(addr(page(4)))), Some(6));
    assert_eq!(start(map.find_vma(addr(page(8)))), None);
    assert_eq!(start(map.area_at(addr(page(2)))), Some(2));
    assert_eq!(start(map.area_at(addr(page(4)))), None);
    assert_eq!(start(map.find_intersection(addr(page(4)), addr(page(6)))), None);
    assert_eq!(start(map.find_intersection(addr(page(4)), addr(page(6) + 1))), Some(6));
    assert_eq!(map.areas_from(addr(page(3))).count(), 2);
    assert_eq!(map.areas_from(addr(page(4))).count(), 1);
    assert_eq!(map.areas_from(addr(0)).count(), 2);
    assert!(size_of::<quarry::mm::user::map::Record<'_>>() <= 96);
}
