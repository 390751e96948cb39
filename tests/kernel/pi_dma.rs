//! The legacy DMA controller of a Raspberry Pi (Broadcom, BCM2711 ARM Peripherals, §4): it sees RAM through a window at
//! 0xC000_0000 and has 30 address lines, so that what lies above 1 GiB is bounced.

#![expect(clippy::indexing_slicing, reason = "parts of a page")]

use quarry::addr::{Address as _, DmaAddr, Order, PAGE_SIZE, PhysAddr, VirtAddr};
use quarry::gfp::Gfp;
use quarry::global::{self, CoherentBox, Devres, DmaMapping};
use quarry::kernel::init;
use quarry::ktest;
use quarry::mm::dma::{Device, FromDevice, ToDevice};

/// Registers of a channel: control and status, address of the control block.
const CS: u64 = 0x00;
const CONBLK_AD: u64 = 0x04;
/// The register that lets channels run, for all of them.
const ENABLE: u64 = 0xff0;
/// Bits of CS: run, done, reset.
const ACTIVE: u32 = 1;
const END: u32 = 1 << 1;
const RESET: u32 = 1 << 31;
/// Bits of a transfer: both addresses rise, and the last write is waited for.
const TRANSFER: u32 = 1 << 3 | 1 << 4 | 1 << 8;
/// A channel that the firmware leaves to us.
const CHANNEL: u64 = 5;
/// The window, from the CPU's address to the controller's.
const WINDOW: u64 = 0xc000_0000;

struct Controller {
    registers: VirtAddr,
    device: Device,
    _resources: Devres,
}

impl Controller {
    fn open() -> Self {
        let tree = &init::machine().expect("a machine").tree;
        let node = tree.compatible_nodes("brcm,bcm2835-dma").next().expect("a Pi has it");
        let range = node.phys_ranges().next().expect("registers").expect("an address");
        let resources = Devres::new();
        let registers = global::devm_ioremap(&resources, range.start(), PAGE_SIZE).expect("mapped");
        Self { registers, device: global::dma_device_of(node).expect("a device"), _resources: resources }
    }

    fn register(&self, offset: u64) -> VirtAddr {
        self.registers.checked_add(offset).expect("no wrap")
    }

    /// Copies `size` bytes as the controller sees memory, by a control block in coherent memory.
    fn copy(&self, block: &mut CoherentBox<'_, [u32; 8]>, to: DmaAddr, from: DmaAddr, size: u32) {
        let bus = |at: DmaAddr| u32::try_from(at.get()).expect("an address of the controller");
        block.write([TRANSFER, bus(from), bus(to), size, 0, 0, 0, 0]);
        let (channel, enable) = (CHANNEL * 0x100, self.register(ENABLE));
        // SAFETY: a register of the controller, which is ours.
        let enabled = unsafe { global::readl(enable) } | 1 << CHANNEL;
        let block = bus(block.bus());
        let commands = [(CS, RESET), (CONBLK_AD, block), (CS, ACTIVE)].map(|(offset, value)| (channel + offset, value));
        for (offset, value) in [(ENABLE, enabled)].into_iter().chain(commands) {
            // SAFETY: registers of a channel that is ours, and a control block that is complete and stays until the end.
            unsafe { global::writel(value, self.register(offset)) };
        }
        // SAFETY: registers of a channel that is ours, and a control block that is complete and stays until the end.
        let done = (0..1_000_000).any(|_| unsafe { global::readl(self.register(channel + CS)) } & END != 0);
        assert!(done, "the controller does not answer");
    }
}

/// A page at or above `from`, or below 1 GiB, and its contents.
fn page(gfp: Gfp) -> (VirtAddr, PhysAddr, &'static mut [u8]) {
    let at = global::get_free_pages(gfp, Order::ZERO).expect("a page").at();
    // SAFETY: the page is ours until the end of the test, and there is no other reference.
    let bytes = unsafe { core::slice::from_raw_parts_mut(at.as_ptr::<u8>(), 4096) };
    (at, global::virt_to_phys(at).expect("RAM"), bytes)
}

// Behaviours 316 and 319
ktest!(
    the_legacy_controller_of_a_pi_copies_through_its_window,
    machine one_gib = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz append='want.high=0'",
    machine two_gib = "board=raspi4b serial=1 loader=raw fdt_at=0x2600000 dtb=tests/data/dtb/boards/rpi4-fw-2gb.dtb.gz append='want.high=1 dma_debug=64'"
);
fn the_legacy_controller_of_a_pi_copies_through_its_window() {
    let controller = Controller::open();
    let device = &controller.device;
    assert!(!device.is_coherent(), "the controller does not snoop");
    let mut block = CoherentBox::<[u32; 8]>::new(global::dma(), device, Gfp::KERNEL).expect("memory");
    assert!(block.bus().get() >= WINDOW && block.bus().get() < WINDOW + (1 << 30));
    let has_high = init::machine().expect("a machine").args.number("want.high") == Some(1);
    for gfp in [Gfp::KERNEL | Gfp::DMA, Gfp::KERNEL] {
        let (source_at, source_phys, source) = page(gfp);
        let (target_at, target_phys, target) = page(gfp);
        let high = gfp == Gfp::KERNEL && has_high;
        assert_eq!(target_phys.get() >= 1 << 30, high, "{target_phys}");
        source.iter_mut().zip((0_u8..=250).cycle()).for_each(|(byte, value)| *byte = value);
        target.fill(0xee);
        let dma = global::dma();
        // The whole page, and bytes that share their first and last cache line.
        for (start, size) in [(0_usize, 4096_usize), (7, 1000)] {
            let (from, to) = (&mut source[..size], &mut target[start..start + size]);
            let copied = DmaMapping::<ToDevice>::scope(dma, device, from, |from| {
                DmaMapping::<FromDevice>::scope(dma, device, to, |to| {
                    let near = |bus: DmaAddr, phys: PhysAddr| bus.get() == phys.get() + WINDOW;
                    assert_eq!(near(from.bus(), source_phys), !high, "what is out of reach is bounced");
                    assert_eq!(near(to.bus(), target_phys), !high && start == 0);
                    controller.copy(&mut block, to.bus(), from.bus(), u32::try_from(size).expect("small"));
                })
            });
            copied.expect("mapped").expect("mapped");
            let (before, rest) = target.split_at(start);
            let (middle, _) = rest.split_at(size);
            assert!(middle == &source[..size], "{start} {size}");
            // Bytes of the first round are still around the second's.
            assert!(before == &source[..start], "neighbours are untouched");
        }
        for at in [source_at, target_at] {
            // SAFETY: ours, and the slices are not used again.
            unsafe { global::try_free_pages(at, Order::ZERO) }.expect("freed");
        }
    }
    drop(block);
    assert_eq!(global::dma().device_gone(device), 0);
    global::check_dma().expect("sound");
}
