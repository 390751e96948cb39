//! Memory that the device tree sets aside for devices to allocate from, on the machine of tests/data/dts/virt-pools.dts.

use quarry::addr::{Order, PhysAddr, PhysRange, VirtAddr};
use quarry::arch::aarch64::at;
use quarry::fdt::Node;
use quarry::gfp::Gfp;
use quarry::global::{self, DeviceMemoryError};
use quarry::hal::prot::MemoryType;
use quarry::kernel::init;
use quarry::kernel::machine_account::account;
use quarry::ktest;
use quarry::mm::dma::{Bidirectional, CoherentBlock, Device, DeviceSpec, DmaError};
use quarry::mm::io::RegionError;
use quarry::mm::pgtable::wx;

const MIB: u64 = 1 << 20;

fn node(with: &'static str) -> Node<'static, 'static> {
    let tree = &init::machine().expect("tests run after booting").tree;
    tree.compatible_nodes(with).next().expect("a device of this tree")
}

/// The device of that compatible string, with its memory.
fn device(with: &'static str) -> Device {
    let mut device = global::dma_device_of(node(with)).expect("a device");
    global::of_reserved_mem_device_init(&mut device, node(with)).expect("its memory");
    device
}

fn stranger() -> Device {
    global::dma_device(&DeviceSpec::new("stranger"))
}

fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start), size).expect("no wrap")
}

/// Devices of this tree find memory where the CPU does.
fn place(block: CoherentBlock) -> PhysAddr {
    PhysAddr::new(block.bus.get())
}

fn alloc(device: &Device, size: u64) -> CoherentBlock {
    let block = global::dma_alloc_coherent(device, size, Gfp::KERNEL).expect("memory");
    let bytes = size.next_multiple_of(4096);
    let at = block.addr.as_ptr::<u64>();
    for word in 0..usize::try_from(bytes / 8).expect("small") {
        let place = at.wrapping_add(word);
        // SAFETY: allocated by the line above.
        assert_eq!(unsafe { place.read_volatile() }, 0);
        // SAFETY: a word of the memory that the line above has allocated.
        unsafe { place.write_volatile(0x5555_5555_0000_0000 + word as u64) };
    }
    block
}

fn free(device: &Device, size: u64, block: CoherentBlock) {
    // SAFETY: allocated by the test, and not used again.
    unsafe { global::dma_free_coherent(device, size, block) }.expect("freed");
}

/// Where the linear map would have it, and whether it does.
fn alias(at: PhysAddr) -> Option<MemoryType> {
    let tables = global::kernel_tables().expect("the final tables");
    let virt = quarry::mm::layout::phys_to_virt(at).expect("in reach");
    tables.translate(virt).map(|found| found.leaf.prot.memory())
}

fn memory_type(at: VirtAddr) -> MemoryType {
    let tables = global::kernel_tables().expect("the final tables");
    tables.translate(at).expect("mapped").leaf.prot.memory()
}

fn sound() {
    let tables = global::kernel_tables().expect("the final tables");
    wx::check(&[tables]).unwrap_or_else(|error| panic!("{error}"));
    global::check_dma().unwrap_or_else(|error| panic!("{error}"));
    global::drain_all_pages();
    global::page_allocator().check().unwrap_or_else(|error| panic!("{error}"));
    account(init::machine().expect("booted")).expect("RAM adds up");
}

// Behaviour 326
ktest!(
    a_pool_that_is_no_map_is_its_devices_coherent_memory,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb"
);
fn a_pool_that_is_no_map_is_its_devices_coherent_memory() {
    let mut dsp = global::dma_device_of(node("quarry,dsp")).expect("a device");
    // The first reference is to the firmware, which is no pool.
    let first = global::of_reserved_mem_device_init(&mut dsp, node("quarry,dsp"));
    assert_eq!(first, Err(DeviceMemoryError::NotAPool("firmware@4d800000")));
    global::of_reserved_mem_device_init_by_name(&mut dsp, node("quarry,dsp"), "ram").expect("by name");
    let pool = range(0x4900_0000, MIB);
    let block = alloc(&dsp, 8192);
    assert!(pool.contains(place(block)));
    assert_eq!((memory_type(block.addr), alias(place(block))), (MemoryType::NonCacheable, None));
    assert_eq!(at::translate(block.addr).expect("mapped").phys, place(block));
    let full = global::dma_alloc_coherent(&dsp, 2 * MIB, Gfp::KERNEL);
    assert_eq!(full, Err(DmaError::PoolFull(2 * MIB)));
    // Another device with the same reference shares it.
    let mut second = stranger();
    global::of_reserved_mem_device_init_by_idx(&mut second, node("quarry,dsp"), 1).expect("by index");
    let other = alloc(&second, 4096);
    assert!(pool.contains(place(other)) && other.bus != block.bus);
    free(&second, 4096, other);
    free(&dsp, 8192, block);
    global::of_reserved_mem_device_release(&mut dsp);
    let elsewhere = alloc(&dsp, 4096);
    assert!(!pool.contains(place(elsewhere)));
    free(&dsp, 4096, elsewhere);
    sound();
}

