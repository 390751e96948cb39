//! Merging and splitting, in the layouts that Linux tests its own with.

use super::world::{World, addr, object};
use super::{R, RW, RX, layout, page};
use quarry::mm::user::map::{Advice, MapError, MmapRequest, Place, VmFlags};

const GUARD: VmFlags = VmFlags::MAYBE_GUARD;

/// Makes the area at `at` sticky, without guards that stay.
fn make_sticky(world: &mut World, at: u64) {
    world.map.madvise(&world.below, addr(at), 4096, Advice::GuardInstall).unwrap();
    world.map.madvise(&world.below, addr(at), 4096, Advice::GuardRemove).unwrap();
}

fn is_sticky(world: &World, at: u64) -> bool {
    world.map.area_at(addr(at)).unwrap().flags().contains(GUARD)
}

// Behaviour 401
#[test]
fn a_range_that_fits_between_two_areas_makes_one_of_all() {
    let mut world = World::new();
    world.anonymous(page(0), page(1), RW);
    world.anonymous(page(2), page(3), RW);
    assert_eq!(world.map.map_count(), 2);
    world.anonymous(page(1), page(2), RW);
    let area = world.areas().next().unwrap();
    assert_eq!((area.start().get(), area.end().get(), area.page_offset()), (page(0), page(3), page(0) >> 12));
    assert_eq!(world.map.map_count(), 1);
}

// Behaviour 402
#[test]
fn other_flags_in_the_middle_make_three_areas_with_offsets_that_continue() {
    let mut world = World::new();
    world.file(1, page(0), page(3), RW);
    world.mprotect(page(1), page(2), R).unwrap();
    let found: Vec<_> = world.areas().map(|area| (area.start().get(), area.page_offset(), area.flags())).collect();
    let offset = page(0) >> 12;
    assert_eq!(
        found.iter().map(|area| (area.0, area.1)).collect::<Vec<_>>(),
        [(page(0), offset), (page(1), offset + 1), (page(2), offset + 2)]
    );
    assert!(!found[1].2.contains(VmFlags::WRITE) && found[0].2 == found[2].2);
    world.check();
}

/// Puts in a new range, sticky if asked: moved there from elsewhere, as only an area that exists can be sticky.
fn put_new(world: &mut World, low: u64, high: u64, sticky: bool) {
    if !sticky {
        return world.anonymous(page(low), page(high), RW);
    }
    let away = page(0x1000);
    world.anonymous(away, away + (high - low) * 4096, RW);
    make_sticky(world, away);
    assert_eq!(world.mremap(away, (high - low) * 4096, (high - low) * 4096, Some(page(low))), Ok(page(low)));
}

// Behaviours 404 and 416: with sticky flags in every combination.
#[test]
fn a_new_range_joins_each_neighbour_that_is_like_it() {
    for bits in 0..16_u32 {
        let sticky = |bit: u32| bits >> bit & 1 != 0;
        let mut world = World::new();
        for (bit, low, high) in [(0, 0, 2), (1, 3, 4), (2, 11, 12)] {
            world.anonymous(page(low), page(high), RW);
            if sticky(bit) {
                make_sticky(&mut world, page(low));
            }
        }
        let new = sticky(3);
        let mut step = |low, high, expected: &[(u64, u64)], stickies: &[(u64, bool)]| {
            put_new(&mut world, low, high, new);
            world.check();
            assert_eq!(layout(&world), expected, "{bits:#b}");
            for (at, sticky) in stickies {
                assert_eq!(is_sticky(&world, page(*at)), *sticky, "{bits:#b} at {at}");
            }
        };
        let (a, b, c) = (sticky(0), sticky(1), sticky(2));
        step(7, 9, &[(0, 2), (3, 4), (7, 9), (11, 12)], &[(0, a), (3, b), (7, new), (11, c)]);
        step(2, 3, &[(0, 4), (7, 9), (11, 12)], &[(0, a || b || new)]);
        step(4, 5, &[(0, 5), (7, 9), (11, 12)], &[(0, a || b || new), (7, new)]);
        step(6, 7, &[(0, 5), (6, 9), (11, 12)], &[(0, a || b || new), (6, new)]);
        step(5, 6, &[(0, 9), (11, 12)], &[(0, a || b || new), (11, c)]);
        step(10, 11, &[(0, 9), (10, 12)], &[(10, c || new)]);
        step(9, 10, &[(0, 12)], &[(0, a || b || c || new)]);
        let area = world.areas().next().unwrap();
        assert_eq!(area.page_offset(), page(0) >> 12);
        assert_eq!(world.map.map_count(), 1);
    }
}

