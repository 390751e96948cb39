//! Making memory smaller: trimming to whole units, `mem=`, an end address, nothing left.

use super::{GIB, KIB, MIB, at, regions, unmapped, with_memory};
use quarry::addr::{PAGE_SIZE, PHYS_SIZE_MAX};
use quarry::mm::memblock::{MemblockError, RegionFlags, Window};

/// Remainder of a region between two aligned ones, after trimming to whole 64 KiB.
fn trimmed(middle: (u64, u64)) -> Vec<(u64, u64)> {
    let mut memblock = unmapped();
    memblock.add(at(GIB), MIB).unwrap();
    memblock.add(at(middle.0), middle.1).unwrap();
    memblock.add(at(3 * GIB), MIB).unwrap();
    memblock.trim_memory(64 * KIB).unwrap();
    memblock.check().unwrap();
    let mut left = regions(memblock.memory());
    assert_eq!(left.remove(0), (GIB, MIB));
    assert_eq!(left.pop(), Some((3 * GIB, MIB)));
    left
}

/// Behaviours 27, 29.
#[test]
fn trimming_rounds_each_region_inwards_and_leaves_aligned_ones_alone() {
    assert_eq!(trimmed((2 * GIB, MIB)), [(2 * GIB, MIB)]);
    assert_eq!(trimmed((2 * GIB + 1, MIB - 1)), [(2 * GIB + 64 * KIB, MIB - 64 * KIB)]);
    assert_eq!(trimmed((2 * GIB, MIB - 1)), [(2 * GIB, MIB - 64 * KIB)]);
    assert_eq!(trimmed((2 * GIB + 1, MIB)), [(2 * GIB + 64 * KIB, MIB - 64 * KIB)]);
    assert_eq!(trimmed((2 * GIB - 1, MIB + 2)), [(2 * GIB, MIB)]);
}

#[test]
fn trimming_drops_a_region_without_a_whole_unit() {
    assert_eq!(trimmed((2 * GIB, 64 * KIB - 1)), []);
    assert_eq!(trimmed((2 * GIB + 1, 127 * KIB)), []);
    let mut memblock = with_memory(GIB + 1, KIB);
    memblock.trim_memory(PAGE_SIZE).unwrap();
    memblock.check().unwrap();
    assert!(memblock.memory().is_empty());
    assert_eq!(memblock.usable_size(), Err(MemblockError::NoMemory));
}

#[test]
fn trimming_to_no_power_of_two_is_refused() {
    let mut memblock = with_memory(GIB, MIB);
    for align in [0, 3, u64::MAX] {
        assert_eq!(memblock.trim_memory(align), Err(MemblockError::BadAlignment { align }));
    }
    memblock.trim_memory(1).unwrap();
    memblock.trim_memory(1 << 63).unwrap();
    assert!(memblock.memory().is_empty());
    let mut memblock = with_memory(0, PHYS_SIZE_MAX);
    memblock.trim_memory(PHYS_SIZE_MAX).unwrap();
    assert_eq!(regions(memblock.memory()), [(0, PHYS_SIZE_MAX)]);
}

#[test]
fn a_total_keeps_the_lowest_bytes() {
    // A Pi 4 with 8 GiB: a hole for the video core, then two more regions.
    let full = [(0, 0x3b40_0000), (GIB, 0xbc00_0000), (4 * GIB, 4 * GIB)];
    let total: u64 = full.iter().map(|region| region.1).sum();
    let first = full[0].1;
    let cases: [(u64, Vec<(u64, u64)>); 9] = [
        (PAGE_SIZE, vec![(0, PAGE_SIZE)]),
        (first - 1, vec![(0, first - PAGE_SIZE)]),
        (first, vec![full[0]]),
        (first + PAGE_SIZE + 1, vec![full[0], (GIB, PAGE_SIZE)]),
        (2 * GIB, vec![full[0], (GIB, 2 * GIB - first)]),
        (first + full[1].1, vec![full[0], full[1]]),
        (total - PAGE_SIZE, vec![full[0], full[1], (4 * GIB, 4 * GIB - PAGE_SIZE)]),
        (total, full.to_vec()),
        (u64::MAX, full.to_vec()),
    ];
    for (limit, expected) in cases {
        let mut memblock = unmapped();
        for (base, size) in full {
            memblock.add(at(base), size).unwrap();
        }
        memblock.enforce_memory_limit(limit).unwrap();
        memblock.check().unwrap();
        assert_eq!(regions(memblock.memory()), expected, "{limit:#x}");
        assert!(memblock.usable_size().unwrap() <= limit);
    }
}

#[test]
fn a_total_counts_and_cuts_mapped_memory_only() {
    let mut memblock = with_memory(GIB, 8 * MIB);
    memblock.mark_nomap(at(GIB + MIB), MIB).unwrap();
    memblock.mark_nomap(at(GIB + 6 * MIB), MIB).unwrap();
    memblock.reserve(at(GIB + 5 * MIB), MIB).unwrap();
    memblock.enforce_memory_limit(3 * MIB).unwrap();
    memblock.check().unwrap();
    let expected = [(GIB, MIB), (GIB + MIB, MIB), (GIB + 2 * MIB, 2 * MIB), (GIB + 6 * MIB, MIB)];
    assert_eq!(regions(memblock.memory()), expected);
    assert_eq!(memblock.usable_size(), Ok(3 * MIB));
    assert_eq!(regions(memblock.reserved()), [(GIB + 5 * MIB, MIB)]);
}

#[test]
fn an_end_cuts_mapped_memory_above_it() {
    let mut memblock = unmapped();
    memblock.add(at(0), 0x3b40_0000).unwrap();
    memblock.add(at(GIB), 3 * GIB).unwrap();
    memblock.add_with_flags(at(3 * GIB), MIB, RegionFlags::NOMAP).unwrap();
    memblock.cap_memory_end(at(u64::MAX)).unwrap();
    assert_eq!(memblock.memory().total(), 0x3b40_0000 + 3 * GIB);
    memblock.mark_nomap(at(3 * GIB), MIB).unwrap();
    memblock.cap_memory_end(at(2 * GIB + 5)).unwrap();
    memblock.check().unwrap();
    assert_eq!(regions(memblock.memory()), [(0, 0x3b40_0000), (GIB, GIB), (3 * GIB, MIB)]);
    assert_eq!(memblock.usable_size(), Ok(0x3b40_0000 + GIB));
}

#[test]
fn a_limit_that_leaves_nothing_is_refused() {
    let mut memblock = with_memory(GIB, MIB);
    assert_eq!(memblock.enforce_memory_limit(0), Err(MemblockError::NoMemory));
    assert_eq!(memblock.enforce_memory_limit(PAGE_SIZE - 1), Err(MemblockError::NoMemory));
    assert_eq!(memblock.cap_memory_end(at(GIB)), Err(MemblockError::NoMemory));
    assert_eq!(memblock.cap_memory_end(at(0)), Err(MemblockError::NoMemory));
    assert_eq!(regions(memblock.memory()), [(GIB, MIB)]);
    assert_eq!(unmapped().enforce_memory_limit(GIB), Err(MemblockError::NoMemory));
    assert_eq!(unmapped().usable_size(), Err(MemblockError::NoMemory));
}

#[test]
fn allocations_stay_below_a_memory_limit() {
    let mut memblock = with_memory(GIB, 8 * MIB);
    memblock.enforce_memory_limit(3 * MIB).unwrap();
    let placed = memblock.alloc_raw(MIB, MIB, Window::ANYWHERE).unwrap();
    assert_eq!(placed.end(), at(GIB + 3 * MIB));
}
