//! Work during which every other CPU must be stopped: splitting a block of the linear map where the CPUs cannot do that live.

use super::{HOTPLUG, no_answer, patience};
use crate::arch::aarch64::{cpu, irq, stop_machine};
use crate::driver::timer;
use crate::global;
use crate::hal::wait::Context;
use crate::kernel::smp_call::{CallError, smp_call_async};

/// Runs `work` with interrupts masked while every other CPU that is online waits, and none goes online or offline. Returns
/// whether it ran: it does not where waiting is not legal, nor if a CPU does not answer for more than a second.
pub(in crate::kernel) fn hold_others(work: &mut dyn FnMut()) -> bool {
    if global::context().atomic().is_some() || !irq::local_irqs_enabled() {
        return false;
    }
    let _one = HOTPLUG.lock();
    let number = stop_machine::next();
    let here = cpu::current();
    let others = || global::online_cpus().filter(move |cpu| *cpu != here);
    let mut patience = patience();
    let mut is_late = || !patience.is_left(timer::ticks());
    for other in others() {
        // Some asynchronous calls may still be queued.
        while smp_call_async(other, wait_here, crate::addr::to_usize(number)) == Err(CallError::Busy) {
            if is_late() {
                stop_machine::release(number);
                return false;
            }
            cpu::relax();
        }
    }
    while let Some(missing) = others().find(|cpu| !stop_machine::is_held(*cpu, number)) {
        if is_late() {
            stop_machine::release(number);
            no_answer(missing);
            return false;
        }
        cpu::relax();
    }
    let masked = irq::local_irq_save();
    work();
    stop_machine::release(number);
    drop(masked);
    true
}

fn wait_here(number: usize) {
    stop_machine::wait_here(cpu::current(), number as u64);
}
