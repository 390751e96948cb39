//! All CPUs give threads their turns, until there is nobody left.
#![forbid(unsafe_code)]

use super::wake::{self, wake_somebody};
use super::{processes, turn};
use crate::addr::CpuId;
use crate::driver::timer;
use crate::global;
use crate::kernel::interrupts::InterruptError;
use crate::kernel::{cpus, tick};
use core::sync::atomic::{AtomicBool, Ordering};

/// Turns of a thread that computes: so many a second.
const TURNS_PER_SECOND: u64 = 250;

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
        wake_somebody();
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
        wake::sleep(cpu);
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
