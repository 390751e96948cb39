//! Adding and reserving: order, overlap, adjacency, the end of the address space. Both lists obey the same rules, so
//! each case runs on both.

use super::{GIB, KIB, MIB, Unmapped, at, range, regions, unmapped, with_memory};
use quarry::addr::{PHYS_SIZE_MAX, PhysAddr};
use quarry::mm::memblock::{Direction, INIT_REGIONS, MemblockError, RegionFlags};

/// Adds the ranges, in this order, to the one list and then to the other; both hold `expected` and its total each time.
fn adding(ranges: &[(u64, u64)], expected: &[(u64, u64)]) {
    let mut memblock = unmapped();
    for &(base, size) in ranges {
        memblock.add(at(base), size).unwrap();
        memblock.check().unwrap();
    }
    assert_eq!(regions(memblock.memory()), expected);
    assert_eq!(memblock.memory().total(), expected.iter().map(|region| region.1).sum::<u64>());
    assert!(memblock.reserved().is_empty());

    let mut memblock = unmapped();
    for &(base, size) in ranges {
        memblock.reserve(at(base), size).unwrap();
        memblock.check().unwrap();
    }
    assert_eq!(regions(memblock.reserved()), expected);
    assert_eq!(memblock.reserved().total(), expected.iter().map(|region| region.1).sum::<u64>());
    assert!(memblock.memory().is_empty());
}

/// Behaviour 1.
#[test]
fn a_new_memblock_is_empty_and_has_its_defaults() {
    let memblock = unmapped();
    for list in [memblock.memory(), memblock.reserved()] {
        assert!(list.is_empty() && list.regions().is_empty());
        assert_eq!((list.len(), list.total()), (0, 0));
        assert_eq!((list.capacity(), INIT_REGIONS), (128, 128));
        assert_eq!(list.storage(), None);
    }
    assert_eq!(memblock.limit(), at(PHYS_SIZE_MAX));
    assert_eq!(memblock.direction(), Direction::TopDown);
    assert_eq!((memblock.memory().name(), memblock.reserved().name()), ("memory", "reserved"));
    assert_eq!((memblock.start_of_dram(), memblock.end_of_dram()), (None, None));
    assert!(!memblock.is_retired());
    memblock.check().unwrap();
}

/// Behaviour 2.
#[test]
fn one_range_is_one_region() {
    adding(&[(GIB, 4 * MIB)], &[(GIB, 4 * MIB)]);
    adding(&[(3, 1)], &[(3, 1)]);
    adding(&[(0, 1)], &[(0, 1)]);
}

/// Behaviour 4.
#[test]
fn disjoint_ranges_are_sorted_whichever_order_they_come_in() {
    let expected = [(GIB, 8 * KIB), (GIB + 16 * KIB, 8 * KIB)];
    adding(&[expected[0], expected[1]], &expected);
    adding(&[expected[1], expected[0]], &expected);
}

/// Behaviours 5, 6.
#[test]
fn overlapping_ranges_become_their_union() {
    let (low, high) = ((0x0800_0000, 0x0180_0000), (0x0900_0000, 0x0300_0000));
    let union = [(0x0800_0000, 0x0400_0000)];
    adding(&[high, low], &union);
    adding(&[low, high], &union);
}

/// Behaviour 7.
#[test]
fn a_range_inside_a_region_changes_nothing() {
    let outer = (0x0800_0000, 32 * MIB);
    adding(&[outer, (0x0810_0000, MIB)], &[outer]);
    adding(&[outer, outer], &[outer]);
    adding(&[outer, (outer.0, MIB)], &[outer]);
    adding(&[outer, (outer.0 + 31 * MIB, MIB)], &[outer]);
}

/// Behaviour 9.
#[test]
fn a_range_that_fills_a_gap_merges_all_three() {
    adding(&[(GIB, 8 * KIB), (GIB + 24 * KIB, 8 * KIB), (GIB + 8 * KIB, 16 * KIB)], &[(GIB, 32 * KIB)]);
}

#[test]
fn touching_ranges_merge_on_either_side() {
    adding(&[(GIB, KIB), (GIB + KIB, KIB)], &[(GIB, 2 * KIB)]);
    adding(&[(GIB + KIB, KIB), (GIB, KIB)], &[(GIB, 2 * KIB)]);
    adding(&[(GIB, KIB), (GIB + KIB + 1, KIB)], &[(GIB, KIB), (GIB + KIB + 1, KIB)]);
}

