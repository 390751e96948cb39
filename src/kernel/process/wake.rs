//! The CPUs that sleep for lack of threads, and waking them.
#![forbid(unsafe_code)]

use super::processes;
use crate::addr::{CpuId, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::arch::aarch64::irq;
use crate::global;
use crate::kernel::interrupts;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether each CPU sleeps for lack of threads. Its store in [`sleep`] pairs with the load in [`wake_somebody`] through the lock of
/// the table: a thread that became ready before the CPU looked is found, one that does so later finds the CPU asleep.
static ASLEEP: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

fn asleep(cpu: CpuId) -> Option<&'static AtomicBool> {
    ASLEEP.get(to_usize(u64::from(cpu.get())))
}

/// Sleeps until a thread may be ready, or the last process has ended. On `cpu` itself, with interrupts unmasked.
pub(super) fn sleep(cpu: CpuId) {
    let Some(own) = asleep(cpu) else { return };
    irq::local_irq_disable();
    own.store(true, Ordering::SeqCst);
    // A thread that is ready from here on wakes this CPU: its interrupt ends the sleep, masked or not.
    let stays = {
        let table = processes();
        !table.is_anybody_ready() && table.is_anybody_alive()
    };
    if stays {
        global::asleep(cpu::wait_for_interrupt);
    }
    own.store(false, Ordering::SeqCst);
    irq::local_irq_enable();
}

/// Wakes the CPUs that sleep: a thread may run that could not before, or the last one has ended. Any context.
pub(super) fn wake_somebody() {
    for cpu in global::online_cpus().filter(|cpu| asleep(*cpu).is_some_and(|asleep| asleep.load(Ordering::SeqCst))) {
        interrupts::kick(cpu);
    }
}
