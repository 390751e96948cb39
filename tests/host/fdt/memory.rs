//! Memory nodes, memory reservations and `/reserved-memory`.

use super::builder::{Builder, corpus_tree};
use quarry::addr::{PhysAddr, PhysRange};
use quarry::fdt::{FdtError, ReservedMemory, Tree};

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(base), size).unwrap()
}

fn memory(blob: Vec<u8>) -> Result<Vec<PhysRange>, FdtError> {
    Tree::from_read_only(&blob)?.memory().collect()
}

// Behaviour 59
#[test]
fn one_and_two_cells_are_read_in_every_mixture() {
    let one = |address, size, cells: &[u32]| memory(Builder::root(address, size).memory("memory@0", cells).finish());
    assert_eq!(one(1, 1, &[0x8000_0000, 0x1000]), Ok(vec![range(0x8000_0000, 0x1000)]));
    assert_eq!(one(2, 1, &[1, 0x4000_0000, 0x8000_0000]), Ok(vec![range(0x1_4000_0000, 0x8000_0000)]));
    assert_eq!(one(1, 2, &[0x4000_0000, 2, 0]), Ok(vec![range(0x4000_0000, 0x2_0000_0000)]));
    assert_eq!(one(2, 2, &[2, 0, 1, 0x1000]), Ok(vec![range(0x2_0000_0000, 0x1_0000_1000)]));
}

// Behaviour 59
#[test]
fn three_cells_at_the_root_are_refused() {
    let blob = |address, size| Builder::root(address, size).memory("memory@0", &[0, 0, 0, 0, 0x1000]).finish();
    for (address, size) in [(3, 1), (1, 3), (3, 2), (0, 2), (2, 0)] {
        assert!(matches!(memory(blob(address, size)), Err(FdtError::BadCells { .. })), "{address} {size}");
    }
}

#[test]
fn without_cell_counts_an_address_has_two_cells_and_a_size_one() {
    let blob = Builder::default().begin("").memory("memory@0", &[1, 0, 0x1000]).finish();
    assert_eq!(memory(blob), Ok(vec![range(0x1_0000_0000, 0x1000)]));
}

// Behaviour 60
#[test]
fn a_reg_that_is_cut_short_is_refused() {
    for cells in [&[0u32, 0, 0][..], &[0, 0, 0, 0x1000, 0], &[0, 0, 0, 0x1000, 0, 0, 0]] {
        let refused = memory(Builder::root(2, 2).memory("memory@0", cells).finish());
        assert!(matches!(refused, Err(FdtError::BadValue { property: "reg", .. })), "{refused:?}");
    }
    let blob = Builder::root(1, 1).begin("memory@0").str("device_type", "memory").prop("reg", &[0; 9]).end().finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let refused = tree.memory().next().unwrap().unwrap_err();
    assert_eq!(tree.path_at(refused.node().unwrap()).unwrap().to_string(), "/memory@0");
}

// Behaviour 61
#[test]
fn banks_are_given_as_they_stand_without_those_of_size_zero() {
    let cells = [0, 0x8000_0000, 0, 0x1000, 0, 0, 0, 0, 0, 0x4000_0000, 0, 0x2000, 0, 0x4000_1000, 0, 0x3000];
    let banks = memory(Builder::root(2, 2).memory("memory@80000000", &cells).finish());
    assert_eq!(banks, Ok(vec![range(0x8000_0000, 0x1000), range(0x4000_0000, 0x2000), range(0x4000_1000, 0x3000)]));
}

// Behaviour 62
#[test]
fn a_bank_that_wraps_is_refused_and_named() {
    let blob = Builder::root(2, 2).memory("memory@f", &[u32::MAX, 0xffff_f000, 0, 0x1001]).finish();
    let refused = memory(blob.clone()).unwrap_err();
    assert!(matches!(refused, FdtError::Wraps { base: 0xffff_ffff_ffff_f000, size: 0x1001, .. }), "{refused:?}");
    let tree = Tree::from_read_only(&blob).unwrap();
    assert_eq!(tree.path_at(refused.node().unwrap()).unwrap().to_string(), "/memory@f");
}

