//! Allocation: direction, alignment, limits, the gaps between reservations, zeroed and raw.

use super::arena::{Access, Arena, POISON};
use super::{GIB, KIB, MIB, Unmapped, at, range, regions, with_memory};
use quarry::addr::PHYS_SIZE_MAX;
use quarry::mm::memblock::{Direction, Memblock, MemblockError, RegionOwner, SMP_CACHE_BYTES, Window};

const BASE: u64 = 0x4000_0000;
const LINE: u64 = SMP_CACHE_BYTES;

/// 16 KiB of memory at `BASE`.
fn small() -> Unmapped {
    with_memory(BASE, 16 * KIB)
}

fn out_of_memory(size: u64, align: u64) -> MemblockError {
    MemblockError::OutOfMemory { size, align }
}

/// Allocates and gives the address back, after a look at the invariants.
fn placed(memblock: &mut Unmapped, size: u64, align: u64, window: Window) -> Result<u64, MemblockError> {
    let placed = memblock.alloc_raw(size, align, window);
    memblock.check().unwrap();
    placed.map(|range| {
        assert_eq!(range.size(), size);
        range.start().get()
    })
}

/// Behaviour 26.
#[test]
fn the_direction_chooses_the_end_of_memory() {
    let mut memblock = small();
    assert_eq!(memblock.direction(), Direction::TopDown);
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::ANYWHERE), Ok(BASE + 15 * KIB));
    memblock.set_direction(Direction::BottomUp);
    assert_eq!(memblock.direction(), Direction::BottomUp);
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::ANYWHERE), Ok(BASE));
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::ANYWHERE), Ok(BASE + KIB));
    memblock.set_direction(Direction::TopDown);
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::ANYWHERE), Ok(BASE + 14 * KIB));
    assert_eq!(regions(memblock.reserved()), [(BASE, 2 * KIB), (BASE + 14 * KIB, 2 * KIB)]);
}

/// Behaviours 31, 32.
#[test]
fn alloc_zeroes_its_bytes_and_no_others_and_alloc_raw_zeroes_none() {
    let arena = Arena::new(BASE, 64 * KIB);
    for direction in [Direction::TopDown, Direction::BottomUp] {
        let mut memblock: Memblock<Access> = Memblock::new(arena.access());
        memblock.set_direction(direction);
        memblock.add(at(BASE), 64 * KIB).unwrap();

        let raw = memblock.alloc_raw(1000, LINE, Window::ANYWHERE).unwrap();
        assert!(raw.start().is_aligned(LINE));
        assert!(arena.holds(raw, POISON));
        let zeroed = memblock.alloc(1000, LINE, Window::ANYWHERE).unwrap();
        assert!(arena.holds(zeroed, 0));
        assert!(arena.holds(raw, POISON));
        assert_eq!(arena.byte(at(zeroed.start().get() - 1)), POISON);
        assert_eq!(arena.byte(zeroed.end()), POISON);
        let highest = BASE + 64 * KIB - 1024;
        match direction {
            Direction::TopDown => assert_eq!((raw.start(), zeroed.start()), (at(highest), at(highest - 1024))),
            Direction::BottomUp => assert_eq!((raw.start(), zeroed.start()), (at(BASE), at(BASE + 1024))),
        }
        memblock.check().unwrap();
    }
}

#[test]
fn what_cannot_be_zeroed_yet_is_not_taken() {
    let mut memblock = small();
    let refused = memblock.alloc(KIB, LINE, Window::ANYWHERE);
    assert_eq!(refused, Err(MemblockError::Unreachable { range: range(BASE + 15 * KIB, KIB) }));
    assert!(memblock.reserved().is_empty());

    let arena = Arena::new(BASE, 8 * KIB);
    let mut memblock: Memblock<Option<Access>> = Memblock::new(None);
    memblock.add(at(BASE), 16 * KIB).unwrap();
    memblock.set_backing(Some(arena.access()));
    assert!(memblock.alloc(KIB, LINE, Window::ANYWHERE).is_err());
    memblock.set_limit(at(BASE + 8 * KIB));
    let zeroed = memblock.alloc(KIB, LINE, Window::ANYWHERE).unwrap();
    assert_eq!(zeroed, range(BASE + 7 * KIB, KIB));
    assert!(arena.holds(zeroed, 0));
}

