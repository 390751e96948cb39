//! Stops of devices: registers and DMA.
#![forbid(unsafe_code)]

use super::say::say;
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::arch::aarch64::probe;
use crate::gfp::Gfp;
use crate::global::{self, CoherentBox, DmaMapping, Error, KVec};
use crate::kernel::machine::Machine;
use crate::mm::dma::{DeviceSpec, ToDevice};

/// Distance of a PrimeCell's identification registers from its first one.
const PRIMECELL: u64 = 0xfe0;
/// Bytes of the buffer that a device gets.
const BUFFER: usize = 4096;
/// The word that is shared with a device.
const PATTERN: u64 = 0x0123_4567_89ab_cdef;

pub(super) fn ioremap(machine: &Machine) -> Result<(), Error> {
    let mut found: Option<(&'static str, PhysAddr)> = None;
    machine.tree.for_each_range(&mut |_, node, range| {
        let is_serial = node.is_compatible("arm,pl011");
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
    let device = global::dma_device(&DeviceSpec::new("tour"));
    let mut buffer: KVec<u8> = KVec::with_capacity(BUFFER, Gfp::KERNEL)?;
    while buffer.push_within_capacity(0x5a).is_ok() {}
    let at = VirtAddr::of(buffer.as_slice().as_ptr());
    let bus = DmaMapping::<ToDevice>::scope(global::dma(), &device, buffer.as_mut_slice(), |mapping| mapping.bus())?;
    say!("DMA", "{BUFFER} bytes at {at} for a device: cleaned from the caches, it finds them at {bus:?}");
    let mut shared: CoherentBox<'_, u64> = CoherentBox::new(global::dma(), &device, Gfp::KERNEL)?;
    shared.write(PATTERN);
    say!("", "a word that both see at once, at {:?}: wrote {PATTERN:#x}, reads {:#x}", shared.bus(), shared.read());
    Ok(())
}
