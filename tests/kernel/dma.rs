//! DMA on the machine: what becomes of the linear map, what is bounced, and the boot arguments.

use quarry::addr::{Address as _, DmaAddr, Order, PhysAddr, VirtAddr};
use quarry::gfp::Gfp;
use quarry::global::{self, CoherentBox, CoherentVec, DmaMapping, DmaPool, ThisKernel};
use quarry::hal::prot::MemoryType;
use quarry::kernel::init;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;
use quarry::mm::dma::{Bidirectional, Device, DeviceSpec, DmaError, FromDevice, Misuse, PoolShape, ToDevice};
use quarry::mm::fault_inject::{MayRecover, fail_every};
use quarry::mm::pgtable::wx;

fn device(coherent: bool) -> Device {
    global::dma_device(&DeviceSpec::new("test").with_coherent(coherent))
}

/// The memory that a device without windows finds at an address.
fn linear(bus: DmaAddr) -> VirtAddr {
    global::phys_to_virt(PhysAddr::new(bus.get())).expect("RAM")
}

fn sound() {
    let tables = global::kernel_tables().expect("the final tables");
    wx::check(&[tables]).unwrap_or_else(|error| panic!("{error}"));
    tables.check().unwrap_or_else(|error| panic!("{error}"));
    global::check_dma().unwrap_or_else(|error| panic!("{error}"));
}

fn fill(at: VirtAddr, byte: u8, bytes: usize) {
    // SAFETY: the tests write to memory that was given to them.
    unsafe { at.as_ptr::<u8>().write_bytes(byte, bytes) };
}

fn holds(at: VirtAddr, byte: u8, bytes: usize) -> bool {
    // SAFETY: the tests read memory that was given to them.
    (0..bytes).all(|index| unsafe { at.as_ptr::<u8>().wrapping_add(index).read_volatile() } == byte)
}

// Behaviours 297, 301 and 326
ktest!(
    uncached_memory_has_one_mapping_until_it_goes_back,
    machine one_cpu = "",
    machine four_cpus = "smp=4",
    machine max = "cpu=max"
);
fn uncached_memory_has_one_mapping_until_it_goes_back() {
    let (device, tables) = (device(false), global::kernel_tables().expect("the final tables"));
    global::drain_all_pages();
    let free = global::nr_free_pages();
    let first = global::dma_alloc_coherent(&device, 4096, Gfp::KERNEL).expect("memory");
    let second = global::dma_alloc_coherent(&device, 3 * 4096, Gfp::KERNEL).expect("memory");
    assert!(holds(first.addr, 0, 4096) && holds(second.addr, 0, 3 * 4096));
    fill(first.addr, 1, 4096);
    fill(second.addr, 2, 3 * 4096);
    assert!(holds(first.addr, 1, 4096) && holds(second.addr, 2, 3 * 4096));
    let found = tables.translate(second.addr).expect("mapped");
    assert_eq!((found.phys.get(), found.leaf.prot.memory()), (second.bus.get(), MemoryType::NonCacheable));
    for block in [first, second] {
        assert!(tables.translate(linear(block.bus)).is_none(), "the linear map has lost it");
    }
    sound();
    // SAFETY: allocated above, and not used again.
    unsafe { global::dma_free_coherent(&device, 4096, first) }.expect("freed");
    // SAFETY: allocated above, and not used again.
    unsafe { global::dma_free_coherent(&device, 3 * 4096, second) }.expect("freed");
    // SAFETY: what is named is free, and refused.
    let twice = unsafe { global::dma_free_coherent(&device, 4096, first) };
    assert_eq!(twice, Err(DmaError::NotAllocated(first.addr, first.bus, 4096)));
    let _ = global::dma().trim_reserves();
    assert_eq!(tables.translate(linear(first.bus)).expect("mapped").phys.get(), first.bus.get());
    global::vmap_space().purge_all();
    global::drain_all_pages();
    // But for a table or a slab of descriptors.
    assert!(global::nr_free_pages() + 16 >= free, "the block is back");
    sound();
}

