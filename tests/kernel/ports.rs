//! I/O ports through the window of the PCI host; machines that have none.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use quarry::addr::VirtAddr;
use quarry::global::{self, PortError, PortRegion};
use quarry::ktest;
use quarry::mm::io::resource::ResourceError;

/// Ports of virt's window, and where they are.
const PORTS: u64 = 0x1_0000;
const WINDOW: u64 = 0x3eff_0000;

ktest!(ports_are_reached_through_the_window_and_had_by_one, report = "release_region(", exit = 0);
fn ports_are_reached_through_the_window_and_had_by_one() {
    let first = PortRegion::request(0x3f8, 8, "serial").expect("nobody has it");
    let busy = global::request_region(0x3fc, 8, "other");
    assert!(matches!(busy, Err(PortError::Resource(ResourceError::Busy { .. }))), "{busy:?}");
    global::request_region(0x400, 8, "other").expect("its neighbour");
    global::release_region(0x400, 8).expect("requested");
    assert!(global::release_region(0x400, 8).is_err(), "twice");
    drop(first);
    drop(PortRegion::request(0x3f8, 8, "serial").expect("released"));
    // Nobody answers on an empty bus: all bits are set. QEMU's window begins at the address that the tree names.
    let mapped = global::vmap_space().iter().find(|area| area.phys.is_some_and(|phys| phys.get() == WINDOW));
    let base = mapped.expect("the window is mapped").range.start();
    let tables = global::kernel_tables().expect("the final tables");
    for port in [0, PORTS - 1] {
        let found = tables.translate(VirtAddr::new(base.get() + port)).map(|found| found.phys.get());
        assert_eq!(found, Some(WINDOW + port));
    }
    // There is no device behind these ports.
    assert_eq!(
        (raw!(global::inb(0x60)), raw!(global::inw(0x62)), raw!(global::inl(0x64))),
        (Ok(0xff), Ok(0xffff), Ok(!0))
    );
    assert_eq!(
        (raw!(global::outb(1, 0x80)), raw!(global::outw(2, 0x82)), raw!(global::outl(3, 0x84))),
        (Ok(()), Ok(()), Ok(()))
    );
    // Refused.
    let beyond = (raw!(global::inb(PORTS)), raw!(global::outl(0, PORTS - 2)), raw!(global::inl(u64::MAX)));
    assert!(matches!(
        beyond,
        (Err(PortError::Beyond { .. }), Err(PortError::Beyond { .. }), Err(PortError::Beyond { .. }))
    ));
    // Refused.
    assert_eq!(raw!(global::inw(0x61)), Err(PortError::Unaligned(0x61)));
    assert!(matches!(global::request_region(PORTS - 1, 2, "beyond"), Err(PortError::Beyond { .. })));
    assert!(matches!(global::request_region(0, 0, "none"), Err(PortError::Beyond { .. })));
}

ktest!(
    a_machine_without_ports_refuses_them,
    machine = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz"
);
fn a_machine_without_ports_refuses_them() {
    // Refused.
    assert_eq!(
        (raw!(global::inb(0x60)), raw!(global::outb(0, 0x60))),
        (Err(PortError::NoPorts), Err(PortError::NoPorts))
    );
    assert_eq!(global::request_region(0x60, 1, "none"), Err(PortError::NoPorts));
}
