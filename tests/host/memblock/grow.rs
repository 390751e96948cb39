//! Growth: at every position, into every place but the one that is being changed, or not at all.

use super::arena::{Access, Arena};
use super::{KIB, MIB, STRIDE, at, range, regions};
use quarry::addr::{PAGE_SIZE, PhysRange};
use quarry::mm::memblock::{Direction, Memblock, MemblockError, Region, RegionFlags, Window};

const BASE: u64 = 0x4000_0000;
/// Bytes of the array with 256 slots, in whole pages.
const ARRAY: u64 = 2 * PAGE_SIZE;

/// One that knows of `size` bytes at `BASE` and hands out none above.
fn over<const INIT: usize>(arena: &Arena, size: u64) -> Memblock<'_, Access<'_>, INIT> {
    let mut memblock = Memblock::new(arena.access());
    memblock.add(at(BASE), size).unwrap();
    memblock.set_limit(at(BASE + size));
    memblock
}

/// The reserved list without the arrays of the memblock; these are reserved and overlap nothing else.
fn reserved_by_others<const INIT: usize>(memblock: &Memblock<'_, Access<'_>, INIT>) -> Vec<(u64, u64)> {
    memblock.check().unwrap();
    let arrays: Vec<_> = [memblock.memory().storage(), memblock.reserved().storage()].into_iter().flatten().collect();
    let mut left = Vec::new();
    for region in memblock.reserved().regions() {
        let mut start = region.start();
        let mut inside: Vec<_> = arrays.iter().filter(|array| region.range.contains_range(**array)).collect();
        inside.sort_by_key(|array| array.start());
        for array in inside {
            left.push((start.get(), array.start().get() - start.get()));
            start = array.end();
        }
        left.push((start.get(), region.end().get() - start.get()));
    }
    left.retain(|region| region.1 != 0);
    left
}

/// Behaviour 11.
#[test]
fn a_full_list_doubles_into_reserved_memory() {
    let arena = Arena::new(BASE, MIB);
    for direction in [Direction::TopDown, Direction::BottomUp] {
        let mut memblock: Memblock<Access> = over(&arena, MIB);
        memblock.set_direction(direction);
        memblock.allow_resize();
        for index in 0..127 {
            memblock.add(at(BASE + (index + 1) * 2 * MIB), MIB).unwrap();
        }
        assert_eq!((memblock.memory().len(), memblock.memory().capacity()), (128, 128));
        assert!(memblock.reserved().is_empty());
        memblock.add(at(BASE + 1000 * MIB), MIB).unwrap();
        memblock.check().unwrap();
        assert_eq!((memblock.memory().len(), memblock.memory().capacity()), (129, 256));
        let mut expected: Vec<_> = (0..128).map(|index| (BASE + index * 2 * MIB, MIB)).collect();
        expected.push((BASE + 1000 * MIB, MIB));
        assert_eq!(regions(memblock.memory()), expected);
        // Only the first region is within reach.
        let array = memblock.memory().storage();
        assert_eq!(array.map(PhysRange::size), Some(ARRAY));
        let start = array.map(|array| array.start().get());
        assert_eq!(regions(memblock.reserved()), [(start.unwrap(), ARRAY)]);
    }
}

/// Behaviour 11.
#[test]
fn lists_keep_doubling_and_give_their_old_arrays_back() {
    let rounds: u64 = if cfg!(miri) { 40 } else { 600 };
    let arena = Arena::new(BASE, MIB);
    let mut memblock: Memblock<Access, 2> = over(&arena, MIB);
    memblock.allow_resize();
    for index in 0..rounds {
        memblock.add(at(BASE + (index + 1) * 2 * MIB), MIB).unwrap();
        memblock.reserve(at(BASE + (index + 1) * 2 * MIB + 1), 1).unwrap();
        memblock.check().unwrap();
    }
    let capacity = (rounds + 3).next_power_of_two();
    assert_eq!([memblock.memory().capacity(), memblock.reserved().capacity()].map(|slots| slots as u64), [capacity; 2]);
    let expected: Vec<_> = (0..rounds).map(|index| (BASE + (index + 1) * 2 * MIB + 1, 1)).collect();
    assert_eq!(reserved_by_others(&memblock), expected);
    let arrays = memblock.memory().storage().unwrap().size() + memblock.reserved().storage().unwrap().size();
    assert_eq!(memblock.reserved().total(), rounds + arrays);
}

