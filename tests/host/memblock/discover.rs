//! Discovery on real trees: a Pi 4 as its firmware describes it, and as nobody has filled it in.

use super::arena::Access;
use super::{GIB, MIB, range, regions, unmapped};
use crate::fdt::{Builder, corpus_tree};
use quarry::addr::{PhysAddr, PhysRange};
use quarry::fdt::{FdtError, Tree};
use quarry::mm::memblock::{
    BOOT_ONLY, Cut, DiscoverError, Discovery, InitrdError, Memblock, MemblockError, Surroundings,
};

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
    let node = tree.find("/reserved-memory/linux,cma").unwrap().offset();
    assert_eq!(memblock.reserved().reserved_for(node), Some(range(FIRST - CMA, CMA)));
    let reserved_regions = tree.reserved_memory().filter(|region| region.is_enabled()).count();
    let stated = FIRST + GIB;
    assert_eq!(found, Discovery { stated, reserved_regions, placed: 1, ..Discovery::default() });
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
    let full = Err(DiscoverError::Memblock(MemblockError::ListFull { list: "reserved", slots: 3 }));
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
    assert_eq!((found.placed, found.unplaced), (0, 1));
    assert_eq!(regions(memblock.reserved()), [(0, FIRST)]);
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn a_tree_that_states_no_memory_is_refused() {
    let blob = corpus_tree("bcm2711-rpi-4-b");
    let tree = Tree::from_read_only(&blob).unwrap();
    assert_eq!(unmapped().discover(&tree, &Surroundings::NONE), Err(DiscoverError::NoMemoryStated));
}

/// Result of `discover` on a tree, with `INIT` slots in each list.
fn refusal<const INIT: usize>(tree: Builder, around: &Surroundings) -> Option<DiscoverError> {
    let blob = tree.finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let mut memblock: Memblock<Option<Access>, INIT> = Memblock::new(None);
    memblock.discover(&tree, around).err()
}

/// Result of discovery on a tree, and the memblock that it leaves.
fn discovered(tree: Builder, around: &Surroundings) -> (Discovery, super::Unmapped) {
    let blob = tree.finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let mut memblock = unmapped();
    let found = memblock.discover(&tree, around).unwrap();
    memblock.check().unwrap();
    (found, memblock)
}

/// An image of 4 MiB at 32 MiB whose third MiB only booting needs, and a tree of less than a page at 40 MiB.
fn kernel() -> Surroundings {
    let (image, boot_only) = (range(32 * MIB, 4 * MIB), range(34 * MIB, MIB));
    Surroundings { image, boot_only, device_tree: range(40 * MIB, 1000), ..Surroundings::NONE }
}

/// Parts of the image that are free when booting is over.
fn boot_only(memblock: &super::Unmapped) -> Vec<(u64, u64)> {
    let regions = memblock.reserved().regions().iter().filter(|region| region.owner == Some(BOOT_ONLY));
    regions.map(|region| (region.start().get(), region.range.size())).collect()
}

/// A number as one cell.
fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap()
}

fn initrd(tree: Builder, start: u64, end: u64) -> Builder {
    let tree = tree.begin("chosen").cells("linux,initrd-start", &[low(start)]);
    tree.cells("linux,initrd-end", &[low(end)]).end()
}

#[test]
fn what_only_booting_needs_is_free_afterwards_but_for_what_the_tree_reserves() {
    let (_, memblock) = discovered(bank(), &kernel());
    assert_eq!(boot_only(&memblock), [(34 * MIB, MIB)]);
    assert_eq!(regions(memblock.reserved()), [(32 * MIB, 2 * MIB), (34 * MIB, MIB), (35 * MIB, MIB), (40 * MIB, 1000)]);
    // All of it, an end, the middle to the byte; whichever list says so.
    let half = MIB / 2;
    let cases = [
        (32 * MIB, 4 * MIB, Vec::new()),
        (30 * MIB, 4 * MIB + half, vec![(34 * MIB + half, half)]),
        (34 * MIB + half, MIB, vec![(34 * MIB, half)]),
        (34 * MIB + 4096, 1, vec![(34 * MIB, 4096), (34 * MIB + 4097, MIB - 4097)]),
    ];
    for (start, size, left) in cases {
        let (_, memblock) = discovered(bank().reservation(start, size), &kernel());
        assert_eq!(boot_only(&memblock), left, "/memreserve/ of {size:#x} from {start:#x}");
        for no_map in [false, true] {
            let (found, memblock) = discovered(
                with_regions(|tree| {
                    let tree = tree.begin("region").cells("reg", &[low(start), low(size)]);
                    if no_map { tree.flag("no-map").end() } else { tree.end() }
                }),
                &kernel(),
            );
            assert_eq!(boot_only(&memblock), left, "{size:#x} from {start:#x}, no-map {no_map}");
            assert_eq!(found.still_mapped, usize::from(no_map));
        }
    }
}

