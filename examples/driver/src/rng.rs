//! One whole driver, of virtio's source of random numbers: probe, resources, registers, a ring in coherent memory, a buffer
//! that streams, an interrupt; and everything given back in reverse, whether the driver leaves or its probe fails.

use crate::gic;
use crate::virtio::{Queue, Registers};
use core::sync::atomic::{AtomicU32, Ordering};
use quarry::fdt::Node;
use quarry::prelude::*;
use tock_registers::interfaces::{Readable, Writeable};

/// A device that uses memory of ours: it is reset before that memory goes, on every way out.
struct Running<'d>(&'d Registers);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.status.set(0);
    }
}

/// Interrupts that were taken so far.
pub fn interrupts() -> u32 {
    INTERRUPTS.load(Ordering::Relaxed)
}

/// Interrupts so far, and where the handler finds the registers.
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);
static REGISTERS: spin::Mutex<Option<VirtAddr>> = spin::Mutex::new(None);

/// In the handler: say what was seen, so that the device's line goes low.
fn on_interrupt() {
    if let Some(at) = *REGISTERS.lock() {
        // SAFETY: mapped until `on_interrupt` is released, which comes first.
        let registers = unsafe { &*at.as_ptr::<Registers>() };
        registers.interrupt_ack.set(registers.interrupt_status.get());
    }
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
}

/// Error of a probe, in words.
type Failed = &'static str;

/// Drives the device of a node: probes it, has it fill a buffer twice, and lets it go.
/// Answers with what the bytes come to.
pub fn run(node: Node<'_, '_>) -> Result<u64, Failed> {
    // The device as DMA sees it: `dma-coherent` and `dma-ranges` come from the tree, the reach of its addresses from the
    // specification.
    let mut device = dma_device_of(node).map_err(|_| "a node that describes no device")?;
    dma_set_mask_and_coherent(&mut device, dma_bit_mask(64)).map_err(|_| "no memory in reach")?;
    let sum = fill_twice(node, &device)?;
    // A mapping that the driver has left would be reported here.
    assert_eq!(quarry::global::dma_device_gone(device), 0, "mappings left");
    Ok(sum)
}

fn fill_twice(node: Node<'_, '_>, device: &Device) -> Result<u64, Failed> {
    // Resources: all that the driver is given is kept by `Devres`, which gives it back, last first, on every way out.
    let resources = Devres::new();
    let range = node.phys_ranges().flatten().next().ok_or("no registers")?;
    // SAFETY: the device is this driver's.
    let window = unsafe { devm_ioremap_resource(&resources, range.start(), range.size(), "virtio-rng") };
    let window = window.map_err(|_| "the registers cannot be had")?;
    // Registers: a block of `tock-registers` in the window.
    let registers = window.registers::<Registers>(0).map_err(|_| "too few registers")?;

    // Interrupt: the handler finds the registers as long as they are mapped.
    *REGISTERS.lock() = Some(window.start());
    devm_add_action_or_reset(&resources, || *REGISTERS.lock() = None).map_err(|_| "no memory")?;
    gic::request_irq(&resources, node, on_interrupt)?;

    // Coherent memory: the ring, which device and driver both have at all times.
    registers.negotiate()?;
    let mut queue = Queue::new(device, registers).map_err(|_| "no memory for the ring")?;
    // Dropped before the queue: the device must not write to a ring that has gone.
    let _running = Running(registers);
    registers.start();

    // Streaming: the buffer is the device's inside the scope, and the driver's for as long as the closure of
    // `sync_for_cpu` runs.
    let mut buffer = KVec::<u8>::from_elem(0, 64, Gfp::KERNEL).map_err(|_| "no memory for the buffer")?;
    let mut sums = [0_u64; 2];
    for sum in &mut sums {
        DmaMapping::<FromDevice>::scope(quarry::global::dma(), device, &mut buffer, |mapping| {
            let before = INTERRUPTS.load(Ordering::Relaxed);
            queue.give(registers, mapping.bus(), mapping.len() as u32);
            gic::wait_until(|| INTERRUPTS.load(Ordering::Relaxed) != before && queue.is_done());
            let mix = |sum: u64, byte: &u8| sum.rotate_left(7) ^ u64::from(*byte);
            mapping.sync_for_cpu(|bytes| *sum = bytes.iter().fold(0, mix))
        })
        .map_err(|_| "the buffer cannot be mapped")?
        .map_err(|_| "misused")?;
    }
    let [first, second] = sums;
    if first == second { Err("the bytes are not random") } else { Ok(first ^ second) }
}