// Behaviour 405
#[test]
fn areas_of_devices_are_never_merged() {
    for flag in [VmFlags::IO, VmFlags::DONTEXPAND, VmFlags::PFNMAP, VmFlags::MIXEDMAP] {
        let mut world = World::new();
        world.file(1, page(0), page(3), R);
        world.below.file_adds.set(flag);
        world.file(1, page(3), page(6), R);
        world.file(1, page(6), page(9), R);
        assert_eq!(layout(&world), [(0, 3), (3, 6), (6, 9)], "{flag:?}");
        world.below.file_adds.set(VmFlags::empty());
        world.file(1, page(9), page(12), R);
        assert_eq!(world.map.map_count(), 4);
        // By a change of flags neither.
        world.mprotect(page(3), page(6), RX).unwrap();
        world.mprotect(page(6), page(9), RX).unwrap();
        assert_eq!(world.map.map_count(), 4, "{flag:?}");
        world.mprotect(page(7), page(9), R).unwrap();
        world.mprotect(page(7), page(9), RX).unwrap();
        assert_eq!(layout(&world), [(0, 3), (3, 6), (6, 7), (7, 9), (9, 12)]);
    }
}

/// Areas of one file side by side: what each permits, and whether its file wants to hear of its end.
fn files(areas: &[(u64, u64, VmFlags, bool)]) -> World {
    let mut world = World::new();
    for (low, high, access, hooks) in areas {
        world.below.file_adds.set(if *hooks { VmFlags::HOOKS } else { VmFlags::empty() });
        world.file(1, page(*low), page(*high), *access);
    }
    world.check();
    assert_eq!(world.map.map_count(), areas.len());
    world
}

// Behaviour 406
#[test]
fn an_area_whose_file_wants_to_hear_of_its_end_is_not_deleted_by_a_merge() {
    // The next one would go: the one before takes the part alone.
    let mut world = files(&[(0, 3, R, false), (3, 5, RW, false), (5, 9, R, true)]);
    world.mprotect(page(3), page(5), R).unwrap();
    assert_eq!(layout(&world), [(0, 5), (5, 9)]);
    // The area itself would go.
    for areas in [
        &[(0, 3, R, false), (3, 5, RW, true)][..],
        &[(3, 5, RW, true), (5, 9, R, false)],
        &[(0, 3, R, false), (3, 5, RW, true), (5, 9, R, false)],
    ] {
        let mut world = files(areas);
        world.mprotect(page(3), page(5), R).unwrap();
        assert_eq!(world.map.map_count(), areas.len(), "{areas:?}");
        assert_eq!(world.map.area_at(addr(page(3))).unwrap().flags() & VmFlags::ACCESS, R);
    }
    // A part of it may go over, as something of it stays.
    let mut world = files(&[(0, 3, R, false), (3, 5, RW, true)]);
    world.mprotect(page(3), page(4), R).unwrap();
    assert_eq!(layout(&world), [(0, 4), (4, 5)]);
    // One that is to stay may take over others.
    let mut world = files(&[(0, 3, R, true), (3, 5, RW, false), (5, 9, R, false)]);
    world.mprotect(page(3), page(5), R).unwrap();
    assert_eq!(layout(&world), [(0, 9)]);
    assert_eq!(world.below.opened.get(), 1);
}

// Behaviour 406
#[test]
fn a_new_range_before_an_area_that_has_to_stay_extends_the_one_before_it() {
    let mut world = files(&[(0, 3, R, false), (5, 9, R, true)]);
    world.below.file_adds.set(VmFlags::empty());
    world.file(1, page(3), page(5), R);
    assert_eq!(layout(&world), [(0, 5), (5, 9)]);
    // Alone it may be extended.
    let mut world = files(&[(5, 9, R, true)]);
    world.below.file_adds.set(VmFlags::empty());
    world.file(1, page(3), page(5), R);
    world.file(1, page(9), page(10), R);
    assert_eq!(layout(&world), [(3, 10)]);
}

