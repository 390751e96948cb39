//! Memory that the device tree sets aside, on a machine that has it: no-map regions inside RAM, outside of it, and placed
//! while booting; mapped by the devices of tests/data/dts/virt-owners.dts that own them, and by nobody else.

use quarry::addr::{Address, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use quarry::arch::aarch64::at;
use quarry::fdt::Node;
use quarry::gfp::Gfp;
use quarry::global::{self, Devres, IoMem, IoMemError, MemRegion, ReservedRegion};
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::kernel::{init, prompt};
use quarry::ktest;
use quarry::mm::io::resource::{ResourceError, Span};
use quarry::mm::io::{IoError, RegionError};
use quarry::mm::layout;

const MIB: u64 = 1 << 20;
const FIRMWARE: PhysAddr = PhysAddr::new(0x4900_0000);
const FIRMWARE_SIZE: u64 = 3 * MIB;
const MAILBOX: PhysAddr = PhysAddr::new(0x4a00_0800);
const ORPHAN: PhysAddr = PhysAddr::new(0x4b00_0000);
const SRAM: PhysAddr = PhysAddr::new(0x0e00_0000);
const LOG: PhysAddr = PhysAddr::new(0x4d00_0000);

/// The device of that compatible string: what its driver's probe would get.
fn device(with: &'static str) -> Node<'static, 'static> {
    let tree = &init::machine().expect("tests run after booting").tree;
    tree.compatible_nodes(with).next().expect("a device of this tree")
}

fn region(with: &'static str, index: usize) -> ReservedRegion {
    global::memory_region(device(with), index).expect("a region of this device")
}

fn is_refused(result: Result<VirtAddr, IoError>, name: &str) -> bool {
    matches!(result, Err(IoError::NoMap(_, region)) if region.name == name)
}

ktest!(
    only_its_owner_maps_a_no_map_region,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-owners.dtb"
);
fn only_its_owner_maps_a_no_map_region() {
    // Nobody else, by no call.
    for (start, size) in [(FIRMWARE.get(), 8), (FIRMWARE.get() + FIRMWARE_SIZE - 1, 1), (FIRMWARE.get(), FIRMWARE_SIZE)]
    {
        let start = PhysAddr::new(start);
        let calls = [global::ioremap, global::ioremap_np, global::ioremap_wc, global::ioremap_wt, global::ioremap_gre];
        for map in calls {
            assert!(is_refused(map(start, size), "firmware@49000000"));
        }
        assert!(is_refused(global::memremap(start, size, MemoryType::WriteBack).map(Address::at), "firmware@49000000"));
        assert!(is_refused(global::ioremap_prot(start, size, Prot::KERNEL_DEVICE), "firmware@49000000"));
    }
    // The other half of the mailbox's page is nobody's, and yet not to be had; the orphan's pages have no owner; the SRAM
    // lies far from RAM. A range that reaches from RAM into a region is RAM.
    assert!(is_refused(global::ioremap(MAILBOX.align_down(PAGE_SIZE), 4), "mailbox@4a000800"));
    assert!(is_refused(global::ioremap(ORPHAN, 4), "orphan@4b000000"));
    assert!(is_refused(global::ioremap(SRAM, 4), "sram@e000000"));
    let before = PhysAddr::new(FIRMWARE.get() - 1);
    assert!(matches!(global::ioremap(before, 2), Err(IoError::Ram(_))));

    // The owner: real memory, without an alias in the linear map.
    let firmware = region("quarry,dsp", 0);
    assert_eq!(firmware.range(), PhysRange::from_size(FIRMWARE, FIRMWARE_SIZE).expect("no wrap"));
    let addr = firmware.map(MemoryType::NonCacheable).expect("its own");
    let par = at::translate(addr).expect("mapped");
    assert_eq!((par.phys, par.attribute), (FIRMWARE, 0x44));
    // SAFETY: mapped above, and nobody else has this memory.
    unsafe { global::writeq(0x1122_3344_5566_7788, addr) };
    // SAFETY: mapped above, and nobody else has this memory.
    assert_eq!(unsafe { global::readq(addr) }, 0x1122_3344_5566_7788);
    assert!(at::translate(layout::phys_to_virt(FIRMWARE).expect("in reach")).is_none());
    // The other owner sees the same, with the same type and no other.
    let shared = region("quarry,modem", 0);
    assert!(matches!(shared.map(MemoryType::WriteBack), Err(IoError::Conflict(..))));
    let again = shared.map(MemoryType::NonCacheable).expect("shared");
    // SAFETY: mapped above, and nobody else has this memory.
    assert_eq!(unsafe { global::readq(again) }, 0x1122_3344_5566_7788);
    raw!(global::try_iounmap(addr)).expect("what was returned");
    raw!(global::try_iounmap(again)).expect("what was returned");
    let cached = shared.map(MemoryType::WriteBack).expect("nobody has it mapped now");
    raw!(global::try_memunmap(cached)).expect("what was returned");

    // Not beyond it, and nobody else's.
    for (start, size) in [(FIRMWARE.get(), FIRMWARE_SIZE + 1), (FIRMWARE.get() - 1, 2), (ORPHAN.get(), 4)] {
        let refused = firmware.map_part(PhysAddr::new(start), size, Prot::KERNEL_DEVICE);
        assert!(matches!(refused, Err(IoError::OutsideRegion(_, region)) if region == firmware.first()));
    }
    let last = PhysAddr::new(FIRMWARE.get() + FIRMWARE_SIZE - 1);
    let read_only = Prot::KERNEL_DEVICE.with_access(Access::ReadOnly).expect("not executable");
    raw!(global::try_iounmap(firmware.map_part(last, 1, read_only).expect("its last byte")))
        .expect("what was returned");
    assert_eq!(
        global::memory_region(device("quarry,modem"), 1),
        Err(RegionError::NoIndex { device: "modem", index: 1 })
    );
    assert!(global::memory_region(device("arm,pl011"), 0).is_err(), "a device without memory of its own");
    global::io_space().check().expect("sound");
}

ktest!(every_kind_of_region_is_its_owners, machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-owners.dtb");
fn every_kind_of_region_is_its_owners() {
    // Placed while booting: out of the linear map, and known.
    let scratch = region("quarry,dsp", 1);
    let place = scratch.range();
    assert!(place.size() == 2 * MIB && (0x4c00_0000..0x4d00_0000).contains(&place.start().get()));
    assert!(at::translate(layout::phys_to_virt(place.start()).expect("in reach")).is_none());
    assert!(is_refused(global::ioremap(place.start(), place.size()), "scratch"));
    for (index, word) in [(1, 0x1111), (2, 0x2222)] {
        let region = region("quarry,dsp", index);
        let addr = region.map(MemoryType::WriteBack).expect("its own");
        // SAFETY: mapped above, and nobody else has this memory.
        unsafe { global::writel(word, addr) };
        // SAFETY: mapped above, and nobody else has this memory.
        assert_eq!(unsafe { global::readl(addr) }, word);
        assert_eq!(at::translate(addr).expect("mapped").phys, region.range().start());
        raw!(global::try_memunmap(addr)).expect("what was returned");
    }
    // Where nothing answers, and no RAM is near: mapped all the same.
    let sram = region("quarry,dsp", 4).map(MemoryType::DeviceNGnRE).expect("its own");
    assert_eq!(at::translate(sram).expect("mapped").phys, SRAM);
    raw!(global::try_iounmap(sram)).expect("what was returned");
    // Mapped memory is where it is, and has no second type.
    let log = region("quarry,dsp", 3);
    assert_eq!(log.map(MemoryType::WriteBack).ok(), layout::phys_to_virt(LOG));
    assert!(matches!(log.map(MemoryType::NonCacheable), Err(IoError::Ram(_))));
}

ktest!(a_driver_has_its_region_to_itself, machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-owners.dtb");
fn a_driver_has_its_region_to_itself() {
    let (firmware, shared) = (region("quarry,dsp", 0), region("quarry,modem", 0));
    let name = || global::iomem_resource().at(FIRMWARE).expect("the tree has every address").name;
    assert_eq!(name(), "firmware@49000000");
    let refused = MemRegion::request(FIRMWARE, PAGE_SIZE, "stranger");
    assert!(matches!(refused, Err(ResourceError::Busy(_))), "{refused:?}");
    let registers = Devres::new();
    // SAFETY: nobody else has this memory, and writing to it harms nothing.
    let mapped = unsafe { IoMem::<0x1000>::of_region(&firmware, MemoryType::NonCacheable, "dsp-firmware") };
    let mapped = registers.keep(mapped.expect("its own"), Gfp::KERNEL).expect("memory");
    mapped.write::<u32, 0x10>(0x1234);
    assert_eq!(mapped.read::<u32, 0x10>(), 0x1234);
    assert_eq!(
        (name(), mapped.region().map(MemRegion::span)),
        ("dsp-firmware", Span::from_size(FIRMWARE, FIRMWARE_SIZE))
    );
    // SAFETY: refused.
    let second = unsafe { IoMem::<0>::of_region(&shared, MemoryType::NonCacheable, "modem") };
    assert!(matches!(second, Err(IoMemError::Region(ResourceError::Busy(info))) if info.name == "dsp-firmware"));
    drop(registers);
    assert_eq!(name(), "firmware@49000000");
    assert_eq!(global::io_space().iter().filter(|mapping| mapping.phys.contains(FIRMWARE)).count(), 0);
    // Then the other has it. Memory that is mapped anyway is requested in the same way.
    drop(shared.request("modem").expect("free now"));
    let log = region("quarry,dsp", 3);
    // SAFETY: nobody reads the log.
    let words = unsafe { IoMem::<0x1_0000>::of_region(&log, MemoryType::WriteBack, "dsp-log") }.expect("its own");
    assert_eq!(Some(words.start()), layout::phys_to_virt(LOG));
    drop(words);
    global::iomem_resource().check().expect("sound");
    assert!(at::translate(layout::phys_to_virt(LOG).expect("in reach")).is_some(), "the linear map stays");
}

ktest!(
    the_prompt_shows_regions_and_maps_them_for_their_owners,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-owners.dtb",
    report = "the no-map region firmware@49000000 [0x49000000..0x49300000): /dsp, /modem",
    report = "the no-map region orphan@4b000000 [0x4b000000..0x4b100000): no device's memory-region names it",
    report = "the reserved region log@4d000000 [0x4d000000..0x4d010000): /dsp",
    report = "the no-map region scratch [0x4c",
    report = "touches the no-map region firmware@49000000 [0x49000000..0x49300000), which only a device maps",
    report = ": the no-map region firmware@49000000 [0x49000000..0x49300000) of modem",
    report = "modem has no memory-region 1",
    report = "49000000-492fffff : firmware@49000000"
);
fn the_prompt_shows_regions_and_maps_them_for_their_owners() {
    let machine = init::machine().expect("booted");
    for line in ["regions", "ioremap 0x49000000 4096", "ioregion /modem 0 wc", "ioregion /modem 1", "iomem"] {
        prompt::execute(machine, line);
    }
}
