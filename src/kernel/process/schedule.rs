//! All CPUs give threads their turns, until there is nobody left.
#![forbid(unsafe_code)]

use super::{processes, turn};
use crate::addr::CpuId;
use crate::arch::aarch64::{cpu, irq};
use crate::driver::timer;
use crate::global;
use crate::kernel::interrupts::{self, InterruptError};
use crate::kernel::{cpus, tick};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Turns of a thread that computes: so many a second.
const TURNS_PER_SECOND: u64 = 250;

/// CPUs that sleep for lack of threads, a bit each.
static ASLEEP: AtomicU64 = AtomicU64::new(0);

/// Runs the processes on every CPU until none is alive or `enough` says so; it is asked between two turns. On one CPU
/// at a time, where sleeping is allowed; elsewhere that is reported, and nobody runs.
pub fn run(enough: &(impl Fn() -> bool + Sync)) {
    if global::might_sleep("process::run").is_err() {
        return;
    }
    // Somebody else's tick takes the CPU from a thread as well; without a timer threads keep it until they call.
    let ticks = start_tick().is_ok();
    // Said to one CPU, it counts for all.
    let over = AtomicBool::new(false);
    let enough = || {
        if !over.load(Ordering::Relaxed) && enough() {
            over.store(true, Ordering::Relaxed);
        }
        over.load(Ordering::Relaxed)
    };
    cpus::run_everywhere(&|cpu: CpuId| {
        while run_one(cpu, &enough) {}
        // The others look whether it is enough for them too.
        wake_all();
    });
    if ticks {
        // It was started above.
        let _ = tick::stop();
    }
}

/// Gives the next thread its turn, or sleeps until there may be one. Whether to go on.
fn run_one(cpu: CpuId, enough: &impl Fn() -> bool) -> bool {
    if enough() {
        return false;
    }
    let next = processes().next();
    if let Some(next) = next {
        turn::run(next);
        return true;
    }
    if !processes().is_anybody_alive() {
        return false;
    }
    if !global::idle() {
        sleep(cpu);
    }
    true
}

/// Whether the tick is on for the processes behind the prompt.
static TICKS: AtomicBool = AtomicBool::new(false);

/// Gives one thread a turn on this CPU, for the prompt that waits for keys. Whether there was one that could run. Boot CPU.
pub(crate) fn run_here() -> bool {
    let next = processes().next();
    if next.is_some() != TICKS.load(Ordering::Relaxed) {
        // Without a timer a key or a call ends the turn.
        let _ = if next.is_some() { start_tick() } else { tick::stop() };
        TICKS.store(next.is_some(), Ordering::Relaxed);
    }
    next.map(turn::run).is_some()
}

fn start_tick() -> Result<(), InterruptError> {
    tick::start(timer::frequency() / TURNS_PER_SECOND, || {})
}

fn sleep(cpu: CpuId) {
    let own = 1 << (cpu.get() % u64::BITS);
    irq::local_irq_disable();
    ASLEEP.fetch_or(own, Ordering::SeqCst);
    // A thread that is ready from here on wakes this CPU: its interrupt ends the sleep, masked or not.
    let stays = {
        let table = processes();
        !table.is_anybody_ready() && table.is_anybody_alive()
    };
    if stays {
        global::asleep(cpu::wait_for_interrupt);
    }
    ASLEEP.fetch_and(!own, Ordering::SeqCst);
    irq::local_irq_enable();
}

/// Wakes the CPUs that sleep for lack of threads. Any context.
pub(super) fn wake_all() {
    let asleep = ASLEEP.load(Ordering::SeqCst);
    for cpu in global::online_cpus().filter(|cpu| asleep & 1 << (cpu.get() % u64::BITS) != 0) {
        interrupts::kick(cpu);
    }
}
