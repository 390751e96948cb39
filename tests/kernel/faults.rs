//! Faults that must not go unseen, and what their reports say.

use core::arch::{asm, global_asm};
use core::fmt;
use core::hint::black_box;
use quarry::addr::VirtAddr;
use quarry::arch::aarch64::boot;
use quarry::arch::aarch64::esr::{Access, Esr};
use quarry::arch::aarch64::spurious;
use quarry::arch::aarch64::trap::TrapFrame;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::kernel::report;
use quarry::ktest;

/// RET, as data.
static INSTRUCTION: u32 = 0xd65f_03c0;

fn store(addr: VirtAddr) {
    // SAFETY: the store faults, which is what the tests are about, and ends the machine.
    unsafe { addr.as_ptr::<u8>().write_volatile(1) };
}

fn load(addr: VirtAddr) {
    // SAFETY: the load faults and ends the machine.
    unsafe { addr.as_ptr::<u8>().read_volatile() };
}

#[inline(always)]
fn execute(addr: VirtAddr) {
    // SAFETY: the fetch faults and ends the machine.
    unsafe { asm!("blr {}", in(reg) addr.get(), clobber_abi("C")) };
}

// Behaviour 449
ktest!(text_cannot_be_written);
fn text_cannot_be_written() {
    let text = VirtAddr::of(text_cannot_be_written as *const u8);
    expect_fault(FaultKind::Permission(Access::Write), text);
    store(text);
}

ktest!(read_only_data_cannot_be_written);
fn read_only_data_cannot_be_written() {
    let rodata = VirtAddr::of(&raw const INSTRUCTION);
    assert!(boot::rodata_start() <= rodata && rodata < boot::rodata_end(), "a read-only static");
    expect_fault(FaultKind::Permission(Access::Write), rodata);
    store(rodata);
}

// Behaviour 450
ktest!(read_only_data_cannot_be_executed);
fn read_only_data_cannot_be_executed() {
    let rodata = VirtAddr::of(&raw const INSTRUCTION);
    expect_fault(FaultKind::Permission(Access::Execute), rodata);
    execute(rodata);
}

ktest!(writable_data_cannot_be_executed);
fn writable_data_cannot_be_executed() {
    let data = boot::data_start();
    expect_fault(FaultKind::Permission(Access::Execute), data);
    execute(data);
}

ktest!(the_stack_cannot_be_executed);
fn the_stack_cannot_be_executed() {
    let instruction = black_box(INSTRUCTION);
    let stack = VirtAddr::of(&raw const instruction);
    expect_fault(FaultKind::Permission(Access::Execute), stack);
    execute(stack);
}

ktest!(address_zero_cannot_be_executed);
fn address_zero_cannot_be_executed() {
    expect_fault(FaultKind::Translation(Access::Execute), VirtAddr::ZERO);
    execute(VirtAddr::ZERO);
}

// Behaviour 452
ktest!(address_zero_cannot_be_read);
fn address_zero_cannot_be_read() {
    expect_fault(FaultKind::Translation(Access::Read), VirtAddr::ZERO);
    load(VirtAddr::ZERO);
}

ktest!(the_first_page_cannot_be_written);
fn the_first_page_cannot_be_written() {
    let last = VirtAddr::new(0xfff);
    expect_fault(FaultKind::Translation(Access::Write), last);
    store(last);
}

ktest!(an_address_between_the_halves_faults_as_itself);
fn an_address_between_the_halves_faults_as_itself() {
    let between = VirtAddr::new(1 << 48);
    expect_fault(FaultKind::Translation(Access::Read), between);
    load(between);
}

ktest!(a_gap_between_regions_faults);
fn a_gap_between_regions_faults() {
    let gap = boot::image_start().checked_sub(1).unwrap_or_default();
    expect_fault(FaultKind::Translation(Access::Write), gap);
    store(gap);
}

