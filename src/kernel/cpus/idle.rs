//! Loop of an idle CPU.

use super::{CpuState, Record, start, work};
use crate::addr::CpuId;
use crate::arch::aarch64::{cpu, irq};
use crate::global;
use core::sync::atomic::Ordering;

/// Runs the jobs sent to this CPU, answers other CPUs, works in the background, and sleeps until an interrupt. A sender of a
/// job sends an interrupt after it.
pub(super) fn run(cpu: CpuId, record: &Record) -> ! {
    loop {
        let mut worked = work::run_here(record);
        // The first change of the state decides whether the CPU leaves.
        if record.state() == CpuState::Leaving && work::is_free(record) {
            start::leave(cpu, record);
            worked = true;
        }
        if global::idle() || worked {
            continue;
        }
        irq::local_irq_disable();
        record.idle.store(true, Ordering::SeqCst);
        // This sees all jobs sent so far; a later one has an interrupt that ends the sleep, masked or not.
        if work::is_free(record) && record.state() == CpuState::Online {
            global::asleep(cpu::wait_for_interrupt);
        }
        record.idle.store(false, Ordering::SeqCst);
        irq::local_irq_enable();
    }
}