/// Behaviour 34.
#[test]
fn an_allocation_goes_round_a_reservation() {
    let mut memblock = small();
    memblock.reserve(at(BASE + 8 * KIB), 7 * KIB).unwrap();
    assert_eq!(placed(&mut memblock, 2 * KIB, LINE, Window::ANYWHERE), Ok(BASE + 6 * KIB));
    let mut memblock = small();
    memblock.set_direction(Direction::BottomUp);
    memblock.reserve(at(BASE + KIB), 7 * KIB).unwrap();
    assert_eq!(placed(&mut memblock, 2 * KIB, LINE, Window::ANYWHERE), Ok(BASE + 8 * KIB));
}

/// Behaviour 35.
#[test]
fn an_allocation_that_fills_a_gap_merges_with_both_sides() {
    for direction in [Direction::TopDown, Direction::BottomUp] {
        let mut memblock = small();
        memblock.set_direction(direction);
        memblock.reserve(at(BASE), 7 * KIB).unwrap();
        memblock.reserve(at(BASE + 8 * KIB), 8 * KIB).unwrap();
        assert_eq!(placed(&mut memblock, KIB, LINE, Window::ANYWHERE), Ok(BASE + 7 * KIB));
        assert_eq!(regions(memblock.reserved()), [(BASE, 16 * KIB)]);
    }
}

/// Behaviours 36, 37.
#[test]
fn what_fits_nowhere_is_refused_and_changes_nothing() {
    for direction in [Direction::TopDown, Direction::BottomUp] {
        let mut memblock = small();
        memblock.set_direction(direction);
        for index in 0..8 {
            memblock.reserve(at(BASE + index * 2 * KIB), KIB).unwrap();
        }
        let before = regions(memblock.reserved());
        assert_eq!(placed(&mut memblock, KIB + 1, 1, Window::ANYWHERE), Err(out_of_memory(KIB + 1, 1)));
        assert_eq!(placed(&mut memblock, KIB, 2 * KIB, Window::ANYWHERE), Err(out_of_memory(KIB, 2 * KIB)));
        assert_eq!(regions(memblock.reserved()), before);

        memblock.reserve(at(BASE), 16 * KIB).unwrap();
        assert_eq!(placed(&mut memblock, 1, 1, Window::ANYWHERE), Err(out_of_memory(1, 1)));
        assert_eq!(regions(memblock.reserved()), [(BASE, 16 * KIB)]);

        let mut memblock = super::unmapped();
        memblock.set_direction(direction);
        assert_eq!(placed(&mut memblock, 1, 1, Window::ANYWHERE), Err(out_of_memory(1, 1)));

        let mut memblock = small();
        memblock.set_direction(direction);
        for size in [16 * KIB + 1, PHYS_SIZE_MAX, PHYS_SIZE_MAX + 1, u64::MAX] {
            assert_eq!(placed(&mut memblock, size, 1, Window::ANYWHERE), Err(out_of_memory(size, 1)));
        }
        for align in [1 << 31, 1 << 47, 1 << 48, 1 << 63] {
            assert_eq!(placed(&mut memblock, 1, align, Window::ANYWHERE), Err(out_of_memory(1, align)));
        }
        assert!(memblock.reserved().is_empty());
    }
}

/// Behaviour 39.
#[test]
fn a_misaligned_upper_limit_rounds_down() {
    let mut memblock = small();
    let max = BASE + 8 * KIB + 5;
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::between(at(BASE), at(max))), Ok(BASE + 7 * KIB));
    let max = BASE + 4 * KIB - 1;
    assert_eq!(placed(&mut memblock, LINE, LINE, Window::below(at(max))), Ok(BASE + 4 * KIB - 2 * LINE));
}

