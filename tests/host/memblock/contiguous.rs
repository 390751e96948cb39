//! Contiguous areas: where the boot argument places one, and which regions of a tree become one.

use super::{GIB, MIB, at, range, regions, unmapped, with_memory};
use crate::fdt::{Builder, corpus_tree};
use quarry::fdt::Tree;
use quarry::mm::memblock::{CONTIGUOUS_ALIGN, ContiguousRequest, MemblockError, Surroundings};

fn request(size: u64, start: Option<u64>, end: Option<u64>) -> ContiguousRequest {
    ContiguousRequest { size, start: start.map(at), end: end.map(at) }
}

#[test]
fn an_area_lies_where_the_argument_says_and_below_the_limit() {
    let place = |size, start, end, limit| {
        let mut memblock = with_memory(GIB, 512 * MIB);
        memblock.reserve(at(GIB + 96 * MIB + 4096), 4096).unwrap();
        let placed = memblock.reserve_contiguous(request(size, start, end), at(limit));
        let reserved = regions(memblock.reserved());
        match placed {
            Ok(range) => {
                assert!(range.start().is_aligned(CONTIGUOUS_ALIGN) && range.size().is_multiple_of(CONTIGUOUS_ALIGN));
                assert!(reserved.contains(&(range.start().get(), range.size())), "it is reserved");
                Ok((range.start().get(), range.size()))
            }
            Err(error) => {
                assert_eq!(reserved.len(), 1, "nothing has changed");
                Err(error)
            }
        }
    };
    let all = u64::MAX;
    let no_room = |size| Err(MemblockError::OutOfMemory { size, align: 2 * MIB });
    // As high as there is room.
    assert_eq!(place(16 * MIB, None, None, all), Ok((GIB + 496 * MIB, 16 * MIB)));
    assert_eq!(place(16 * MIB, None, None, GIB + 100 * MIB), Ok((GIB + 80 * MIB, 16 * MIB)));
    assert_eq!(place(16 * MIB, None, None, GIB + 16 * MIB - 1), no_room(16 * MIB));
    assert_eq!(place(1, None, None, all), Ok((GIB + 510 * MIB, 2 * MIB)));
    assert_eq!(place(3 * MIB, None, None, all), Ok((GIB + 508 * MIB, 4 * MIB)));
    // At its start, or not at all.
    assert_eq!(place(16 * MIB, Some(GIB + 32 * MIB), None, all), Ok((GIB + 32 * MIB, 16 * MIB)));
    assert_eq!(place(16 * MIB, Some(GIB + 96 * MIB), None, all), no_room(16 * MIB));
    assert_eq!(place(16 * MIB, Some(GIB + 504 * MIB), None, all), no_room(16 * MIB));
    assert_eq!(place(16 * MIB, Some(GIB + 32 * MIB), None, GIB + 47 * MIB), no_room(16 * MIB));
    assert_eq!(place(2 * MIB, Some(GIB + MIB), None, all), Err(MemblockError::BadAlignment { align: 2 * MIB }));
    // Somewhere in a range, whose ends need not be aligned.
    let within = place(8 * MIB, Some(GIB + 31 * MIB), Some(GIB + 49 * MIB), all);
    assert_eq!(within, Ok((GIB + 40 * MIB, 8 * MIB)));
    assert_eq!(place(18 * MIB, Some(GIB + 31 * MIB), Some(GIB + 49 * MIB), all), no_room(18 * MIB));
    assert_eq!(place(0, None, None, all), Err(MemblockError::ZeroSize));
    assert_eq!(place(u64::MAX, None, None, all), no_room(u64::MAX));
    assert_eq!(place(2 * MIB, Some(!(2 * MIB - 1)), None, all), no_room(2 * MIB));
}

/// A machine of 256 MiB from 1 GiB on whose tree has these regions.
fn tree(regions: impl FnOnce(Builder) -> Builder) -> Vec<u8> {
    let root = Builder::root(1, 1).memory("memory@40000000", &[0x4000_0000, 0x1000_0000]);
    let parent = root.begin("reserved-memory").cells("#address-cells", &[1]).cells("#size-cells", &[1]);
    regions(parent.flag("ranges")).end().finish()
}

fn area(tree: Builder, name: &str) -> Builder {
    tree.begin(name).str("compatible", "shared-dma-pool").flag("reusable")
}

/// Where the region `name` has a place of its own, on a machine whose kernel lies at 32 MiB.
fn place_of(blob: &[u8], name: &str, other_cma: bool) -> Option<(u64, u64)> {
    let tree = Tree::from_read_only(blob).unwrap();
    let mut memblock = unmapped();
    let around = Surroundings { image: range(GIB + 32 * MIB, 4 * MIB), other_cma, ..Surroundings::NONE };
    let _ = memblock.discover(&tree, &around).unwrap();
    memblock.check().unwrap();
    let node = tree.reserved_memory().find(|region| region.name() == name).unwrap().node().offset();
    memblock.reserved().reserved_for(node).map(|place| (place.start().get(), place.size()))
}