// Behaviour 407
#[test]
fn a_part_with_the_flags_of_a_neighbour_goes_over_to_it() {
    type Areas = &'static [(u64, u64)];
    // The areas, which of them is changed, what part, what becomes of them.
    let layouts: [(Areas, usize, (u64, u64), Areas); 5] = [
        (&[(2, 6), (6, 9)], 0, (3, 6), &[(2, 3), (3, 9)]),
        (&[(2, 6), (6, 9)], 0, (2, 6), &[(2, 9)]),
        (&[(0, 3), (3, 7)], 1, (3, 6), &[(0, 6), (6, 7)]),
        (&[(0, 3), (3, 7)], 1, (3, 7), &[(0, 7)]),
        (&[(0, 3), (3, 7), (7, 9)], 1, (3, 7), &[(0, 9)]),
    ];
    for (areas, changed, (low, high), expected) in layouts {
        for bits in 0..1_u32 << areas.len() {
            let sticky = |index: usize| bits >> index & 1 != 0;
            let mut world = World::new();
            for (index, (low, high)) in areas.iter().enumerate() {
                world.anonymous(page(*low), page(*high), if index == changed { RW } else { R });
                if sticky(index) {
                    make_sticky(&mut world, page(*low));
                }
            }
            world.touch(page(low), 7).unwrap();
            let before = world.map.area_at(addr(page(low))).unwrap().page_offset_of(addr(page(low)));
            // A merge takes no memory.
            world.below.fail_after.set(Some(usize::from(expected.len() > 1)));
            world.mprotect(page(low), page(high), R).unwrap();
            world.below.fail_after.set(None);
            world.check();
            assert_eq!(layout(&world), expected);
            assert_eq!(world.map.area_at(addr(page(low))).unwrap().page_offset_of(addr(page(low))), before);
            // The area that has the part now is sticky if one that it was made of was; what is left stays as it was.
            let joined = areas.iter().enumerate().any(|(index, area)| {
                let whole = world.map.area_at(addr(page(low))).unwrap();
                let touches =
                    index == changed || whole.start().get() <= page(area.0) && page(area.1) <= whole.end().get();
                touches && sticky(index)
            });
            assert_eq!(is_sticky(&world, page(low)), joined, "{areas:?} {bits:#b}");
        }
    }
    // A part that touches no neighbour becomes an area of its own.
    for (low, high) in [(4, 5), (5, 6), (6, 7), (4, 7), (4, 6), (5, 7)] {
        let mut world = World::new();
        for (low, high, access) in [(0, 3, R), (3, 8, RW), (8, 10, R)] {
            world.anonymous(page(low), page(high), access);
        }
        world.mprotect(page(low), page(high), R).unwrap();
        assert_eq!(layout(&world), [(0, 3), (3, low), (low, high), (high, 8), (8, 10)]);
    }
}

/// Private anonymous areas side by side: what each permits, and what is attached to it.
fn attached(areas: &[(u64, u64, VmFlags, Option<u64>)]) -> World {
    let mut world = World::new();
    for (low, high, access, attached) in areas {
        world.anonymous(page(*low), page(*high), *access);
        if let Some(number) = attached {
            assert!(world.map.attach(&world.below, addr(page(*low)), object(*number)));
            assert!(!world.map.attach(&world.below, addr(page(*low)), object(9)), "attached twice");
        }
    }
    world.check();
    world
}

// Behaviour 409
#[test]
fn between_neighbours_of_different_objects_the_one_before_wins() {
    let mut world = attached(&[(0, 3, R, Some(1)), (3, 7, RW, None), (7, 9, R, Some(2))]);
    world.mprotect(page(3), page(7), R).unwrap();
    assert_eq!(layout(&world), [(0, 7), (7, 9)]);
    let mut world = attached(&[(0, 3, R, Some(1)), (7, 9, R, Some(2))]);
    world.anonymous(page(3), page(7), R);
    assert_eq!(layout(&world), [(0, 7), (7, 9)]);
    assert_eq!(world.map.area_at(addr(page(7))).unwrap().object(), Some(object(2)));
    let mut world = attached(&[(0, 3, R, Some(1)), (3, 7, RW, Some(2))]);
    world.mprotect(page(3), page(7), R).unwrap();
    assert_eq!(layout(&world), [(0, 3), (3, 7)]);
}

