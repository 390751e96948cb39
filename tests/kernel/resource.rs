//! Owners of physical addresses: the ranges entered at boot, and the requests of drivers.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::sync::atomic::{AtomicU32, Ordering};
use quarry::addr::{PAGE_SIZE, PhysAddr};
use quarry::gfp::Gfp;
use quarry::global::{self, Devres, IoMem, IoMemError, MemRegion};
use quarry::hal::prot::MemoryType;
use quarry::kernel::{init, prompt};
use quarry::ktest;
use quarry::mm::io::resource::{ResourceError, ResourceFlags, ResourceInfo, Span};

/// The real-time clock of `virt`.
const RTC: PhysAddr = PhysAddr::new(0x901_0000);
const RTC_SIZE: u64 = 0x1000;

fn at(addr: PhysAddr) -> ResourceInfo<'static> {
    global::iomem_resource().at(addr).expect("the tree has every address")
}

ktest!(
    what_there_is_is_in_the_tree,
    machine virt = "",
    machine gicv3_highmem = "mem=5G gic=3 smp=4",
    machine reservations = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-reserved.dtb",
    machine owners = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-owners.dtb",
    machine raspi4b = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
    timeout = 60,
);
fn what_there_is_is_in_the_tree() {
    let resources = global::iomem_resource();
    resources.check().expect("sound");
    // RAM, bank by bank.
    let memblock = global::memblock();
    for bank in memblock.memory().regions() {
        let info = at(bank.range.start());
        let outer = resources.with(|tree| tree.iter().find(|range| range.depth == 1 && range.span.contains(info.span)));
        let outer = outer.expect("a bank");
        assert_eq!(
            (Some(outer.span), outer.flags.contains(ResourceFlags::SYSRAM)),
            (Span::of(bank.range), bank.is_mapped())
        );
    }
    drop(memblock);
    // The image in it, and the memory of the page descriptors.
    let machine = init::machine().expect("booted");
    assert_eq!(at(machine.boot.image_range().start()).name, "Kernel code");
    let data = global::virt_to_phys(quarry::addr::VirtAddr::of(&raw const COUNT));
    let data = data.unwrap_or_else(|| machine.boot.image_phys(quarry::addr::VirtAddr::of(&raw const COUNT)));
    assert!(["Kernel bss", "Kernel data"].contains(&at(data).name), "{}", at(data));
    assert_eq!(at(machine.tree_range.start()).name, "reserved");
    // Pages that the allocator has are in nothing but RAM.
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    assert_eq!(at(global::page_to_phys(page)).name, "System RAM");
    raw!(global::try_free_page(page)).expect("ours");
    // The console that this is printed on is a device that the kernel has.
    let stdout = machine.tree.chosen().and_then(|chosen| chosen.stdout()).expect("a console");
    let registers = stdout.node.phys_ranges().next().expect("registers").expect("that the CPU reaches");
    let console = at(registers.start());
    assert_eq!((console.name, console.depth > 1), ("kernel", true), "{console}");
    let device = resources.with(|tree| tree.iter().find(|range| range.name == stdout.node.name())).expect("the device");
    assert!(device.span.contains(console.span));
}

static COUNT: AtomicU32 = AtomicU32::new(0);

// Behaviours 279 and 280, on a device.
ktest!(a_device_has_one_driver);
fn a_device_has_one_driver() {
    let before = at(RTC);
    assert_eq!((before.name, before.flags), ("pl031@9010000", ResourceFlags::MEM));
    // SAFETY: reading the clock's registers harms nobody.
    let rtc = unsafe { IoMem::<0x1000>::request(RTC, RTC_SIZE, MemoryType::DeviceNGnRE, "rtc") }.expect("a clock");
    assert_eq!(rtc.read::<u32, 0xff0>() & 0xff, 0x0d, "the identification of a PrimeCell");
    assert_eq!(at(RTC).name, "rtc");
    // SAFETY: refused, as the range is taken.
    let second = unsafe { IoMem::<0>::request(RTC, 4, MemoryType::DeviceNGnRE, "second") };
    assert!(matches!(second, Err(IoMemError::Region(ResourceError::Busy(info))) if info.name == "rtc"), "{second:?}");
    let across = MemRegion::request(PhysAddr::new(RTC.get() - 4), 8, "across");
    assert!(matches!(across, Err(ResourceError::Busy(_))), "{across:?}");
    let half = global::release_mem_region(RTC, RTC_SIZE / 2);
    assert!(matches!(half, Err(ResourceError::NotThere(_))), "{half:?}");
    drop(rtc);
    assert_eq!(at(RTC), before);
    assert_eq!(global::io_space().iter().filter(|mapping| mapping.phys.contains(RTC)).count(), 0);
    // A mapping that is refused leaves no region behind.
    // SAFETY: refused.
    let refused = unsafe { IoMem::<0x2000>::request(RTC, RTC_SIZE, MemoryType::DeviceNGnRE, "rtc") };
    assert!(matches!(refused, Err(IoMemError::Size(_))), "{refused:?}");
    assert_eq!(at(RTC), before);
    // By Linux's names.
    global::request_mem_region(RTC, RTC_SIZE, "raw").expect("free");
    global::release_mem_region(RTC, RTC_SIZE).expect("ours");
    assert_eq!(at(RTC), before);
    // RAM is somebody's.
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    let ram = MemRegion::request(global::page_to_phys(page), PAGE_SIZE, "mine");
    assert!(matches!(ram, Err(ResourceError::Busy(info)) if info.name == "System RAM"), "{ram:?}");
    raw!(global::try_free_page(page)).expect("ours");
}

/// Says in which turn it is dropped.
struct Turn(u32);

impl Drop for Turn {
    fn drop(&mut self) {
        assert_eq!(COUNT.fetch_add(1, Ordering::Relaxed), self.0);
    }
}

ktest!(a_driver_gives_back_in_reverse);
fn a_driver_gives_back_in_reverse() {
    let before = at(RTC);
    let device = Devres::new();
    device.keep(Turn(2), Gfp::KERNEL).expect("memory");
    // SAFETY: reading the clock's registers harms nobody.
    let rtc = unsafe { IoMem::<0x1000>::request(RTC, RTC_SIZE, MemoryType::DeviceNGnRE, "rtc") }.expect("a clock");
    let rtc: &IoMem<0x1000> = device.keep(rtc, Gfp::KERNEL).expect("memory");
    let buffer: &Turn = device.keep(Turn(1), Gfp::KERNEL).expect("memory");
    device.keep(Turn(0), Gfp::KERNEL).expect("memory");
    assert_eq!((rtc.read::<u32, 0xff0>() & 0xff, buffer.0), (0x0d, 1));
    drop(device);
    assert_eq!(COUNT.load(Ordering::Relaxed), 3);
    assert_eq!(at(RTC), before);
}

ktest!(
    the_prompt_shows_it_as_linux_does,
    report = "08000000-0800ffff : intc@8000000",
    report = "  08000000-08001fff : kernel",
    report = "09000000-09000fff : pl011@9000000",
    report = "  09000000-09000fff : kernel",
    report = "09010000-09010fff : pl031@9010000",
    report = "40000000-4fffffff : System RAM",
    report = " : Kernel code",
    report = " : Kernel rodata",
    report = " : Kernel data",
    report = " : Kernel bss",
    report = "4010000000-401fffffff : pcie@10000000"
);
fn the_prompt_shows_it_as_linux_does() {
    prompt::execute(init::machine().expect("booted"), "iomem");
}