#[test]
fn a_range_over_many_regions_and_gaps_swallows_them() {
    let many: Vec<_> = (0..100).map(|index| (GIB + index * 2 * MIB, MIB)).collect();
    let all = (GIB - MIB, 300 * MIB);
    adding(&[many.as_slice(), &[all]].concat(), &[all]);
}

/// Behaviour 10.
#[test]
fn a_range_past_the_physical_space_is_cut_there() {
    let base = PHYS_SIZE_MAX - 2 * MIB;
    adding(&[(base, 4 * MIB)], &[(base, 2 * MIB)]);
    adding(&[(base, u64::MAX)], &[(base, 2 * MIB)]);
    adding(&[(base, u64::MAX - base)], &[(base, 2 * MIB)]);
    adding(&[(base, u64::MAX - base + 1)], &[(base, 2 * MIB)]);
    adding(&[(0, u64::MAX)], &[(0, PHYS_SIZE_MAX)]);
    adding(&[(PHYS_SIZE_MAX - 1, 1)], &[(PHYS_SIZE_MAX - 1, 1)]);
}

#[test]
fn a_range_outside_the_physical_space_is_refused() {
    let mut memblock = with_memory(GIB, MIB);
    for base in [PHYS_SIZE_MAX, PHYS_SIZE_MAX + 1, u64::MAX] {
        let base = at(base);
        let outside = Err(MemblockError::OutsidePhysicalSpace { base });
        assert_eq!(memblock.add(base, 1), outside);
        assert_eq!(memblock.add(base, u64::MAX), outside);
        assert_eq!(memblock.reserve(base, 1), outside);
        assert_eq!(memblock.remove(base, 1), outside);
        assert_eq!(memblock.mark_nomap(base, 1), outside);
        assert_eq!(memblock.clear_nomap(base, 1), outside);
    }
    assert_eq!(regions(memblock.memory()), [(GIB, MIB)]);
    memblock.check().unwrap();
}

#[test]
fn a_range_of_no_bytes_changes_nothing() {
    type Change = fn(&mut Unmapped, PhysAddr) -> Result<(), MemblockError>;
    let changes: [Change; 5] = [
        |memblock, base| memblock.add(base, 0),
        |memblock, base| memblock.remove(base, 0),
        |memblock, base| memblock.reserve(base, 0),
        |memblock, base| memblock.mark_nomap(base, 0),
        |memblock, base| memblock.free(range(base.get(), 0)),
    ];
    for change in changes {
        for base in [0, GIB, GIB + KIB, GIB + MIB, PHYS_SIZE_MAX, u64::MAX] {
            let mut memblock = with_memory(GIB, MIB);
            memblock.reserve(at(GIB), MIB).unwrap();
            change(&mut memblock, at(base)).unwrap();
            memblock.check().unwrap();
            assert_eq!(regions(memblock.memory()), [(GIB, MIB)]);
            assert_eq!(regions(memblock.reserved()), [(GIB, MIB)]);
        }
    }
}

/// Behaviour 12.
#[test]
fn touching_regions_merge_only_with_equal_flags() {
    let (none, nomap) = (RegionFlags::empty(), RegionFlags::NOMAP);
    let mut memblock = unmapped();
    memblock.add_with_flags(at(GIB), MIB, none).unwrap();
    memblock.add_with_flags(at(GIB + MIB), MIB, nomap).unwrap();
    assert_eq!(regions(memblock.memory()), [(GIB, MIB), (GIB + MIB, MIB)]);
    memblock.add_with_flags(at(GIB + 2 * MIB), MIB, nomap).unwrap();
    assert_eq!(regions(memblock.memory()), [(GIB, MIB), (GIB + MIB, 2 * MIB)]);
    memblock.add_with_flags(at(GIB - MIB), MIB, none).unwrap();
    assert_eq!(regions(memblock.memory()), [(GIB - MIB, 2 * MIB), (GIB + MIB, 2 * MIB)]);
    let flags: Vec<_> = memblock.memory().regions().iter().map(|region| region.flags).collect();
    assert_eq!(flags, [none, nomap]);
    assert_eq!(memblock.memory().total(), 4 * MIB);
    memblock.check().unwrap();
}

