//! Real devices behind `ioremap`: what they say of themselves, through every kind of access.

use quarry::addr::{PhysAddr, PhysRange, VirtAddr};
use quarry::global::{self, IoMem};
use quarry::hal::prot::MemoryType;
use quarry::kernel::init;
use quarry::ktest;
use quarry::mm::io::{AccessError, RegisterBlock};
use tock_registers::interfaces::Readable;
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite};

/// The registers of the first device that is compatible with `with`, the `index`-th range of them.
pub(crate) fn device(with: &str, index: usize) -> PhysRange {
    let tree = &init::machine().expect("tests run after booting").tree;
    let node = tree.compatible_nodes(with).next().expect("virt has one");
    node.phys_ranges().nth(index).expect("so many ranges").expect("a legal range")
}

fn map<const SIZE: u64>(registers: PhysRange, memory: MemoryType) -> IoMem<SIZE> {
    // SAFETY: the tests are the only users of these devices.
    unsafe { IoMem::new(registers.start(), registers.size(), memory) }.expect("a device that nobody else has mapped")
}

/// The identification registers of an Arm PrimeCell: part number, designer and revision in 0xfe0 to 0xfec, and
/// 0xb105f00d in 0xff0 to 0xffc, a byte each.
fn prime_cell(registers: &IoMem<0x1000>) -> (u32, u32) {
    let word = |bytes: [u32; 4]| bytes.into_iter().rev().fold(0, |word, byte| word << 8 | byte & 0xff);
    let peripheral = [
        registers.read::<u32, 0xfe0>(),
        registers.read::<u32, 0xfe4>(),
        registers.read::<u32, 0xfe8>(),
        registers.read::<u32, 0xfec>(),
    ];
    let cell = [0xff0, 0xff4, 0xff8, 0xffc].map(|offset| registers.readl(offset).expect("inside"));
    (word(peripheral), word(cell))
}

ktest!(the_clock_and_the_gpio_identify_themselves);
fn the_clock_and_the_gpio_identify_themselves() {
    for (with, part) in [("arm,pl031", 0x031), ("arm,pl061", 0x061)] {
        let registers = map::<0x1000>(device(with, 0), MemoryType::DeviceNGnRE);
        let (peripheral, cell) = prime_cell(&registers);
        assert_eq!((peripheral & 0xfff, cell), (part, 0xb105_f00d), "{with}: {peripheral:#x}");
        // Part 0x…, designed by Arm: 0x41 in bits 19:12.
        assert_eq!(peripheral >> 12 & 0xff, 0x41);
    }
}

register_structs! {
    /// The real-time clock: its data, and what identifies it.
    Clock {
        (0x000 => data: ReadOnly<u32>),
        (0x004 => rest: [ReadWrite<u32>; 0x3f7]),
        (0xfe0 => id: [ReadOnly<u32>; 8]),
        (0x1000 => @END),
    }
}

// SAFETY: registers of tock-registers throughout.
unsafe impl RegisterBlock for Clock {}

