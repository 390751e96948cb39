//! Every way into the kernel ends in the same state; what cannot be booted ends in a message.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::hint::black_box;
use quarry::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quarry::arch::aarch64::boot;
use quarry::arch::aarch64::cpu;
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::instance;
use quarry::kernel::init::{self, Machine};
use quarry::ktest;
use quarry::mm::layout;

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

// The values that boot/*.S must have set, by the fields of the Arm ARM, whatever the loader left.
fn registers_are_as_the_stub_sets_them() {
    assert_eq!(read_register("CurrentEL") >> 2, 1);
    assert_eq!(read_register("SPSel"), 1);
    assert_eq!(read_register("daif") & 0x3c0, 0x3c0, "everything is masked until somebody asks for interrupts");
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
    let tables = instance::kernel_tables().expect("the final tables");
    assert_eq!(read_register("ttbr1_el1"), tables.root().get(), "TTBR1 holds the final tables");
}

/// The linear map maps every page of RAM at its place, read-write but for the image's text and constants; the image is
/// mapped by section; the pages between are not.
fn mappings_are_exact() {
    let tables = instance::kernel_tables().expect("the final tables");
    let census = tables.check().expect("the tables keep their invariants");
    assert!(census.tables >= 8, "{census:?}");
    let boot = &machine().boot;
    let image = boot.image_range();
    for bank in instance::memblock().mapped_ranges() {
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
    let memblock = instance::memblock();
    memblock.check().expect("memblock keeps its invariants");
    let total = memblock.usable_size().expect("there is memory");
    drop(memblock);
    let args = machine().args();
    if let Some(expected) = args.size("expect.mem").expect("a size") {
        assert_eq!(total, expected);
    }
    if let Some(expected) = args.value("expect.regions") {
        assert_eq!(instance::memblock().memory().regions().len(), expected.parse::<usize>().expect("a number"));
    }
    if let Some(expected) = args.size("expect.image").expect("an address") {
        assert_eq!(machine().boot.image.get(), expected);
    }
}

fn boots() {
    registers_are_as_the_stub_sets_them();
    mappings_are_exact();
    bss_is_clear();
    memory_adds_up();
    assert!(machine().wx.entries > 100);
    assert_eq!(cpu::current().get(), 0);
}

ktest!(
    boots_at_el1,
    machine cortex_a53 = "cpu=cortex-a53 mem=128M append='expect.mem=128M expect.regions=1'",
    machine cortex_a72 = "cpu=cortex-a72 mem=1G smp=4 append=expect.mem=1G",
    machine max = "cpu=max mem=1G smp=4 append=expect.mem=1G",
    machine neoverse_n2 = "cpu=neoverse-n2 mem=512M append=expect.mem=512M",
    machine gicv3 = "gic=3 append=expect.mem=256M",
    machine without_highmem = "highmem=off mem=3G append=expect.mem=3G",
    machine sixteen_gigabytes = "mem=16G append=expect.mem=16G",
    machine numa = "numa=128M,64M,320M append='expect.mem=512M expect.regions=1'",
    machine elf = "loader=elf append=x",
    machine secure_image = "secure",
    machine eight_cpus = "smp=8",
    machine initrd = "initrd=README.md",
    machine limited = "mem=1G append='mem=300M expect.mem=300M'"
);
fn boots_at_el1() {
    boots();
    assert_eq!(machine().boot.entry_level, 1);
}

ktest!(
    boots_at_el2,
    machine cortex_a72 = "virtualization smp=4",
    machine max = "cpu=max virtualization",
    machine mte = "cpu=max virtualization mte",
    machine elf = "virtualization loader=elf",
    machine secure_image = "cpu=max secure virtualization gic=3"
);
fn boots_at_el2() {
    boots();
    assert_eq!(machine().boot.entry_level, 2);
}

// All CPUs start at once here; the others are parked.
ktest!(
    boots_at_el3,
    machine without_el2 = "secure loader=elf smp=4",
    machine with_el2 = "secure virtualization loader=elf smp=4",
    machine max = "cpu=max secure virtualization loader=elf gic=3 smp=4",
    machine mte = "cpu=max secure virtualization mte loader=elf gic=3"
);
fn boots_at_el3() {
    boots();
    assert_eq!(machine().boot.entry_level, 3);
}

// Behaviours 394, 69: any 2 MiB, a tree across a 2 MiB boundary or at the very end of RAM, and what loaders leave.
ktest!(
    boots_anywhere,
    machine low = "loader=raw addr=0x40400000 fdt_at=0x44000000 append=expect.image=0x40400000",
    machine high = "loader=raw addr=0x4e200000 fdt_at=0x40000000 append=expect.image=0x4e200000",
    machine tree_across_two_megabytes = "loader=raw fdt_at=0x441ff000",
    machine tree_unaligned = "loader=raw fdt_at=0x44000ff8",
    machine tree_at_the_end = "loader=raw dtb=tests/data/dts/virt-reserved.dtb fdt_at=0x4fff0000",
    machine tree_before_the_image = "loader=raw addr=0x48000000 fdt_at=0x47c00000",
    machine dirty = "loader=raw dirty fdt_at=0x44000000",
    machine dirty_el2 = "loader=raw dirty virtualization fdt_at=0x44000000",
    machine uboot = "loader=uboot",
    machine uboot_tree_3_gib_away = "loader=uboot mem=4G append=expect.mem=4G",
    machine uboot_el2 = "loader=uboot virtualization"
);
fn boots_anywhere() {
    boots();
}

ktest!(
    boots_on_a_pi,
    machine real_tree = "board=raspi4b dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
    machine real_tree_for_400 = "board=raspi4b dtb=tests/data/dtb/boards/bcm2711-rpi-400.dtb.gz",
    machine qemu_tree_with_nops = "board=raspi4b dtb=tests/data/dtb/boards/qemu-raspi4b.dtb.gz",
    machine firmware_2gb = "board=raspi4b loader=raw fdt_at=0x8000000 dtb=tests/data/dtb/boards/rpi4-fw-2gb.dtb.gz append='expect.mem=0x7b400000 expect.regions=2'",
    machine firmware_8gb = "board=raspi4b loader=raw fdt_at=0x8000000 dtb=tests/data/dtb/boards/rpi4-fw-8gb.dtb.gz append='mem=2G expect.mem=2G expect.regions=2'"
);
fn boots_on_a_pi() {
    boots();
    assert_eq!(machine().board, quarry::board::Board::RaspberryPi4);
    assert_eq!(machine().boot.entry_level, 2);
    // The spin table and the stub's code, which the other cores wait in.
    assert!(instance::memblock().reserved().find(PhysAddr::new(0xe0)).is_some());
}

// Every kind of reservation, in tests/data/dts/virt-reserved.dts.
ktest!(
    reservations_are_honoured,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-reserved.dtb append='expect.mem=0xfc00000 expect.regions=3'"
);
fn reservations_are_honoured() {
    let memblock = instance::memblock();
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

    let tables = instance::kernel_tables().expect("the final tables");
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

// What cannot be booted says so, on the port that the board is known for.
ktest!(boot: a_missing_tree_is_named, machine = "loader=raw x0=0", report = "no device tree: x0 was 0");
ktest!(boot: a_misaligned_tree_is_named, machine = "loader=raw x0=0x44000004", report = "x0 = 0x44000004 is not a multiple of 8");
ktest!(boot: a_tree_in_no_memory_is_named, machine = "loader=raw x0=0x3000000000", report = "nothing can be read at x0 = 0x3000000000");
ktest!(boot: a_tree_beyond_the_cpu_is_named, machine = "loader=raw x0=0x10000000000000", report = "lies beyond this CPU's physical addresses");
ktest!(boot: a_tree_without_magic_is_named, machine = "loader=raw x0=0x4a000000", report = "the word at x0 = 0x4a000000 is 0x00000000");
ktest!(boot: a_tree_off_the_end_of_ram_is_named, machine = "loader=raw fdt_at=0x4ff80000", report = "nothing can be read");
ktest!(boot: atags_are_named, machine = "board=raspi4b loader=raw x0=0x100", report = "points to ATAGs");
ktest!(
    boot: a_tree_without_memory_is_named,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dtb/boards/meson-a1-ad401.dtb.gz",
    report = "states no usable memory"
);
ktest!(boot: an_impossible_limit_is_named, machine = "append=mem=lots", report = "mem=lots is no size");

ktest!(the_early_heap_serves_alloc);
fn the_early_heap_serves_alloc() {
    extern crate alloc;
    let before = quarry::kernel::heap::usage();
    let mut boxes: alloc::vec::Vec<_> = (0..100_u64).map(alloc::boxed::Box::new).collect();
    assert!(quarry::kernel::heap::usage().0 > before.0);
    boxes.retain(|number| **number % 3 == 0);
    assert_eq!(boxes.iter().map(|number| **number).sum::<u64>(), 1683);
    drop(boxes);
    assert_eq!(quarry::kernel::heap::usage(), before);
}

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

ktest!(the_cost_of_booting_is_counted, machine = "icount mem=1G", report = "boot cost: ");
fn the_cost_of_booting_is_counted() {
    let cost = machine().boot_cost;
    assert!((100_000..2_000_000).contains(&cost), "{cost} instructions");
}