// Behaviour 326
ktest!(
    a_pool_in_the_linear_map_leaves_it_for_its_device,
    machine one_cpu = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb",
    machine max = "cpu=max loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb"
);
fn a_pool_in_the_linear_map_leaves_it_for_its_device() {
    let region = global::memory_region(node("quarry,codec"), 0).expect("nobody allocates from it yet");
    let pool = region.range();
    assert_eq!((pool.size(), alias(pool.start())), (2 * MIB, Some(MemoryType::WriteBack)));
    let codec = device("quarry,codec");
    assert!(codec.is_coherent());
    let block = alloc(&codec, 3 * 4096);
    assert!(pool.contains(place(block)));
    assert_eq!((memory_type(block.addr), alias(place(block))), (MemoryType::NonCacheable, None));
    let refused = global::memory_region(node("quarry,codec"), 0);
    assert!(matches!(refused, Err(RegionError::Lent { region: "codec-ram" })), "{refused:?}");
    assert!(alias(PhysAddr::new(pool.end().get())).is_some(), "what lies behind it stays");
    free(&codec, 3 * 4096, block);
    sound();
}

ktest!(
    a_devices_own_contiguous_area_serves_it,
    machine one_cpu = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb",
    machine max = "cpu=max loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb"
);
fn a_devices_own_contiguous_area_serves_it() {
    let area = range(0x4a00_0000, 8 * MIB);
    let taken = || {
        let video = global::cma_areas().find(|area| area.range.start().get() == 0x4a00_0000).expect("the video's");
        global::page_allocator().cma_usage(video.area).expect("this machine's").taken
    };
    for (with, memory) in [("quarry,video", MemoryType::WriteBack), ("quarry,camera", MemoryType::NonCacheable)] {
        let device = device(with);
        for size in [4096, 100_000, 4 * MIB, 6 * MIB] {
            let block = alloc(&device, size);
            assert!(area.contains(place(block)), "{with} {size:#x}");
            assert_eq!(memory_type(block.addr), memory);
            assert_eq!(alias(place(block)).is_some(), memory == MemoryType::WriteBack);
            free(&device, size, block);
        }
        global::dma().trim_reserves();
        assert_eq!(taken(), 0, "{with}");
    }
    // The area for everybody serves everybody else.
    let default = global::cma_areas().find(|area| area.is_default).expect("the tree has one");
    for coherent in [false, true] {
        let device = global::dma_device(&DeviceSpec::new("any").with_coherent(coherent));
        let block = alloc(&device, 9 * MIB);
        assert!(default.range.contains(place(block)));
        free(&device, 9 * MIB, block);
        assert_eq!(global::page_allocator().cma_usage(default.area).expect("this machine's").taken, 0);
    }
    global::vmap_space().purge_all();
    sound();
}

ktest!(
    the_default_pool_serves_devices_without_one,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb"
);
fn the_default_pool_serves_devices_without_one() {
    let pool = range(0x4e00_0000, MIB);
    let (cold, warm) = (stranger(), global::dma_device(&DeviceSpec::new("warm").with_coherent(true)));
    let (first, second) = (alloc(&cold, 4096), alloc(&warm, 4096));
    assert!(pool.contains(place(first)) && !pool.contains(place(second)));
    assert_eq!((memory_type(first.addr), alias(place(first))), (MemoryType::NonCacheable, None));
    // Used up, a reserve serves.
    let mut held = [None; 64];
    let mut blocks = held.iter_mut();
    let beyond = loop {
        let block = alloc(&cold, 64 << 10);
        *blocks.next().expect("16 are in the pool") = Some(block);
        if !pool.contains(place(block)) {
            break block;
        }
    };
    assert_eq!(memory_type(beyond.addr), MemoryType::NonCacheable);
    held.into_iter().flatten().for_each(|block| free(&cold, 64 << 10, block));
    free(&cold, 4096, first);
    free(&warm, 4096, second);
    sound();
}