ktest!(the_guard_page_below_the_stack_faults);
fn the_guard_page_below_the_stack_faults() {
    let guard = boot::boot_stack_guard();
    expect_fault(FaultKind::Translation(Access::Write), guard);
    store(guard);
}

global_asm!(".section .text.test_undefined, \"ax\"", ".global test_undefined", "test_undefined: .word 0", "ret");

unsafe extern "C" {
    static test_undefined: u8;
}

// Behaviour 464
ktest!(a_zero_word_is_an_undefined_instruction);
fn a_zero_word_is_an_undefined_instruction() {
    let code = VirtAddr::of(&raw const test_undefined);
    expect_fault(FaultKind::Undefined, code);
    execute(code);
}

ktest!(
    an_undefined_instruction_is_reported_with_its_address,
    report = "fault: synchronous exception from EL1",
    report = "fault: undefined instruction or unknown reason",
    report = "on CPU 0",
    report = "pc  0x",
    report = " test_undefined+0x0/",
    report = "lr  0x",
    report = "faults::an_undefined_instruction_is_reported_with_its_address+",
    report = "backtrace:",
    report = " test_undefined+0x0/",
    report = "quarry::kernel::ktest::",
    exit = 1
);
fn an_undefined_instruction_is_reported_with_its_address() {
    execute(VirtAddr::of(&raw const test_undefined));
    // Keeps the call from being the last thing, whose frame would be gone.
    black_box(0_u8);
}

ktest!(
    a_wild_write_is_reported_with_its_address,
    report = "fault: data abort, write: translation fault, level 0",
    report = "fault: at address 0x123000",
    report = "fault: in the user half, where nothing is mapped",
    report = "esr 0x0000000096000044  far 0x0000000000123000",
    exit = 1
);
fn a_wild_write_is_reported_with_its_address() {
    store(VirtAddr::new(0x12_3000));
}

ktest!(
    a_write_to_the_image_is_reported_with_its_section,
    // Of a page or of a block, by the size of the text.
    report = "fault: data abort, write: permission fault, level ",
    report = "fault: in the kernel's text",
    exit = 1
);
fn a_write_to_the_image_is_reported_with_its_section() {
    store(VirtAddr::of(a_write_to_the_image_is_reported_with_its_section as *const u8));
}

/// Runs through the stack, frame by frame; the sum keeps it from becoming a loop.
#[inline(never)]
#[expect(unconditional_recursion, reason = "it ends where the stack does")]
pub(crate) fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 40]);
    recurse(depth + 1) + frame.iter().sum::<u64>()
}

// Behaviours 395 and 454
ktest!(
    a_stack_overflow_is_reported_from_a_stack_of_its_own,
    report = "fault: stack overflow on the kernel stack of CPU 0",
    report = "fault: data abort, write: translation fault, level 3",
    report = "fault: in a guard page, below the kernel stack of CPU 0",
    report = "on CPU 0",
    report = "faults::recurse+",
    report = "times more",
    report = "faults::a_stack_overflow_is_reported_from_a_stack_of_its_own+",
    exit = 1
);
fn a_stack_overflow_is_reported_from_a_stack_of_its_own() {
    black_box(recurse(0));
}

// Behaviour 466; QEMU does not check the alignment of sp on an access, the vectors do when an exception comes.
ktest!(
    a_misaligned_stack_pointer_is_reported_from_another_stack,
    report = "is not a multiple of 16",
    report = "fault: BRK, immediate 0x7",
    exit = 1
);
fn a_misaligned_stack_pointer_is_reported_from_another_stack() {
    // SAFETY: ends in a report.
    unsafe { asm!("mov x9, sp", "sub x9, x9, #8", "mov sp, x9", "brk #7", options(noreturn)) };
}

ktest!(
    a_stack_pointer_to_nowhere_is_reported_from_another_stack,
    report = "fault: stack pointer 0x1000 is in no kernel stack",
    report = "fault: BRK, immediate 0x7",
    exit = 1
);
fn a_stack_pointer_to_nowhere_is_reported_from_another_stack() {
    // SAFETY: ends in a report.
    unsafe { asm!("mov x9, #0x1000", "mov sp, x9", "brk #7", options(noreturn)) };
}

