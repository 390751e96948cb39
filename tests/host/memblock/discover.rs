//! Discovery on real trees: a Pi 4 as its firmware describes it, and as nobody has filled it in.

use super::arena::Access;
use super::{GIB, MIB, range, regions, unmapped};
use crate::fdt::corpus_tree;
use quarry::fdt::Tree;
use quarry::mm::memblock::{DiscoverError, Discovery, Memblock, MemblockError, Surroundings};

/// `linux,cma` of the Pi 4: 64 MiB, somewhere in the first GiB.
const CMA: u64 = 64 * MIB;
/// End of the RAM below the video core's.
const FIRST: u64 = 0x3b40_0000;

fn image() -> Surroundings {
    Surroundings { image: range(2 * MIB, MIB), device_tree: range(128 * MIB, 40_000), ..Surroundings::NONE }
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn a_pi_4_is_discovered_with_its_banks_reservations_and_pool() {
    let blob = corpus_tree("rpi4-fw-2gb");
    let tree = Tree::from_read_only(&blob).unwrap();
    let mut memblock = unmapped();
    let found = memblock.discover(&tree, &image()).unwrap();
    memblock.check().unwrap();
    assert_eq!(found.placed.first(), Some(&Some(("linux,cma", range(FIRST - CMA, CMA)))));
    assert_eq!(found, Discovery { stated: FIRST + GIB, placed: found.placed, ..Discovery::default() });
    assert_eq!(found.placed.iter().flatten().count(), 1);
    assert_eq!(regions(memblock.memory()), [(0, FIRST), (GIB, GIB)]);
    let reserved = [(0, 4096), (2 * MIB, MIB), (128 * MIB, 40_000), (FIRST - CMA, CMA)];
    assert_eq!(regions(memblock.reserved()), reserved);
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn a_full_list_is_not_taken_for_lack_of_room() {
    let blob = corpus_tree("rpi4-fw-2gb");
    let tree = Tree::from_read_only(&blob).unwrap();
    // Slots for page 0, the image and the tree, and none for the pool.
    let mut memblock: Memblock<Option<Access>, 3> = Memblock::new(None);
    let full = Err(DiscoverError::Memblock(MemblockError::ListFull { list: "reserved" }));
    assert_eq!(memblock.discover(&tree, &image()), full);
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn a_pool_without_room_is_counted_and_the_rest_stands() {
    let blob = corpus_tree("rpi4-fw-2gb");
    let tree = Tree::from_read_only(&blob).unwrap();
    let mut memblock = unmapped();
    let around = Surroundings { image: range(4096, FIRST - 4096), ..Surroundings::NONE };
    let found = memblock.discover(&tree, &around).unwrap();
    assert_eq!((found.placed.iter().flatten().count(), found.unplaced), (0, 1));
    assert_eq!(regions(memblock.reserved()), [(0, FIRST)]);
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn a_tree_that_states_no_memory_is_refused() {
    let blob = corpus_tree("bcm2711-rpi-4-b");
    let tree = Tree::from_read_only(&blob).unwrap();
    assert_eq!(unmapped().discover(&tree, &Surroundings::NONE), Err(DiscoverError::NoMemoryStated));
}
