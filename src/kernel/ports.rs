//! The window of I/O ports that the device tree names.

use crate::addr::{PhysAddr, PhysRange};
use crate::fdt::{Node, Tree};
use crate::global;
use log::{info, warn};

/// Hosts whose port space the kernel shows.
const HOSTS: [&str; 2] = ["pci-host-ecam-generic", "pci-host-cam-generic"];
/// Cells of an entry of a PCI host's `ranges`: three of the bus, two of the CPU, two of the size.
const ENTRY: usize = 7;
/// Address space of an entry: bits of its first cell (PCI Bus Binding to Open Firmware, 2.2.1.1).
const KIND: u32 = 0x0300_0000;
const PORTS: u32 = 0x0100_0000;

/// The window of a PCI host, if it has one whose first port is port 0.
fn window(host: Node<'_, 'static>) -> Option<PhysRange> {
    if !host.is_enabled() || !HOSTS.iter().any(|known| host.is_compatible(known)) {
        return None;
    }
    let mut cells = host.property("ranges")?.cells();
    loop {
        let mut entry = [0; ENTRY];
        for cell in &mut entry {
            *cell = cells.next()?;
        }
        let [kind, bus_high, bus_low, cpu_high, cpu_low, size_high, size_low] = entry;
        let wide = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        if kind & KIND == PORTS && wide(bus_high, bus_low) == 0 {
            return PhysRange::from_size(PhysAddr::new(wide(cpu_high, cpu_low)), wide(size_high, size_low));
        }
    }
}

/// Maps the window of the PCI host that is at `host` in the tree. Boot CPU, once, when device memory can be mapped.
pub(super) fn init(tree: &Tree<'static>, host: usize) {
    let Some(window) = tree.node_at(host).and_then(window) else { return };
    match global::ioports_init(window) {
        Ok(()) => info!("I/O ports: {:#x} at {window}", window.size()),
        Err(error) => warn!("I/O ports: {error}"),
    }
}