#[test]
fn a_pool_that_is_lent_has_its_place_to_itself_or_is_not_one() {
    let fixed = |start: u32, size: u32| tree(|tree| area(tree, "pool").cells("reg", &[start, size]).end());
    assert_eq!(place_of(&fixed(0x4400_0000, 0x40_0000), "pool", false), Some((0x4400_0000, 4 * MIB)));
    // No whole page blocks; the kernel's; none that is RAM.
    for (start, size) in [
        (0x4410_0000, 0x40_0000),
        (0x4400_0000, 0x30_0000),
        (0x4220_0000, 0x20_0000),
        (0x4ff0_0000, 0x40_0000),
        (0x8000_0000, 0x40_0000),
    ] {
        assert_eq!(place_of(&fixed(start, size), "pool", false), None, "{size:#x} at {start:#x}");
    }
    // Another region has a page of it, before or behind in the tree; another area has some, too.
    for other in ["a", "z"] {
        let blob = tree(|tree| {
            let tree = if other == "a" { tree.begin("a").cells("reg", &[0x4430_0000, 0x1000]).end() } else { tree };
            let tree = area(tree, "pool").cells("reg", &[0x4400_0000, 0x40_0000]).end();
            if other == "z" { tree.begin("z").cells("reg", &[0x4430_0000, 0x1000]).end() } else { tree }
        });
        assert_eq!(place_of(&blob, "pool", false), None, "{other}");
    }
    let twice = tree(|tree| {
        let tree = area(tree, "pool").cells("reg", &[0x4400_0000, 0x40_0000]).end();
        area(tree, "more").cells("reg", &[0x4420_0000, 0x40_0000]).end()
    });
    assert_eq!(place_of(&twice, "pool", false), Some((0x4400_0000, 4 * MIB)));
    assert_eq!(place_of(&twice, "more", false), None);
}

#[test]
fn a_pool_without_an_address_is_placed_in_whole_page_blocks() {
    let dynamic = |alignment: &[u32]| {
        tree(|tree| {
            let tree = area(tree, "pool").cells("size", &[0x40_0000]);
            let tree = tree.cells("alloc-ranges", &[0x4800_0000, 0x0110_0000]);
            if alignment.is_empty() { tree.end() } else { tree.cells("alignment", alignment).end() }
        })
    };
    for alignment in [&[][..], &[0x1000], &[0x20_0000]] {
        assert_eq!(place_of(&dynamic(alignment), "pool", false), Some((0x48c0_0000, 4 * MIB)), "{alignment:x?}");
    }
    assert_eq!(place_of(&dynamic(&[0x100_0000]), "pool", false), Some((0x4800_0000, 4 * MIB)));
    let no_room = tree(|tree| {
        area(tree, "pool").cells("size", &[0x40_0000]).cells("alloc-ranges", &[0x4800_0000, 0x20_0000]).end()
    });
    assert_eq!(place_of(&no_room, "pool", false), None);
}

#[test]
fn the_trees_default_area_is_passed_over_where_the_argument_says_another() {
    let blob = tree(|tree| {
        let tree = area(tree, "fixed").cells("reg", &[0x4400_0000, 0x40_0000]).flag("linux,cma-default").end();
        let tree = area(tree, "placed").cells("size", &[0x40_0000]).flag("linux,cma-default").end();
        area(tree, "own").cells("size", &[0x40_0000]).end()
    });
    for other_cma in [false, true] {
        for (name, is_default) in [("fixed", true), ("placed", true), ("own", false)] {
            let place = place_of(&blob, name, other_cma);
            assert_eq!(place.is_some(), !(other_cma && is_default), "{name} {other_cma}");
        }
        let tree = Tree::from_read_only(&blob).unwrap();
        let mut memblock = unmapped();
        let found = memblock.discover(&tree, &Surroundings { other_cma, ..Surroundings::NONE }).unwrap();
        assert_eq!((found.passed_over, found.reserved_regions), if other_cma { (2, 1) } else { (0, 3) });
        let reserved = memblock.reserved().overlaps(range(0x4400_0000, 4 * MIB));
        assert_eq!(reserved, !other_cma, "it is memory as any other");
    }
}

// Of the boards that have such a pool, as their trees stand.
#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn the_pool_of_a_pi_4_is_an_area_and_the_default_one() {
    for name in ["rpi4-fw-2gb", "rpi4-fw-8gb"] {
        let blob = corpus_tree(name);
        let tree = Tree::from_read_only(&blob).unwrap();
        let areas: Vec<_> = tree.reserved_memory().filter(|region| region.is_contiguous_area()).collect();
        assert_eq!(areas.len(), 1, "{name}");
        assert!(areas[0].is_cma_default() && areas[0].is_dynamic() && areas[0].name() == "linux,cma", "{name}");
        let mut memblock = unmapped();
        let _ = memblock.discover(&tree, &Surroundings::NONE).unwrap();
        let place = memblock.reserved().reserved_for(areas[0].node().offset()).unwrap();
        assert_eq!((place.start().get(), place.size()), (0x3b40_0000 - 64 * MIB, 64 * MIB), "{name}");
    }
}
