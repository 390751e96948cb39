//! What the reference kernel says and does when memory is short: reports with a backtrace, and an OOM hook that has
//! nothing to kill.

use super::{interrupts, report};
use crate::addr::Order;
use crate::arch::aarch64::trap;
use crate::driver::timer;
use crate::gfp::Gfp;
use crate::hal::wait::Atomic;
use crate::instance::{self, PressureHooks};
use crate::kprintln;
use crate::mm::zone::{OomHook, OomReport, Relief, Shortage};
use ::log::warn;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Reports in an interval (Linux: `DEFAULT_RATELIMIT_BURST`).
const BURST: u32 = 10;
/// Seconds of an interval (Linux: `DEFAULT_RATELIMIT_INTERVAL`).
const INTERVAL: u64 = 5;

/// Lets ten reports through in five seconds. Two CPUs at once may get one more.
struct RateLimit {
    /// When the interval ends, in ticks of the counter.
    end: AtomicU64,
    shown: AtomicU32,
    held_back: AtomicU32,
}

impl RateLimit {
    const fn new() -> Self {
        Self { end: AtomicU64::new(0), shown: AtomicU32::new(0), held_back: AtomicU32::new(0) }
    }

    /// Whether a report may be shown now; says first how many were not.
    fn admits(&self) -> bool {
        let now = timer::ticks();
        if now >= self.end.load(Ordering::Relaxed) {
            self.end.store(now + INTERVAL * timer::frequency(), Ordering::Relaxed);
            self.shown.store(0, Ordering::Relaxed);
            match self.held_back.swap(0, Ordering::Relaxed) {
                0 => {}
                count => warn!("{count} reports of this kind were not shown"),
            }
        }
        let shown = self.shown.fetch_add(1, Ordering::Relaxed) < BURST;
        if !shown {
            self.held_back.fetch_add(1, Ordering::Relaxed);
        }
        shown
    }
}

static FAILURES: RateLimit = RateLimit::new();
static KILLS: RateLimit = RateLimit::new();

static HOOKS: PressureHooks =
    PressureHooks { failed, waits_in_atomic, sleeps_in_atomic, may_be_woken: interrupts::may_free_memory };

/// Registers the hooks. Boot CPU, once, when there is a page allocator.
pub(super) fn init() {
    instance::set_pressure_hooks(&HOOKS);
    if let Err(error) = instance::reclaim().oom_hooks().register(instance::context(), &NothingToKill) {
        warn!("no OOM hook: {error}");
    }
}

fn failed(shortage: &Shortage) {
    if FAILURES.admits() {
        kprintln!(
            "page allocation failure: order:{}, mode:{}\n{}",
            shortage.order.get(),
            shortage.gfp,
            instance::reclaim().report(instance::page_allocator())
        );
        report::print_backtrace(None, trap::frame_pointer());
    }
}

/// Not limited: each is a mistake in the kernel.
fn waits_in_atomic(gfp: Gfp, order: Order, why: Atomic) {
    kprintln!("sleeping allocation in atomic context ({why}): order:{}, mode:{gfp}", order.get());
    report::print_backtrace(None, trap::frame_pointer());
}

/// Not limited: as above.
fn sleeps_in_atomic(call: &'static str, why: Atomic) {
    kprintln!("sleeping function called in atomic context ({why}): {call}");
    report::print_backtrace(None, trap::frame_pointer());
}

/// A kernel without processes.
struct NothingToKill;

impl OomHook for NothingToKill {
    fn out_of_memory(&self, report: &OomReport<'_>) -> Relief {
        if KILLS.admits() {
            kprintln!("{report}nothing to kill");
        }
        Relief::GiveUp
    }
}