#[test]
fn a_no_map_region_over_what_is_in_use_is_reserved_and_stays_mapped() {
    let with = |start: u64, size: u64| {
        let region = |tree: Builder| {
            let fixed = [start, size, 60 * MIB, MIB].map(low);
            tree.begin("region").cells("reg", &fixed).flag("no-map").end()
        };
        discovered(initrd(with_regions(region), 50 * MIB + 10, 51 * MIB), &kernel())
    };
    let cases =
        [(32 * MIB, 4 * MIB), (31 * MIB, MIB + 1), (36 * MIB - 1, 4096), (40 * MIB + 2000, 4096), (51 * MIB - 1, 1)];
    for (start, size) in cases {
        let (found, memblock) = with(start, size);
        assert_eq!(found.still_mapped, 1, "{size:#x} from {start:#x}");
        assert!(memblock.maps_any(range(start, size)) && !memblock.maps_any(range(60 * MIB, MIB)));
        let mapped: u64 = memblock.mapped_ranges().map(PhysRange::size).sum();
        assert_eq!(mapped, 63 * MIB, "the other range of the region is out of the map");
        assert!(!memblock.free_ranges().any(|free| free.overlaps(range(start, size))), "it is nobody's all the same");
    }
    for (start, size) in
        [(31 * MIB, MIB), (36 * MIB, 4 * MIB), (40 * MIB + 4096, 1), (51 * MIB, 4096), (50 * MIB - 1, 1)]
    {
        let (found, memblock) = with(start, size);
        assert_eq!(found.still_mapped, 0, "{size:#x} from {start:#x}");
        assert!(!memblock.maps_any(range(start, size)));
    }
}

#[test]
fn an_initrd_that_cannot_be_one_is_refused_and_its_memory_is_free() {
    let refused = |start: u64, end: u64| {
        let limited = Surroundings { limit: Some(48 * MIB), ..kernel() };
        let (found, memblock) = discovered(initrd(bank(), start, end), &limited);
        let kept = regions(memblock.reserved());
        assert_eq!((found.initrd, kept), (None, regions(discovered(bank(), &limited).1.reserved())));
        found.initrd_error
    };
    let ranged = |start, end| PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap();
    for (start, end) in [(30 * MIB, 33 * MIB), (35 * MIB, 37 * MIB), (36 * MIB - 1, 38 * MIB), (20 * MIB, 60 * MIB)] {
        assert_eq!(refused(start, end), Some(InitrdError::OverImage(ranged(start, end))));
    }
    for (start, end) in [(39 * MIB, 40 * MIB + 1), (40 * MIB + 999, 41 * MIB)] {
        assert_eq!(refused(start, end), Some(InitrdError::OverTree(ranged(start, end))));
    }
    // Before RAM, behind it, across its end, and above the limit.
    for (start, end) in
        [(1, 5), (15 * MIB, 17 * MIB), (200 * MIB, 201 * MIB), (63 * MIB, 65 * MIB), (70 * MIB, 71 * MIB)]
    {
        assert_eq!(refused(start, end), Some(InitrdError::OutsideMemory(ranged(start, end))));
    }
    assert!(matches!(refused(3, 2), Some(InitrdError::Tree(FdtError::Reversed { .. }))));
    assert_eq!(refused(44 * MIB, 44 * MIB), None, "no bytes are no initrd, and nothing to speak of");
    let start_alone = bank().begin("chosen").cells("linux,initrd-start", &[44 << 20]).end();
    let (found, memblock) = discovered(start_alone, &kernel());
    assert_eq!(found.initrd, None);
    assert!(matches!(
        found.initrd_error,
        Some(InitrdError::Tree(FdtError::Missing { property: "linux,initrd-end", .. }))
    ));
    assert_eq!(regions(memblock.reserved()), regions(discovered(bank(), &kernel()).1.reserved()));
    let (found, _) = discovered(bank().begin("chosen@0").cells("linux,initrd-end", &[44 << 20]).end(), &kernel());
    assert!(found.initrd_error.is_some(), "as the tree finds it for everybody else");
    // One that touches what is in use and shares no byte with it.
    for (start, end) in [(30 * MIB, 32 * MIB), (36 * MIB, 40 * MIB), (40 * MIB + 1000, 42 * MIB), (16 * MIB, 17 * MIB)]
    {
        let (found, memblock) = discovered(initrd(bank(), start, end), &kernel());
        assert_eq!((found.initrd, found.initrd_error), (Some(ranged(start, end)), None));
        assert!(
            memblock
                .reserved()
                .find(PhysAddr::new(start))
                .is_some_and(|region| region.range.contains_range(ranged(start, end)))
        );
    }
}

