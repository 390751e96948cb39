//! A tick: the generic timer's periodic interrupt, on every CPU.
//!
//! It is off until it is started: this kernel has nothing to schedule, and an idle CPU should sleep.

use super::interrupts::{self, InterruptError};
use super::{machine, smp_call};
use crate::addr::{CpuId, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::arch::aarch64::irq;
use crate::driver::gic::{IntId, Trigger};
use crate::driver::timer;
use crate::global;
use crate::sync::Once;
use ::log::warn;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Function called at each tick: in the interrupt handler, masked.
pub type Each = fn();

/// Index of the virtual timer in the list of a device tree (Linux: bindings/timer/arm,arch_timer.yaml).
const VIRTUAL: usize = 2;

/// Ticks of the counter from the end of one tick to the next; zero while the tick is off.
static PERIOD: AtomicU64 = AtomicU64::new(0);
/// An [`Each`], or null.
///
/// - `TICK-1`: every pointer but null was an `Each`.
static EACH: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static LINE: Once<(IntId, Trigger), cpu::Relax> = Once::new();
static COUNTS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// The virtual timer's interrupt, from the device tree.
#[must_use]
pub fn line() -> Option<(IntId, Trigger)> {
    let tree = &machine::machine()?.tree;
    let line = tree.timer_interrupts().nth(VIRTUAL)?.ok()?;
    let intid = line.gic_intid().and_then(IntId::new)?;
    Some((intid, Trigger::from_flags(line.gic_flags().unwrap_or(4))))
}

/// Starts the tick on every CPU that is online, and on CPUs that come online later: `each` is called every `period` ticks of
/// the counter. Where sleeping is allowed.
///
/// # Errors
///
/// [`InterruptError::Atomic`]; [`InterruptError::NoController`] without a timer in the device tree, [`InterruptError::Taken`]
/// if the timer has another handler, and those of the controller.
pub fn start(period: u64, each: Each) -> Result<(), InterruptError> {
    global::might_sleep("tick::start").map_err(|_| InterruptError::Atomic)?;
    let (intid, trigger) = line().ok_or(InterruptError::NoController)?;
    LINE.call_once(|| (intid, trigger));
    interrupts::request(intid, trigger, on_tick)?;
    COUNTS.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    // INVARIANT: TICK-1.
    EACH.store(each as *mut (), Ordering::Release);
    PERIOD.store(period.max(1), Ordering::Release);
    everywhere(start_here);
    Ok(())
}

/// Stops the tick on every CPU. Where sleeping is allowed.
///
/// # Errors
///
/// [`InterruptError::Atomic`]; those of the controller.
pub fn stop() -> Result<(), InterruptError> {
    global::might_sleep("tick::stop").map_err(|_| InterruptError::Atomic)?;
    PERIOD.store(0, Ordering::Release);
    everywhere(stop_here);
    let (intid, _) = *LINE.get().ok_or(InterruptError::NoController)?;
    interrupts::release(intid)
}

/// Number of ticks of a CPU since the last start.
#[must_use]
pub fn count(cpu: CpuId) -> u64 {
    COUNTS.get(to_usize(u64::from(cpu.get()))).map_or(0, |count| count.load(Ordering::Relaxed))
}

fn everywhere(what: fn()) {
    for cpu in global::online_cpus() {
        // A CPU that went offline meanwhile has stopped its timer itself.
        let _ = smp_call::smp_call(cpu, |what: &fn()| what(), &what);
    }
}

/// Starts the tick on this CPU, if there is one. Interrupts masked.
pub(super) fn start_here() {
    let period = PERIOD.load(Ordering::Acquire);
    let Some((intid, trigger)) = LINE.get().filter(|_| period != 0) else { return };
    match interrupts::enable_here(*intid, *trigger) {
        Ok(()) => timer::arm(period),
        Err(error) => warn!("no tick on {:?}: {error}", cpu::current()),
    }
}

fn stop_here() {
    let _masked = irq::local_irq_save();
    timer::stop();
}

fn on_tick(_: IntId) {
    timer::stop();
    if let Some(count) = COUNTS.get(to_usize(u64::from(cpu::current().get()))) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let each = EACH.load(Ordering::Acquire);
    if !each.is_null() {
        // SAFETY: TICK-1.
        let each = unsafe { core::mem::transmute::<*mut (), Each>(each) };
        each();
    }
    let period = PERIOD.load(Ordering::Acquire);
    if period != 0 {
        timer::arm(period);
    }
}
