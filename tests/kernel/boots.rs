//! Every machine, loader and device tree that the kernel is to boot on, and those that it must refuse in words.

use quarry::addr::PAGE_SIZE;
use quarry::instance;
use quarry::kernel::init;
use quarry::ktest;

// The words `want.…` in the boot arguments say what must come out.
ktest!(
    the_machine_is_as_asked,
    machine ram_128_mib = "mem=128M append='want.ram=128M want.level=1'",
    machine ram_1_gib = "mem=1G append='want.ram=1G'",
    machine ram_4_gib = "mem=4G append='want.ram=4G'",
    machine ram_16_gib = "mem=16G append='want.ram=16G'",
    machine low_memory = "mem=3G highmem=off append='want.ram=3G'",
    machine two_nodes = "numa=128M,128M append='want.ram=256M'",
    machine three_uneven_nodes = "numa=320M,64M,128M append='want.ram=512M'",
    machine cortex_a53 = "cpu=cortex-a53",
    machine cpu_max = "cpu=max",
    machine cpu_max_without_lpa2 = "cpu=max,lpa2=off",
    machine memory_tags = "cpu=max mte",
    machine four_cpus_gicv3 = "smp=4 gic=3",
    machine el2 = "virtualization append='want.level=2'",
    machine secure = "secure append='want.level=1'",
    machine secure_el2 = "secure virtualization append='want.level=2'",
    machine elf = "loader=elf append='want.level=1 want.ram=256M'",
    machine elf_el2 = "loader=elf virtualization append='want.level=2'",
    machine elf_el3 = "loader=elf secure append='want.level=3'",
    machine elf_el3_el2 = "loader=elf secure virtualization append='want.level=3'",
    machine elf_four_cpus_el3 = "loader=elf secure virtualization smp=4 append='want.level=3'",
    machine uboot = "loader=uboot append='want.ram=256M'",
    machine uboot_elsewhere = "loader=uboot addr=0x41400000",
    machine uboot_el2 = "loader=uboot virtualization append='want.level=2'",
    machine uboot_tree_3_gib_away = "loader=uboot mem=4G append='want.ram=4G'",
    machine start_of_memory = "loader=raw addr=0x40200000",
    machine end_of_memory = "loader=raw addr=0x4f000000",
    machine above_4_gib = "mem=8G loader=raw addr=0x180000000 append='want.ram=8G'",
    machine tree_above_4_gib = "mem=8G loader=raw fdt_at=0x200000008 append='want.ram=8G'",
    machine dirty = "loader=raw dirty",
    machine dirty_el2 = "loader=raw dirty virtualization cpu=max append='want.level=2'",
    machine pi_4 = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz append='want.level=2 want.ram=960M'",
    machine pi_4_dirty = "board=raspi4b serial=1 loader=raw dirty fdt_at=0x8000000 dtb=tests/data/dtb/boards/rpi4-fw-2gb.dtb.gz",
    machine pi_4_firmware_2_gib =
        "board=raspi4b serial=1 loader=raw fdt_at=0x2600000 dtb=tests/data/dtb/boards/rpi4-fw-2gb.dtb.gz append=want.ram=1972M",
    machine pi_4_firmware_8_gib =
        "board=raspi4b serial=1 loader=raw fdt_at=0x2600000 dtb=tests/data/dtb/boards/rpi4-fw-8gb.dtb.gz append='mem=2G'"
);
fn the_machine_is_as_asked() {
    let machine = init::machine().expect("booted");
    let args = machine.args();
    let memblock = instance::memblock();
    memblock.check().expect("memblock's rules hold");
    let ram: u64 = memblock.memory().regions().iter().map(|region| region.range.size()).sum();
    if let Some(wanted) = args.size("want.ram").expect("a size") {
        assert_eq!(ram, wanted);
    }
    if let Some(wanted) = args.value("want.level") {
        assert_eq!(wanted.parse(), Ok(machine.boot.entry_level));
    }
    assert!(memblock.free_size() > ram / 2 && ram.is_multiple_of(PAGE_SIZE));
    assert!(machine.wx.entries > 100, "{:?}", machine.wx);
}

ktest!(boot: ends_by_psci_without_semihosting, machine = "semihosting=off", report = "W^X: ok", exit = 0);

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
ktest!(boot: refuses_atags, machine = "board=raspi4b loader=raw", report = "no device tree: x0 = 0x100 points to ATAGs");
