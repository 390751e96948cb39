//! Device trees that other systems failed on: the machine boots and RAM adds up, or a message says what is wrong and where.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use quarry::addr::{CpuId, PhysAddr, PhysRange};
use quarry::arch::aarch64::boot;
use quarry::fdt::Cpu;
use quarry::gfp::Gfp;
use quarry::global;
use quarry::kernel::cpus::{self, CpuError, CpuState, ReleaseError};
use quarry::kernel::init::{self, Machine};
use quarry::kernel::machine_account::account;
use quarry::kernel::owner_map::{Owner, Row};
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
    let memblock = global::memblock();
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
    let tables = global::kernel_tables().expect("the final tables");
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
    let tables = global::kernel_tables().expect("the final tables");
    let mut placed = 0;
    for region in machine().tree.reserved_memory().filter(|region| region.name() != "huge") {
        let (name, size) = (region.name(), region.size().expect("a number").expect("a size"));
        let place = global::memblock().reserved().reserved_for(region.node().offset()).expect("a place");
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

// Memory of booting alone that the device tree reserves is not freed, and the map of RAM adds up.
ktest!(
    what_is_reserved_over_the_image_stays_reserved,
    machine memreserve = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/memres_kernel.dtb.gz",
    machine plain = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/reservedkernel.dtb.gz",
    machine no_map = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/nomapkernel.dtb.gz",
);
fn what_is_reserved_over_the_image_stays_reserved() {
    memory_is_right();
    let boot = &machine().boot;
    let taken = PhysRange::from_size(PhysAddr::new(0x4820_0000), 0x80_0000).expect("8 MiB");
    assert!(taken.contains_range(boot.image_range()), "else the tree has to be changed");
    let account = account(machine()).expect("RAM adds up");
    let is_free = |row: &&Row| row.owner == Owner::Pages && row.range.overlaps(taken);
    assert_eq!(account.map.rows().iter().find(is_free), None);
    assert!(!global::memblock().free_ranges().any(|free| free.overlaps(taken)));
    let init = boot.image_phys(boot::init_start());
    let row = account.map.rows().iter().find(|row| row.range.contains(init)).expect("a row");
    assert!(matches!(row.owner, Owner::Reserved("/memreserve/" | "k@48200000")), "{row}");
    // The kernel's own memory stays mapped; so the region is no `no-map` one any more.
    assert!(global::memblock().maps_any(taken));
    assert!(global::io_space().reserved().ranges().iter().all(|reserved| !reserved.no_map));
    assert_eq!(machine().found.still_mapped, machine().tree.reserved_memory().filter(|of| of.is_no_map()).count());
}

ktest!(
    boot: a_no_map_region_over_the_image_is_named,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/nomapkernel.dtb.gz",
    report = "1 ranges of no-map regions stay mapped",
    report = "/reserved-memory/k@48200000 [0x48200000..0x48a00000) lies over the kernel image",
    report = "sum 262144 KiB",
    exit = 0
);

ktest!(
    an_initrd_that_cannot_be_one_is_none,
    machine over_the_image = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/initrdkernel.dtb.gz",
    machine only_a_start = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/initrdonlystart.dtb.gz",
    report = "no initrd: ",
);
fn an_initrd_that_cannot_be_one_is_none() {
    memory_is_right();
    assert_eq!(machine().found.initrd, None);
    let account = account(machine()).expect("RAM adds up");
    assert_eq!(account.map.sum(|owner| owner == Owner::Reserved("initrd")), 0);
    let error = machine().found.initrd_error.expect("a reason");
    quarry::kprintln!("no initrd: {error}");
}

ktest!(
    boot: an_initrd_over_the_image_is_named,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/initrdkernel.dtb.gz",
    report = "no initrd: [0x48000000..0x49000000) lies over the kernel image",
    report = "sum 262144 KiB",
    exit = 0
);
ktest!(
    boot: half_an_initrd_is_named,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/initrdonlystart.dtb.gz",
    report = "no initrd: /chosen: no linux,initrd-end",
    report = "sum 262144 KiB",
    exit = 0
);

// Banks that the linear map, or page numbers, do not reach.
ktest!(
    banks_beyond_reach_are_left_out,
    machine at_2_to_48 = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/m48.dtb.gz",
    machine at_2_to_48_on_the_largest = "cpu=max loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/m48.dtb.gz",
    machine at_2_to_45 = "cpu=max loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/m45.dtb.gz",
);
fn banks_beyond_reach_are_left_out() {
    memory_is_right();
    assert_eq!((machine().found.stated, machine().found.beyond), ((256 << 20) + (1 << 30), 1 << 30));
    assert_eq!(global::memblock().usable_size(), Ok(256 << 20));
    let account = account(machine()).expect("RAM adds up");
    assert_eq!(account.map.sum(|owner| owner == Owner::LeftOut), 1 << 30);
}
ktest!(
    boot: a_bank_beyond_reach_is_named,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/m48.dtb.gz",
    report = "memory: 1 GiB left out, beyond what this CPU and the kernel reach",
    report = "left out [0x1000000000000..0x1000040000000) 1 GiB",
    report = "sum 1310720 KiB",
    exit = 0
);

ktest!(
    only_the_memory_that_is_given_is_used,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/usable.dtb.gz",
);
fn only_the_memory_that_is_given_is_used() {
    memory_is_right();
    assert_eq!(global::memblock().usable_size(), Ok(64 << 20));
    let account = account(machine()).expect("RAM adds up");
    let outside = |row: &&Row| !(0x4800_0000..0x4c00_0000).contains(&row.range.start().get());
    assert!(account.map.rows().iter().filter(outside).all(|row| row.owner != Owner::Pages));
}
ktest!(
    boot: memory_that_is_not_given_is_named,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/usable.dtb.gz",
    report = "memory   [0x48000000..0x4c000000) 64 MiB",
    report = "192 MiB left out, outside linux,usable-memory-range of /chosen",
    report = "sum 262144 KiB",
    exit = 0
);
ktest!(
    boot: refuses_memory_that_is_given_elsewhere,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/usable_elsewhere.dtb.gz",
    report = "cannot boot: linux,usable-memory-range of /chosen leaves no RAM, or not enough, where the kernel image [0x48200000"
);
ktest!(
    boot: refuses_a_limit_below_the_image,
    machine = "loader=raw addr=0x48200000 append=mem=64M",
    report = "cannot boot: the boot argument mem= (0x4000000 bytes from the lowest RAM on) leaves no RAM, or not enough, where the"
);
ktest!(
    boot: refuses_no_memory_at_all,
    machine = "append=mem=0",
    report = "cannot boot: the boot argument mem= (0x0 bytes from the lowest RAM on) leaves no RAM"
);

// A word in quotes is no argument, and a word that is not UTF-8 does not disturb the others.
ktest!(
    boot: a_quoted_limit_is_none,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/q1.dtb.gz bootargs=off",
    report = "memory: 256 MiB in 1 regions",
    exit = 0
);
ktest!(
    boot: arguments_beside_garbage_are_obeyed,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/bootargsutf.dtb.gz bootargs=off",
    report = "boot argument \"\\xff\\xfex\" is no text: not heard",
    report = "memory map:",
    exit = 0
);
ktest!(
    boot: a_value_that_is_none_is_named,
    machine = "append='dma_zone=x kasan=maybe'",
    report = "boot argument dma_zone=x has to be a size",
    report = "boot argument kasan=maybe has to be on or off",
    exit = 0
);

// An error of a tree names the node.
ktest!(
    boot: refuses_a_bad_property_by_the_path_of_its_node,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/shortreg.dtb.gz",
    report = "cannot boot: device tree: /memory@1000000000000: bad value of reg"
);
ktest!(
    boot: refuses_a_damaged_tree_by_the_path_of_the_node,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/badcells.dtb.gz bootargs=off",
    report = "damaged device tree at 0x46000000: /platform-bus@c000000: #address-cells or #size-cells is not one"
);

// A CPU whose word cannot be one is left out, and nothing is written there.
ktest!(
    a_cpu_is_not_released_where_nothing_may_be_written,
    machine kernel = "smp=2 loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/spin_kernel2.dtb.gz",
    machine tree = "smp=2 loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/spin_tree.dtb.gz",
    machine device = "smp=2 loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/spin_device.dtb.gz",
    machine nowhere = "smp=2 loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/spin_nowhere.dtb.gz",
);
fn a_cpu_is_not_released_where_nothing_may_be_written() {
    memory_is_right();
    let word = machine().tree.cpus().find_map(Cpu::release_word).expect("a word").start();
    let refused = match word.get() {
        0x4820_0038 => ReleaseError::InImage,
        0x4600_0100 => ReleaseError::InTree,
        0x0900_0030 => ReleaseError::NoRam(Some("pl011@9000000")),
        _ => ReleaseError::NoRam(None),
    };
    assert_eq!(cpus::cpu_up(CpuId::new(1)), Err(CpuError::Release(word, refused)));
    assert_eq!(cpus::state(CpuId::new(1)), CpuState::Waiting);
}
ktest!(
    boot: a_release_address_in_the_image_is_named,
    machine = "smp=2 loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/spin_kernel2.dtb.gz",
    report = "CPU 1 is left out: its cpu-release-addr 0x48200038 lies in the kernel's image",
    report = "sum 262144 KiB",
    exit = 0
);

// Where the tree does not say that the loader's word is reserved, it is all the same.
ktest!(
    the_word_that_releases_a_cpu_is_nobody_elses,
    machine = "smp=2 loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/spin_ram.dtb.gz",
);
fn the_word_that_releases_a_cpu_is_nobody_elses() {
    memory_is_right();
    let word = machine().tree.cpus().find_map(Cpu::release_word).expect("a word");
    let account = account(machine()).expect("RAM adds up");
    let row = account.map.rows().iter().find(|row| row.range.contains(word.start())).expect("a row");
    assert_eq!((row.range, row.owner), (word, Owner::Reserved("spin table")));
    assert_eq!(cpus::state(CpuId::new(1)), CpuState::Late, "nobody polls it");
}

ktest!(
    boot: a_boot_cpu_that_is_not_listed_boots,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/boot_absent.dtb.gz",
    report = "the device tree does not list the CPU that booted, with affinity 0x0",
    report = "CPU 1 is left out: firmware: ",
    exit = 0
);

ktest!(
    runs_of_pages_are_aligned_by_their_address,
    machine = "loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/base40c.dtb.gz",
);
fn runs_of_pages_are_aligned_by_their_address() {
    memory_is_right();
    let page = global::alloc_contig_pages(1, 2048, Gfp::KERNEL).expect("a page");
    assert!(global::page_to_pfn(page).start().is_aligned(8 << 20));
    raw!(global::try_free_contig_range(page, 1)).expect("it is ours");
}

// Conduits that nobody serves.
ktest!(
    boot: an_hvc_that_nobody_serves_leaves_a_cpu_out,
    machine = "virtualization smp=2 semihosting=off loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/hvc2.dtb.gz",
    report = "CPU 1 is left out: firmware: ",
    report = "sum 262144 KiB",
    report = "not switched off ("
);
ktest!(
    boot: an_smc_that_nobody_serves_leaves_a_cpu_out,
    machine = "smp=2 semihosting=off loader=raw addr=0x48200000 fdt_at=0x46000000 dtb=tests/data/reports/smc2.dtb.gz",
    report = "CPU 1 is left out: firmware: ",
    report = "sum 262144 KiB",
    report = "not switched off ("
);