#[test]
fn memory_that_is_added_twice_keeps_its_flags() {
    let nomap = RegionFlags::NOMAP;
    let mut memblock = unmapped();
    for gap in 0..3 {
        memblock.add_with_flags(at(GIB + gap * 2 * MIB), MIB, nomap).unwrap();
    }
    memblock.add(at(GIB - MIB), 8 * MIB).unwrap();
    memblock.check().unwrap();
    let expected: Vec<_> = (0..8).map(|index| (GIB - MIB + index * MIB, MIB)).collect();
    assert_eq!(regions(memblock.memory())[..6], expected[..6]);
    assert_eq!(regions(memblock.memory())[6..], [(GIB + 5 * MIB, 2 * MIB)]);
    let mapped: Vec<_> = memblock.mapped_ranges().map(|range| range.start().get()).collect();
    assert_eq!(mapped, [GIB - MIB, GIB + MIB, GIB + 3 * MIB, GIB + 5 * MIB]);
}

/// Behaviour 30.
#[test]
fn overlap_is_a_shared_byte() {
    let memblock = with_memory(GIB, 4 * MIB);
    let cases = [
        (GIB - 2 * MIB, MIB, false),
        (GIB - MIB, MIB, false),
        (GIB - MIB, MIB + 1, true),
        (GIB + MIB, MIB, true),
        (GIB - MIB, 6 * MIB, true),
        (GIB + 4 * MIB - 1, MIB, true),
        (GIB + 4 * MIB, MIB, false),
        (GIB + 5 * MIB, MIB, false),
        (GIB + MIB, 0, false),
    ];
    for (start, size, expected) in cases {
        assert_eq!(memblock.memory().overlaps(range(start, size)), expected, "{start:#x} {size:#x}");
        assert!(!memblock.reserved().overlaps(range(start, size)));
    }
    let mut memblock = with_memory(GIB, 4 * MIB);
    memblock.add(at(2 * GIB), MIB).unwrap();
    assert!(!memblock.memory().overlaps(range(GIB + 4 * MIB, GIB - 4 * MIB)));
    assert!(memblock.memory().overlaps(range(GIB + 4 * MIB, GIB - 4 * MIB + 1)));
}

#[test]
fn a_byte_is_found_in_its_region_and_nowhere_else() {
    let mut memblock = with_memory(GIB, MIB);
    memblock.add(at(3 * GIB), MIB).unwrap();
    let start = |addr| memblock.memory().find(at(addr)).map(|region| region.start().get());
    for (addr, expected) in [
        (0, None),
        (GIB - 1, None),
        (GIB, Some(GIB)),
        (GIB + MIB - 1, Some(GIB)),
        (GIB + MIB, None),
        (3 * GIB, Some(3 * GIB)),
        (3 * GIB + MIB, None),
        (u64::MAX, None),
    ] {
        assert_eq!(start(addr), expected, "{addr:#x}");
    }
    assert_eq!(memblock.start_of_dram(), Some(at(GIB)));
    assert_eq!(memblock.end_of_dram(), Some(at(3 * GIB + MIB)));
}

#[test]
fn the_dump_reads_like_linux() {
    let mut memblock = with_memory(0x4000_0000, 0x2000_0000);
    memblock.reserve(at(0x4020_0000), 0x0123_4567).unwrap();
    memblock.mark_nomap(at(0x5000_0000), MIB).unwrap();
    let text = "\
MEMBLOCK configuration:
 memory size = 0x0000000020000000 reserved size = 0x0000000001234567
 memory.cnt  = 0x3
 memory[0x0]\t[0x0000000040000000-0x000000004fffffff], 0x0000000010000000 bytes flags: 0x0
 memory[0x1]\t[0x0000000050000000-0x00000000500fffff], 0x0000000000100000 bytes flags: 0x4
 memory[0x2]\t[0x0000000050100000-0x000000005fffffff], 0x000000000ff00000 bytes flags: 0x0
 reserved.cnt  = 0x1
 reserved[0x0]\t[0x0000000040200000-0x0000000041434566], 0x0000000001234567 bytes flags: 0x0
";
    assert_eq!(memblock.to_string(), text);
}