/// The bank with `linux,usable-memory-range`.
fn usable(cells: &[u32]) -> Builder {
    bank().begin("chosen").cells("linux,usable-memory-range", cells).end()
}

#[test]
fn only_the_memory_that_the_boot_loader_gives_is_used() {
    let memory = |tree: Builder| {
        let (found, memblock) = discovered(tree, &Surroundings::NONE);
        assert_eq!(found.stated - found.withheld, memblock.usable_size().unwrap());
        regions(memblock.memory())
    };
    let cells =
        |ranges: &[(u64, u64)]| ranges.iter().flat_map(|(start, size)| [low(*start), low(*size)]).collect::<Vec<_>>();
    let given = |ranges: &[(u64, u64)]| memory(usable(&cells(ranges)));
    assert_eq!(given(&[(20 * MIB, 4 * MIB)]), [(20 * MIB, 4 * MIB)]);
    // In any order, touching, one inside another, partly no RAM, with one that is empty.
    let odd =
        [(40 * MIB, MIB), (0, 18 * MIB), (40 * MIB + 4096, 4096), (41 * MIB, MIB), (50 * MIB, 0), (79 * MIB, GIB)];
    assert_eq!(given(&odd), [(16 * MIB, 2 * MIB), (40 * MIB, 2 * MIB), (79 * MIB, MIB)]);
    assert_eq!(given(&[(20 * MIB + 1, 3 * 4096)]), [(20 * MIB + 4096, 2 * 4096)], "whole pages of it");
    assert_eq!(given(&[(0, u64::from(u32::MAX))]), [(16 * MIB, 64 * MIB)]);
    // Nothing is given by nobody, and that is all.
    assert_eq!(given(&[]), [(16 * MIB, 64 * MIB)]);
    assert_eq!(given(&[(1, 0)]), [(16 * MIB, 64 * MIB)]);
    let bad = refusal::<8>(usable(&[20 << 20]), &Surroundings::NONE);
    let property = "linux,usable-memory-range";
    assert!(matches!(bad, Some(DiscoverError::Tree(FdtError::BadValue { property: of, .. })) if of == property));
    // mem= counts from the lowest RAM that is left.
    let around = Surroundings { limit: Some(MIB), ..Surroundings::NONE };
    let (found, memblock) = discovered(usable(&cells(&[(20 * MIB, 4 * MIB)])), &around);
    assert_eq!(regions(memblock.memory()), [(20 * MIB, MIB)]);
    assert_eq!((found.stated, found.withheld, found.limited), (64 * MIB, 60 * MIB, 3 * MIB));
    // And it counts holes.
    let around = Surroundings { limit: Some(12 * MIB), ..Surroundings::NONE };
    let (_, memblock) = discovered(usable(&cells(&[(20 * MIB, 4 * MIB), (30 * MIB, 4 * MIB)])), &around);
    assert_eq!(regions(memblock.memory()), [(20 * MIB, 4 * MIB), (30 * MIB, 2 * MIB)]);
    // By node, instead of what it states: the first node's second half, nothing of the second's.
    let by_node = Builder::root(1, 1).begin("memory@1000000").str("device_type", "memory");
    let by_node = by_node.cells("reg", &[16 << 20, 64 << 20]).cells("linux,usable-memory", &[48 << 20, 32 << 20]).end();
    let by_node = by_node.begin("memory@8000000").str("device_type", "memory").cells("reg", &[128 << 20, 64 << 20]);
    assert_eq!(memory(by_node.flag("linux,usable-memory").end()), [(48 * MIB, 32 * MIB)]);
}

