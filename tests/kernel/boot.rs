//! Every way into the kernel ends in the same state; what cannot be booted ends in a message.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::hint::black_box;
use quarry::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quarry::arch::aarch64::boot;
use quarry::arch::aarch64::cpu;
use quarry::board::Board;
use quarry::global;
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::kernel::init::{self, Machine};
use quarry::ktest;
use quarry::mm::layout;
use quarry::mm::pgtable::Marker;

fn machine() -> &'static Machine {
    init::machine().expect("tests run after booting")
}

fn read_register(name: &str) -> u64 {
    macro_rules! read {
        ($($register:literal)*) => {
            match name {
                $($register => {
                    let value: u64;
                    // SAFETY: reading a system register of EL1 that every Armv8.0 CPU has.
                    unsafe { core::arch::asm!(concat!("mrs {}, ", $register), out(reg) value) };
                    value
                })*
                _ => panic!("{name} is not on the list"),
            }
        };
    }
    read!("sctlr_el1" "tcr_el1" "mair_el1" "ttbr0_el1" "ttbr1_el1" "CurrentEL" "SPSel" "daif" "cpacr_el1" "id_aa64mmfr0_el1")
}

// The values that boot/*.S must have set, by the fields of the Arm ARM, after any loader.
fn registers_are_as_the_stub_sets_them() {
    assert_eq!(read_register("CurrentEL") >> 2, 1);
    assert_eq!(read_register("SPSel"), 1);
    let masked = read_register("daif") & 0x3c0;
    assert_eq!(masked, 0x240, "SError and, after booting, interrupts are taken; everything else is masked for good");
    let sctlr = read_register("sctlr_el1");
    for (bit, name) in [(0, "M"), (2, "C"), (3, "SA"), (12, "I"), (19, "WXN")] {
        assert!(sctlr >> bit & 1 == 1, "SCTLR_EL1.{name} is off: {sctlr:#x}");
    }
    assert_eq!(sctlr >> 1 & 1, 0, "unaligned access to Normal memory is allowed");
    let tcr = read_register("tcr_el1");
    assert_eq!((tcr & 0x3f, tcr >> 16 & 0x3f), (16, 16), "48-bit halves");
    assert_eq!((tcr >> 14 & 3, tcr >> 30 & 3), (0, 2), "4 KiB granule in both halves");
    let reach = (read_register("id_aa64mmfr0_el1") & 0xf).min(5);
    assert_eq!(tcr >> 32 & 7, reach, "IPS is what the CPU has, 48 bits at most");
    let tagged = if machine().cpu.has_mte2() { 0xf0 } else { 0xff };
    assert_eq!(read_register("mair_el1").to_le_bytes(), [0x00, 0x04, 0x08, 0x0c, 0x44, 0xbb, 0xff, tagged]);
    assert_eq!(read_register("cpacr_el1") >> 20 & 3, 0, "FP registers trap");
    let empty = machine().boot.image_phys(boot::empty_table());
    assert_eq!(read_register("ttbr0_el1"), empty.get(), "TTBR0 holds the empty table");
    let tables = global::kernel_tables().expect("the final tables");
    assert_eq!(read_register("ttbr1_el1"), tables.root().get(), "TTBR1 holds the final tables");
}

/// The linear map maps every page of RAM at its place, read-write but for the image's text and constants; the image is
/// mapped by section; the pages between are not.
fn mappings_are_exact() {
    let tables = global::kernel_tables().expect("the final tables");
    let census = tables.check().expect("the tables keep their invariants");
    assert!(census.tables >= 8 && census.pmd_blocks > 0 && census.groups > 0, "{census:?}");
    if machine().args.flag("want.gigabyte.blocks") {
        assert!(census.pud_blocks > 0, "{census:?}");
    }
    let boot = &machine().boot;
    let image = boot.image_range();
    for bank in global::memblock().mapped_ranges() {
        let bank = bank.align_inwards(PAGE_SIZE).expect("a bank of whole pages");
        for phys in [bank.start(), PhysAddr::new(bank.end().get() - PAGE_SIZE)] {
            let virt = layout::phys_to_virt(phys).expect("RAM is in reach");
            let found = tables.translate(virt).expect("RAM is mapped");
            assert_eq!(found.phys, phys);
            assert_eq!(found.leaf.prot.memory(), MemoryType::WriteBack);
            assert_ne!(found.leaf.prot.access(), Access::Execute);
        }
    }
    let expect = |virt: VirtAddr, prot: Prot| {
        let found = tables.translate(virt).expect("the image is mapped");
        assert_eq!((found.phys, found.leaf.prot.access()), (boot.image_phys(virt), prot.access()), "{virt}");
    };
    expect(boot::image_start(), Prot::KERNEL_RX);
    expect(boot::rodata_start(), Prot::KERNEL_RO);
    expect(boot::data_start(), Prot::KERNEL_RW);
    expect(boot::boot_stack_bottom(), Prot::KERNEL_RW);
    for guard in [boot::boot_stack_guard(), boot::overflow_stack_guard(), boot::image_end()] {
        assert!(tables.translate(guard).is_none(), "{guard} is a guard page");
    }
    // Behaviour 381: no writable alias of code and constants.
    let alias = layout::phys_to_virt(image.start()).expect("RAM is in reach");
    let alias = tables.translate(alias).expect("the image's alias is mapped");
    assert_eq!(alias.leaf.prot.access(), Access::ReadOnly);
    let last = layout::phys_to_virt(boot.image_phys(boot::rodata_end())).expect("RAM is in reach");
    assert_eq!(tables.translate(last).expect("mapped").leaf.prot.access(), Access::ReadWrite);
}

