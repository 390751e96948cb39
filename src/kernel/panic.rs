//! The end by a fault or a panic: report once, stop cleanly if the report itself fails.
//!
//! No step takes a lock, and all run with everything masked:
//!
//! | step | function | if it cannot |
//! |---|---|---|
//! | 1. everything is masked, and the CPU counts its calls here | `enter` | the second call, from inside a report: one line, and 6; the third: a stop |
//! | 2. a fault that a test expects goes to the test, and does not come back | [`Expected`] | 3 |
//! | 3. this CPU is the reporter | `stop_others` | another one is: one line, and a stop |
//! | 4. the other CPUs stop, within a tenth of a second for all together | `stop_others` | a CPU that does not stop is named |
//! | 5. allocations are refused and locks not waited for; the report, as in the table of `report.rs` | `print_fault`, `print_panic` | a fault in it: 1 |
//! | 6. the machine stops, or the emulator ends | `power::leave` | - |
//!
//! Each call runs on less than the one before: the second needs the console, the third nothing.

use super::{interrupts, power, report};
use crate::addr::{CpuId, VirtAddr, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::arch::aarch64::esr::Esr;
use crate::arch::aarch64::held_locks;
use crate::arch::aarch64::irq;
use crate::arch::aarch64::trap::{self, Fatal, Handlers, Outcome, TrapFrame};
use crate::driver::timer;
use crate::global;
use crate::hal::patience::Patience;
use crate::sync::Once;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// Handler of an expected fault; if the fault is expected, it does not return. Called before anything is printed.
pub type Expected = fn(Esr, VirtAddr);

static EXPECTED: Once<Expected, cpu::Relax> = Once::new();
static DEPTH: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(0) }; MAX_CPUS];

/// Registers the waiter for a fault: the test harness. The address is `FAR_EL1` where the syndrome says that it is valid, and
/// the faulting instruction's own otherwise. The first call counts.
pub(crate) fn set_expected(expected: Expected) {
    EXPECTED.call_once(|| expected);
}

/// The handlers of a kernel that repairs no fault and takes interrupts through `irq`.
#[must_use]
pub const fn handlers(irq: fn(&mut TrapFrame)) -> Handlers {
    Handlers { sync: |_| Outcome::Unhandled, irq, fatal }
}

/// Number of nested reports on this CPU.
enum Depth {
    First,
    Second,
    Deeper,
}

fn enter() -> Depth {
    irq::mask_all();
    let index = to_usize(u64::from(cpu::current().get()));
    // A CPU number that is out of range is itself a sign of damage: go straight to the short report.
    let depth = DEPTH.get(index).map_or(1, |depth| depth.fetch_add(1, Ordering::Relaxed));
    match depth {
        0 => {
            // From here on the lock order is not enforced: a report may break it.
            held_locks::enforce_lock_order(false);
            Depth::First
        }
        1 => Depth::Second,
        _ => Depth::Deeper,
    }
}

/// Reports an exception that ends the kernel, and leaves.
pub fn fatal(frame: &TrapFrame, why: Fatal) -> ! {
    match enter() {
        Depth::First => {
            if let (Fatal::Unhandled(_), Some(expected)) = (why, EXPECTED.get()) {
                expected(frame.esr, if frame.esr.has_fault_address() { frame.far } else { frame.elr });
            }
            stop_others(format_args!("{}, at address {}, pc {}", frame.esr, frame.far, frame.elr));
            report::print_fault(frame, why);
        }
        Depth::Second => report::print_nested(format_args!(
            "{}, at address {}, pc {}, sp {}",
            frame.esr, frame.far, frame.elr, frame.sp
        )),
        Depth::Deeper => cpu::park(),
    }
    power::leave(power::FAILURE)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match enter() {
        Depth::First => {
            stop_others(format_args!("{info}"));
            report::print_panic(info, trap::frame_pointer());
        }
        Depth::Second => report::print_nested(format_args!("{info}")),
        Depth::Deeper => cpu::park(),
    }
    power::leave(power::FAILURE)
}

/// The CPU that reports, plus one; zero while none does.
static REPORTER: AtomicU32 = AtomicU32::new(0);
/// CPUs that have stopped because another one reports.
static STOPPED: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// Makes this CPU the reporter and stops the others. If another CPU reports already, prints `what` in a line, and stops.
fn stop_others(what: core::fmt::Arguments<'_>) {
    let here = cpu::current();
    if REPORTER.compare_exchange(0, here.get() + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        report::print_second(what);
        stop_here();
    }
    let others = || global::online_cpus().filter(|cpu| *cpu != here);
    others().for_each(interrupts::send_stop);
    // A tenth of a second for all CPUs together.
    let mut patience = Patience::new(timer::ticks(), timer::frequency() / 10);
    while !others().all(has_stopped) && patience.is_left(timer::ticks()) {
        cpu::relax();
    }
    others().filter(|cpu| !has_stopped(*cpu)).for_each(report::print_not_stopped);
    global::refuse_allocations();
    cpu::wait_no_more();
}

fn has_stopped(cpu: CpuId) -> bool {
    STOPPED.get(to_usize(u64::from(cpu.get()))).is_some_and(|stopped| stopped.load(Ordering::Acquire))
}

/// Stops this CPU for good, as another one reports.
pub(super) fn stop_here() -> ! {
    if let Some(stopped) = STOPPED.get(to_usize(u64::from(cpu::current().get()))) {
        stopped.store(true, Ordering::Release);
    }
    cpu::park()
}