/// The ranges of behaviour 14: each as large as the array, so that a hole takes it, and page-aligned.
fn scattered(index: u64) -> (u64, u64) {
    (BASE + index * 2 * ARRAY, ARRAY)
}

/// Behaviour 14.
#[test]
fn the_last_of_129_reservations_may_be_at_any_position() {
    let size = 129 * 2 * ARRAY;
    let arena = Arena::new(BASE, size);
    for direction in [Direction::TopDown, Direction::BottomUp] {
        for hole in (0..=128).step_by(STRIDE) {
            let mut memblock: Memblock<Access> = over(&arena, size);
            memblock.set_direction(direction);
            memblock.allow_resize();
            for index in (0..129).filter(|&index| index != hole) {
                let (base, size) = scattered(index);
                memblock.reserve(at(base), size).unwrap();
            }
            assert_eq!((memblock.reserved().len(), memblock.reserved().storage()), (128, None));
            let (base, size) = scattered(hole);
            memblock.reserve(at(base), size).unwrap();
            assert_eq!(memblock.reserved().capacity(), 256, "hole {hole}");
            let array = memblock.reserved().storage().unwrap();
            assert!((0..129).all(|index| {
                let (base, size) = scattered(index);
                !array.overlaps(range(base, size))
            }));
            assert_eq!(memblock.reserved().total(), 130 * ARRAY);
            let expected: Vec<_> = (0..129).map(scattered).collect();
            // The array fills a gap, so both its neighbours are one region with it.
            assert!(reserved_by_others(&memblock).iter().all(|found| expected.contains(found)));
            assert_eq!(reserved_by_others(&memblock), expected);
        }
    }
}

/// Behaviour 14, for the memory list.
#[test]
fn the_last_of_129_memory_regions_may_be_at_any_position() {
    let arena = Arena::new(BASE, MIB);
    for hole in (0..=128u64).step_by(STRIDE.div_ceil(2)) {
        let bank = |index: u64| (BASE - 64 * MIB + index * MIB, if index == 64 { 512 * KIB } else { 4 * KIB });
        let mut memblock: Memblock<Access> = Memblock::new(arena.access());
        memblock.allow_resize();
        // Only the bank at BASE is within reach; where that is the hole, there is no room for the array.
        memblock.set_limit(at(BASE + 512 * KIB));
        for (base, size) in (0..129).filter(|&index| index != hole).map(bank) {
            memblock.add(at(base), size).unwrap();
        }
        let before = regions(memblock.memory());
        let (base, size) = bank(hole);
        let added = memblock.add(at(base), size);
        memblock.check().unwrap();
        if hole == 64 {
            assert_eq!(added, Err(MemblockError::NoRoomForList { list: "memory", size: ARRAY }));
            assert_eq!(regions(memblock.memory()), before);
            assert!(memblock.reserved().is_empty());
        } else {
            added.unwrap();
            assert_eq!(regions(memblock.memory()), (0..129).map(bank).collect::<Vec<_>>());
            assert_eq!(memblock.reserved().total(), ARRAY);
        }
    }
}