// Behaviour 460
ktest!(
    a_fault_inside_a_report_stops_with_one_line,
    report = "fault: at address 0x10",
    report = "fault inside a fault report on CPU 0: data abort, write: translation fault, level 0, at address 0x18",
    report = "stopping",
    exit = 1
);
fn a_fault_inside_a_report_stops_with_one_line() {
    report::add_describer(|_, _| {
        store(VirtAddr::new(0x18));
        Ok(())
    });
    store(VirtAddr::new(0x10));
}

ktest!(
    a_fault_inside_the_report_of_an_overflow_stops_with_one_line,
    report = "fault: stack overflow on the kernel stack of CPU 0",
    report = "fault inside a fault report on CPU 0: data abort, write: translation fault, level 0, at address 0x18",
    report = "stopping",
    exit = 1
);
fn a_fault_inside_the_report_of_an_overflow_stops_with_one_line() {
    report::add_describer(|_, _| {
        store(VirtAddr::new(0x18));
        Ok(())
    });
    black_box(recurse(0));
}

ktest!(
    a_panic_inside_a_report_stops_with_one_line,
    report = "fault: at address 0x10",
    report = "fault inside a fault report on CPU 0: panicked at",
    report = "second thoughts",
    report = "stopping",
    exit = 1
);
fn a_panic_inside_a_report_stops_with_one_line() {
    report::add_describer(|_, _| panic!("second thoughts"));
    store(VirtAddr::new(0x10));
}

struct Panics;

impl fmt::Display for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("third thoughts");
    }
}

// The third time nothing is said any more: the CPU stops where it is, and the harness ends the machine.
ktest!(
    a_panic_inside_the_last_line_says_no_more,
    machine = "stays",
    report = "fault: at address 0x10",
    report = "fault inside a fault report on CPU 0: panicked at"
);
fn a_panic_inside_the_last_line_says_no_more() {
    report::add_describer(|_, _| panic!("{}", Panics));
    store(VirtAddr::new(0x10));
}

// Behaviour 456
ktest!(
    an_index_past_an_array_panics_with_its_place,
    report = "panic at tests/kernel/faults.rs:",
    report = "index out of bounds: the len is 4 but the index is 4",
    report = "backtrace:",
    report = "faults::an_index_past_an_array_panics_with_its_place+",
    exit = 1
);
fn an_index_past_an_array_panics_with_its_place() {
    let array = black_box([1_u64; 4]);
    #[expect(clippy::indexing_slicing, reason = "the panic is what is tested")]
    black_box(array[black_box(4)]);
}

// Behaviour 457
ktest!(an_overflowing_sum_panics, report = "attempt to add with overflow", exit = 1);
fn an_overflowing_sum_panics() {
    black_box(black_box(u64::MAX) + black_box(1));
}

/// A frame as a fault of the kernel at `far` leaves it.
fn fault_frame(class: u64, status: u64, far: VirtAddr) -> TrapFrame {
    // SAFETY: a frame is numbers.
    let mut frame: TrapFrame = unsafe { core::mem::zeroed() };
    frame.esr = Esr::new(class << 26 | 1 << 25 | status);
    frame.far = far;
    frame
}