#[test]
fn banks_that_cannot_be_reached_are_left_out() {
    let far = |start: u64, size: u64| {
        let cells = [16 * MIB, 64 * MIB, start, size].map(|number| [low(number >> 32), low(number)]).concat();
        let around = Surroundings { end: PhysAddr::new(1 << 47), span: 1 << 44, ..kernel() };
        let (found, memblock) = discovered(Builder::root(2, 2).memory("memory@1000000", &cells), &around);
        assert_eq!(found.stated, 64 * MIB + size);
        assert_eq!(memblock.usable_size().unwrap(), found.stated - found.beyond);
        found.beyond
    };
    for start in [1 << 45, 1 << 47, 1 << 48, 1 << 52, 1 << 63, u64::MAX - GIB] {
        assert_eq!(far(start, GIB), GIB, "{start:#x}");
    }
    let (of_the_tree, of_page_numbers) = (1 << 48, 16 * MIB + (1 << 44));
    assert_eq!(far(of_the_tree - GIB, 2 * GIB), 2 * GIB);
    assert_eq!(far(of_page_numbers - GIB, GIB), 0);
    assert_eq!(far(of_page_numbers - GIB, GIB + 4096), 4096);
    assert_eq!(far(1 << 53, u64::MAX - (1 << 53)), u64::MAX - (1 << 53));
    // Nothing but such.
    let cells = [0x10000, 0, 1, 0];
    let tree = Builder::root(2, 2).memory("memory@1000000000000", &cells);
    assert_eq!(refusal::<8>(tree, &kernel()), Some(DiscoverError::NothingLeft(Cut::Reach)));
}

#[test]
fn the_word_that_starts_a_cpu_is_reserved_where_it_is_memory_that_is_not_the_kernels() {
    let with = |word: u64, status: &str| {
        let cpu = bank().begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]).begin("cpu@1");
        let cpu = cpu.cells("reg", &[1]).str("enable-method", "spin-table").str("status", status);
        discovered(cpu.cells("cpu-release-addr", &[0, low(word)]).end().end(), &kernel()).1
    };
    let taken = |memblock: &super::Unmapped, word: u64| memblock.reserved().overlaps(range(word, 8));
    assert!(taken(&with(60 * MIB + 0xd8, "okay"), 60 * MIB + 0xd8));
    assert!(!taken(&with(60 * MIB + 0xd8, "disabled"), 60 * MIB + 0xd8));
    assert!(!taken(&with(0xd8, "okay"), 0xd8), "no memory");
    assert_eq!(boot_only(&with(34 * MIB + 8, "okay")), [(34 * MIB, MIB)], "the kernel writes nothing there");
}

/// A bank of 64 MiB at 16 MiB; cells are single.
fn bank() -> Builder {
    Builder::root(1, 1).memory("memory@1000000", &[16 << 20, 64 << 20])
}

/// With the children of `/reserved-memory` that `f` adds.
fn with_regions(f: impl FnOnce(Builder) -> Builder) -> Builder {
    let regions =
        bank().begin("reserved-memory").cells("#address-cells", &[1]).cells("#size-cells", &[1]).flag("ranges");
    f(regions).end()
}