// Behaviour 64
#[test]
fn every_memory_node_counts_and_only_those() {
    let blob = Builder::root(1, 1)
        .memory("memory@80000000", &[0x8000_0000, 0x1000])
        .memory("memory@40000000", &[0x4000_0000, 0x1000])
        .memory("anything", &[0xc000_0000, 0x1000])
        .begin("memory@1")
        .cells("reg", &[0x1000, 0x1000])
        .end()
        .begin("soc")
        .memory("memory@2000", &[0x2000, 0x1000])
        .end()
        .begin("secram")
        .str("device_type", "memory")
        .str("status", "disabled")
        .cells("reg", &[0x3000, 0x1000])
        .end()
        .begin("okay")
        .str("device_type", "memory")
        .str("status", "okay")
        .cells("reg", &[0x5000, 0x1000])
        .end()
        .begin("ok")
        .str("device_type", "memory")
        .str("status", "ok")
        .cells("reg", &[0x7000, 0x1000])
        .end()
        .finish();
    let bases = [0x8000_0000, 0x4000_0000, 0xc000_0000, 0x5000, 0x7000];
    assert_eq!(memory(blob), Ok(bases.map(|base| range(base, 0x1000)).to_vec()));
}

#[test]
fn no_memory_at_all_is_an_empty_list() {
    assert_eq!(memory(Builder::root(2, 2).finish()), Ok(vec![]));
    assert_eq!(memory(Builder::root(2, 2).memory("memory@0", &[0, 0, 0, 0]).finish()), Ok(vec![]));
}

#[test]
fn reservations_end_at_the_first_of_size_zero_and_may_not_wrap() {
    let list =
        |tree: Builder| Tree::from_read_only(&tree.finish()).unwrap().reservations().collect::<Result<Vec<_>, _>>();
    let two = Builder::root(2, 2).reservation(0x1000, 0x234).reservation(0, 0x1000);
    assert_eq!(list(two.clone()), Ok(vec![range(0x1000, 0x234), range(0, 0x1000)]));
    assert_eq!(list(two.reservation(0x5000, 0).reservation(0x6000, 0x1000)).map(|list| list.len()), Ok(2));
    let wraps = list(Builder::root(2, 2).reservation(1, 1).reservation(u64::MAX, 2));
    assert_eq!(wraps, Err(FdtError::ReservationWraps { entry: 1, base: u64::MAX, size: 2 }));
}

fn reserved() -> Vec<u8> {
    Builder::root(2, 1)
        .reservation(0x8000_0000, 0x2000)
        .begin("device")
        .cells("memory-region", &[7, 8])
        .end()
        .begin("lost")
        .cells("memory-region", &[7, 99, 3])
        .end()
        .begin("other")
        .cells("phandle", &[3])
        .end()
        .begin("reserved-memory")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[1])
        .flag("ranges")
        .begin("fw@80001000")
        .cells("reg", &[0, 0x8000_1000, 0x1001, 1, 0, 0x1000])
        .flag("no-map")
        .cells("phandle", &[7])
        .end()
        .begin("pool")
        .str("compatible", "shared-dma-pool")
        .flag("reusable")
        .flag("linux,cma-default")
        .cells("size", &[0x40_0000])
        .cells("alignment", &[0, 0x20_0000])
        .cells("alloc-ranges", &[0, 0, 0x4000_0000])
        .cells("linux,phandle", &[8])
        .end()
        .begin("off@0")
        .str("status", "disabled")
        .cells("reg", &[0, 0, 0x1000])
        .end()
        .end()
        .finish()
}

