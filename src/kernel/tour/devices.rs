//! Stops of devices: registers and DMA.
#![forbid(unsafe_code)]

use super::say::say;
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::arch::aarch64::probe;
use crate::gfp::Gfp;
use crate::global::{self, DmaMapping, Error, KVec};
use crate::kernel::machine::Machine;
use crate::mm::dma::{DeviceSpec, ToDevice};

/// Distance of a PrimeCell's identification registers from its first one.
const PRIMECELL: u64 = 0xfe0;
/// Bytes of the buffer that a device gets.
const BUFFER: usize = 4096;

pub(super) fn ioremap(machine: &Machine) -> Result<(), Error> {
    let mut found: Option<(&'static str, PhysAddr)> = None;
    machine.tree.for_each_range(&mut |_, node, range| {
        let is_serial = node.base_name() == "pl011" || node.base_name() == "serial";
        if let (None, true, Ok(range)) = (found, is_serial, range) {
            found = Some((node.name(), range.start()));
        }
    });
    let Some((name, phys)) = found else {
        say!("ioremap", "the device tree has no serial port whose registers could be mapped");
        return Ok(());
    };
    let addr = global::ioremap(phys, PAGE_SIZE)?;
    say!("ioremap", "the registers of {name} at {phys}, {PAGE_SIZE} bytes: mapped as Device-nGnRE at {addr}");
    let identity = (0..4).map(|number| probe::load_u32(VirtAddr::new(addr.get() + PRIMECELL + 4 * number)));
    match identity.into_iter().try_fold((0, 0), |(id, at), byte| Some((id | (byte? & 0xff) << at, at + 8))) {
        Some((id, _)) => say!("", "its identification reads {id:#010x}: part {:#05x}", id & 0xfff),
        None => say!("", "its registers cannot be read"),
    }
    if let Err(error) = global::io_space().do_iounmap(addr) {
        say!("", "not unmapped: {error}");
    }
    Ok(())
}

pub(super) fn dma(_: &Machine) -> Result<(), Error> {
    let mut device = global::dma_device(&DeviceSpec::new("tour"));
    let mut buffer: KVec<u8> = KVec::with_capacity(BUFFER, Gfp::KERNEL)?;
    while buffer.push_within_capacity(0x5a).is_ok() {}
    let at = VirtAddr::of(buffer.as_slice().as_ptr());
    let bus = DmaMapping::<ToDevice>::scope(global::dma(), &device, buffer.as_mut_slice(), |mapping| mapping.bus())?;
    say!("DMA", "{BUFFER} bytes at {at} for a device: cleaned from the caches, it finds them at {bus:?}");
    // A device that reaches less than all RAM gets a copy.
    let reach = PhysAddr::new(bus.get() & !(bus.get() >> 1));
    if global::dma_set_mask(&mut device, reach.get().saturating_sub(1)).is_ok() {
        let before = global::bounce_stats();
        let bounced =
            DmaMapping::<ToDevice>::scope(global::dma(), &device, buffer.as_mut_slice(), |mapping| mapping.bus());
        match bounced {
            Ok(bus) => say!("", "through bounce slots for one that reaches less: {bus:?}, {before:?}"),
            Err(error) => say!("", "for one that reaches less: {error}"),
        }
    }
    Ok(())
}
