//! Faults resolved where a process meets them, between two of its instructions: all that a process has is as it was, whatever the
//! kernel does meanwhile, and what cannot be resolved ends the call.

use super::address_space::Process;
use super::user_devices::{SLOW, map_slow};
use core::sync::atomic::{AtomicU32, Ordering};
use quarry::addr::{Order, PAGE_SIZE, UserAddr, VirtAddr};
use quarry::arch::aarch64::irq;
use quarry::arch::aarch64::user::{UserFrame, enter_user};
use quarry::arch::aarch64::user_exit::UserExit;
use quarry::gfp::Gfp;
use quarry::global::{self, UserFault};
use quarry::ktest;
use quarry::mm::page::Page;
use quarry::mm::user::SpaceFault;
use quarry::mm::user::map::{MmapRequest, Place, VmFlags};
use spin::Once;

// All run at PROGRAM.
core::arch::global_asm!(
    ".section .rodata.run_programs, \"a\"",
    ".balign 4",
    "quarry_run_store: str x1, [x0]",
    "svc #0",
    "quarry_run_load: ldr x1, [x0]",
    "svc #0",
    "quarry_run_jump: br x0",
    // Leaves nothing of what another process had.
    "quarry_run_all: .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "mov x\\n, #0x55",
    ".endr",
    "mov sp, x0",
    "msr tpidr_el0, x0",
    "cmp x0, #0x60",
    "svc #0",
    "quarry_run_end:",
    ".previous",
);

unsafe extern "C" {
    static quarry_run_store: u8;
    static quarry_run_load: u8;
    static quarry_run_jump: u8;
    static quarry_run_all: u8;
    static quarry_run_end: u8;
}

const WRITE: VmFlags = VmFlags::READ.union(VmFlags::WRITE);
const PROGRAM: UserAddr = UserAddr::new(0x50_0000);
/// N and C, EL0, FIQ masked.
const FLAGS: u64 = 0b1010 << 28;
const FIQ_MASKED: u64 = 1 << 6;

/// A process that this CPU sees, with the programs above; its memory comes page by page.
fn process() -> Process {
    let mut process = Process::new();
    process.space.set_largest_unit(Order::ZERO);
    let (first, end) = (&raw const quarry_run_store, &raw const quarry_run_end);
    // SAFETY: the assembly above puts both labels around the programs, read-only and for good.
    let programs = unsafe { core::slice::from_raw_parts(first, end.addr() - first.addr()) };
    let request = MmapRequest::anonymous(PAGE_SIZE, WRITE).at(Place::FixedNoReplace(PROGRAM));
    process.space.mmap(&request).expect("room");
    process.enter();
    global::copy_to_user(PROGRAM, programs).expect("memory");
    process.space.mprotect(PROGRAM, PAGE_SIZE, VmFlags::READ | VmFlags::EXEC).expect("code");
    process
}

/// A process at the start of a program with a value of its own in each register, and `x0`.
fn at(program: *const u8, x0: UserAddr) -> UserFrame {
    let offset = (program.addr() - (&raw const quarry_run_store).addr()) as u64;
    let mut frame = UserFrame::new(UserAddr::new(PROGRAM.get() + offset), UserAddr::new(0x1234_5670));
    for (register, number) in frame.x.iter_mut().zip(1_u64..) {
        *register = number << 40 | number;
    }
    frame.x[0] = x0.get();
    (frame.tls, frame.pstate) = (0x7157_0000_0000, FLAGS);
    frame
}

/// What the frame is after `instructions` instructions that change nothing but `x1`.
fn after(before: &UserFrame, x1: u64, instructions: u64) -> UserFrame {
    let mut after = before.clone();
    after.x[1] = x1;
    after.pc = UserAddr::new(before.pc.get() + 4 * instructions);
    after.pstate = FLAGS | FIQ_MASKED;
    after
}

/// Runs the process with values in the caller's own registers.
fn run(process: &Process, frame: &mut UserFrame) -> UserExit {
    let own: [u64; 12] = core::array::from_fn(|index| core::hint::black_box(0x9e37_79b9 * (index as u64 + 1)));
    let exit = global::run_user(&process.space, frame);
    for (index, value) in own.iter().enumerate() {
        assert_eq!(core::hint::black_box(*value), 0x9e37_79b9 * (index as u64 + 1));
    }
    exit
}

ktest!(a_process_keeps_its_registers_through_a_fault, machine a72 = "", machine max = "cpu=max");
fn a_process_keeps_its_registers_through_a_fault() {
    let process = process();
    let memory = process.mmap(4, WRITE);
    for (program, page, value) in [
        (&raw const quarry_run_store, 0, 2 << 40 | 2),
        (&raw const quarry_run_load, 0, 2 << 40 | 2),
        (&raw const quarry_run_load, 1, 0),
    ] {
        let target = UserAddr::new(memory.get() + page * PAGE_SIZE);
        let mut frame = at(program, target);
        let expected = after(&frame, value, 2);
        assert_eq!(run(&process, &mut frame), UserExit::Syscall(0));
        assert_eq!(frame, expected);
    }
    assert_eq!(process.space.usage().anon, 3 * PAGE_SIZE, "a page of the memory, and the two of the programs");
    // The copy of the zero page, by the path that is not the usual one: a child has the page, and it is a block.
    let child = process.fork().expect("memory");
    let mut frame = at(&raw const quarry_run_store, memory);
    let expected = after(&frame, 2 << 40 | 2, 2);
    process.enter();
    assert_eq!(run(&process, &mut frame), UserExit::Syscall(0));
    assert_eq!(frame, expected);
    global::leave_mm();
    drop(child);
}