// Behaviour 410
#[test]
fn what_is_attached_to_an_area_moves_to_the_one_that_takes_it_over() {
    let object_at = |world: &World, at| world.map.area_at(addr(page(at))).unwrap().object();
    // A new range makes one of two.
    let mut world = attached(&[(0, 3, RW, None), (5, 9, RW, Some(1))]);
    world.anonymous(page(3), page(5), RW);
    assert_eq!((layout(&world), object_at(&world, 0)), (vec![(0, 9)], Some(object(1))));
    world.check();
    // All three become one, with the object of the next, or of the changed one.
    for (of_changed, of_next) in [(None, Some(1)), (Some(1), None), (Some(1), Some(1))] {
        let mut world = attached(&[(0, 3, R, None), (3, 5, RW, of_changed), (5, 8, R, of_next)]);
        world.mprotect(page(3), page(5), R).unwrap();
        assert_eq!((layout(&world), object_at(&world, 0)), (vec![(0, 8)], Some(object(1))));
        world.check();
    }
    // A part goes over: both have the object.
    let mut world = attached(&[(0, 3, R, None), (3, 8, RW, Some(1))]);
    world.mprotect(page(3), page(5), R).unwrap();
    assert_eq!((object_at(&world, 0), object_at(&world, 5)), (Some(object(1)), Some(object(1))));
    let mut world = attached(&[(0, 5, RW, Some(1)), (5, 8, R, None)]);
    world.mprotect(page(3), page(5), R).unwrap();
    assert_eq!((object_at(&world, 0), object_at(&world, 5)), (Some(object(1)), Some(object(1))));
    assert_eq!(layout(&world), [(0, 3), (3, 8)]);
}

// Behaviour 411
#[test]
fn a_change_for_which_there_is_no_record_changes_nothing() {
    let mut world = attached(&[(0, 9, RW, Some(1))]);
    world.touch(page(4), 4).unwrap();
    // Two records, two edges.
    let ((), failures) = world.fail_every(|world| world.mprotect(page(3), page(5), R));
    assert_eq!(failures, 4);
    assert_eq!(layout(&world), [(0, 3), (3, 5), (5, 9)]);
    // The way back is a merge, which needs none.
    world.below.fail_after.set(Some(0));
    world.mprotect(page(3), page(5), RW).unwrap();
    world.below.fail_after.set(None);
    assert_eq!(layout(&world), [(0, 9)]);
    let (_, failures) = world.fail_every(|world| {
        let fixed = MmapRequest::anonymous(4096, R).at(Place::Fixed(addr(page(4))));
        world.mmap(&fixed)
    });
    assert_eq!(failures, 4);
    assert_eq!(layout(&world), [(0, 4), (4, 5), (5, 9)]);
}

// Behaviour 412
#[test]
fn an_area_that_grows_up_to_the_next_becomes_one_with_it() {
    let mut world = World::new();
    world.anonymous(page(0), page(1), RW);
    world.anonymous(page(4), page(9), RW);
    assert_eq!(world.mremap(page(0), 4096, 4 * 4096, None), Ok(page(0)));
    assert_eq!(layout(&world), [(0, 9)]);
    world.check();
}

