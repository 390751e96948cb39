//! A boot as the device tree drives it: banks in any order, reservations of every unpleasant kind, `no-map`, pools that
//! have to be placed.

use super::arena::{Access, Arena};
use super::{GIB, KIB, MIB, at, range, regions, unmapped};
use quarry::addr::{PAGE_SIZE, PhysRange};
use quarry::mm::memblock::{Memblock, MemblockError, Window};

/// Free memory of `banks` in the end, with each reservation made before and after the banks are known.
fn free_after(banks: &[(u64, u64)], reservations: &[(u64, u64)]) -> Vec<PhysRange> {
    let results: Vec<_> = [false, true]
        .into_iter()
        .map(|reserve_first| {
            let mut memblock = unmapped();
            let reserve = |memblock: &mut super::Unmapped| {
                for &(base, size) in reservations {
                    memblock.reserve(at(base), size).unwrap();
                    memblock.check().unwrap();
                }
            };
            if reserve_first {
                reserve(&mut memblock);
            }
            for &(base, size) in banks {
                memblock.add(at(base), size).unwrap();
                memblock.check().unwrap();
            }
            memblock.trim_memory(PAGE_SIZE).unwrap();
            if !reserve_first {
                reserve(&mut memblock);
            }
            memblock.check().unwrap();
            memblock.retire().unwrap().collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(results[0], results[1]);
    results[0].clone()
}

#[test]
fn banks_come_in_any_order_empty_overlapping_and_wrapping() {
    let banks = [(3 * GIB, GIB), (GIB, 0), (GIB, GIB), (GIB + 512 * MIB, GIB), (0x1000, 0x1000)];
    assert_eq!(free_after(&banks, &[]), [range(0x1000, 0x1000), range(GIB, 1536 * MIB), range(3 * GIB, GIB)]);
}

#[test]
fn memory_rounds_inwards_and_reservations_outwards() {
    let free = free_after(&[(GIB + 1, 16 * PAGE_SIZE)], &[(GIB + 4 * PAGE_SIZE - 1, 2)]);
    assert_eq!(free, [range(GIB + PAGE_SIZE, 2 * PAGE_SIZE), range(GIB + 5 * PAGE_SIZE, 11 * PAGE_SIZE)]);
}

#[test]
fn reservations_may_overlap_repeat_nest_and_lie_outside() {
    let free = free_after(
        &[(GIB, GIB)],
        &[
            (GIB + 16 * MIB, MIB),
            (GIB + 16 * MIB, MIB),
            (GIB + 16 * MIB + 64 * KIB, 4 * KIB),
            (GIB + 16 * MIB + 512 * KIB, MIB),
            (GIB - MIB, 2 * MIB),
            (2 * GIB - MIB, 4 * GIB),
            (0, PAGE_SIZE),
            (16 * GIB, u64::MAX),
        ],
    );
    let hole = GIB + 16 * MIB + 1536 * KIB;
    assert_eq!(free, [range(GIB + MIB, 15 * MIB), range(hole, 2 * GIB - MIB - hole)]);
}

#[test]
fn a_pool_obeys_its_size_alignment_and_ranges_or_is_refused() {
    let mut memblock = unmapped();
    memblock.add(at(0), 0x3b40_0000).unwrap();
    memblock.add(at(GIB), GIB).unwrap();
    memblock.reserve(at(0), PAGE_SIZE).unwrap();
    // `linux,cma` of a Pi 4: 64 MiB below 1 GiB.
    let low = Window::exactly(range(0, GIB));
    let cma = memblock.alloc_raw(64 * MIB, 2 * MIB, low).unwrap();
    assert_eq!(cma, range(0x3b40_0000 - 64 * MIB, 64 * MIB));
    let second = memblock.alloc_raw(512 * MIB, 512 * MIB, low);
    assert_eq!(second, Err(MemblockError::OutOfMemory { size: 512 * MIB, align: 512 * MIB }));
    // A pool that becomes NOMAP: placed, marked, and no reservation any more.
    let private = memblock.alloc_raw(MIB, MIB, low).unwrap();
    memblock.mark_nomap(private.start(), private.size()).unwrap();
    memblock.free(private).unwrap();
    memblock.check().unwrap();
    assert!(!memblock.free_ranges().any(|free| free.overlaps(private) || free.overlaps(cma)));
    assert_eq!(regions(memblock.reserved()), [(0, PAGE_SIZE), (cma.start().get(), cma.size())]);
}

#[test]
fn a_whole_boot_adds_up() {
    let arena = Arena::new(GIB, 8 * MIB);
    let mut memblock: Memblock<Option<Access>, 8> = Memblock::new(None);
    memblock.add(at(GIB + 4 * MIB), 4 * MIB).unwrap();
    memblock.add(at(GIB), 4 * MIB).unwrap();
    memblock.trim_memory(PAGE_SIZE).unwrap();
    memblock.reserve(at(GIB + 2 * MIB), 300 * KIB).unwrap();
    memblock.mark_nomap(at(GIB + 6 * MIB), MIB).unwrap();
    // Page tables come before the linear map that lets the rest be zeroed.
    let tables = memblock.alloc_raw(3 * PAGE_SIZE, PAGE_SIZE, Window::ANYWHERE).unwrap();
    memblock.set_backing(Some(arena.access()));
    memblock.allow_resize();
    let vmemmap = memblock.alloc(16 * KIB, PAGE_SIZE, Window::ANYWHERE).unwrap();
    assert!(arena.holds(vmemmap, 0) && !vmemmap.overlaps(tables));
    for index in 0..50 {
        memblock.reserve(at(GIB + index * 8 * KIB), 4 * KIB).unwrap();
        memblock.check().unwrap();
    }
    let arrays = memblock.reserved().storage().unwrap().size();
    assert_eq!(memblock.memory().storage(), None);
    let reserved = 300 * KIB + 3 * PAGE_SIZE + 16 * KIB + 50 * 4 * KIB + arrays;
    assert_eq!(memblock.reserved().total(), reserved);
    assert_eq!(memblock.free_size(), 7 * MIB - reserved);
    assert_eq!(memblock.retire().unwrap().pages() * PAGE_SIZE, 7 * MIB - reserved);
}
