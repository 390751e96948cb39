//! EL0 for real: small programs run there, and whatever they do ends in an answer of `enter_user`.

use super::interrupts::with_timer;
use super::user::{AT, Process, at};
use core::sync::atomic::{AtomicU32, Ordering};
use quarry::addr::{PAGE_BYTES, PAGE_SIZE, UserAddr, VirtAddr};
use quarry::arch::aarch64::esr::{Access as AccessKind, Esr, FaultStatus};
use quarry::arch::aarch64::user::{UserFrame, enter_user};
use quarry::arch::aarch64::user_exit::UserExit;
use quarry::driver::gic::IntId;
use quarry::driver::timer;
use quarry::global;
use quarry::hal::prot::Access;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;
use quarry::mm::user::access::UserPtr;

/// Where a program has its code. Its data are at [`AT`], its stack ends behind them.
const CODE: u64 = 0x80_0000;

// Each program is the bytes from its label to the next one; all run at CODE, wherever they lie here.
core::arch::global_asm!(
    ".section .rodata.user_programs, \"a\"",
    ".balign 4",
    "quarry_user_calls: svc #7",
    "add x0, x0, #1",
    "svc #0x1234",
    "1: svc #0",
    "b 1b",
    // All that a process can see at its start, in x0: 0 if nothing of the kernel's is there.
    "quarry_user_first: orr x0, x0, x1",
    ".irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "orr x0, x0, x\\n",
    ".endr",
    "mrs x1, tpidr_el0",
    "orr x0, x0, x1",
    "mrs x2, nzcv",
    "svc #0",
    // Changes every register.
    "quarry_user_all: .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "add x\\n, x\\n, #\\n + 1",
    ".endr",
    "sub sp, sp, #64",
    "msr tpidr_el0, x0",
    "cmp x0, x0",
    "svc #0",
    "b quarry_user_all",
    "quarry_user_load: ldr x1, [x0]",
    "svc #0",
    "quarry_user_store: str x1, [x0]",
    "svc #0",
    "quarry_user_jump: br x0",
    "quarry_user_undefined: udf #0",
    "quarry_user_breakpoint: brk #5",
    "quarry_user_vector: .inst 0x4f000400",
    "quarry_user_mask: msr daifset, #0xf",
    "quarry_user_tables: mrs x0, ttbr0_el1",
    "quarry_user_sleep: wfi",
    "quarry_user_spin: add x0, x0, #1",
    "b quarry_user_spin",
    // Copies what it finds at AT to x1, for ever.
    "quarry_user_look: ldr x1, [x0]",
    "svc #0",
    "b quarry_user_look",
    "quarry_user_end:",
    ".previous",
);

macro_rules! programs {
    ($($function:ident = $first:ident .. $end:ident;)*) => {
        unsafe extern "C" {
            $(static $first: u8;)*
            static quarry_user_end: u8;
        }
        $(
            fn $function() -> &'static [u8] {
                let (first, end) = (&raw const $first, &raw const $end);
                // SAFETY: the assembly above puts both labels around a program, in this order, read-only and for good.
                unsafe { core::slice::from_raw_parts(first, end.addr() - first.addr()) }
            }
        )*
    };
}

programs! {
    calls = quarry_user_calls..quarry_user_first;
    first = quarry_user_first..quarry_user_all;
    all = quarry_user_all..quarry_user_load;
    load = quarry_user_load..quarry_user_store;
    store = quarry_user_store..quarry_user_jump;
    jump = quarry_user_jump..quarry_user_undefined;
    undefined = quarry_user_undefined..quarry_user_breakpoint;
    breakpoint = quarry_user_breakpoint..quarry_user_vector;
    vector = quarry_user_vector..quarry_user_mask;
    mask = quarry_user_mask..quarry_user_tables;
    tables = quarry_user_tables..quarry_user_sleep;
    sleep = quarry_user_sleep..quarry_user_spin;
    spin = quarry_user_spin..quarry_user_look;
    look = quarry_user_look..quarry_user_end;
}

/// A process with a page of data, of which every byte is `fill`, and this program; this CPU sees it.
fn start(program: &[u8], fill: u8) -> (Process, UserFrame) {
    let process = Process::with_page(fill);
    process.map(CODE, Access::Execute, program);
    process.enter();
    (process, UserFrame::new(at(CODE), at(AT + PAGE_SIZE)))
}

