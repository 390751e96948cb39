//! The background reclaimer: brings the zones back to their `high` mark, so that allocations need not reclaim themselves
//! (Linux: `kswapd`).
#![forbid(unsafe_code)]

use super::super::blocks::Mark;
use super::shrinker::DEF_PRIORITY;
use super::{PageAllocator, Reclaim, ReclaimHal, count};
use crate::addr::Order;
use crate::gfp::{Gfp, ZoneType};
use crate::hal::wait::{Scope, Wait, WaitQueue, Waited};
use crate::sync;
use crate::sync::LockHal;
use core::sync::atomic::{AtomicU32, Ordering};

/// Rounds of one time awake: others may use up what is freed as fast as it comes.
const ROUNDS_MAX: u32 = 1 << 10;

/// State in which the background reclaimer went back to rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Balanced {
    /// Nobody had asked for anything.
    Idle,
    /// Free memory is above the `high` mark again.
    Yes,
    /// It is not, and there is nothing left to free.
    No,
}

/// Work requested of the background reclaimer.
pub(super) struct Background {
    /// Zero, or one more than the order wanted, in bits 3:0, and the highest zone in bits 7:4.
    ///
    /// - `BG-1`: the order is at most [`Order::MAX`].
    wanted: AtomicU32,
    queue: WaitQueue,
}

impl Background {
    pub(super) const fn new() -> Self {
        Self { wanted: AtomicU32::new(0), queue: WaitQueue::new() }
    }

    fn ask(&self, zone: ZoneType, order: Order) {
        let merge = |before: u32| {
            // INVARIANT: BG-1.
            let order = (before & 0xf).max(u32::from(order.get()) + 1);
            Some((before >> 4).max(u32::from(zone as u8)) << 4 | order)
        };
        // The closure never declines.
        let _ = self.wanted.fetch_update(Ordering::Release, Ordering::Relaxed, merge);
    }

    fn take(&self) -> Option<(ZoneType, Order)> {
        let wanted = self.wanted.swap(0, Ordering::Acquire);
        let order = u8::try_from((wanted & 0xf).checked_sub(1)?).ok().and_then(Order::new)?;
        Some((ZoneType::ALL.get((wanted >> 4) as usize).copied().unwrap_or(ZoneType::Normal), order))
    }
}

impl<R: LockHal> Reclaim<R> {
    /// A zone has fallen below `low`: what [`Pressure::wake`](super::super::Pressure::wake) is to call. Any context.
    pub fn wake_background<H: Wait>(&self, hal: &H, zone: ZoneType, order: Order) {
        self.background.ask(zone, order);
        hal.wake(&self.background.queue);
    }

    /// Whether the background reclaimer has something to do. Any context.
    pub fn is_background_wanted(&self) -> bool {
        self.background.wanted.load(Ordering::Relaxed) != 0
    }

    /// Body of the background reclaimer's own thread, for ever: waits until it is woken, then [`Reclaim::balance`].
    pub fn serve<H: ReclaimHal<Relax = R>>(&self, pages: &PageAllocator<H>) -> Balanced {
        match pages.hal().wait(&self.background.queue, &mut || self.is_background_wanted()) {
            Waited::Woken => self.balance(pages),
            Waited::WouldNeverWake => Balanced::Idle,
        }
    }

    /// Reclaims until a zone of the request that woke it is above `high` with its boost, and goes back to rest. Where
    /// sleeping is allowed, as shrinkers may sleep; elsewhere that is reported, and nothing is done. Cost: what the shrinkers
    /// cost.
    pub fn balance<H: ReclaimHal<Relax = R>>(&self, pages: &PageAllocator<H>) -> Balanced {
        if pages.hal().is_inside(Scope::Reclaim) {
            return Balanced::Idle;
        }
        if pages.might_sleep("Reclaim::balance").is_err() {
            return Balanced::Idle;
        }
        let Some((zone, order)) = self.background.take() else { return Balanced::Idle };
        count(&self.counters.background, 1);
        pages.drain_all();
        let balanced = || pages.is_above(zone, order, Mark::High) || pages.is_above(zone, Order::ZERO, Mark::High);
        let mut priority = DEF_PRIORITY;
        for _ in 0..ROUNDS_MAX {
            if balanced() {
                break;
            }
            let before = pages.freed_so_far();
            {
                // INVARIANT: RCL-2.
                let _scope = sync::enter(pages.hal(), Scope::Reclaim);
                let _ = self.round(pages.hal(), Gfp::KERNEL, priority);
                let _ = self.purge(pages.hal(), Gfp::KERNEL);
            }
            pages.drain_all();
            if pages.freed_since(&before) == 0 {
                // Harder, until there is no harder.
                let Some(harder) = priority.checked_sub(1) else { break };
                priority = harder;
            }
        }
        let done = balanced();
        if pages.settle_boost() {
            pages.announce();
        }
        pages.reclaimer_rests();
        if done { Balanced::Yes } else { Balanced::No }
    }
}
