//! What a CPU does that has nothing to do.

use super::{CpuState, Record, start, work};
use crate::addr::CpuId;
use crate::arch::aarch64::{cpu, irq};
use crate::global;
use core::sync::atomic::Ordering;

/// Runs what is sent here, answers other CPUs, works in the background, and sleeps until an interrupt. Whoever sends
/// something sends an interrupt after it.
pub(super) fn run(cpu: CpuId, record: &Record) -> ! {
    loop {
        let mut worked = work::run_here(record);
        // Whether it leaves is decided once: by whoever changes the state first.
        if record.state() == CpuState::Leaving && work::is_free(record) {
            start::leave(cpu, record);
            worked = true;
        }
        if global::idle() || worked {
            continue;
        }
        irq::local_irq_disable();
        record.idle.store(true, Ordering::SeqCst);
        // What was sent before now is seen here; what is sent later has an interrupt that ends the sleep, masked or not.
        if work::is_free(record) && record.state() == CpuState::Online {
            global::asleep(cpu::wait_for_interrupt);
        }
        record.idle.store(false, Ordering::SeqCst);
        irq::local_irq_enable();
    }
}
