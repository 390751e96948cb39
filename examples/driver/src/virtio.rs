//! virtio over MMIO (OASIS, Virtual I/O Device 1.2, §4.2.2): the registers, and a queue of one buffer at a time.

use quarry::fdt::Node;
use quarry::prelude::*;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

register_bitfields! [u32,
    pub Status [ACKNOWLEDGE OFFSET(0) NUMBITS(1) [], DRIVER OFFSET(1) NUMBITS(1) [], DRIVER_OK OFFSET(2) NUMBITS(1) [],
        FEATURES_OK OFFSET(3) NUMBITS(1) []],
];

register_structs! {
    pub Registers {
        (0x000 => magic: ReadOnly<u32>),
        (0x004 => version: ReadOnly<u32>),
        (0x008 => device_id: ReadOnly<u32>),
        (0x00c => _vendor_and_features),
        (0x020 => driver_features: WriteOnly<u32>),
        (0x024 => driver_features_sel: WriteOnly<u32>),
        (0x028 => _reserved0),
        (0x030 => queue_sel: WriteOnly<u32>),
        (0x034 => queue_num_max: ReadOnly<u32>),
        (0x038 => queue_num: WriteOnly<u32>),
        (0x03c => _reserved1),
        (0x044 => queue_ready: ReadWrite<u32>),
        (0x048 => _reserved2),
        (0x050 => queue_notify: WriteOnly<u32>),
        (0x054 => _reserved3),
        (0x060 => pub interrupt_status: ReadOnly<u32>),
        (0x064 => pub interrupt_ack: WriteOnly<u32>),
        (0x068 => _reserved4),
        (0x070 => pub status: ReadWrite<u32, Status::Register>),
        (0x074 => _reserved5),
        (0x080 => queue_desc: [WriteOnly<u32>; 2]),
        (0x088 => _reserved6),
        (0x090 => queue_driver: [WriteOnly<u32>; 2]),
        (0x098 => _reserved7),
        (0x0a0 => queue_device: [WriteOnly<u32>; 2]),
        (0x0a8 => _reserved8),
        (0x100 => @END),
    }
}

// SAFETY: loads and stores of registers, which the device takes from any CPU.
unsafe impl quarry::mm::io::RegisterBlock for Registers {}

/// Device numbers (§5).
pub const BLOCK: u32 = 2;
pub const ENTROPY: u32 = 4;

/// The number of the device behind a node, 0 if there is none. Nothing stays mapped.
pub fn identify(node: Node<'_, '_>) -> Result<u32, &'static str> {
    let range = node.phys_ranges().flatten().next().ok_or("no registers")?;
    // SAFETY: identification registers, which do not change when they are read.
    let window =
        unsafe { IoMem::<0x100>::new(range.start(), 0x100, MemoryType::DeviceNGnRE) }.map_err(|_| "not mapped")?;
    let registers = window.registers::<Registers>(0).map_err(|_| "too small")?;
    if registers.magic.get() != u32::from_le_bytes(*b"virt") || registers.version.get() != 2 {
        return Err("no virtio device of version 1 or later: see -global virtio-mmio.force-legacy=false");
    }
    Ok(registers.device_id.get())
}

/// The only feature that we ask for, VERSION_1, is bit 32.
const VERSION_1: u32 = 1;

impl Registers {
    /// Resets the device and agrees with it on features, up to where queues are set up (§3.1.1).
    pub fn negotiate(&self) -> Result<(), &'static str> {
        self.status.set(0);
        self.status.write(Status::ACKNOWLEDGE::SET + Status::DRIVER::SET);
        for (word, features) in [0, VERSION_1].into_iter().enumerate() {
            self.driver_features_sel.set(word as u32);
            self.driver_features.set(features);
        }
        self.status.write(Status::ACKNOWLEDGE::SET + Status::DRIVER::SET + Status::FEATURES_OK::SET);
        if self.status.is_set(Status::FEATURES_OK) { Ok(()) } else { Err("the device wants other features") }
    }

    /// Lets the device use its queue.
    pub fn start(&self) {
        let all = Status::ACKNOWLEDGE::SET + Status::DRIVER::SET + Status::FEATURES_OK::SET + Status::DRIVER_OK::SET;
        self.status.write(all);
    }
}

/// Entries of the queue: a power of two.
const ENTRIES: u16 = 4;
/// The device may write to the buffer of a descriptor.
const DEVICE_WRITES: u64 = 2 << 32;

/// Queue 0 of a device: three rings in coherent memory (§2.7).
pub struct Queue<'d> {
    /// For each descriptor two words: the address, then length, flags and next.
    descriptors: CoherentVec<'d, u64>,
    /// Flags, index, descriptors that are the device's.
    available: CoherentVec<'d, u16>,
    /// Flags, index, then what the device is done with.
    used: CoherentVec<'d, u16>,
    /// Buffers handed over so far.
    given: u16,
}

impl<'d> Queue<'d> {
    /// A queue in coherent memory of `device`, which is told where it is.
    pub fn new(device: &'d Device, registers: &Registers) -> Result<Self, DmaError> {
        let entries = usize::from(ENTRIES);
        let queue = Self {
            descriptors: CoherentVec::new(quarry::global::dma(), device, 2 * entries, Gfp::KERNEL)?,
            available: CoherentVec::new(quarry::global::dma(), device, 3 + entries, Gfp::KERNEL)?,
            used: CoherentVec::new(quarry::global::dma(), device, 3 + 4 * entries, Gfp::KERNEL)?,
            given: 0,
        };
        registers.queue_sel.set(0);
        registers.queue_num.set(ENTRIES.into());
        let tell = |place: &[WriteOnly<u32>; 2], bus: DmaAddr| {
            place.iter().zip([bus.get(), bus.get() >> 32]).for_each(|(half, word)| half.set(word as u32));
        };
        tell(&registers.queue_desc, queue.descriptors.bus());
        tell(&registers.queue_driver, queue.available.bus());
        tell(&registers.queue_device, queue.used.bus());
        registers.queue_ready.set(1);
        Ok(queue)
    }

    /// Hands a buffer to the device, which fills it.
    pub fn give(&mut self, registers: &Registers, buffer: DmaAddr, bytes: u32) {
        let entry = self.given % ENTRIES;
        self.descriptors.write(2 * usize::from(entry), buffer.get());
        self.descriptors.write(2 * usize::from(entry) + 1, u64::from(bytes) | DEVICE_WRITES);
        self.available.write(2 + usize::from(entry), entry);
        // The device finds what the index says is there.
        dma_wmb();
        self.given = self.given.wrapping_add(1);
        self.available.write(1, self.given);
        dma_wmb();
        registers.queue_notify.set(0);
    }

    /// Whether the device has given back every buffer.
    pub fn is_done(&self) -> bool {
        self.used.read(1) == Some(self.given)
    }
}