/// Behaviour 15.
#[test]
fn the_array_never_lies_in_what_is_being_reserved() {
    let arena = Arena::new(BASE, 4 * MIB);
    // Full: 128 bytes apart. Above them two places for the array: a wide one and a tight one.
    let (wide, tight) = (range(BASE + MIB, 64 * KIB), range(BASE + 2 * MIB, ARRAY));
    for direction in [Direction::TopDown, Direction::BottomUp] {
        for (reserved, left) in [(wide, Some(tight)), (tight, Some(wide)), (range(BASE + MIB, 2 * MIB), None)] {
            let mut memblock: Memblock<Access> = Memblock::new(arena.access());
            memblock.set_direction(direction);
            memblock.allow_resize();
            for memory in [range(BASE, 64 * KIB), wide, tight] {
                memblock.add(memory.start(), memory.size()).unwrap();
            }
            for index in 0..128 {
                memblock.reserve(at(BASE + index * 512), 256).unwrap();
            }
            let before = regions(memblock.reserved());
            let result = memblock.reserve(reserved.start(), reserved.size());
            memblock.check().unwrap();
            match left {
                Some(left) => {
                    result.unwrap();
                    let array = memblock.reserved().storage().unwrap();
                    assert!(left.contains_range(array) && !array.overlaps(reserved));
                    assert_eq!(memblock.reserved().total(), 128 * 256 + reserved.size() + ARRAY);
                }
                None => {
                    assert_eq!(result, Err(MemblockError::NoRoomForList { list: "reserved", size: ARRAY }));
                    assert_eq!(regions(memblock.reserved()), before);
                }
            }
        }
    }
}

/// Behaviour 15, where the range that is reserved covers part of the only free range: the array goes into the rest.
#[test]
fn the_array_takes_the_part_of_a_free_range_that_is_left() {
    let arena = Arena::new(BASE, MIB);
    for direction in [Direction::TopDown, Direction::BottomUp] {
        for (start, end) in [(0, 8), (4, 16), (4, 12), (8, 14), (2, 14)] {
            let reserved = range(BASE + start * PAGE_SIZE, (end - start) * PAGE_SIZE);
            let mut memblock: Memblock<Access, 4> = over(&arena, 16 * PAGE_SIZE);
            memblock.set_direction(direction);
            memblock.allow_resize();
            for index in 0..4 {
                memblock.reserve(at(BASE + 8 * MIB + index * 2), 1).unwrap();
            }
            memblock.reserve(reserved.start(), reserved.size()).unwrap();
            memblock.check().unwrap();
            let array = memblock.reserved().storage().unwrap();
            assert!(!array.overlaps(reserved) && range(BASE, 16 * PAGE_SIZE).contains_range(array));
        }
    }
}

/// Behaviour 16.
#[test]
fn a_full_list_that_may_not_grow_is_an_error() {
    let arena = Arena::new(BASE, MIB);
    let mut memblock: Memblock<Access, 4> = over(&arena, MIB);
    for index in 0..4 {
        memblock.reserve(at(BASE + index * 8 * KIB), 4 * KIB).unwrap();
    }
    let before = regions(memblock.reserved());
    let full = Err(MemblockError::ListFull { list: "reserved", slots: 4 });
    assert_eq!(memblock.reserve(at(BASE + MIB / 2), 1), full);
    assert_eq!(memblock.alloc(64, 64, Window::ANYWHERE).map(|_| ()), full);
    assert_eq!(memblock.free(range(BASE + KIB, KIB)), full);
    assert_eq!(regions(memblock.reserved()), before);
    // Calls that need no slot still work: inside, beside, between, and the end of a region.
    memblock.reserve(at(BASE + KIB), KIB).unwrap();
    memblock.reserve(at(BASE + 4 * KIB), KIB).unwrap();
    memblock.free(range(BASE + 3 * KIB, 2 * KIB)).unwrap();
    memblock.check().unwrap();
    memblock.allow_resize();
    memblock.reserve(at(BASE + MIB / 2), 1).unwrap();
    memblock.check().unwrap();
}