/// Banks, reservations or marks that the lists have no slots for.
#[test]
fn lists_that_are_full_refuse_the_tree_wherever_it_happens() {
    let memory = Some(DiscoverError::Memblock(MemblockError::ListFull { list: "memory", slots: 2 }));
    let reserved = Some(DiscoverError::Memblock(MemblockError::ListFull { list: "reserved", slots: 2 }));
    let banks = [1_u32, 3, 5].map(|start| [start << 20, 1 << 20]).concat();
    assert_eq!(refusal::<2>(Builder::root(1, 1).memory("memory@100000", &banks), &Surroundings::NONE), memory);
    let around = Surroundings { image: range(16 * MIB, MIB), device_tree: range(18 * MIB, MIB), ..Surroundings::NONE };
    assert_eq!(refusal::<2>(bank(), &around), None);
    assert_eq!(refusal::<2>(bank().reservation(20 << 20, 4096), &around), reserved);
    let initrd = |start: u32, end: u32| {
        bank().begin("chosen").cells("linux,initrd-start", &[start]).cells("linux,initrd-end", &[end]).end()
    };
    assert_eq!(refusal::<3>(initrd(20 << 20, 21 << 20), &around), None);
    assert_eq!(refusal::<2>(initrd(20 << 20, 21 << 20), &around), reserved);
    let fixed = |no_map: bool| {
        with_regions(|tree| {
            let tree = tree.begin("firmware@1400000").cells("reg", &[20 << 20, 4096]);
            if no_map { tree.flag("no-map").end() } else { tree.end() }
        })
    };
    assert_eq!(refusal::<2>(fixed(false), &around), reserved);
    assert_eq!(refusal::<2>(fixed(true), &Surroundings::NONE), memory);
    let pool = |no_map: bool| {
        with_regions(|tree| {
            let tree = tree.begin("pool").cells("size", &[4096]).cells("alloc-ranges", &[20 << 20, 1 << 20]);
            if no_map { tree.flag("no-map").end() } else { tree.end() }
        })
    };
    assert_eq!(refusal::<2>(pool(false), &around), reserved);
    assert_eq!(refusal::<2>(pool(true), &Surroundings::NONE), memory);
    let anywhere = with_regions(|tree| tree.begin("pool").cells("size", &[4096]).end());
    // The tree's own place leaves a gap above it, so that the pool is a third region.
    assert_eq!(refusal::<2>(anywhere, &around), reserved);
}

#[test]
fn what_the_tree_says_wrongly_is_refused() {
    let wraps = |tree: Builder| matches!(refusal::<8>(tree, &Surroundings::NONE), Some(DiscoverError::Tree(_)));
    assert!(wraps(Builder::root(1, 1).memory("memory@1000000", &[16 << 20, 64 << 20, 1])));
    assert!(wraps(bank().reservation(u64::MAX - 4095, 1 << 20)));
    assert!(wraps(with_regions(|tree| tree.begin("firmware@1400000").cells("reg", &[20 << 20]).end())));
    let wrong = refusal::<8>(bank().reservation(u64::MAX - 4095, 1 << 20), &Surroundings::NONE);
    assert_eq!(
        wrong,
        Some(DiscoverError::Tree(FdtError::ReservationWraps { entry: 0, base: u64::MAX - 4095, size: 1 << 20 }))
    );
}