// Behaviour 437 has the copies that a system call makes.
ktest!(a_system_call_returns_with_the_registers_of_the_process, machine a72 = "", machine max = "cpu=max");
fn a_system_call_returns_with_the_registers_of_the_process() {
    let (_process, mut frame) = start(calls(), 0);
    frame.x[0] = 41;
    assert_eq!(enter_user(&mut frame), UserExit::Syscall(7));
    assert_eq!((frame.x[0], frame.pc), (41, at(CODE + 4)));
    assert_eq!(enter_user(&mut frame), UserExit::Syscall(0x1234));
    assert_eq!((frame.x[0], frame.pc), (42, at(CODE + 12)));
    for _ in 0..100 {
        assert_eq!(enter_user(&mut frame), UserExit::Syscall(0));
    }
    assert!(quarry::arch::aarch64::irq::local_irqs_enabled());
    let masked = quarry::arch::aarch64::irq::local_irq_save();
    assert_eq!(enter_user(&mut frame), UserExit::Syscall(0));
    assert!(!quarry::arch::aarch64::irq::local_irqs_enabled());
    drop(masked);
}

ktest!(a_process_starts_with_nothing_of_the_kernel, machine a72 = "", machine max = "cpu=max");
fn a_process_starts_with_nothing_of_the_kernel() {
    let (_process, mut frame) = start(first(), 0);
    assert_eq!(enter_user(&mut frame), UserExit::Syscall(0));
    assert_eq!((frame.x[0], frame.x[2]), (0, 0));
}

ktest!(every_register_of_a_process_is_kept, machine a72 = "", machine max = "cpu=max");
fn every_register_of_a_process_is_kept() {
    let (_process, mut frame) = start(all(), 0);
    for (register, number) in frame.x.iter_mut().zip(1_u64..) {
        *register = number << 32;
    }
    // Bits that a process may not set: EL1, masks, single steps.
    frame.pstate = u64::MAX;
    for round in 1..=3_u64 {
        let kept = core::hint::black_box(0x1234_5678_9abc_def0_u64 * round);
        assert_eq!(enter_user(&mut frame), UserExit::Syscall(0));
        for (register, number) in frame.x.iter().zip(1_u64..) {
            assert_eq!(*register, (number << 32) + number * round);
        }
        assert_eq!((frame.sp, frame.tls), (at(AT + PAGE_SIZE - 64 * round), frame.x[0]));
        // Z and C, EL0, FIQ masked, nothing else masked.
        assert_eq!(frame.pstate & (0xf << 28 | 0x3df), 0b0110 << 28 | 1 << 6, "{:#x}", frame.pstate);
        assert_eq!(core::hint::black_box(kept), 0x1234_5678_9abc_def0_u64 * round);
    }
}

/// The abort that an exit is, with its address.
fn abort(exit: UserExit) -> (AccessKind, FaultStatus, VirtAddr) {
    let UserExit::Abort(esr, far) = exit else { panic!("no abort: {exit}") };
    let abort = Esr::abort(esr).expect("an abort");
    (abort.access, abort.status, far)
}

// The process ends, and not the kernel.
ktest!(a_process_that_reaches_for_the_kernel_is_told_apart, machine a72 = "", machine max = "cpu=max");
fn a_process_that_reaches_for_the_kernel_is_told_apart() {
    let secret = core::hint::black_box(0x5ec2e7_u64);
    let kernel = VirtAddr::of(&raw const secret);
    for (program, access) in [(load(), AccessKind::Read), (store(), AccessKind::Write)] {
        let (_process, mut frame) = start(program, 0);
        frame.x[0] = kernel.get();
        let (found, status, far) = abort(enter_user(&mut frame));
        assert_eq!((found, far), (access, kernel));
        // With E0PD nothing is walked.
        assert!(matches!(status, FaultStatus::Permission(_) | FaultStatus::Translation(_)), "{status}");
        assert_eq!((frame.pc, frame.x[1]), (at(CODE), 0));
    }
    assert_eq!(core::hint::black_box(secret), 0x5ec2e7);
    // By a jump, and by a frame that says so.
    let text = VirtAddr::of(enter_user as *const u8);
    let (_process, mut frame) = start(jump(), 0);
    frame.x[0] = text.get();
    let (access, _, far) = abort(enter_user(&mut frame));
    assert_eq!((access, far), (AccessKind::Execute, text));
    assert_eq!(frame.pc.get(), text.get());
    let mut frame = UserFrame::new(UserAddr::new(text.get()), at(AT));
    let (access, _, far) = abort(enter_user(&mut frame));
    assert_eq!((access, far), (AccessKind::Execute, text));
}

