//! QEMU's fw_cfg by its DMA interface (QEMU: docs/specs/fw_cfg.rst): the command in coherent memory, the data in a buffer that
//! streams. The device takes big-endian words.

use crate::console::say;
use quarry::fdt::Node;
use quarry::prelude::*;
use tock_registers::interfaces::Writeable;
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, WriteOnly};

register_structs! {
    Registers {
        (0x00 => _data: ReadOnly<u64>),
        (0x08 => _selector: WriteOnly<u16>),
        (0x0a => _reserved),
        (0x10 => dma: [WriteOnly<u32>; 2]),
        (0x18 => @END),
    }
}

// SAFETY: stores to registers, which the device takes from any CPU.
unsafe impl quarry::mm::io::RegisterBlock for Registers {}

const ERROR: u32 = 1;
const READ: u32 = 2;
const SELECT: u32 = 8;

/// The command: control, length, address.
type Command = [u32; 4];

fn control(command: &CoherentBox<'_, Command>) -> u32 {
    u32::from_be(command.read()[0])
}

/// Reads the signature and the directory, as a device that does not see the CPU's caches would, and as one that does.
pub fn run(node: Node<'_, '_>) -> Result<(), &'static str> {
    let resources = Devres::new();
    let range = node.phys_ranges().flatten().next().ok_or("no registers")?;
    // SAFETY: the device is this driver's.
    let window = unsafe { devm_ioremap_resource(&resources, range.start(), range.size(), "fw_cfg") };
    let window = window.map_err(|_| "the registers are somebody else's")?;
    let registers = window.registers::<Registers>(0).map_err(|_| "too few registers")?;
    for coherent in [false, true] {
        let device = dma_device(&DeviceSpec::new("fw_cfg").with_coherent(coherent));
        // `AnyBits`: everything that the device writes is a value.
        let mut command =
            CoherentBox::<Command>::new(quarry::global::dma(), &device, Gfp::KERNEL).map_err(|_| "memory")?;
        // Not aligned to a cache line: for a device that does not snoop it is bounced.
        let mut buffer = KVec::<u8>::from_elem(0xee, 65, Gfp::KERNEL).map_err(|_| "memory")?;
        let bytes = &mut buffer[1..5];
        DmaMapping::<FromDevice>::scope(quarry::global::dma(), &device, bytes, |mapping| {
            let place = mapping.bus().get();
            // Item 0 is the signature.
            let words = [SELECT | READ, mapping.len() as u32, (place >> 32) as u32, place as u32];
            command.write(words.map(u32::to_be));
            dma_wmb();
            let bus = command.bus().get();
            registers.dma[0].set(((bus >> 32) as u32).to_be());
            registers.dma[1].set((bus as u32).to_be());
            // It answers before the store ends; a real one would be given a bound.
            let answered = (0..1_000_000).any(|_| control(&command) & !ERROR == 0);
            if answered && control(&command) == 0 { Ok(()) } else { Err("fw_cfg does not answer") }
        })
        .map_err(|_| "the buffer cannot be mapped")??;
        assert!(buffer[..6] == *b"\xeeQEMU\xee", "the neighbours are untouched");
        say!("fw_cfg: QEMU, {}\n", if coherent { "device that snoops" } else { "device that does not" });
        drop(command);
        assert_eq!(quarry::global::dma_device_gone(device), 0);
    }
    Ok(())
}
