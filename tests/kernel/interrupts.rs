//! Interrupts arrive at every level at which the kernel may be entered, and do not disturb the interrupted code.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use quarry::addr::{VirtAddr, VirtRange};
use quarry::arch::aarch64::backtrace::Left;
use quarry::arch::aarch64::features::IdRegisters;
use quarry::arch::aarch64::{irq, pmu, stack, trap};
use quarry::driver::gic::{IntId, Trigger};
use quarry::driver::timer;
use quarry::kernel::{init, interrupts};
use quarry::ktest;

static FIRED: AtomicU32 = AtomicU32::new(0);

/// The virtual timer's interrupt, from the device tree.
fn timer_interrupt() -> (IntId, Trigger) {
    let tree = &init::machine().expect("tests run after booting").tree;
    let line = tree.timer_interrupts().nth(2).expect("a virtual timer").expect("a legal interrupt");
    let intid = line.gic_intid().and_then(IntId::new).expect("a private interrupt");
    (intid, Trigger::from_flags(line.gic_flags().unwrap_or(4)))
}

fn count(_: IntId) {
    timer::stop();
    FIRED.fetch_add(1, Ordering::Relaxed);
}

/// Runs `body` with `handler` on the timer's interrupt.
pub(crate) fn with_timer(handler: fn(IntId), body: impl FnOnce()) {
    let (intid, trigger) = timer_interrupt();
    FIRED.store(0, Ordering::Relaxed);
    interrupts::request(intid, trigger, handler).expect("the timer's interrupt is free");
    body();
    interrupts::release(intid).expect("it was requested");
}

/// Waits for `done`, at most two seconds of the counter.
pub(crate) fn wait_for(done: impl Fn() -> bool) {
    let start = timer::ticks();
    while !done() {
        assert!(timer::ticks() - start < 2 * timer::frequency(), "waited for 2 s");
    }
}

ktest!(
    the_timer_interrupts,
    machine el1_gicv2 = "",
    machine el1_gicv3 = "gic=3",
    machine el2_gicv2 = "virtualization",
    machine el2_gicv3 = "virtualization gic=3",
    machine el3_gicv2 = "secure loader=elf",
    machine el3_gicv3 = "secure loader=elf gic=3",
    machine el3_el2_gicv2 = "secure virtualization loader=elf",
    machine el3_el2_gicv3 = "secure virtualization loader=elf gic=3",
    machine secure_gicv2 = "secure",
    machine secure_gicv3 = "secure gic=3",
    machine four_cpus_gicv3 = "smp=4 gic=3",
    machine cpu_max = "cpu=max gic=3",
    machine raspi4b = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
);
fn the_timer_interrupts() {
    with_timer(count, || {
        for times in 1..=3 {
            timer::arm(timer::frequency() / 1000);
            irq::local_irq_enable();
            wait_for(|| FIRED.load(Ordering::Relaxed) == times);
            irq::local_irq_disable();
        }
    });
}

ktest!(a_masked_interrupt_waits_until_the_guard_is_gone);
fn a_masked_interrupt_waits_until_the_guard_is_gone() {
    with_timer(count, || {
        irq::local_irq_enable();
        let outer = irq::local_irq_save();
        let inner = irq::local_irq_save();
        timer::arm(0);
        let start = timer::ticks();
        wait_for(|| timer::ticks() - start > timer::frequency() / 100);
        drop(inner);
        assert!(!irq::local_irqs_enabled(), "the inner guard found interrupts masked");
        assert_eq!(FIRED.load(Ordering::Relaxed), 0, "masked");
        drop(outer);
        assert!(irq::local_irqs_enabled(), "the outer guard found interrupts enabled");
        wait_for(|| FIRED.load(Ordering::Relaxed) == 1);
        irq::local_irq_disable();
    });
}

ktest!(an_interrupt_has_one_handler);
fn an_interrupt_has_one_handler() {
    let (intid, trigger) = timer_interrupt();
    with_timer(count, || {
        let refused = interrupts::request(intid, trigger, count);
        assert_eq!(refused, Err(interrupts::InterruptError::Taken(intid)));
    });
    with_timer(count, || {});
}

ktest!(an_interrupt_that_the_controller_lacks_is_refused, machine gicv2 = "", machine gicv3 = "gic=3");
fn an_interrupt_that_the_controller_lacks_is_refused() {
    let last = IntId::new(1019).expect("in range");
    assert!(interrupts::request(last, Trigger::Level, count).is_err());
    assert!(interrupts::request(last, Trigger::Level, count).is_err(), "and is not taken by that");
}