ktest!(the_linear_map_has_no_uncached_memory);
fn the_linear_map_has_no_uncached_memory() {
    let block = global::dma_alloc_coherent(&device(false), 4096, Gfp::KERNEL).expect("memory");
    let alias = linear(block.bus);
    expect_fault(FaultKind::Translation(quarry::arch::aarch64::esr::Access::Read), alias);
    // SAFETY: the load takes the announced fault, and the machine ends.
    unsafe { alias.as_ptr::<u32>().read_volatile() };
}

// Behaviours 299, 314, 316 and 317
ktest!(buffers_are_mapped_and_bounced, machine plain = "", machine debug = "append='swiotlb=32 dma_debug=256'");
fn buffers_are_mapped_and_bounced() {
    let mut cold = device(false);
    let order = Order::new(2).expect("an order");
    let at = global::get_free_pages(Gfp::KERNEL, order).expect("pages").at();
    let phys = global::virt_to_phys(at).expect("RAM");
    fill(at, 7, 16384);
    for coherent in [false, true] {
        let device = device(coherent);
        // SAFETY: the pages are ours; there is no device.
        let bus = unsafe { global::dma_map_single::<Bidirectional>(&device, at, 16384) }.expect("mapped");
        assert_eq!(bus.get(), phys.get());
        // SAFETY: mapped by the line above.
        unsafe { global::dma_unmap_single::<Bidirectional>(&device, bus, 16384) }.expect("unmapped");
    }
    assert!(holds(at, 7, 16384));
    // It shares a cache line.
    let part = VirtAddr::new(at.get() + 4);
    // SAFETY: the pages are ours.
    let bus = unsafe { global::dma_map_single::<FromDevice>(&cold, part, 100) }.expect("bounced");
    assert_ne!(bus.get(), phys.get() + 4);
    assert_eq!(global::bounce_stats().used, 1);
    fill(linear(bus), 9, 100);
    // SAFETY: mapped above.
    unsafe { global::dma_unmap_single::<FromDevice>(&cold, bus, 100) }.expect("unmapped");
    assert!(holds(at, 7, 4) && holds(part, 9, 100) && holds(VirtAddr::new(at.get() + 104), 7, 100));
    // It is out of reach.
    global::dma_set_mask(&mut cold, phys.get() - 1).expect("there is RAM below");
    // SAFETY: the pages are ours.
    match unsafe { global::dma_map_single::<ToDevice>(&cold, at, 4096) } {
        Ok(bus) => {
            assert!(
                bus.get() < phys.get()
                    && holds(linear(bus), 9, 0)
                    && holds(VirtAddr::new(linear(bus).get() + 200), 7, 100)
            );
            // SAFETY: mapped above.
            unsafe { global::dma_unmap_single::<ToDevice>(&cold, bus, 4096) }.expect("unmapped");
        }
        Err(error) => panic!("{error}"),
    }
    assert_eq!(global::bounce_stats().used, 0);
    // SAFETY: the pages are ours.
    unsafe { global::try_free_pages(at, order) }.expect("freed");
    sound();
}

// Behaviours 302 and 306
ktest!(
    misuse_is_logged_with_the_driver_that_did_it,
    machine = "append='dma_debug=64'",
    report = "DMA-API: device driver maps memory that is not in the linear map",
    report = "DMA-API: device driver tries to free DMA memory it has not allocated [device test, bus address",
    report = "tests/kernel/dma.rs"
);
fn misuse_is_logged_with_the_driver_that_did_it() {
    let device = device(false);
    let on_stack = 0_u64;
    let at = VirtAddr::of(&on_stack);
    // SAFETY: refused.
    let wild = unsafe { global::dma_map_single::<ToDevice>(&device, at, 8) };
    assert_eq!(wild, Err(DmaError::NotLinear(at)));
    // SAFETY: refused.
    let unmapped = unsafe { global::dma_unmap_single::<ToDevice>(&device, DmaAddr::new(0x4800_0000), 64) };
    assert_eq!(unmapped, Err(DmaError::Misused(Misuse::NotMapped)));
}