ktest!(a_fault_that_is_not_resolved_ends_the_call_with_every_register, machine a72 = "", machine max = "cpu=max");
fn a_fault_that_is_not_resolved_ends_the_call_with_every_register() {
    let process = process();
    let read_only = process.mmap(1, VmFlags::READ);
    let nowhere = UserAddr::new(0x66_6000);
    let kernel = UserAddr::new(VirtAddr::of(enter_user as *const u8).get());
    for (program, target, error) in [
        (&raw const quarry_run_load, nowhere, Some(SpaceFault::NotMapped(nowhere))),
        (&raw const quarry_run_store, read_only, Some(SpaceFault::Denied(read_only))),
        (&raw const quarry_run_store, kernel, None),
        (&raw const quarry_run_load, kernel, None),
        (&raw const quarry_run_jump, nowhere, Some(SpaceFault::NotMapped(nowhere))),
    ] {
        let mut frame = at(program, target);
        let mut expected = after(&frame, frame.x[1], 0);
        if program == &raw const quarry_run_jump {
            expected.pc = target;
        }
        let UserExit::Abort(esr, far) = run(&process, &mut frame) else { panic!("resolved") };
        // Not how it came there (`BTYPE`), which some CPUs keep.
        frame.pstate &= !(0b11 << 10);
        assert_eq!((&frame, far.get()), (&expected, target.get()));
        let why = UserFault::new(esr, far).map(|fault| global::resolve_user_fault(&process.space, &fault, Gfp::USER));
        assert_eq!(why.and_then(Result::err), error);
    }
    global::leave_mm();
}

ktest!(a_killed_space_ends_the_call);
fn a_killed_space_ends_the_call() {
    let process = process();
    let memory = process.mmap(1, WRITE);
    assert!(process.space.kill());
    let mut frame = at(&raw const quarry_run_store, memory);
    // Not even its code is there.
    let UserExit::Abort(esr, far) = run(&process, &mut frame) else { panic!("resolved") };
    let fault = UserFault::new(esr, far).expect("an address of the process");
    assert_eq!(global::resolve_user_fault(&process.space, &fault, Gfp::USER), Err(SpaceFault::Killed));
    global::leave_mm();
}

static MEANWHILE: AtomicU32 = AtomicU32::new(0);
static OTHER: Once<Process> = Once::new();

/// The object of a driver that sleeps in a fault: another process runs, and nothing in the registers of the system is left of the
/// one that faults. Called from the table of objects.
pub(super) fn sleep_in_fault(page: Page) -> Page {
    assert!(irq::local_irqs_enabled(), "as the caller of the process has them");
    let root = global::current_mm();
    let other = OTHER.get().expect("the other process");
    other.enter();
    let mut frame = at(&raw const quarry_run_all, UserAddr::new(0));
    assert_eq!(enter_user(&mut frame), UserExit::Syscall(0));
    assert_eq!((frame.x, frame.tls), ([0x55; 31], 0x55));
    MEANWHILE.fetch_add(1, Ordering::Relaxed);
    // An exception of the kernel's own, which has an ESR and a FAR.
    let mut word = [0; 8];
    assert!(global::copy_from_user(&mut word, UserAddr::new(0x1000)).is_err());
    sleeper().enter();
    assert_eq!(global::current_mm(), root);
    page
}

static SLEEPER: Once<Process> = Once::new();

fn sleeper() -> &'static Process {
    SLEEPER.get().expect("the process that faults")
}

ktest!(a_fault_may_sleep_while_other_processes_run, machine a72 = "", machine max = "cpu=max");
fn a_fault_may_sleep_while_other_processes_run() {
    OTHER.call_once(process);
    let sleeper = SLEEPER.call_once(process);
    let memory = map_slow(sleeper, 2).expect("an area");
    sleeper.enter();
    for page in 0..2 {
        let mut frame = at(&raw const quarry_run_load, UserAddr::new(memory.get() + page * PAGE_SIZE));
        let expected = after(&frame, u64::from(SLOW), 2);
        assert_eq!(run(sleeper, &mut frame), UserExit::Syscall(0));
        assert_eq!(frame, expected);
    }
    assert_eq!(MEANWHILE.load(Ordering::Relaxed), 2);
    // One that sleeps and is then not resolved: there is no third page.
    let mut frame = at(&raw const quarry_run_load, UserAddr::new(memory.get() + 2 * PAGE_SIZE));
    let expected = after(&frame, frame.x[1], 0);
    let UserExit::Abort(_, far) = run(sleeper, &mut frame) else { panic!("resolved") };
    assert_eq!((&frame, far.get(), MEANWHILE.load(Ordering::Relaxed)), (&expected, memory.get() + 2 * PAGE_SIZE, 3));
    global::leave_mm();
    sleeper.space.munmap(memory, 3 * PAGE_SIZE).expect("mapped");
}