/// Behaviour 40.
#[test]
fn the_lower_limit_gives_way_and_the_upper_does_not() {
    for (direction, expected) in [(Direction::TopDown, BASE + 4 * KIB), (Direction::BottomUp, BASE)] {
        let mut memblock = small();
        memblock.set_direction(direction);
        let (min, max) = (at(BASE + 7 * KIB), at(BASE + 8 * KIB));
        assert_eq!(placed(&mut memblock, 4 * KIB, LINE, Window::between(min, max)), Ok(expected));

        let mut memblock = small();
        memblock.set_direction(direction);
        let exact = Window::exactly(range(min.get(), KIB));
        assert_eq!(placed(&mut memblock, 4 * KIB, LINE, exact), Err(out_of_memory(4 * KIB, LINE)));
        assert_eq!(placed(&mut memblock, KIB, LINE, exact), Ok(min.get()));
        assert_eq!(placed(&mut memblock, 1, 1, exact), Err(out_of_memory(1, 1)));
        // A lower limit above the upper one is no limit.
        let crossed = Window::between(max, min);
        let placed = placed(&mut memblock, KIB, LINE, crossed).unwrap();
        assert!(placed + KIB <= min.get());
    }
}

/// Behaviour 41.
#[test]
fn an_upper_limit_near_the_start_of_memory_leaves_no_room() {
    let mut memblock = small();
    for max in [0, BASE - MIB, BASE, BASE + KIB - 1] {
        assert_eq!(placed(&mut memblock, KIB, LINE, Window::below(at(max))), Err(out_of_memory(KIB, LINE)));
    }
    assert!(memblock.reserved().is_empty());
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::below(at(BASE + KIB))), Ok(BASE));
}

/// Behaviour 42.
#[test]
fn limits_outside_memory_are_capped_to_it() {
    let wide = Window::between(at(BASE - MIB), at(BASE + MIB));
    let mut memblock = small();
    assert_eq!(placed(&mut memblock, KIB, LINE, wide), Ok(BASE + 15 * KIB));
    memblock.set_direction(Direction::BottomUp);
    assert_eq!(placed(&mut memblock, KIB, LINE, wide), Ok(BASE));
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::between(at(0), at(u64::MAX))), Ok(BASE + KIB));
}

/// Behaviour 45.
#[test]
fn a_misaligned_lower_limit_rounds_up_and_one_too_high_is_dropped() {
    let mut memblock = small();
    memblock.set_direction(Direction::BottomUp);
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::at_least(at(BASE + KIB + 1))), Ok(BASE + KIB + LINE));
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::at_least(at(BASE + 16 * KIB - LINE))), Ok(BASE));
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::at_least(at(BASE + MIB))), Ok(BASE + 2 * KIB + LINE));

    let mut memblock = small();
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::at_least(at(BASE + 3 * KIB + 1))), Ok(BASE + 15 * KIB));
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::at_least(at(BASE + 15 * KIB))), Ok(BASE + 14 * KIB));
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::at_least(at(BASE - GIB))), Ok(BASE + 13 * KIB));
}

/// Behaviour 46.
#[test]
fn no_bytes_and_no_power_of_two_are_refused() {
    let mut memblock = small();
    assert_eq!(placed(&mut memblock, 0, LINE, Window::ANYWHERE), Err(MemblockError::ZeroSize));
    for align in [0, 3, LINE + 1, u64::MAX] {
        let bad = Err(MemblockError::BadAlignment { align });
        assert_eq!(placed(&mut memblock, KIB, align, Window::ANYWHERE), bad);
    }
    assert!(memblock.reserved().is_empty());
}