/// Something in BSS that must be zero although the loader left other things there.
static ZEROES: [u64; 512] = [0; 512];
static mut WRITABLE_ZEROES: [u64; 512] = [0; 512];

fn bss_is_clear() {
    assert!(black_box(&ZEROES).iter().all(|word| *word == 0));
    let words = &raw const WRITABLE_ZEROES;
    // SAFETY: nothing ever writes it.
    assert!(unsafe { words.read_volatile() }.iter().all(|word| *word == 0));
}

fn memory_adds_up() {
    let memblock = global::memblock();
    memblock.check().expect("memblock keeps its invariants");
    let ram: u64 = memblock.memory().regions().iter().map(|region| region.range.size()).sum();
    let regions = memblock.memory().regions().len();
    drop(memblock);
    let args = machine().args;
    if let Some(wanted) = args.size("want.ram").expect("a size") {
        assert_eq!(ram, wanted);
    }
    if let Some(wanted) = args.value("want.regions") {
        assert_eq!(wanted.parse(), Ok(regions));
    }
    if let Some(wanted) = args.value("want.level") {
        assert_eq!(wanted.parse(), Ok(machine().boot.entry_level));
    }
    if let Some(wanted) = args.size("want.image").expect("an address") {
        assert_eq!(machine().boot.image.get(), wanted);
    }
}

// The words `want.…` in the boot arguments say what must come out. Behaviours 69, 71, 392, 394.
ktest!(
    every_way_in_ends_in_the_same_state,
    machine ram_128_mib = "mem=128M append='want.ram=128M want.level=1'",
    machine ram_1_gib = "mem=1G append='want.ram=1G want.regions=1'",
    machine ram_4_gib = "mem=4G append='want.ram=4G want.gigabyte.blocks'",
    machine ram_16_gib = "mem=16G append='want.ram=16G'",
    machine low_memory = "mem=3G highmem=off append='want.ram=3G'",
    machine limited = "mem=1G append='mem=300M want.ram=300M'",
    machine two_nodes = "numa=128M,128M append='want.ram=256M'",
    machine three_uneven_nodes = "numa=320M,64M,128M append='want.ram=512M want.regions=1'",
    machine cortex_a53 = "cpu=cortex-a53",
    machine neoverse_n2 = "cpu=neoverse-n2",
    machine cpu_max = "cpu=max",
    machine cpu_max_without_lpa2 = "cpu=max,lpa2=off",
    machine memory_tags = "cpu=max mte",
    machine four_cpus_gicv3 = "smp=4 gic=3",
    machine eight_cpus = "smp=8",
    machine initrd = "initrd=LICENSE-MIT",
    machine el2 = "virtualization smp=4 append='want.level=2'",
    machine el2_tags = "virtualization cpu=max mte append='want.level=2'",
    machine secure = "secure append='want.level=1'",
    machine secure_el2 = "secure virtualization append='want.level=2'",
    machine elf = "loader=elf append='want.level=1 want.ram=256M'",
    machine elf_el2 = "loader=elf virtualization append='want.level=2'",
    machine elf_el3 = "loader=elf secure append='want.level=3'",
    machine elf_el3_el2 = "loader=elf secure virtualization append='want.level=3'",
    // All CPUs start at once here; the others are parked.
    machine elf_four_cpus_el3 = "loader=elf secure virtualization smp=4 append='want.level=3'",
    machine elf_four_cpus_el3_gicv3 = "loader=elf cpu=max secure virtualization mte gic=3 smp=4 append='want.level=3'",
    machine uboot = "loader=uboot append='want.ram=256M'",
    machine uboot_elsewhere = "loader=uboot addr=0x41400000 append=want.image=0x41400000",
    machine uboot_el2 = "loader=uboot virtualization append='want.level=2'",
    machine uboot_tree_3_gib_away = "loader=uboot mem=4G append='want.ram=4G'",
    machine start_of_memory = "loader=raw addr=0x40200000 append=want.image=0x40200000",
    machine end_of_memory = "loader=raw addr=0x4f000000 append=want.image=0x4f000000",
    machine above_4_gib = "mem=8G loader=raw addr=0x180000000 append='want.ram=8G want.image=0x180000000'",
    machine tree_above_4_gib = "mem=8G loader=raw fdt_at=0x200000008 append='want.ram=8G'",
    machine tree_across_two_megabytes = "loader=raw fdt_at=0x441ff000",
    machine tree_across_two_pages = "loader=raw fdt_at=0x44000ff8",
    machine tree_at_the_end = "loader=raw dtb=tests/data/dts/virt-reserved.dtb fdt_at=0x4ffff000",
    machine dirty = "loader=raw dirty",
    machine dirty_el2 = "loader=raw dirty virtualization cpu=max append='want.level=2'",
    machine pi_4 = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz append='want.level=2 want.ram=960M'",
    machine pi_400 = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-400.dtb.gz",
    machine pi_4_with_nops = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/qemu-raspi4b.dtb.gz",
    machine pi_4_dirty = "board=raspi4b serial=1 loader=raw dirty fdt_at=0x8000000 dtb=tests/data/dtb/boards/rpi4-fw-2gb.dtb.gz",
    machine pi_4_firmware_2_gib =
        "board=raspi4b serial=1 loader=raw fdt_at=0x2600000 dtb=tests/data/dtb/boards/rpi4-fw-2gb.dtb.gz append='want.ram=1972M want.regions=2'",
    machine pi_4_firmware_8_gib =
        "board=raspi4b serial=1 loader=raw fdt_at=0x2600000 dtb=tests/data/dtb/boards/rpi4-fw-8gb.dtb.gz append='mem=2G want.ram=1972M want.regions=2'"
);
fn every_way_in_ends_in_the_same_state() {
    registers_are_as_the_stub_sets_them();
    mappings_are_exact();
    bss_is_clear();
    memory_adds_up();
    assert!(machine().wx.entries > 100, "{:?}", machine().wx);
    assert_eq!(cpu::current().get(), 0);
    if machine().board == Board::RaspberryPi4 {
        // The spin table and the stub's code, in which the other cores wait.
        assert!(global::memblock().reserved().find(PhysAddr::new(0xe0)).is_some());
    }
}