ktest!(
    boot_arguments_make_slots_and_reserves,
    machine one_cpu = "append='swiotlb=64 coherent_pool=3M'",
    machine four_cpus = "smp=4 append='swiotlb=64 coherent_pool=3M'"
);
fn boot_arguments_make_slots_and_reserves() {
    assert_eq!(global::dma().reserved_pages().0, 1024);
    assert_eq!(global::bounce_stats().slots, 0, "no device has come");
    let device = device(false);
    assert_eq!(global::bounce_stats().slots, 64);
    // Where no reserve could be made.
    let masked = quarry::arch::aarch64::irq::local_irq_save();
    let block = global::dma_alloc_coherent(&device, 4096, Gfp::ATOMIC).expect("from the reserve");
    drop(masked);
    // SAFETY: allocated above.
    unsafe { global::dma_free_coherent(&device, 4096, block) }.expect("freed");
    assert_eq!(global::dma().trim_reserves(), 0, "they stay");
    sound();
}

// Behaviour 326
ktest!(reserves_are_made_while_other_cpus_run, machine = "smp=4");
fn reserves_are_made_while_other_cpus_run() {
    let device = device(false);
    for _ in 0..20 {
        let block = global::dma_alloc_coherent(&device, 65536, Gfp::KERNEL).expect("memory");
        assert!(holds(block.addr, 0, 65536));
        fill(block.addr, 5, 65536);
        // SAFETY: allocated above.
        unsafe { global::dma_free_coherent(&device, 65536, block) }.expect("freed");
        assert_eq!(global::dma().trim_reserves(), 512);
    }
    sound();
}

// Behaviour 319
ktest!(devices_of_the_tree_are_described);
fn devices_of_the_tree_are_described() {
    let tree = &init::machine().expect("a machine").tree;
    let node = tree.compatible_nodes("qemu,fw-cfg-mmio").next().expect("virt has it");
    let device = global::dma_device_of(node).expect("a device");
    assert!(device.is_coherent(), "virt says dma-coherent");
    assert!(device.name().starts_with("fw-cfg@"), "{}", device.name());
}

/// QEMU's fw_cfg by its DMA interface (docs/specs/fw_cfg): it reads a command from memory and writes the answer to memory.
struct FwCfg {
    registers: VirtAddr,
    device: Device,
}

/// The keys of the signature and of the directory of files.
const SIGNATURE: u32 = 0;
const DIRECTORY: u32 = 0x19;
/// Bits of the command: read, select the key in the upper half; and of the answer: it failed.
const READ: u32 = 1 << 1;
const SELECT: u32 = 1 << 3;
const FAILED: u32 = 1;

impl FwCfg {
    fn open() -> Self {
        let tree = &init::machine().expect("a machine").tree;
        let node = tree.compatible_nodes("qemu,fw-cfg-mmio").next().expect("virt has it");
        let range = node.phys_ranges().next().expect("registers").expect("an address");
        let registers = global::ioremap(range.start(), range.size()).expect("mapped");
        Self { registers, device: global::dma_device_of(node).expect("a device") }
    }

    /// Lets the device write the answer to `key` where it finds `size` bytes at `bus`.
    fn ask(&self, command: &mut CoherentBox<'_, [u32; 4]>, key: u32, (bus, size): (DmaAddr, u32)) {
        let [high, low] =
            [bus.get() >> 32, bus.get() & 0xffff_ffff].map(|half| u32::try_from(half).expect("a half").to_be());
        command.write([(key << 16 | SELECT | READ).to_be(), size.to_be(), high, low]);
        let register = self.registers.checked_add(16).expect("no wrap");
        // SAFETY: the address of a command that is complete and stays until the device has answered.
        unsafe { global::writeq(command.bus().get().swap_bytes(), register) };
        let mut patience = 1_000_000;
        while command.read()[0] != 0 {
            assert_eq!(u32::from_be(command.read()[0]) & FAILED, 0, "the device refuses");
            patience -= 1;
            assert!(patience > 0, "the device does not answer");
        }
    }
}