// Behaviour 65
#[test]
fn a_static_reservation_states_its_ranges_to_the_byte_and_whether_it_may_be_mapped() {
    let blob = reserved();
    let tree = Tree::from_read_only(&blob).unwrap();
    let fw = tree.reserved_memory().next().unwrap();
    assert_eq!((fw.name(), fw.is_no_map(), fw.is_dynamic(), fw.is_enabled()), ("fw@80001000", true, false, true));
    let ranges: Vec<_> = fw.ranges().map(Result::unwrap).collect();
    assert_eq!(ranges, [range(0x8000_1000, 0x1001), range(0x1_0000_0000, 0x1000)]);
    assert!(!tree.reserved_memory().last().unwrap().is_enabled());
}

// Behaviour 66
#[test]
fn a_dynamic_reservation_states_size_alignment_and_where() {
    let blob = reserved();
    let tree = Tree::from_read_only(&blob).unwrap();
    let pool = tree.reserved_memory().nth(1).unwrap();
    assert!(pool.is_dynamic() && pool.is_reusable() && pool.is_cma_default() && !pool.is_no_map());
    assert!(pool.node().is_compatible("shared-dma-pool") && pool.ranges().next().is_none());
    assert_eq!((pool.size(), pool.alignment()), (Ok(Some(0x40_0000)), Ok(Some(0x20_0000))));
    assert_eq!(pool.alloc_ranges().collect::<Vec<_>>(), [Ok(range(0, 0x4000_0000))]);
}

// Behaviour 67
#[test]
fn a_reservation_in_both_lists_is_given_by_both() {
    let blob = reserved();
    let tree = Tree::from_read_only(&blob).unwrap();
    let block = tree.reservations().next().unwrap().unwrap();
    let node = tree.reserved_memory().next().unwrap().ranges().next().unwrap().unwrap();
    assert_eq!(block.intersection(node), Some(range(0x8000_1000, 0x1000)));
}

#[test]
fn a_devices_memory_regions_are_followed_and_a_dead_end_is_named() {
    let blob = reserved();
    let tree = Tree::from_read_only(&blob).unwrap();
    let names = |path: &str| -> Vec<_> {
        tree.find(path).unwrap().memory_regions().map(|region| region.map(ReservedMemory::name)).collect()
    };
    assert_eq!(names("/device"), [Ok("fw@80001000"), Ok("pool")]);
    let node = tree.find("/lost").unwrap().offset();
    // 99 names nothing, 3 something that is no memory.
    let dead_end = |phandle| Err(FdtError::NoSuchPhandle { node, phandle });
    assert_eq!(names("/lost"), [Ok("fw@80001000"), dead_end(99), dead_end(3)]);
}

#[test]
fn an_unreadable_reservation_is_an_error_not_an_empty_list() {
    let with = |name: &str, cells: &[u32]| {
        let home = Builder::root(2, 2).begin("reserved-memory").cells("#address-cells", &[3]);
        home.begin("x").cells(name, cells).end().end().finish()
    };
    let blob = with("reg", &[0, 0, 0, 0x1000]);
    let tree = Tree::from_read_only(&blob).unwrap();
    let region = tree.reserved_memory().next().unwrap();
    assert_eq!(region.ranges().next(), Some(Err(FdtError::WideCells { node: region.node().offset() })));
    let blob = with("size", &[1, 2, 3]);
    let tree = Tree::from_read_only(&blob).unwrap();
    let region = tree.reserved_memory().next().unwrap();
    assert_eq!(region.size(), Err(FdtError::BadValue { node: region.node().offset(), property: "size" }));
}

// Behaviour 71, the part that the tree states
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn a_pi_4_with_8_gib_states_its_banks_and_the_page_of_the_spin_table() {
    let mut blob = corpus_tree("rpi4-fw-8gb");
    let tree = Tree::new(&mut blob).unwrap();
    let banks: Vec<_> = tree.memory().map(Result::unwrap).collect();
    let expected = [
        range(0, 0x3b40_0000),
        range(0x4000_0000, 0xbc00_0000),
        range(0x1_0000_0000, 0x8000_0000),
        range(0x1_8000_0000, 0x8000_0000),
    ];
    assert_eq!(banks, expected);
    assert_eq!(tree.reservations().collect::<Vec<_>>(), [Ok(range(0, 0x1000))]);
}