/// Behaviours 16, 24: the memory list, when a removal or a mark splits a region.
#[test]
fn a_split_in_a_full_list_grows_it_or_changes_nothing() {
    let arena = Arena::new(BASE, MIB);
    for grows in [false, true] {
        for index in 0..4 {
            let mut memblock: Memblock<Access, 4> = Memblock::new(arena.access());
            for bank in 0..4 {
                memblock.add(at(BASE + bank * 256 * KIB), 128 * KIB).unwrap();
            }
            if grows {
                memblock.allow_resize();
            }
            let before = regions(memblock.memory());
            let base = before[index].0;
            let removed = memblock.remove(at(base + 32 * KIB), 32 * KIB);
            memblock.check().unwrap();
            let mut after = before.clone();
            if grows {
                removed.unwrap();
                after.splice(index..=index, [(base, 32 * KIB), (base + 64 * KIB, 64 * KIB)]);
            } else {
                assert_eq!(removed, Err(MemblockError::ListFull { list: "memory", slots: 4 }));
                assert_eq!(memblock.mark_nomap(at(base + 32 * KIB), KIB), removed);
            }
            assert_eq!(regions(memblock.memory()), after);
        }
    }
}

/// The array of a growing list never lies in memory that is being removed or marked.
#[test]
fn the_array_never_lies_in_what_is_being_removed_or_marked() {
    let arena = Arena::new(BASE, MIB);
    for direction in [Direction::TopDown, Direction::BottomUp] {
        for marked in [false, true] {
            for first in (0..15).step_by(STRIDE.min(7)) {
                // The ends are reserved, so that the hole reaches from the lowest free page, or to the highest.
                let hole = range(BASE + (first + 1) * PAGE_SIZE, 8 * PAGE_SIZE);
                let mut memblock: Memblock<Access, 4> = over(&arena, 24 * PAGE_SIZE);
                memblock.set_direction(direction);
                memblock.allow_resize();
                memblock.reserve(at(BASE), PAGE_SIZE).unwrap();
                memblock.reserve(at(BASE + 23 * PAGE_SIZE), PAGE_SIZE).unwrap();
                for index in 1..4 {
                    memblock.add_with_flags(at(BASE + index * 2 * MIB), MIB, RegionFlags::NOMAP).unwrap();
                }
                if marked {
                    memblock.mark_nomap(hole.start(), hole.size()).unwrap();
                } else {
                    memblock.remove(hole.start(), hole.size()).unwrap();
                }
                memblock.check().unwrap();
                assert!(!memblock.memory().storage().unwrap().overlaps(hole));
            }
        }
    }
}

#[test]
fn memory_grows_although_the_reserved_list_is_full_too() {
    let arena = Arena::new(BASE, MIB);
    let mut memblock: Memblock<Access, 4> = over(&arena, MIB);
    memblock.allow_resize();
    for index in 0..3 {
        memblock.add(at(BASE + (index + 1) * 2 * MIB), MIB).unwrap();
    }
    for index in 0..4 {
        memblock.reserve(at(BASE + index * 8 * KIB), 4 * KIB).unwrap();
    }
    memblock.add(at(BASE + 100 * MIB), MIB).unwrap();
    assert_eq!((memblock.memory().capacity(), memblock.reserved().capacity()), (8, 8));
    let expected: Vec<_> = (0..4).map(|index| (BASE + index * 8 * KIB, 4 * KIB)).collect();
    assert_eq!(reserved_by_others(&memblock), expected);
}

/// A memblock whose arrays have both moved out.
fn grown(arena: &Arena) -> Memblock<'_, Access<'_>, 2> {
    let mut memblock: Memblock<Access, 2> = over(arena, MIB);
    memblock.allow_resize();
    for index in 0..3 {
        memblock.add(at(BASE + (index + 1) * 2 * MIB), MIB).unwrap();
        memblock.reserve(at(BASE + 10 * MIB + index * 2), 1).unwrap();
    }
    assert!(memblock.memory().storage().is_some() && memblock.reserved().storage().is_some());
    memblock.check().unwrap();
    memblock
}