// Every kind of reservation, in tests/data/dts/virt-reserved.dts.
ktest!(
    reservations_are_honoured,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-reserved.dtb append='want.ram=0xff00000'"
);
fn reservations_are_honoured() {
    let memblock = global::memblock();
    let taken = |addr: u64| memblock.reserved().find(PhysAddr::new(addr)).is_some();
    for addr in [0x4100_1000, 0x4100_27ff, 0x41f0_0000, 0x4200_0000, 0x420f_ffff, 0x4900_0000, 0x4a00_0800, 0x8000_0000]
    {
        assert!(taken(addr), "{addr:#x} is reserved");
    }
    for addr in [0x4100_0fff, 0x4100_2800, 0x4210_0000, 0x4b00_0000] {
        assert!(!taken(addr), "{addr:#x} is free");
    }
    let pool = (0x4c00_0000..0x4d00_0000_u64).step_by(0x40_0000).find(|addr| taken(*addr));
    assert!(pool.is_some_and(|addr| taken(addr + 0x3f_ffff)), "the pool lies aligned in its window");
    drop(memblock);

    let tables = global::kernel_tables().expect("the final tables");
    let mapped = |addr: u64| tables.translate(layout::phys_to_virt(PhysAddr::new(addr)).expect("in reach")).is_some();
    // Behaviours 47, 65: no-map regions, by whole pages, are in no map; the hole and what lies outside are not either.
    for addr in [0x4900_0000, 0x492f_ffff, 0x4a00_0000, 0x4a00_0fff, 0x47f0_0000, 0x47ff_ffff, 0x8000_0000, 0x3fff_ffff]
    {
        assert!(!mapped(addr), "{addr:#x} is not mapped");
    }
    for addr in [0x48ff_ffff, 0x4930_0000, 0x49ff_ffff, 0x4a00_1000, 0x4200_0000, 0x4b00_0000, 0x4fff_ffff] {
        assert!(mapped(addr), "{addr:#x} is mapped");
    }
}

// QEMU's tree has 320 bits; the rest is the CPU's own.
ktest!(boot: asks_the_cpu_for_random_numbers, machine = "cpu=max", report = "384 bits of seed");
ktest!(boot: ends_by_psci_without_semihosting, machine = "semihosting=off", report = "W^X: ok", exit = 0);

