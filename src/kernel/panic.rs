//! The end by a fault or a panic: report once, stop cleanly if the report itself fails.
//!
//! Each CPU counts how often it has come here. The first time it prints the whole report; the second time, from inside
//! that report, one line; the third time nothing but a stop. Each step runs on less than the one before: the second
//! needs the console, the third nothing.

use super::{power, report};
use crate::addr::{VirtAddr, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::arch::aarch64::esr::Esr;
use crate::arch::aarch64::irq;
use crate::arch::aarch64::trap::{self, Fatal, Handlers, Outcome, TrapFrame};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU8, Ordering};
use spin::once::Once;

/// Asks whether this fault is one that somebody waits for; a function that knows it does not return. Called before
/// anything is printed.
pub type Expected = fn(Esr, VirtAddr);

static EXPECTED: Once<Expected, cpu::Relax> = Once::new();
static DEPTH: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(0) }; MAX_CPUS];

/// Registers who may wait for a fault: the test harness. The address is `FAR_EL1` where the syndrome says that it is
/// valid, and the faulting instruction's own otherwise. The first call counts.
pub fn set_expected(expected: Expected) {
    EXPECTED.call_once(|| expected);
}

/// The handlers of a kernel that repairs no fault and takes interrupts through `irq`.
#[must_use]
pub const fn handlers(irq: fn(&mut TrapFrame)) -> Handlers {
    Handlers { sync: |_| Outcome::Unhandled, irq, fatal }
}

/// Reports an exception that ends the kernel, and leaves.
pub fn fatal(frame: &TrapFrame, why: Fatal) -> ! {
    match enter() {
        Depth::First => {
            if let (Fatal::Unhandled(_), Some(expected)) = (why, EXPECTED.get()) {
                expected(frame.esr, if frame.esr.has_fault_address() { frame.far } else { frame.elr });
            }
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
        Depth::First => report::print_panic(info, trap::frame_pointer()),
        Depth::Second => report::print_nested(format_args!("{info}")),
        Depth::Deeper => cpu::park(),
    }
    power::leave(power::FAILURE)
}

/// How many ends are under way on this CPU.
enum Depth {
    First,
    Second,
    Deeper,
}

fn enter() -> Depth {
    irq::mask_all();
    let index = to_usize(u64::from(cpu::current().get()));
    // A CPU number that is out of range is itself a sign of damage: straight to the short report.
    let depth = DEPTH.get(index).map_or(1, |depth| depth.fetch_add(1, Ordering::Relaxed));
    match depth {
        0 => Depth::First,
        1 => Depth::Second,
        _ => Depth::Deeper,
    }
}