// Behaviours 297, 299, 316 and 319
ktest!(a_real_device_writes_to_coherent_streaming_and_bounced_memory, machine plain = "", machine watched = "append=dma_debug=64");
fn a_real_device_writes_to_coherent_streaming_and_bounced_memory() {
    const SIZE: usize = 512;
    const BYTES: u32 = 512;
    let mut fw_cfg = FwCfg::open();
    let order = Order::new(1).expect("an order");
    let at = global::get_free_pages(Gfp::KERNEL, order).expect("pages").at();
    let phys = global::virt_to_phys(at).expect("RAM");
    // SAFETY: the pages are ours, and there is no other reference.
    let buffer = unsafe { core::slice::from_raw_parts_mut(at.as_ptr::<u8>(), SIZE) };
    buffer.fill(0xee);
    let dma = global::dma();
    let mut before: Option<[u8; SIZE]> = None;
    for bounced in [false, true] {
        if bounced {
            global::dma_set_mask(&mut fw_cfg.device, phys.get() - 1).expect("there is RAM below");
            if global::bounce_stats().slots == 0 {
                dma.set_up_bounce(64).expect("slots");
            }
        }
        let device = &fw_cfg.device;
        let mut command = CoherentBox::<[u32; 4]>::new(dma, device, Gfp::KERNEL).expect("memory");
        let seen = DmaMapping::<FromDevice>::scope(dma, device, buffer, |mapping| {
            assert_eq!(mapping.bus().get() != phys.get(), bounced);
            fw_cfg.ask(&mut command, SIGNATURE, (mapping.bus(), 4));
            let signature = mapping.sync_for_cpu(|bytes| bytes.starts_with(b"QEMU")).expect("synced");
            assert!(signature, "the device wrote where it was told");
            fw_cfg.ask(&mut command, DIRECTORY, (mapping.bus(), BYTES));
        });
        seen.expect("mapped");
        let answered: [u8; SIZE] = core::array::from_fn(|index| buffer.get(index).copied().unwrap_or_default());
        assert!(before.is_none_or(|before| before == answered), "bounced or not, it is the same");
        before = Some(answered);
        // And to coherent memory.
        let answer = CoherentVec::<u8>::new(dma, device, SIZE, Gfp::KERNEL).expect("memory");
        fw_cfg.ask(&mut command, DIRECTORY, (answer.bus(), BYTES));
        assert!((0..SIZE).all(|index| answer.read(index) == buffer.get(index).copied()), "the same answer");
    }
    let files = buffer.first_chunk::<4>().map_or(0, |count| u32::from_be_bytes(*count));
    assert!((1..100).contains(&files), "{files} files");
    assert_eq!(dma.device_gone(&fw_cfg.device), 0);
    // SAFETY: mapped by us, and not used again.
    unsafe { global::try_iounmap(fw_cfg.registers) }.expect("unmapped");
    // SAFETY: the pages are ours, and the slice is not used again.
    unsafe { global::try_free_pages(at, order) }.expect("freed");
    sound();
}

// Behaviour 497
ktest!(no_failed_dma_call_loses_anything, timeout = 120);
fn no_failed_dma_call_loses_anything() {
    for (coherent, size) in [(false, 4096), (false, 65536), (false, 4 << 20), (true, 4096), (true, 1 << 20)] {
        let device = device(coherent);
        let free = |block| {
            // SAFETY: allocated by the round, and not used.
            unsafe { global::dma_free_coherent(&device, size, block) }.expect("freed");
            global::dma().trim_reserves();
        };
        let alloc = || global::dma_alloc_coherent(&device, size, Gfp::KERNEL | Gfp::NOWARN);
        free(alloc().expect("memory"));
        let rounds = fail_every(&ThisKernel, MayRecover::Yes, alloc, free).expect("sound");
        assert!(rounds.points >= 1, "{coherent} {size}: {rounds:?}");
        let shape = PoolShape { size: 100, align: 4, boundary: 256, poison: false };
        let block = || {
            let pool = global::dma_pool_create("test", &device, shape)?;
            let block = pool.alloc(Gfp::KERNEL | Gfp::NOWARN);
            if block.is_err() {
                // What was made for the pool stays until memory is short.
                global::dma().trim_reserves();
            }
            block.map(|block| (pool, block))
        };
        let end = |(pool, block): (DmaPool<'_>, _)| {
            // SAFETY: allocated by the round, and not used.
            unsafe { pool.free(block) }.expect("freed");
            pool.destroy().expect("nothing is in use");
            global::dma().trim_reserves();
        };
        end(block().expect("memory"));
        fail_every(&ThisKernel, MayRecover::Yes, block, end).expect("sound");
    }
    sound();
}
