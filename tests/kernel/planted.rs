//! Tests that fail on purpose: the harness must report each, for the reason that it states. `make test` checks that by
//! `quarry-run planted`; nothing else runs them.

use quarry::addr::VirtAddr;
use quarry::arch::aarch64::esr::Access;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;

/// In the user half, where TTBR0 holds an empty table.
const UNMAPPED: usize = 0x10_0000;

fn read(addr: usize) {
    let pointer = core::ptr::with_exposed_provenance::<u32>(addr);
    // SAFETY: nothing is mapped there: the load takes a fault and ends the machine.
    unsafe { pointer.read_volatile() };
}

ktest!(a_panic_fails, ignored = "planted: on purpose");
fn a_panic_fails() {
    panic!("on purpose");
}

ktest!(a_hang_is_killed, timeout = 3, ignored = "planted: did not end within 3 s; killed");
fn a_hang_is_killed() {
    loop {
        core::hint::spin_loop();
    }
}

ktest!(writing_without_end_is_a_hang, timeout = 3, ignored = "planted: did not end within 3 s; killed");
fn writing_without_end_is_a_hang() {
    loop {
        quarry::kernel::console::print(format_args!("on and on\n"));
    }
}

ktest!(a_fault_fails, ignored = "planted: the machine left with status 1");
fn a_fault_fails() {
    read(UNMAPPED);
}

ktest!(another_address_is_not_the_announced, ignored = "planted: translation fault (read) at 0x100008");
fn another_address_is_not_the_announced() {
    expect_fault(FaultKind::Translation(Access::Read), VirtAddr::new(UNMAPPED as u64 + 8));
    read(UNMAPPED);
}

ktest!(another_kind_is_not_the_announced, ignored = "planted: permission fault (read) at 0x100000");
fn another_kind_is_not_the_announced() {
    expect_fault(FaultKind::Permission(Access::Read), VirtAddr::new(UNMAPPED as u64));
    read(UNMAPPED);
}

ktest!(no_fault_is_not_the_announced, ignored = "planted: the test returned without its translation fault (write)");
fn no_fault_is_not_the_announced() {
    expect_fault(FaultKind::Translation(Access::Write), VirtAddr::new(UNMAPPED as u64));
}

ktest!(leaving_is_not_passing, ignored = "planted: the machine left in the middle of it");
fn leaving_is_not_passing() {
    quarry::kernel::power::leave(quarry::kernel::power::SUCCESS);
}

ktest!(silence_is_not_a_report, report = "nobody says this", ignored = "planted: never showed \"nobody says this\"");
fn silence_is_not_a_report() {}

ktest!(boot: a_status_must_be_the_stated_one, exit = 42, ignored = "planted: status 0, not 42");
ktest!(boot: a_boot_must_show_its_text, report = "nobody says this", ignored = "planted: never showed");
