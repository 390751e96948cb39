//! The reference kernel's reaction to a shortage of memory: reports with a backtrace, and an OOM hook that kills the largest
//! process.

use super::{process, report};
use crate::arch::aarch64::trap;
use crate::driver::timer;
use crate::global;
use crate::kprintln;
use crate::mm::zone::{OomHook, OomReport, Relief, Shortage};
use ::log::warn;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Reports in an interval (Linux: `DEFAULT_RATELIMIT_BURST`).
const BURST: u32 = 10;
/// Seconds of an interval (Linux: `DEFAULT_RATELIMIT_INTERVAL`).
const INTERVAL: u64 = 5;

/// Limits reports to ten in five seconds. Two CPUs at once may get one more.
struct RateLimit {
    /// End of the interval, in ticks of the counter.
    end: AtomicU64,
    shown: AtomicU32,
    held_back: AtomicU32,
}

impl RateLimit {
    const fn new() -> Self {
        Self { end: AtomicU64::new(0), shown: AtomicU32::new(0), held_back: AtomicU32::new(0) }
    }

    /// Whether a report may be shown now; prints first the number of those that were not.
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

/// Registers the OOM hook. Boot CPU, once, when there is a page allocator.
pub(super) fn init() {
    if let Err(error) = global::reclaim().oom_hooks().register(global::context(), &KillLargest) {
        warn!("no OOM hook: {error}");
    }
}

/// Reports an allocation that fails; ten in five seconds.
pub(super) fn allocation_failed(shortage: &Shortage) {
    if FAILURES.admits() {
        kprintln!(
            "page allocation failure: order:{}, mode:{}\n{}",
            shortage.order.get(),
            shortage.gfp,
            global::reclaim().report(global::page_allocator())
        );
        report::print_backtrace(None, trap::frame_pointer());
    }
}

/// Kills the process with the most memory.
struct KillLargest;

impl OomHook for KillLargest {
    fn out_of_memory(&self, report: &OomReport<'_>) -> Relief {
        let shown = KILLS.admits();
        match global::kill_largest_space() {
            Some(victim) => {
                if shown {
                    match process::process_of(victim.root) {
                        Some((pid, name)) => kprintln!("{report}killed process {pid} ({name}): {victim}"),
                        None => kprintln!("{report}killed {victim}"),
                    }
                }
                // If somebody changes its areas, perhaps in this very allocation, its memory is back when that call ends.
                if victim.is_reaped { Relief::Retry } else { Relief::GiveUp }
            }
            None => {
                if shown {
                    kprintln!("{report}nothing to kill");
                }
                Relief::GiveUp
            }
        }
    }
}
