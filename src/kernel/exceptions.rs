//! The handlers of exceptions: repair, interrupt handlers, or the report of a panic.

use super::{interrupts, panic, provoke};
use crate::arch::aarch64::psci;
use crate::arch::aarch64::trap::{Handlers, Outcome, TrapFrame};
use crate::global;
use crate::hal::wait::Scope;
use crate::sync;

/// The kernel's handlers, from the first Rust code on.
pub(super) static HANDLERS: Handlers = Handlers { sync: on_sync, irq: on_irq, fatal: panic::fatal };

fn on_sync(frame: &mut TrapFrame) -> Outcome {
    provoke::on_fault(frame);
    let repaired = global::repair(&mut frame.exception()) || psci::answer_undefined(frame);
    if repaired { Outcome::Resume } else { Outcome::Unhandled }
}

fn on_irq(_: &mut TrapFrame) {
    let _scope = sync::enter(global::context(), Scope::Interrupt);
    interrupts::handle();
}