// The emulator takes no such faults, so the frames are made: what counts is what the tables say now.
ktest!(a_translation_fault_that_the_tables_do_not_justify_is_no_fault);
fn a_translation_fault_that_the_tables_do_not_justify_is_no_fault() {
    let (mapped, text) = (VirtAddr::of(&raw const INSTRUCTION), VirtAddr::of(fault_frame as *const u8));
    let (unmapped, low) = (VirtAddr::new(0xffff_9000_0000_0000), VirtAddr::new(0x10_0000));
    for level in 4..=7 {
        for at in [mapped, text] {
            for class in [0x25, 0x21] {
                assert!(spurious::is_spurious(&fault_frame(class, level, at).exception()), "it is mapped by now");
            }
        }
        assert!(!spurious::is_spurious(&fault_frame(0x25, level, unmapped).exception()), "it is still missing");
        assert!(!spurious::is_spurious(&fault_frame(0x25, level, low).exception()));
        assert!(!spurious::is_spurious(&fault_frame(0x24, level, mapped).exception()), "of user space");
    }
    for status in [0x0d, 0x0f, 0x10, 0x11, 0x21] {
        assert!(!spurious::is_spurious(&fault_frame(0x25, status, mapped).exception()), "of another kind: {status:#x}");
    }
}

// With `report=json` the runner parses each line of JSON, and wants the members of its kind (`tools/run/fault_json.rs`).
ktest!(
    a_fault_is_a_line_of_json_too,
    machine = "append=report=json",
    report = "fault: write to a read-only mapping",
    report = "backtrace:",
    report = "{\"report\":\"fault\",\"cpu\":0,\"microseconds\":",
    report = ",\"cause\":\"synchronous exception from EL1\",\"syndrome\":\"data abort, write: permission fault, level 3\",\"address\":\"0xffff",
    report =
        "\",\"about\":[\"in the kernel's rodata\"],\"rule\":\"write to a read-only mapping\",\"pc\":{\"at\":\"0xffff",
    report = "\"function\":\"",
    report = "],\"backtrace\":[{\"at\":\"0xffff",
    exit = 1
);
fn a_fault_is_a_line_of_json_too() {
    store(VirtAddr::of(&raw const INSTRUCTION));
}

ktest!(
    an_overflow_is_a_line_of_json_with_its_recursion,
    machine = "append=report=json",
    report = "\"cause\":\"stack overflow on the kernel stack of CPU 0 [0xffff",
    report = "\"function\":\"kernel::faults::recurse\"",
    exit = 1
);
fn an_overflow_is_a_line_of_json_with_its_recursion() {
    black_box(recurse(0));
}

ktest!(
    a_panic_is_a_line_of_json_with_its_quotes,
    machine = "append=report=json",
    report = "panic at tests/kernel/faults.rs:",
    report = "{\"report\":\"panic\",\"cpu\":0,",
    report = "\"message\":\"said \\\"no\\\"\\u0009and \\\\ on two\\nlines\",\"place\":\"tests/kernel/faults.rs:",
    exit = 1
);
fn a_panic_is_a_line_of_json_with_its_quotes() {
    panic!("said {:?}\tand \\ on two\nlines", "no");
}

ktest!(
    a_fault_inside_a_report_is_a_line_of_json,
    machine = "append=report=json",
    report = "fault inside a fault report on CPU 0",
    report = "\n{\"report\":\"nested\",\"cpu\":0,",
    exit = 1
);
fn a_fault_inside_a_report_is_a_line_of_json() {
    report::add_describer(|_, _| {
        store(VirtAddr::new(0x18));
        Ok(())
    });
    store(VirtAddr::new(0x10));
}

ktest!(
    misuse_is_a_line_of_json_with_its_callers,
    machine = "append=report=json",
    report = "{\"report\":\"misuse\",\"cpu\":0,",
    report = "\"message\":\"kmalloc-128: double free of 0xffff",
    report = "misuse_is_a_line_of_json_with_its_callers\"",
    report = "BUG kmalloc-128: double free of 0xffff",
    exit = 0
);
fn misuse_is_a_line_of_json_with_its_callers() {
    let Ok(object) = quarry::global::kmalloc(100, quarry::gfp::Gfp::KERNEL) else { panic!("no memory") };
    // SAFETY: the first frees the object; the second is refused, which is what is tested.
    unsafe { quarry::global::kfree(object) };
    // SAFETY: see above: nobody has taken the object since.
    unsafe { quarry::global::kfree(object) };
}