ktest!(a_process_has_the_rights_of_its_mappings, machine a72 = "", machine max = "cpu=max");
fn a_process_has_the_rights_of_its_mappings() {
    // Data are not executed, code is not written, and what is not mapped is not there.
    let (_process, mut frame) = start(jump(), 0);
    frame.x[0] = AT;
    let (access, status, far) = abort(enter_user(&mut frame));
    assert_eq!((access, far), (AccessKind::Execute, VirtAddr::new(AT)));
    assert!(matches!(status, FaultStatus::Permission(_)), "{status}");
    let (_process, mut frame) = start(store(), 0);
    frame.x[0] = CODE;
    let (access, status, far) = abort(enter_user(&mut frame));
    assert_eq!((access, far), (AccessKind::Write, VirtAddr::new(CODE)));
    assert!(matches!(status, FaultStatus::Permission(_)), "{status}");
    let (_process, mut frame) = start(load(), 0);
    frame.x[0] = AT + PAGE_SIZE;
    let (access, status, far) = abort(enter_user(&mut frame));
    assert_eq!((access, far), (AccessKind::Read, VirtAddr::new(AT + PAGE_SIZE)));
    assert!(matches!(status, FaultStatus::Translation(_)), "{status}");
    // The kernel reads the value that the process stores.
    let (_process, mut frame) = start(store(), 0);
    (frame.x[0], frame.x[1]) = (AT + 8, 77);
    assert_eq!(enter_user(&mut frame), UserExit::Syscall(0));
    assert_eq!(global::get_user(UserPtr::<u64>::new(at(AT + 8))), Ok(77));
}

ktest!(what_a_process_may_not_do_is_an_answer, machine a72 = "", machine max = "cpu=max");
fn what_a_process_may_not_do_is_an_answer() {
    let exit = |program| enter_user(&mut start(program, 0).1);
    assert_eq!(exit(undefined()), UserExit::Undefined);
    assert_eq!(exit(breakpoint()), UserExit::Breakpoint(5));
    // A misaligned stack pointer is no exception under QEMU.
    assert_eq!(exit(vector()), UserExit::FpTrapped);
    for program in [mask(), tables(), sleep()] {
        assert!(matches!(exit(program), UserExit::Other(..) | UserExit::Undefined), "{}", exit(program));
    }
    let (_process, mut frame) = start(calls(), 0);
    frame.pc = at(CODE + 2);
    assert!(matches!(enter_user(&mut frame), UserExit::Misaligned(..)));
    // No process's address at all.
    frame.pc = at(1 << 50);
    assert!(matches!(enter_user(&mut frame), UserExit::Abort(..)));
}

static TICKS: AtomicU32 = AtomicU32::new(0);

fn tick(_: IntId) {
    timer::arm(timer::frequency() / 1000);
    TICKS.fetch_add(1, Ordering::Relaxed);
}

// Time is instructions: a host that is busy for a millisecond would end a turn before its first.
ktest!(
    an_interrupt_ends_the_turn_of_a_process,
    machine a72 = "icount",
    machine max = "cpu=max icount",
    machine gicv3 = "gic=3 icount"
);
fn an_interrupt_ends_the_turn_of_a_process() {
    let (_process, mut frame) = start(spin(), 0);
    with_timer(tick, || {
        let mut before = 0;
        timer::arm(timer::frequency() / 1000);
        for turn in 1..=5 {
            assert_eq!(enter_user(&mut frame), UserExit::Interrupt);
            assert!(TICKS.load(Ordering::Relaxed) >= turn, "handled when the call returns");
            assert!(frame.x[0] > before, "it ran on");
            before = frame.x[0];
        }
        timer::stop();
    });
}

// Behaviour 389: from EL0.
ktest!(two_processes_see_each_its_own_at_one_address, machine a72 = "", machine max = "cpu=max");
fn two_processes_see_each_its_own_at_one_address() {
    let mut both = [1, 2].map(|fill| start(look(), fill));
    for _ in 0..20 {
        for ((process, frame), fill) in both.iter_mut().zip(1_u64..) {
            process.enter();
            frame.x[0] = AT;
            assert_eq!(enter_user(frame), UserExit::Syscall(0));
            assert_eq!(frame.x[1], fill * 0x0101_0101_0101_0101);
        }
    }
}

// Behaviour 450 for a user page that EL0 may execute: PXN.
ktest!(the_kernel_does_not_execute_user_code, machine a72 = "", machine max = "cpu=max");
fn the_kernel_does_not_execute_user_code() {
    let (_process, _) = start(&[0; PAGE_BYTES], 0);
    let code = VirtAddr::new(CODE);
    expect_fault(FaultKind::Permission(AccessKind::Execute), code);
    // SAFETY: the jump takes the fault that was announced, and the machine ends.
    let code: extern "C" fn() = unsafe { core::mem::transmute(code.as_ptr::<u8>()) };
    code();
}
