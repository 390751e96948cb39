//! Device trees that other systems failed on: the machine boots and RAM adds up, or a message says what is wrong and where.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use quarry::instance;
use quarry::kernel::init::{self, Machine};
use quarry::kernel::memmap::Owner;
use quarry::kernel::memory_map::account;
use quarry::ktest;
use quarry::mm::layout;

fn machine() -> &'static Machine {
    init::machine().expect("tests run after booting")
}

/// RAM adds up, and the lists of memblock are as they must be. Of the regions that are set aside none is the page allocator's.
fn memory_is_right() {
    let account = account(machine()).expect("RAM adds up");
    let stated: u64 = machine().tree.memory().flatten().map(|range| range.size()).sum();
    assert_eq!(account.map.total(), stated);
    let memblock = instance::memblock();
    memblock.check().expect("memblock keeps its invariants");
    assert!(!memblock.is_lent(), "the room that was lent is the page allocator's now");
    for region in machine().tree.reserved_memory().filter(|region| region.is_enabled()) {
        for range in region.ranges().flatten() {
            assert!(memblock.reserved().find(range.start()).is_some(), "{range} is reserved");
            assert!(!memblock.free_ranges().any(|free| free.overlaps(range)), "{range} is not free");
        }
    }
}

// More regions than memblock has slots for before memory is mapped.
ktest!(
    regions_by_the_thousand_are_taken,
    machine no_map_64 = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/n64.dtb.gz",
    machine no_map_2000 = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/n2000.dtb.gz",
    machine reserved_127 = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/r127.dtb.gz",
    machine reserved_4000 = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/r4000.dtb.gz",
    machine banks_251 = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/b250.dtb.gz",
    timeout = 60,
);
fn regions_by_the_thousand_are_taken() {
    memory_is_right();
    let tables = instance::kernel_tables().expect("the final tables");
    for region in machine().tree.reserved_memory() {
        for range in region.ranges().flatten() {
            let alias = layout::phys_to_virt(range.start()).expect("in reach");
            assert_eq!(tables.translate(alias).is_none(), region.is_no_map(), "{range}");
        }
    }
}

// As many regions that are only a size as there may be: each has its place and its name.
ktest!(
    regions_without_an_address_are_all_placed_and_named,
    machine sixteen = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/pool16.dtb.gz",
    machine six_hundred = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/pool600.dtb.gz",
    timeout = 60,
);
fn regions_without_an_address_are_all_placed_and_named() {
    memory_is_right();
    let account = account(machine()).expect("RAM adds up");
    let tables = instance::kernel_tables().expect("the final tables");
    let mut placed = 0;
    for region in machine().tree.reserved_memory().filter(|region| region.name() != "huge") {
        let (name, size) = (region.name(), region.size().expect("a number").expect("a size"));
        let place = instance::memblock().reserved().reserved_for(region.node().offset()).expect("a place");
        assert_eq!(place.size(), size, "{name}");
        let owner = if region.is_no_map() { Owner::NoMap(name) } else { Owner::Reserved(name) };
        assert_eq!(account.map.sum(|of| of == owner), size, "{name}");
        let alias = layout::phys_to_virt(place.start()).expect("in reach");
        assert_eq!(tables.translate(alias).is_none(), region.is_no_map(), "{name}");
        placed += 1;
    }
    assert_eq!(placed, machine().found.placed);
    assert_eq!(machine().found.unplaced, usize::from(placed == 600));
}

ktest!(
    boot: a_region_that_there_is_no_room_for_is_named,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/pool600.dtb.gz",
    report = "no room for 1 reserved-memory regions",
    report = "no room for /reserved-memory/huge",
    exit = 0
);