#[test]
fn surroundings_that_leave_nothing_or_lie_outside_are_refused() {
    let none = |by| Some(DiscoverError::NothingLeft(by));
    let end = Surroundings { end: PhysAddr::new(16 * MIB), ..Surroundings::NONE };
    assert_eq!(refusal::<8>(bank(), &end), none(Cut::Reach));
    for limit in [0, 4095] {
        let around = Surroundings { limit: Some(limit), ..Surroundings::NONE };
        assert_eq!(refusal::<8>(bank(), &around), none(Cut::Limit(limit)));
        assert_eq!(refusal::<8>(bank(), &Surroundings { limit: Some(limit), ..kernel() }), none(Cut::Limit(limit)));
    }
    assert_eq!(refusal::<8>(usable(&[1 << 20, 1 << 20]), &kernel()), none(Cut::Withheld));
    // Each that takes a byte of the image.
    let cut = |by| Some(DiscoverError::ImageLeftOut { by, image: kernel().image });
    for limit in [4096, 20 * MIB - 1] {
        assert_eq!(refusal::<8>(bank(), &Surroundings { limit: Some(limit), ..kernel() }), cut(Cut::Limit(limit)));
    }
    assert_eq!(refusal::<8>(bank(), &Surroundings { limit: Some(20 * MIB), ..kernel() }), None);
    assert_eq!(refusal::<8>(bank(), &Surroundings { end: PhysAddr::new(36 * MIB - 1), ..kernel() }), cut(Cut::Reach));
    assert_eq!(refusal::<8>(bank(), &Surroundings { span: 20 * MIB - 1, ..kernel() }), cut(Cut::Reach));
    assert_eq!(refusal::<8>(usable(&[32 << 20, (4 << 20) - 1]), &kernel()), cut(Cut::Withheld));
    assert_eq!(refusal::<8>(usable(&[33 << 20, 8 << 20]), &kernel()), cut(Cut::Withheld));
    let said = refusal::<8>(bank(), &Surroundings { limit: Some(MIB), ..kernel() }).unwrap().to_string();
    assert!(said.contains("mem=") && said.contains(&kernel().image.to_string()), "{said}");
    let said = refusal::<8>(usable(&[33 << 20, 8 << 20]), &kernel()).unwrap().to_string();
    assert!(said.contains("linux,usable-memory-range of /chosen"), "{said}");
    let image = range(79 * MIB, 2 * MIB);
    let outside = Some(DiscoverError::ImageOutsideMemory { image });
    assert_eq!(refusal::<8>(bank(), &Surroundings { image, ..Surroundings::NONE }), outside);
    let device_tree = range(1 << 53, 4096);
    let beyond = MemblockError::OutsidePhysicalSpace { base: device_tree.start() };
    let around = Surroundings { device_tree, ..Surroundings::NONE };
    assert_eq!(refusal::<8>(bank(), &around), Some(DiscoverError::Memblock(beyond)));
    let all = with_regions(|tree| tree.begin("all@1000000").cells("reg", &[16 << 20, 64 << 20]).flag("no-map").end());
    assert_eq!(refusal::<8>(all, &Surroundings::NONE), Some(DiscoverError::AllReserved));
    let all = bank().reservation(16 << 20, 64 << 20);
    assert_eq!(refusal::<8>(all, &Surroundings::NONE), Some(DiscoverError::AllReserved));
}

#[test]
fn a_memblock_that_was_handed_over_discovers_nothing() {
    let blob = Builder::root(1, 1).finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let mut memblock = super::with_memory(MIB, MIB);
    memblock.retire().unwrap().for_each(drop);
    let retired = Err(DiscoverError::Memblock(MemblockError::Retired));
    assert_eq!(memblock.discover(&tree, &Surroundings::NONE), retired);
}

#[test]
fn every_region_that_was_placed_is_found_by_its_node_however_many() {
    const POOLS: usize = 40;
    let tree = with_regions(|mut tree| {
        for number in 0..POOLS {
            tree = tree.begin(&format!("pool-{number}")).cells("size", &[4096]);
            tree = if number % 2 == 0 { tree.flag("no-map").end() } else { tree.end() };
        }
        tree.begin("huge").cells("size", &[1 << 30]).end()
    });
    let blob = tree.finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let mut memblock = unmapped();
    let found = memblock.discover(&tree, &Surroundings::NONE).unwrap();
    memblock.check().unwrap();
    assert_eq!((found.placed, found.unplaced, found.reserved_regions), (POOLS, 1, POOLS + 1));
    // They lie side by side, and stay apart all the same.
    assert_eq!((memblock.reserved().len(), memblock.reserved().total()), (POOLS, POOLS as u64 * 4096));
    for region in tree.reserved_memory() {
        let place = memblock.reserved().reserved_for(region.node().offset());
        assert_eq!(place.map(PhysRange::size), region.name().starts_with("pool").then_some(4096), "{}", region.name());
        let mapped = place.is_none_or(|place| memblock.mapped_ranges().any(|bank| bank.contains_range(place)));
        assert_eq!(mapped, !region.is_no_map());
    }
    let mapped: u64 = memblock.mapped_ranges().map(PhysRange::size).sum();
    assert_eq!(64 * MIB - mapped, POOLS as u64 / 2 * 4096);
    assert_eq!(mapped - memblock.free_size(), POOLS as u64 / 2 * 4096);
}