ktest!(registers_have_types_of_tock_registers);
fn registers_have_types_of_tock_registers() {
    let mapping = map::<0x1000>(device("arm,pl031", 0), MemoryType::DeviceNGnRE);
    let clock = mapping.registers::<Clock>(0).expect("it fits");
    let ids = clock.id.each_ref().map(|id| id.get() & 0xff);
    assert_eq!(ids, [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    // Seconds since 1970: later than when this was written.
    assert!(clock.data.get() > 1_700_000_000);
    assert!(clock.rest.len() == 0x3f7);
    assert!(matches!(mapping.registers::<Clock>(4), Err(AccessError::Outside { .. })));
}

ktest!(the_firmware_configuration_signs);
fn the_firmware_configuration_signs() {
    const SELECTOR: u64 = 8;
    let registers = map::<0x18>(device("qemu,fw-cfg-mmio", 0), MemoryType::DeviceNGnRE);
    let mut signature = [0; 4];
    // Item 0, big-endian; the data register is a FIFO of one byte.
    registers.write::<u16, SELECTOR>(0);
    registers.readsb(0, &mut signature).expect("inside");
    assert_eq!(&signature, b"QEMU");
    // From the start again, in one access: the device puts the first byte where big-endian memory has it.
    registers.writew(0, SELECTOR).expect("inside");
    assert_eq!(registers.readl(0).map(u32::to_le_bytes), Ok(*b"QEMU"));
}

ktest!(the_flash_answers_a_query_in_command_mode);
fn the_flash_answers_a_query_in_command_mode() {
    // Two chips of 16 bits side by side: JEDEC's common flash interface, query at word 0x55, answer from word 0x10 on.
    let both = |value: u32| value << 16 | value;
    let bank = device("cfi-flash", 1);
    let flash = map::<0x1000>(bank, MemoryType::DeviceNGnRE);
    flash.write::<u32, { 0x55 * 4 }>(both(0x98));
    let answer = [0x10, 0x11, 0x12].map(|word| flash.readl(4 * word).expect("inside"));
    flash.write::<u32, 0>(both(0xff));
    assert_eq!(answer, [b'Q', b'R', b'Y'].map(|letter| both(letter.into())));
    // Array mode again.
    assert_eq!(flash.read::<u32, 0x40>(), flash.read_relaxed::<u32, 0x40>());
}

ktest!(every_width_reaches_the_same_register);
fn every_width_reaches_the_same_register() {
    // Flash in array mode is memory; the first bank has nothing in it.
    let bank = device("cfi-flash", 1);
    let flash = map::<0>(bank, MemoryType::DeviceNGnRE);
    let whole = flash.readq(0x100).expect("inside");
    let mut bytes = [0; 8];
    flash.memcpy_fromio(&mut bytes, 0x100).expect("inside");
    assert_eq!(whole, u64::from_le_bytes(bytes));
    for (offset, byte) in (0x100..).zip(bytes) {
        assert_eq!(flash.readb(offset), Ok(byte));
    }
    let at = flash.start().checked_add(0x100).expect("no wrap");
    // SAFETY: mapped, and reading flash harms nothing.
    let low = unsafe { global::readl(at) };
    // SAFETY: mapped, and reading flash harms nothing.
    let high = unsafe { global::readl_relaxed(VirtAddr::new(at.get() + 4)) };
    assert_eq!(whole, u64::from(high) << 32 | u64::from(low));
    // SAFETY: mapped, and reading flash harms nothing.
    assert_eq!(unsafe { global::readw(at) }, u16::from_le_bytes([bytes[0], bytes[1]]));
    // SAFETY: mapped, and reading flash harms nothing.
    assert_eq!((unsafe { global::readq(at) }, unsafe { global::readb(at) }), (whole, bytes[0]));
    assert!(matches!(flash.readl(0x102), Err(AccessError::Unaligned(..))));
    assert!(matches!(flash.readb(bank.size()), Err(AccessError::Outside { .. })));
    assert!(matches!(flash.readq(u64::MAX), Err(AccessError::Outside { .. })));
}

ktest!(gpio_registers_keep_what_is_written);
fn gpio_registers_keep_what_is_written() {
    // Direction, interrupt sense, both edges: eight bits each that the device keeps.
    let gpio = map::<0x1000>(device("arm,pl061", 0), MemoryType::DeviceNGnRE);
    for value in [0x00, 0xa5, 0xff, 0x00] {
        gpio.write::<u32, 0x404>(value);
        gpio.writel_relaxed(!value & 0xff, 0x408).expect("inside");
        assert_eq!((gpio.read::<u32, 0x404>(), gpio.readl(0x408)), (value, Ok(!value & 0xff)));
    }
    gpio.write::<u32, 0x408>(0);
}

ktest!(what_is_dropped_is_unmapped);
fn what_is_dropped_is_unmapped() {
    let before = global::io_space().iter().count();
    let clock = map::<0x1000>(device("arm,pl031", 0), MemoryType::DeviceNGnRE);
    let start = clock.start();
    assert_eq!(global::io_space().iter().count(), before + 1);
    drop(clock);
    assert_eq!(global::io_space().iter().count(), before);
    assert!(global::kernel_tables().expect("the final tables").translate(start).is_none());
    // SAFETY: nothing is mapped: the sizes do not fit.
    let small = unsafe { IoMem::<0x2000>::new(device("arm,pl031", 0).start(), 0x1000, MemoryType::DeviceNGnRE) };
    assert!(small.is_err());
    // SAFETY: nothing is mapped: the address does not fit.
    let odd =
        unsafe { IoMem::<8>::new(PhysAddr::new(device("arm,pl031", 0).start().get() + 4), 8, MemoryType::DeviceNGnRE) };
    assert!(odd.is_err());
    assert_eq!(global::io_space().iter().count(), before);
}
