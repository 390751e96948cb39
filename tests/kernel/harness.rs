//! The harness itself: that a test gets the machine that it asks for, and passes by the fault that it announces.

use quarry::addr::VirtAddr;
use quarry::arch::aarch64::esr::Access;
use quarry::kernel::init;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;

ktest!(reading_nothing_is_a_translation_fault);
fn reading_nothing_is_a_translation_fault() {
    // In the user half, where TTBR0 holds an empty table.
    let nowhere = core::ptr::with_exposed_provenance::<u32>(0x10_0000);
    expect_fault(FaultKind::Translation(Access::Read), VirtAddr::of(nowhere));
    // SAFETY: nothing is mapped there: the load takes the fault that was announced, and the machine ends.
    unsafe { nowhere.read_volatile() };
}

ktest!(an_undefined_instruction_is_named);
fn an_undefined_instruction_is_named() {
    unsafe extern "C" {
        #[link_name = "quarry_test_undefined"]
        safe fn undefined();
    }
    expect_fault(FaultKind::Undefined, VirtAddr::of(undefined as *const u8));
    undefined();
}
core::arch::global_asm!(".global quarry_test_undefined", "quarry_test_undefined: udf #0", "ret");

ktest!(a_panic_report_counts, report = "the planned end");
fn a_panic_report_counts() {
    panic!("the planned end");
}

ktest!(
    bootargs_arrive,
    machine from_qemu = "append='one=1 two'",
    machine from_uboot = "loader=uboot append='one=1 two'",
    machine in_the_tree = "loader=raw fdt_at=0x44000000 append='one=1 two'"
);
fn bootargs_arrive() {
    let args = init::machine().expect("booted").args;
    assert_eq!(args.value("one"), Some("1"));
    assert!(args.flag("two") && args.flag("semihosting"), "{args}");
}

ktest!(boot: without_tests_it_leaves, exit = 0);