ktest!(
    all_that_a_restricted_device_maps_is_in_its_pool,
    machine one_cpu = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb",
    machine max = "cpu=max loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb"
);
fn all_that_a_restricted_device_maps_is_in_its_pool() {
    let pool = range(0x4f00_0000, MIB);
    let (mut wifi, second) = (device("quarry,wifi"), device("quarry,wifi"));
    assert_eq!(wifi.restricted_pool(), second.restricted_pool(), "one pool for both");
    let restricted = wifi.restricted_pool().expect("a pool");
    assert_eq!(global::dma().restricted_stats(restricted).slots, MIB / 2 / 2048);
    // Coherent memory is uncached and nowhere else; the slots are ordinary memory.
    let block = alloc(&wifi, 8192);
    assert!(pool.contains(place(block)));
    assert_eq!((memory_type(block.addr), alias(place(block))), (MemoryType::NonCacheable, None));
    free(&wifi, 8192, block);
    let page = global::Pages::new(Gfp::KERNEL, Order::ZERO).expect("memory");
    let at = page.address();
    // SAFETY: the page is the test's.
    unsafe { at.as_ptr::<u8>().write_bytes(0x61, 4096) };
    // SAFETY: the page is the test's until it is unmapped.
    let bus = unsafe { global::dma_map_single::<Bidirectional>(&wifi, at, 4096) }.expect("slots");
    let slot = PhysAddr::new(bus.get());
    assert!(pool.contains(slot) && alias(slot) == Some(MemoryType::WriteBack));
    assert_eq!(global::dma().restricted_stats(restricted).used, 2);
    let copy = quarry::mm::layout::phys_to_virt(slot).expect("in reach").as_ptr::<u8>();
    // SAFETY: the test is the device, whose the slot is.
    assert_eq!(unsafe { copy.read_volatile() }, 0x61, "the device reads a copy");
    // SAFETY: the slot is the device's, which the test is.
    unsafe { copy.write_volatile(0x62) };
    // SAFETY: mapped above.
    unsafe { global::dma_unmap_single::<Bidirectional>(&wifi, bus, 4096) }.expect("unmapped");
    // SAFETY: the page is the test's again.
    assert_eq!(unsafe { at.as_ptr::<u8>().read_volatile() }, 0x62, "what it wrote came back");
    assert_eq!(global::dma().restricted_stats(restricted).used, 0);
    global::of_reserved_mem_device_release(&mut wifi);
    assert_eq!((wifi.pool(), wifi.restricted_pool()), (None, None));
    sound();
}

ktest!(
    what_is_no_memory_of_a_device_is_refused,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb"
);
fn what_is_no_memory_of_a_device_is_refused() {
    let mut device = stranger();
    let mut init = |with, index| global::of_reserved_mem_device_init_by_idx(&mut device, node(with), index);
    let no_index = RegionError::NoIndex { device: "dsp", index: 7 };
    assert_eq!(init("quarry,dsp", 7), Err(DeviceMemoryError::Region(no_index)));
    let none = RegionError::NoIndex { device: "pl011@9000000", index: 0 };
    assert_eq!(init("arm,pl011", 0), Err(DeviceMemoryError::Region(none)));
    assert_eq!(init("quarry,dsp", 0), Err(DeviceMemoryError::NotAPool("firmware@4d800000")));
    assert_eq!(init("quarry,radio", 0), Err(DeviceMemoryError::RestrictedNoMap("radio-ram@4f200000")));
    let named = global::of_reserved_mem_device_init_by_name(&mut device, node("quarry,dsp"), "rom");
    assert_eq!(named, Err(DeviceMemoryError::NoName("rom")));
    assert_eq!((device.pool(), device.area()), (None, None));
    sound();
}