#[test]
fn the_limit_binds_every_allocation() {
    let mut memblock = small();
    memblock.set_limit(at(BASE + 6 * KIB));
    assert_eq!(memblock.limit(), at(BASE + 6 * KIB));
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::ANYWHERE), Ok(BASE + 5 * KIB));
    assert_eq!(placed(&mut memblock, KIB, LINE, Window::at_least(at(BASE + 8 * KIB))), Ok(BASE + 4 * KIB));
    let above = Window::exactly(range(BASE + 8 * KIB, KIB));
    assert_eq!(placed(&mut memblock, KIB, LINE, above), Err(out_of_memory(KIB, LINE)));
    memblock.set_limit(at(u64::MAX));
    assert_eq!(memblock.limit(), at(PHYS_SIZE_MAX));
    assert_eq!(placed(&mut memblock, KIB, LINE, above), Ok(BASE + 8 * KIB));
}

#[test]
fn alignment_is_of_the_address_not_of_the_offset_in_memory() {
    let mut memblock = with_memory(BASE + 3, 8 * MIB);
    for align in [1, 2, 64, 4 * KIB, MIB, 2 * MIB] {
        let start = placed(&mut memblock, 5, align, Window::ANYWHERE).unwrap();
        assert_eq!(start % align, 0);
    }
    memblock.set_direction(Direction::BottomUp);
    for align in [1, 2, 64, 4 * KIB, MIB, 2 * MIB] {
        let start = placed(&mut memblock, 5, align, Window::ANYWHERE).unwrap();
        assert_eq!(start % align, 0);
    }
    assert_eq!(memblock.reserved().total(), 12 * 5);
}

#[test]
fn the_first_and_the_last_byte_of_the_physical_space_can_be_had() {
    let mut memblock = with_memory(0, PHYS_SIZE_MAX);
    assert_eq!(placed(&mut memblock, 1, 1, Window::ANYWHERE), Ok(PHYS_SIZE_MAX - 1));
    memblock.set_direction(Direction::BottomUp);
    assert_eq!(placed(&mut memblock, 1, 1, Window::ANYWHERE), Ok(0));
    assert_eq!(memblock.free_size(), PHYS_SIZE_MAX - 2);
}

#[test]
fn what_is_allocated_and_freed_again_leaves_no_trace() {
    let mut memblock = small();
    memblock.reserve(at(BASE + 4 * KIB), KIB).unwrap();
    let before = (regions(memblock.reserved()), memblock.free_size());
    let mut live: Vec<_> = (1..40).map(|size| memblock.alloc_raw(size * 7, 8, Window::ANYWHERE).unwrap()).collect();
    assert!(memblock.free_size() < before.1);
    while !live.is_empty() {
        memblock.free(live.swap_remove(live.len() / 2)).unwrap();
        memblock.check().unwrap();
    }
    assert_eq!((regions(memblock.reserved()), memblock.free_size()), before);
}

#[test]
fn what_is_reserved_for_somebody_stays_apart_and_is_found_by_its_owner() {
    let mut memblock = with_memory(MIB, MIB);
    let owner = |number| RegionOwner::new(number).unwrap();
    let mut place = |number| memblock.alloc_raw_for(owner(number), 4096, 4096, Window::ANYWHERE).unwrap();
    let (first, second, third) = (place(1), place(2), place(3));
    assert_eq!((first.start(), second.start()), (second.end(), third.end()), "side by side");
    // A reservation over all of them changes none of theirs, and freeing a part of one leaves the rest.
    memblock.reserve(at(MIB), MIB).unwrap();
    memblock.check().unwrap();
    let owned = |memblock: &Unmapped, number| memblock.reserved().reserved_for(number);
    assert_eq!([1, 2, 3].map(|number| owned(&memblock, number)), [Some(first), Some(second), Some(third)]);
    assert_eq!(memblock.reserved().len(), 4);
    memblock.free(range(second.start().get(), 1024)).unwrap();
    memblock.check().unwrap();
    assert_eq!(owned(&memblock, 2), Some(range(second.start().get() + 1024, 3072)));
    assert_eq!((owned(&memblock, 0), owned(&memblock, 4), owned(&memblock, usize::MAX)), (None, None, None));
    memblock.free(range(MIB, MIB)).unwrap();
    assert!(memblock.reserved().is_empty());
}
