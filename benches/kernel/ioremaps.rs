//! This kernel's ioremap: `ioremap/BYTES`, mapping and unmapping together, the invalidation waited for. The memory is the
//! configuration space of the PCI host.

use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use core::hint::black_box;
use quarry::addr::PhysRange;
use quarry::global;
use quarry::kernel::init;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "ioremap/4096", by: QUARRY, run: ioremap::<4096> },
    Row { name: "ioremap/65536", by: QUARRY, run: ioremap::<65536> },
    Row { name: "ioremap/2097152", by: QUARRY, run: ioremap::<2_097_152> },
];

/// The vendor of QEMU's PCI host bridge, Red Hat, and the device: the first four bytes of the configuration space.
const HOST_BRIDGE: u32 = 0x0008_1b36;

fn configuration_space() -> Option<PhysRange> {
    let tree = &init::machine()?.tree;
    tree.compatible_nodes("pci-host-ecam-generic").next()?.phys_ranges().next()?.ok()
}

fn ioremap<const BYTES: u64>(meter: &mut Meter) -> Result<Figures, Unable> {
    global::vmap_space().purge_all();
    let phys = configuration_space().filter(|space| space.size() >= BYTES).ok_or("no configuration space")?.start();
    let addr = global::ioremap(phys, BYTES).map_err(|_| "ioremap failed")?;
    // SAFETY: mapped by the line above; reading an identification changes nothing.
    if unsafe { global::readl(addr) } != HOST_BRIDGE {
        return Err("what is mapped is not the configuration space");
    }
    let mut done = raw!(global::try_iounmap(addr)).is_ok();
    let figures = meter.measure(|| match global::ioremap(black_box(phys), black_box(BYTES)) {
        Ok(addr) => done &= raw!(global::try_iounmap(black_box(addr))).is_ok(),
        Err(_) => done = false,
    });
    if done { Ok(figures) } else { Err("ioremap or iounmap failed") }
}
