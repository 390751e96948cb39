//! NOMAP: memory that belongs to firmware or to one device, out of the linear map and of every allocation.

use super::{GIB, KIB, MIB, at, range, regions, with_memory};
use quarry::addr::PAGE_SIZE;
use quarry::mm::memblock::{Direction, MemblockError, RegionFlags, Window};

fn mapped(memblock: &super::Unmapped) -> Vec<(u64, u64)> {
    memblock.mapped_ranges().map(|range| (range.start().get(), range.size())).collect()
}

/// Behaviour 47.
#[test]
fn nomap_memory_is_neither_mapped_nor_free_nor_allocated() {
    for direction in [Direction::TopDown, Direction::BottomUp] {
        let mut memblock = with_memory(GIB, 4 * MIB);
        memblock.set_direction(direction);
        memblock.mark_nomap(at(GIB), MIB).unwrap();
        memblock.mark_nomap(at(GIB + 2 * MIB), 2 * MIB).unwrap();
        memblock.check().unwrap();
        assert_eq!(mapped(&memblock), [(GIB + MIB, MIB)]);
        let free: Vec<_> = memblock.free_ranges().collect();
        assert_eq!(free, [range(GIB + MIB, MIB)]);
        assert_eq!(memblock.free_ranges().rev().collect::<Vec<_>>(), free);
        assert_eq!(memblock.usable_size(), Ok(MIB));
        assert_eq!(memblock.memory().total(), 4 * MIB);
        assert_eq!(memblock.alloc_raw(MIB, MIB, Window::ANYWHERE), Ok(range(GIB + MIB, MIB)));
        let full = Err(MemblockError::OutOfMemory { size: 1, align: 1 });
        assert_eq!(memblock.alloc_raw(1, 1, Window::ANYWHERE), full);
        assert_eq!(memblock.alloc_raw(1, 1, Window::exactly(range(GIB, MIB))), full);
    }
}

#[test]
fn a_mark_splits_regions_and_merges_with_marks_beside_it() {
    let mut memblock = with_memory(GIB, 4 * MIB);
    memblock.mark_nomap(at(GIB + MIB), MIB).unwrap();
    assert_eq!(regions(memblock.memory()), [(GIB, MIB), (GIB + MIB, MIB), (GIB + 2 * MIB, 2 * MIB)]);
    memblock.mark_nomap(at(GIB + 2 * MIB), MIB).unwrap();
    assert_eq!(regions(memblock.memory()), [(GIB, MIB), (GIB + MIB, 2 * MIB), (GIB + 3 * MIB, MIB)]);
    memblock.mark_nomap(at(GIB + MIB), 2 * MIB).unwrap();
    assert_eq!(memblock.memory().len(), 3);
    memblock.clear_nomap(at(GIB + MIB), MIB).unwrap();
    assert_eq!(regions(memblock.memory()), [(GIB, 2 * MIB), (GIB + 2 * MIB, MIB), (GIB + 3 * MIB, MIB)]);
    memblock.clear_nomap(at(GIB), 4 * MIB).unwrap();
    memblock.check().unwrap();
    assert_eq!(regions(memblock.memory()), [(GIB, 4 * MIB)]);
}

#[test]
fn a_mark_covers_memory_only() {
    let mut memblock = with_memory(GIB, MIB);
    memblock.add(at(GIB + 4 * MIB), MIB).unwrap();
    memblock.mark_nomap(at(GIB - MIB), 3 * MIB).unwrap();
    memblock.mark_nomap(at(8 * GIB), MIB).unwrap();
    memblock.check().unwrap();
    assert_eq!(regions(memblock.memory()), [(GIB, MIB), (GIB + 4 * MIB, MIB)]);
    assert_eq!(mapped(&memblock), [(GIB + 4 * MIB, MIB)]);
    assert_eq!(memblock.memory().find(at(GIB)).unwrap().flags, RegionFlags::NOMAP);
}

#[test]
fn a_page_with_one_nomap_byte_is_nomap() {
    let mut memblock = with_memory(GIB, 8 * PAGE_SIZE);
    memblock.mark_nomap(at(GIB + PAGE_SIZE + 100), PAGE_SIZE).unwrap();
    assert_eq!(mapped(&memblock), [(GIB, PAGE_SIZE), (GIB + 3 * PAGE_SIZE, 5 * PAGE_SIZE)]);
    // And stays so until all of it is cleared.
    memblock.clear_nomap(at(GIB + PAGE_SIZE + 100), PAGE_SIZE).unwrap();
    assert_eq!(memblock.memory().len(), 3);
    memblock.clear_nomap(at(GIB + PAGE_SIZE - 100), 2 * PAGE_SIZE).unwrap();
    assert_eq!(mapped(&memblock), [(GIB, 2 * PAGE_SIZE), (GIB + 3 * PAGE_SIZE, 5 * PAGE_SIZE)]);
    memblock.check().unwrap();
}

#[test]
fn nomap_and_reserved_are_independent() {
    let mut memblock = with_memory(GIB, MIB);
    memblock.reserve(at(GIB), 8 * KIB).unwrap();
    memblock.mark_nomap(at(GIB + 4 * KIB), 8 * KIB).unwrap();
    memblock.check().unwrap();
    assert_eq!(memblock.free_size(), MIB - 12 * KIB);
    memblock.free(range(GIB, 8 * KIB)).unwrap();
    assert_eq!(memblock.free_size(), MIB - 8 * KIB);
    memblock.clear_nomap(at(GIB), MIB).unwrap();
    assert_eq!(memblock.free_size(), MIB);
}
