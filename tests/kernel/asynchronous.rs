//! Exceptions that nobody expects and that no instruction causes.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::ops::ControlFlow;
use quarry::addr::{PhysAddr, VirtAddr, VirtRange};
use quarry::global;
use quarry::hal::entry::Entry;
use quarry::ktest;
use quarry::mm::layout::{FIXMAP_END, FIXMAP_START, VMALLOC_END, VMALLOC_START};

/// Where the kernel has mapped the device page at `phys`: in the fixmap, or in an area for devices.
fn device(phys: u64) -> VirtAddr {
    let tables = global::kernel_tables().expect("the final tables");
    let regions = [(FIXMAP_START, FIXMAP_END), (VMALLOC_START, VMALLOC_END)];
    let found = regions.into_iter().find_map(|(start, end)| {
        let region = VirtRange::new(VirtAddr::new(start), VirtAddr::new(end)).expect("in order");
        let walk = tables.walk(region, |visit| match visit.entry {
            Entry::Leaf(leaf) if leaf.phys == PhysAddr::new(phys) => ControlFlow::Break(visit.start),
            _ => ControlFlow::Continue(()),
        });
        walk.break_value()
    });
    found.expect("the interrupt controller is mapped")
}

/// Sets bits of a device register.
fn set_bits(page: VirtAddr, offset: u64, bits: u32) {
    let register = page.checked_add(offset).expect("in the page").as_ptr::<u32>();
    // SAFETY: a register of the interrupt controller, by its manual; the machine ends with this test.
    let before = unsafe { register.read_volatile() };
    // SAFETY: a register of the interrupt controller, by its manual; the machine ends with this test.
    unsafe { register.write_volatile(before | bits) };
}

/// Clears bits of a device register.
fn clear_bits(page: VirtAddr, offset: u64, bits: u32) {
    let register = page.checked_add(offset).expect("in the page").as_ptr::<u32>();
    // SAFETY: as for `set_bits`.
    let before = unsafe { register.read_volatile() };
    // SAFETY: a register of the interrupt controller, by its manual; the machine ends with this test.
    unsafe { register.write_volatile(before & !bits) };
}

// A GICv3 with a single security state signals group 0 as FIQ (IHI 0069H §4.6.2), which this kernel never asks for.
ktest!(a_fiq_is_reported, machine = "gic=3 alone", report = "fault: FIQ", report = "backtrace:", exit = 1);
fn a_fiq_is_reported() {
    // QEMU hw/arm/virt.c: the distributor, and the SGI frame of the first redistributor.
    let (distributor, sgi_frame) = (device(0x0800_0000), device(0x080b_0000));
    set_bits(distributor, 0, 1);
    clear_bits(sgi_frame, 0x80, 1 << 1);
    set_bits(sgi_frame, 0x100, 1 << 1);
    // SAFETY: enables group 0, sends SGI 1 to this CPU, and takes it: it ends in a report.
    unsafe {
        core::arch::asm!(
            "msr s3_0_c12_c12_6, {one}",
            "isb",
            "msr s3_0_c12_c11_7, {sgi}",
            "dsb sy",
            "isb",
            "msr daifclr, #1",
            "isb",
            one = in(reg) 1_u64,
            sgi = in(reg) 1_u64 << 24 | 1,
        );
    }
    for _ in 0..1000 {
        core::hint::spin_loop();
    }
    panic!("no FIQ came");
}