ktest!(
    boot: refuses_a_cpu_without_the_granule,
    machine = "loader=raw virtualization granule=off",
    report = "quarry: this CPU has no 4 KiB translation granule"
);
// A machine that cannot be booted says so, on the port that the board is known for.
ktest!(boot: refuses_no_pointer, machine = "loader=raw addr=0x4a200000 x0=0", report = "no device tree: x0 was 0");
ktest!(
    boot: refuses_a_misaligned_pointer,
    machine = "loader=raw x0=0x44000004",
    report = "no device tree: x0 = 0x44000004 is not a multiple of 8"
);
ktest!(
    boot: refuses_a_pointer_to_nothing,
    machine = "loader=raw x0=0x3000000000",
    report = "no device tree: nothing can be read at x0 = 0x3000000000"
);
ktest!(boot: refuses_an_impossible_pointer, machine = "loader=raw x0=0xfffffffffffffff8", report = "lies beyond this CPU");
ktest!(boot: refuses_zeros, machine = "loader=raw x0=0x46000000", report = "the word at x0 = 0x46000000 is 0x00000000");
ktest!(
    boot: refuses_a_text,
    machine = "loader=raw fdt_at=0x46000000 dtb=LICENSE-MIT bootargs=off",
    report = "the word at x0 = 0x46000000 is"
);
ktest!(
    boot: refuses_half_a_tree,
    machine = "loader=raw fdt_at=0x46000000 fdt_cut=0x800 bootargs=off",
    report = "damaged device tree at 0x46000000"
);
ktest!(
    boot: refuses_a_tree_off_the_end_of_memory,
    machine = "loader=raw fdt_at=0x4fffe000 fdt_cut=0x1000 bootargs=off",
    report = "no device tree: nothing can be read at x0 = 0x4fffe000"
);
ktest!(boot: refuses_atags, machine = "board=raspi4b loader=raw", report = "no device tree: x0 = 0x100 points to ATAGs");
ktest!(
    boot: refuses_a_tree_without_memory,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-no-memory.dtb",
    report = "states no usable memory"
);
// In silence: the console that it names is not there, and no other place is tried, as it may be anything.
ktest!(
    boot: refuses_the_tree_of_another_machine,
    machine = "silent loader=raw fdt_at=0x44000000 dtb=tests/data/dtb/boards/meson-a1-ad401.dtb.gz",
    exit = 1
);
ktest!(boot: refuses_an_impossible_limit, machine = "append=mem=lots", report = "mem=lots is no size");

ktest!(
    boot: the_early_heap_serves_until_kmalloc_does,
    report = "early heap: 256 KiB at",
    report = "kmalloc up",
    report = "in use; kmalloc serves from here on",
);

ktest!(
    boot: the_log_names_what_it_found,
    report = "entered at EL1",
    report = "CPU: Cortex-A72",
    report = "memory   [0x40000000..0x50000000) 256 MiB",
    report = "reserved [",
    report = "W^X: ok, ",
    report = "memory map:",
    report = "device tree",
    report = "sum 262144 KiB",
    report = "address map:",
    report = "linear map",
    report = "vmemmap",
    exit = 0
);
ktest!(
    boot: a_pool_without_room_is_named,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-reserved.dtb",
    report = "no room for 1 reserved-memory regions"
);
ktest!(boot: log_levels_filter, machine = "append=loglevel=4", report = "memory map:", exit = 0);

ktest!(boot: the_cost_of_booting_is_printed, machine = "icount mem=1G", report = "boot cost: ", exit = 0);
ktest!(the_cost_of_booting_is_counted, machine = "icount mem=1G");
fn the_cost_of_booting_is_counted() {
    let cost = machine().boot_cost;
    // A release build costs less: see `make bench`.
    assert!((100_000..4_000_000).contains(&cost), "{cost} instructions");
}

ktest!(the_live_tables_are_dumped_by_range);
fn the_live_tables_are_dumped_by_range() {
    extern crate alloc;
    let tables = global::kernel_tables().expect("the final tables");
    let markers = layout::REGIONS.map(|region| Marker { start: region.start, name: region.name });
    let mut text = alloc::string::String::new();
    tables.dump(&mut text, &markers).expect("a string takes everything");
    for region in ["linear map", "kernel image", "fixmap"] {
        assert!(text.contains(region), "{text}");
    }
    let line_at = |virt: VirtAddr| {
        let start = alloc::format!("{:016x}", virt.get());
        text.lines().find(|line| line.trim_start().trim_start_matches("0x").starts_with(&start)).unwrap_or_default()
    };
    let (code, constants) = (line_at(boot::image_start()), line_at(boot::rodata_start()));
    assert!(code.contains("ro") && code.contains("x") && code.contains("WB"), "{code:?} in\n{text}");
    assert!(constants.contains("ro") && constants.contains("NX"), "{constants:?}");
    assert!(line_at(boot::boot_stack_bottom()).contains("RW"), "{text}");
    assert!(text.lines().count() < 60, "neighbours that are alike share a line:\n{text}");
}
