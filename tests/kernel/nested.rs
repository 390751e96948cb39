//! Exceptions inside of exceptions: each leaves what it interrupts as it was.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use crate::interrupts::{registers_changed, registers_changed_while_waiting, wait_for, with_timer};
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use quarry::addr::{CpuId, VirtAddr};
use quarry::arch::aarch64::{cpu, irq, probe};
use quarry::driver::gic::IntId;
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global;
use quarry::kernel::{cpus, tick};
use quarry::ktest;

/// Flags that differ in each bit from those of the interrupted code.
const FLAGS: u64 = 0x5 << 28;

/// Takes a fault that is repaired, and counts the registers that it has changed.
fn registers_changed_by_a_fault() -> u64 {
    // The routine answers in x0 that the load has faulted; if not, BRK ends the test.
    registers_changed!(
        8_u64,
        FLAGS,
        "str x30, [sp, #-16]!",
        "bl probe_load_u64",
        "ldr x30, [sp], #16",
        "sub x0, x0, #1",
        "cbz x0, 3f",
        "brk #9",
        "3:"
    )
}

ktest!(a_fault_that_is_repaired_changes_no_register);
fn a_fault_that_is_repaired_changes_no_register() {
    assert!(probe::load_u64(VirtAddr::new(8)).is_none(), "nothing is mapped there");
    assert_eq!(registers_changed_by_a_fault(), 0);
}

/// Set by each interrupt of a CPU.
static INTERRUPTED: [AtomicBool; 4] = [const { AtomicBool::new(false) }; 4];
/// Registers that a fault inside of a handler has changed in the handler.
static CHANGED_INSIDE: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// Faults three times and allocates in between, as a handler.
fn fault_inside() {
    for size in [24, 200, 3000] {
        CHANGED_INSIDE.fetch_add(registers_changed_by_a_fault(), Ordering::Relaxed);
        FAULTS.fetch_add(1, Ordering::Relaxed);
        if let Ok(object) = global::kmalloc(size, Gfp::ATOMIC | Gfp::NOWARN) {
            // SAFETY: the handler's own.
            unsafe { global::kfree(object.as_ptr()) };
        }
    }
    let here = cpu::current().get() as usize;
    INTERRUPTED.get(here).expect("four CPUs").store(true, Ordering::Relaxed);
}

// Three levels: code that counts its registers, the tick's handler that counts its own, and the faults inside.
ktest!(
    faults_inside_of_interrupts_in_a_storm_change_no_register,
    machine one = "",
    machine one_counted = "icount",
    machine four = "smp=4",
    machine four_counted = "smp=4 icount gic=3",
    machine four_max = "smp=4 cpu=max gic=3",
    timeout = 60,
);
fn faults_inside_of_interrupts_in_a_storm_change_no_register() {
    let (changed, rounds) = (AtomicU64::new(0), AtomicU64::new(0));
    FAULTS.store(0, Ordering::Relaxed);
    tick::start(timer::frequency() / 50_000, fault_inside).expect("the timer is free");
    cpus::run_everywhere(&|cpu: CpuId| {
        let interrupted = INTERRUPTED.get(cpu.get() as usize).expect("four CPUs");
        for round in 0..200_usize {
            interrupted.store(false, Ordering::Relaxed);
            let flags = if round % 2 == 0 { 0xa << 28 } else { 0xf << 28 };
            changed.fetch_add(registers_changed_while_waiting(interrupted, flags), Ordering::Relaxed);
            // And in the middle of the allocators.
            let object = global::kmalloc(64 + 8 * round, Gfp::KERNEL).expect("memory");
            // SAFETY: the test's own.
            unsafe { global::kfree(object.as_ptr()) };
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    });
    tick::stop().expect("it runs");
    assert_eq!((changed.into_inner(), CHANGED_INSIDE.load(Ordering::Relaxed)), (0, 0), "registers changed");
    assert!(FAULTS.load(Ordering::Relaxed) >= 3 * rounds.into_inner(), "each interrupt has faulted three times");
    global::page_allocator().check().expect("the page allocator keeps its invariants");
    global::slab_allocator().check().expect("the slab allocator keeps its invariants");
}

fn store_nowhere(_: IntId) {
    timer::stop();
    // SAFETY: faults, and ends the machine.
    unsafe { VirtAddr::new(0x77_7000).as_ptr::<u8>().write_volatile(1) };
}

ktest!(
    a_fault_inside_of_a_handler_is_reported_with_what_was_interrupted,
    report = "fault: data abort, write: translation fault",
    report = "fault: at address 0x777000",
    report = "fault: in the user half, where nothing is mapped",
    report = "nested::store_nowhere+",
    report = "interrupts::with_timer+",
    exit = 1
);
fn a_fault_inside_of_a_handler_is_reported_with_what_was_interrupted() {
    with_timer(store_nowhere, || {
        timer::arm(0);
        irq::local_irq_enable();
        wait_for(|| black_box(false));
    });
}