/// Fills x2 to x30 with values of their own and the flags with `nzcv`, runs instructions that may use x0, which holds
/// `argument`, and x1, and counts the registers, flags included, that hold something else then.
macro_rules! registers_changed {
    ($argument:expr, $nzcv:expr, $($instruction:literal),+) => {{
        let changed: u64;
        // SAFETY: saves what it may not clobber; the instructions are the caller's.
        unsafe {
            core::arch::asm!(
                "stp x19, x29, [sp, #-32]!",
                "str x1, [sp, #16]",
                "msr nzcv, x1",
                ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
                "mov x\\n, #(0x5a00 + \\n)",
                ".endr",
                // Flags, sp and every register but x0 and x1 live across this.
                $($instruction,)+
                "mov x0, #0",
                "mrs x1, nzcv",
                "str x1, [sp, #24]",
                ".irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
                "mov x1, #(0x5a00 + \\n)",
                "cmp x1, x\\n",
                "cinc x0, x0, ne",
                ".endr",
                "ldp x1, x2, [sp, #16]",
                "cmp x1, x2",
                "cinc x0, x0, ne",
                "ldp x19, x29, [sp], #32",
                inout("x0") $argument => changed,
                inout("x1") $nzcv => _,
                out("x20") _, out("x21") _, out("x22") _, out("x23") _, out("x24") _, out("x25") _, out("x26") _,
                out("x27") _, out("x28") _,
                clobber_abi("C"),
            );
        }
        changed
    }};
}
pub(crate) use registers_changed;

/// How many registers have changed when `*flag` is set at last.
pub(crate) fn registers_changed_while_waiting(flag: &AtomicBool, nzcv: u64) -> u64 {
    registers_changed!(core::ptr::from_ref(flag), nzcv, "2: ldrb w1, [x0]", "cbz w1, 2b")
}

static SEEN: AtomicBool = AtomicBool::new(false);

ktest!(an_interrupt_changes_no_register);
fn an_interrupt_changes_no_register() {
    fn see(_: IntId) {
        timer::stop();
        SEEN.store(true, Ordering::Relaxed);
    }
    with_timer(see, || {
        for nzcv in [0xf_u64 << 28, 0, 0xa << 28] {
            SEEN.store(false, Ordering::Relaxed);
            timer::arm(timer::frequency() / 1000);
            irq::local_irq_enable();
            let changed = registers_changed_while_waiting(&SEEN, nzcv);
            irq::local_irq_disable();
            assert_eq!(changed, 0, "registers changed, flags {nzcv:#x}");
        }
    });
}

static INTERRUPTED_AT: AtomicU64 = AtomicU64::new(0);
static CALLERS: AtomicU32 = AtomicU32::new(0);

ktest!(a_backtrace_crosses_an_interrupt);
fn a_backtrace_crosses_an_interrupt() {
    fn walk(_: IntId) {
        timer::stop();
        for frame in trap::backtrace(trap::frame_pointer()) {
            if frame.left == Left::Exception {
                INTERRUPTED_AT.store(frame.pc.get(), Ordering::Relaxed);
            } else if INTERRUPTED_AT.load(Ordering::Relaxed) != 0 {
                CALLERS.fetch_add(1, Ordering::Relaxed);
            }
        }
        SEEN.store(true, Ordering::Relaxed);
    }
    with_timer(walk, || {
        SEEN.store(false, Ordering::Relaxed);
        timer::arm(timer::frequency() / 1000);
        irq::local_irq_enable();
        wait_for(|| SEEN.load(Ordering::Relaxed));
        irq::local_irq_disable();
    });
    let text = quarry::arch::aarch64::boot::image_sections()[0].1;
    assert!(text.contains(VirtAddr::new(INTERRUPTED_AT.load(Ordering::Relaxed))), "the interrupted code is found");
    assert!(CALLERS.load(Ordering::Relaxed) >= 3, "and those that called it");
}

ktest!(a_broken_frame_chain_ends_the_walk);
fn a_broken_frame_chain_ends_the_walk() {
    let mut record = black_box([0_u64; 2]);
    let own = VirtAddr::of(&raw const record);
    let stack: VirtRange = stack::containing(own).expect("the test runs on a kernel stack").range;
    // The caller's record: outside every stack, misaligned, cut off by the stack's end, itself, below itself.
    let cut = stack.end().get() - 8;
    for next in [0, 8, u64::MAX, own.get() + 4, cut, own.get(), own.get() - 16, stack.end().get()] {
        record = black_box([next, boot_text()]);
        black_box(&mut record);
        assert_eq!(trap::backtrace(own).count(), 1, "next record at {next:#x}");
    }
}

fn boot_text() -> u64 {
    quarry::arch::aarch64::boot::image_start().get()
}

ktest!(
    the_pmu_counts_instructions,
    machine el1 = "icount",
    machine el2 = "icount virtualization",
    machine el3 = "icount secure loader=elf",
    machine el3_el2 = "icount secure virtualization loader=elf",
);
fn the_pmu_counts_instructions() {
    const ROUNDS: u64 = 1000;
    let cpu = IdRegisters::read();
    assert!(pmu::counts_instructions(&cpu), "the event INST_RETIRED exists");
    let before = pmu::instructions_retired(&cpu);
    // SAFETY: two registers and the flags.
    unsafe { asm!("2: subs {0}, {0}, #1", "b.ne 2b", inout(reg) ROUNDS => _, options(nomem, nostack)) };
    let spent = pmu::instructions_retired(&cpu).wrapping_sub(before) & 0xffff_ffff;
    assert!((2 * ROUNDS..2 * ROUNDS + 100).contains(&spent), "{spent} instructions for {ROUNDS} rounds of two");
}
