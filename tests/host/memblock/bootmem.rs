//! The alloc_bootmem family: which end of memory, which alignment, zeroed, and back again.

use super::arena::{Access, Arena};
use super::{KIB, at, range, regions};
use quarry::addr::PAGE_SIZE;
use quarry::mm::memblock::{Memblock, MemblockError, SMP_CACHE_BYTES};

const BASE: u64 = 0x4000_0000;
/// The lower half is low memory.
const LOW: u64 = BASE + 128 * KIB;
const END: u64 = BASE + 256 * KIB;

fn with_low_half(arena: &Arena) -> Memblock<'_, Access<'_>> {
    let mut memblock = Memblock::new(arena.access());
    memblock.add(at(BASE), END - BASE).unwrap();
    memblock.set_low_limit(at(LOW));
    memblock
}

#[test]
fn low_memory_ends_where_32_address_bits_do_unless_the_board_says_otherwise() {
    assert_eq!(super::unmapped().low_limit(), at(1 << 32));
    let arena = Arena::new(BASE, END - BASE);
    assert_eq!(with_low_half(&arena).low_limit(), at(LOW));
}

#[test]
fn each_member_has_its_alignment_and_its_half_of_memory() {
    let arena = Arena::new(BASE, END - BASE);
    let mut memblock = with_low_half(&arena);
    let high = memblock.alloc_bootmem(100).unwrap();
    let high_pages = memblock.alloc_bootmem_pages(5000).unwrap();
    let low = memblock.alloc_bootmem_low(100).unwrap();
    let low_pages = memblock.alloc_bootmem_low_pages(5000).unwrap();
    memblock.check().unwrap();

    assert_eq!(high, range(END - 2 * SMP_CACHE_BYTES, 100));
    assert_eq!(high_pages, range(END - 2 * PAGE_SIZE, 5000));
    assert_eq!(low, range(LOW - 2 * SMP_CACHE_BYTES, 100));
    assert_eq!(low_pages, range(LOW - 2 * PAGE_SIZE, 5000));
    for block in [high, high_pages, low, low_pages] {
        assert!(arena.holds(block, 0));
        memblock.free_bootmem(block).unwrap();
        memblock.check().unwrap();
    }
    assert!(memblock.reserved().is_empty());
}

#[test]
fn the_plain_members_fall_back_to_low_memory_and_the_low_ones_never_leave_it() {
    let arena = Arena::new(BASE, END - BASE);
    let mut memblock = with_low_half(&arena);
    memblock.reserve(at(LOW), END - LOW).unwrap();
    assert!(memblock.alloc_bootmem(100).unwrap().end() <= at(LOW));
    assert!(memblock.alloc_bootmem_pages(100).unwrap().end() <= at(LOW));

    let mut memblock = with_low_half(&arena);
    memblock.reserve(at(BASE), LOW - BASE).unwrap();
    let before = regions(memblock.reserved());
    let refused = |align| Err(MemblockError::OutOfMemory { size: 100, align });
    assert_eq!(memblock.alloc_bootmem_low(100), refused(SMP_CACHE_BYTES));
    assert_eq!(memblock.alloc_bootmem_low_pages(100), refused(PAGE_SIZE));
    assert_eq!(regions(memblock.reserved()), before);
    assert!(memblock.alloc_bootmem(100).unwrap().start() >= at(LOW));
}

#[test]
fn the_family_refuses_no_bytes() {
    let arena = Arena::new(BASE, END - BASE);
    let mut memblock = with_low_half(&arena);
    let refused = Err(MemblockError::ZeroSize);
    assert_eq!(memblock.alloc_bootmem(0), refused);
    assert_eq!(memblock.alloc_bootmem_pages(0), refused);
    assert_eq!(memblock.alloc_bootmem_low(0), refused);
    assert_eq!(memblock.alloc_bootmem_low_pages(0), refused);
}