// Behaviour 414
#[test]
fn an_area_that_moves_is_a_new_one_or_part_of_a_neighbour() {
    let mut world = World::new();
    world.anonymous(page(3), page(5), RW);
    world.touch(page(4), 44).unwrap();
    assert_eq!(world.mremap(page(3), 2 * 4096, 2 * 4096, Some(page(0))), Ok(page(0)));
    assert_eq!(layout(&world), [(0, 2)]);
    world.anonymous(page(6), page(8), RW);
    assert_eq!(world.mremap(page(0), 2 * 4096, 2 * 4096, Some(page(4))), Ok(page(4)));
    assert_eq!(layout(&world), [(4, 8)]);
    assert!(world.below.entries.borrow().contains_key(&(page(5) >> 12)));
    // Beside the area that it is cut from.
    assert_eq!(world.mremap(page(5), 4096, 4096, Some(page(8))), Ok(page(8)));
    assert_eq!(layout(&world), [(4, 5), (6, 9)]);
    world.check();
    // With an object its pages keep their numbers, so that it joins only what continues it.
    let mut world = attached(&[(0, 2, RW, Some(1)), (6, 8, RW, None)]);
    world.mremap(page(0), 2 * 4096, 2 * 4096, Some(page(4))).unwrap();
    assert_eq!(layout(&world), [(4, 6), (6, 8)]);
}

// Behaviour 415
#[test]
fn mappings_that_touch_make_two_areas_with_exact_bounds() {
    let mut world = World::new();
    for low in [0x30_0000, 0x25_0000, 0x30_3000, 0x24_d000] {
        world.anonymous(low, low + 0x3000, RW);
    }
    let found: Vec<_> = world.areas().map(|a| (a.start().get(), a.end().get(), a.page_offset())).collect();
    assert_eq!(found, [(0x24_d000, 0x25_3000, 0x24d), (0x30_0000, 0x30_6000, 0x300)]);
}

// Behaviour 416
#[test]
fn sets_of_flags_obey_their_algebra() {
    let all = VmFlags::all();
    assert_eq!(u32::try_from(all.iter().count()), Ok(all.bits().count_ones()));
    for one in all.iter() {
        assert!(!VmFlags::empty().intersects(one));
        for other in all.iter() {
            let (mut set, mut reversed) = (VmFlags::empty(), VmFlags::empty());
            set.insert(one);
            set.insert(other);
            reversed.insert(other);
            reversed.insert(one);
            assert_eq!(set, reversed);
            assert!(set.contains(one | other) && set.intersects(one) && set.intersects(other));
            assert_eq!(set & one, one);
            assert_eq!((set - one).contains(other), one != other);
            assert_eq!(one == other, (one ^ other).is_empty());
            // Sticky flags, and whether a file listens, keep no two areas apart; every other flag does, special ones always.
            let apart = (one ^ other) - VmFlags::STICKY - VmFlags::HOOKS;
            let special = one.intersects(VmFlags::SPECIAL);
            assert_eq!(one.merges_with(other), apart.is_empty() && !special, "{one:?} {other:?}");
        }
    }
    for bits in 0..64 {
        let flags = VmFlags::from_bits_retain(bits & 7 | (bits >> 3) << 4);
        let allowed = (flags.bits() & 7) & !(flags.bits() >> 4) == 0;
        assert_eq!(flags.access_is_allowed(), allowed, "{flags:?}");
    }
    assert!((RW | RX).is_write_exec() && !RW.is_write_exec() && !RX.is_write_exec());
}

#[test]
fn files_and_shared_memory_join_only_where_their_offsets_continue() {
    let mut world = World::new();
    world.file(1, page(0), page(2), R);
    world.file(2, page(2), page(4), R);
    assert_eq!(world.map.map_count(), 2, "different files");
    let mut request = MmapRequest {
        backing: quarry::mm::user::map::Backing::Shared(object(3)),
        offset: 0,
        ..MmapRequest::anonymous(4096, RW | VmFlags::SHARED).at(Place::FixedNoReplace(addr(page(4))))
    };
    world.mmap(&request).unwrap();
    request.place = Place::FixedNoReplace(addr(page(5)));
    world.mmap(&request).unwrap();
    assert_eq!(world.map.map_count(), 4, "the same page twice");
    request.place = Place::FixedNoReplace(addr(page(6)));
    request.offset = 4096;
    world.mmap(&request).unwrap();
    assert_eq!(layout(&world), [(0, 2), (2, 4), (4, 5), (5, 7)]);
    assert_eq!(world.below.references.borrow()[&object(3)], 2);
    request.offset = !4095;
    request.place = Place::Anywhere;
    request.size = 2 * 4096;
    assert_eq!(world.mmap(&request).map_err(MapError::errno), Err(75));
}
