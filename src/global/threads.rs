//! The one call that a kernel with threads makes at each switch.

use super::cpu::KernelPages;
use crate::arch::aarch64::cpu;
use crate::arch::aarch64::held_locks::held_locks;
use crate::arch::aarch64::irq;
use crate::hal::cpu::PerCpu;
use crate::sync::{self, SwitchError, ThisCpu, ThreadContext};
use core::sync::atomic::Ordering;

/// This CPU leaves the thread `from` and runs `to`: the scopes of `from` ([`Scope`](crate::hal::wait::Scope)), the locks that
/// it holds and its number for fault injection stay with it, on any CPU where it continues, and those of `to` come into force.
/// At each switch between threads, a CPU's idle thread among them, beside that of registers and stacks, in either order; with
/// interrupts masked from before the first until after the last. At its first switch a CPU passes the context that ran so far
/// as `from`. Costs some 40 instructions; takes no lock.
///
/// # Errors
///
/// [`SwitchError`]: nothing has changed.
///
/// # Safety
///
/// - This CPU executes the thread `from` until this call, and `to` next. Each thread has one context, which lives as long
///   as the thread.
/// - The mechanism that lets a thread continue on another CPU must order this call before the next one that names the thread;
///   the lock of the scheduler's list does.
pub unsafe fn switch_thread(from: &ThreadContext, to: &ThreadContext) -> Result<(), SwitchError> {
    if irq::local_irqs_enabled() {
        return Err(SwitchError::NotMasked);
    }
    let local = KernelPages(()).local();
    let here = ThisCpu { cpu: cpu::current(), scopes: &local.scopes, held: held_locks(), thread: &local.thread };
    sync::switch_thread(&here, from, to)?;
    // The thread that it leaves may have been about to sleep for memory (`sync::sleep_for_memory`), and may go on elsewhere.
    local.asleep.store(false, Ordering::SeqCst);
    Ok(())
}