#[test]
fn memory_that_holds_a_list_cannot_be_freed() {
    let arena = Arena::new(BASE, MIB);
    let mut memblock = grown(&arena);
    let before = regions(memblock.reserved());
    for storage in [memblock.memory().storage().unwrap(), memblock.reserved().storage().unwrap()] {
        let refused = Err(MemblockError::HoldsList { storage });
        assert_eq!(memblock.free(storage), refused);
        assert_eq!(memblock.free(range(storage.end().get() - 1, 1)), refused);
    }
    assert!(memblock.free(range(0, u64::MAX)).is_err());
    assert_eq!(regions(memblock.reserved()), before);
}

#[test]
fn an_array_moves_out_of_the_way_of_a_reservation_a_removal_and_a_mark() {
    let arena = Arena::new(BASE, MIB);
    type Change = for<'m> fn(&mut Memblock<'m, Access<'m>, 2>, PhysRange) -> Result<(), MemblockError>;
    let changes: [Change; 4] = [
        |memblock, range| memblock.reserve(range.start(), range.size()),
        |memblock, range| memblock.remove(range.start(), range.size()),
        |memblock, range| memblock.mark_nomap(range.start(), range.size()),
        |memblock, range| memblock.cap_memory_end(range.start()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut memblock = grown(&arena);
        let others = reserved_by_others(&memblock);
        let arrays = [memblock.memory().storage().unwrap(), memblock.reserved().storage().unwrap()];
        let low = arrays.map(PhysRange::start).into_iter().min().unwrap();
        let high = arrays.map(PhysRange::end).into_iter().max().unwrap();
        let both = PhysRange::new(low, high).unwrap();
        change(&mut memblock, both).unwrap();
        memblock.check().unwrap();
        for list in [memblock.memory().storage(), memblock.reserved().storage()] {
            assert!(!list.unwrap().overlaps(both), "change {number}");
        }
        let left = reserved_by_others(&memblock);
        if number == 0 {
            // The reservation outlives further moves of the arrays that were in it.
            for index in 0..40 {
                memblock.reserve(at(BASE + 20 * MIB + index * 2), 1).unwrap();
            }
            memblock.check().unwrap();
            assert!(!memblock.free_ranges().any(|free| free.overlaps(both)));
        } else {
            assert_eq!(left, others);
        }
    }
}

#[test]
fn an_array_without_a_place_to_go_is_an_error() {
    let arena = Arena::new(BASE, MIB);
    let mut memblock = grown(&arena);
    let before = (regions(memblock.memory()), memblock.reserved().total());
    let refused = memblock.mark_nomap(at(BASE), MIB);
    assert!(matches!(refused, Err(MemblockError::NoRoomForList { .. })));
    memblock.check().unwrap();
    assert_eq!((regions(memblock.memory()), memblock.reserved().total()), before);
}

#[test]
fn trimming_may_not_cut_an_array_off() {
    let arena = Arena::new(BASE, MIB);
    let mut memblock = grown(&arena);
    memblock.trim_memory(PAGE_SIZE).unwrap();
    memblock.trim_memory(MIB).unwrap();
    let before = regions(memblock.memory());
    assert!(matches!(memblock.trim_memory(4 * MIB), Err(MemblockError::HoldsList { .. })));
    assert_eq!(regions(memblock.memory()), before);
    memblock.check().unwrap();
}

#[test]
fn a_list_does_not_grow_into_what_is_not_mapped() {
    let arena = Arena::new(BASE, 64 * KIB);
    let mut memblock: Memblock<Access, 2> = over(&arena, MIB);
    memblock.allow_resize();
    memblock.reserve(at(BASE), 1).unwrap();
    memblock.reserve(at(BASE + 2), 1).unwrap();
    let refused = memblock.reserve(at(BASE + 4), 1);
    assert_eq!(refused, Err(MemblockError::Unreachable { range: range(BASE + MIB - PAGE_SIZE, PAGE_SIZE) }));
    assert_eq!(regions(memblock.reserved()), [(BASE, 1), (BASE + 2, 1)]);
    memblock.set_limit(at(BASE + 64 * KIB));
    memblock.reserve(at(BASE + 4), 1).unwrap();
    memblock.check().unwrap();
    assert_eq!(memblock.reserved().storage(), Some(range(BASE + 60 * KIB, PAGE_SIZE)));
}

/// Sixteen slots, with any contents.
fn sixteen<'m>() -> &'m mut [Region] {
    vec![Region { range: range(7, 7), flags: RegionFlags::NOMAP, owner: None }; 16].leak()
}

#[test]
fn a_full_list_that_may_not_grow_moves_into_the_slots_that_were_lent() {
    let arena = Arena::new(BASE, MIB);
    let mut memblock: Memblock<Access, 4> = over(&arena, MIB);
    memblock.lend_slots(sixteen, sixteen);
    for index in 0..16 {
        assert_eq!(memblock.is_lent(), index > 4, "not before they are needed");
        memblock.reserve(at(BASE + index * 8 * KIB), 4 * KIB).unwrap();
        memblock.check().unwrap();
    }
    assert_eq!((memblock.reserved().capacity(), memblock.reserved().storage()), (16, None));
    let before = regions(memblock.reserved());
    assert_eq!(before, (0..16).map(|index| (BASE + index * 8 * KIB, 4 * KIB)).collect::<Vec<_>>());
    let full = Err(MemblockError::ListFull { list: "reserved", slots: 16 });
    assert_eq!(memblock.reserve(at(BASE + MIB / 2), 1), full);
    assert_eq!(regions(memblock.reserved()), before);
    // Marking splits a region in three.
    for index in 1..8 {
        memblock.mark_nomap(at(BASE + index * 16 * KIB), 4 * KIB).unwrap();
    }
    assert_eq!((memblock.memory().len(), memblock.memory().capacity()), (15, 16));
    memblock.check().unwrap();
}

#[test]
fn lists_leave_the_slots_that_were_lent_for_memory_or_for_the_value() {
    let arena = Arena::new(BASE, MIB);
    for many in [true, false] {
        let mut memblock: Memblock<Access, 4> = over(&arena, MIB);
        memblock.lend_slots(sixteen, sixteen);
        for index in 0..12 {
            memblock.reserve(at(BASE + index * 8 * KIB), 4 * KIB).unwrap();
        }
        memblock.mark_nomap(at(BASE + 512 * KIB), 4 * KIB).unwrap();
        memblock.mark_nomap(at(BASE + 640 * KIB), 4 * KIB).unwrap();
        if !many {
            memblock.free(range(BASE + 32 * KIB, 512 * KIB)).unwrap();
            memblock.clear_nomap(at(BASE), MIB).unwrap();
        }
        let before = (regions(memblock.memory()), reserved_by_others(&memblock));
        assert!(memblock.is_lent());
        if many {
            let full = MemblockError::ListFull { list: "reserved", slots: 16 };
            assert_eq!(memblock.leave_lent_slots(), Err(full), "not while nothing is mapped");
            assert!(memblock.is_lent());
        }
        memblock.allow_resize();
        memblock.leave_lent_slots().unwrap();
        memblock.check().unwrap();
        assert!(!memblock.is_lent());
        assert_eq!((regions(memblock.memory()), reserved_by_others(&memblock)), before);
        let homes = [memblock.memory().capacity(), memblock.reserved().capacity()].map(|slots| slots == 4);
        assert_eq!(homes, [!many; 2], "back in the value where they fit");
        // And grow from there as ever.
        for index in 0..40 {
            memblock.reserve(at(BASE + 20 * MIB + index * 2), 1).unwrap();
        }
        memblock.check().unwrap();
    }
}

#[test]
fn lent_slots_that_are_no_more_than_a_list_has_are_not_used() {
    let mut memblock: Memblock<Option<Access>, 16> = Memblock::new(None);
    memblock.lend_slots(sixteen, sixteen);
    for index in 0..16 {
        memblock.add(at(BASE + index * 2 * MIB), MIB).unwrap();
    }
    let full = Err(MemblockError::ListFull { list: "memory", slots: 16 });
    assert_eq!(memblock.add(at(BASE + 100 * MIB), MIB), full);
    assert!(!memblock.is_lent());
}
