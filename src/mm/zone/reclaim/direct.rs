//! Direct reclaim: an allocation that found nothing frees memory itself, and how often it may try (Linux:
//! `__alloc_pages_slowpath`, `should_reclaim_retry`).
#![forbid(unsafe_code)]

use super::super::{PageAllocator, Relief, Shortage};
use super::shrinker::DEF_PRIORITY;
use super::{Reclaim, ReclaimHal, count};
use crate::addr::Order;
use crate::gfp::Gfp;
use crate::hal::wait::{Scope, Waited};
use crate::sync;
use crate::sync::LockHal;

/// The largest order for which memory is worth killing and retrying for: larger blocks are had by luck, and their callers
/// have another way (Linux: `PAGE_ALLOC_COSTLY_ORDER`).
pub(super) const COSTLY_ORDER: u8 = 3;
/// Attempts in a row that freed nothing before the OOM hook is called (Linux: `MAX_RECLAIM_RETRIES`).
const FRUITLESS_MAX: u32 = 16;
/// Attempts in all, fruitful ones included: others may take what is freed as fast as it comes.
pub(super) const ATTEMPTS_MAX: u32 = 1 << 10;
/// Pages that one attempt is to free at least (Linux: `SWAP_CLUSTER_MAX`).
const CLUSTER: u64 = 32;

/// Result of one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Harvest {
    /// Pages were freed.
    Pages,
    /// None were, but there are caches that hold something.
    Nothing,
    /// There is nothing that could be freed.
    Barren,
}

impl<R: LockHal> Reclaim<R> {
    /// Frees memory for an allocation that may wait, or says that it must fail: what
    /// [`Pressure::relieve`](super::super::Pressure::relieve) is to call.
    ///
    /// Each call reclaims once. `NORETRY`, and orders above 3 without `RETRY_MAYFAIL`, get one call. `RETRY_MAYFAIL` goes
    /// on while there is progress. Others go on until sixteen calls in a row freed nothing; then comes the OOM hook, which
    /// small requests get that may do anything ([`Gfp::FS`]) and want no special zone. `NOFAIL` waits then, and fails only
    /// if [`Wait::wait`](crate::hal::wait::Wait::wait) says that nobody will ever free anything, and the hook gives up.
    pub fn relieve<H: ReclaimHal<Relax = R>>(&self, pages: &PageAllocator<H>, shortage: &Shortage) -> Relief {
        let Shortage { gfp, order, attempt, fruitless, .. } = *shortage;
        // INVARIANT: RCL-2. The allocator asks nobody who may not wait; this is the second line.
        if pages.hal().is_inside(Scope::Reclaim) {
            return Relief::GiveUp;
        }
        let never_fails = gfp.contains(Gfp::NOFAIL);
        // INVARIANT: RCL-3.
        if attempt >= ATTEMPTS_MAX && !never_fails {
            return Relief::GiveUp;
        }
        let tries = gfp.contains(Gfp::RETRY_MAYFAIL);
        let costly = order.get() > COSTLY_ORDER;
        let once = gfp.contains(Gfp::NORETRY) || (costly && !tries && !never_fails);
        if once && attempt > 0 {
            return Relief::GiveUp;
        }
        let harvest = self.reclaim(pages, gfp, order);
        match harvest {
            // A large block needs neighbours: pages freed are no progress towards it as such.
            Harvest::Pages if !costly => return Relief::Retry,
            Harvest::Pages | Harvest::Nothing if once => return Relief::Fruitless,
            Harvest::Pages | Harvest::Nothing if fruitless < FRUITLESS_MAX => return Relief::Fruitless,
            _ if once => return Relief::GiveUp,
            _ => {}
        }
        // Marks that were raised to keep large blocks together are not worth killing or waiting for.
        if pages.settle_boost() && attempt < ATTEMPTS_MAX {
            return Relief::Fruitless;
        }
        let killed = if self.is_worth_killing(shortage) && fruitless < 2 * FRUITLESS_MAX {
            self.out_of_memory(pages, shortage, false)
        } else {
            Relief::GiveUp
        };
        match killed {
            Relief::GiveUp if never_fails => self.wait_for_pages(pages, shortage),
            answer => answer,
        }
    }

    /// One attempt: harder and harder until something comes.
    fn reclaim<H: ReclaimHal<Relax = R>>(&self, pages: &PageAllocator<H>, gfp: Gfp, order: Order) -> Harvest {
        count(&self.counters.direct, 1);
        let hal = pages.hal();
        // INVARIANT: RCL-2.
        let _scope = sync::enter(hal, Scope::Reclaim);
        let before = pages.freed_so_far();
        let freed = || pages.freed_since(&before);
        let mut objects = 0;
        for priority in (0..=DEF_PRIORITY).rev() {
            let round = self.round(hal, gfp, priority);
            objects = round.objects;
            if freed() >= CLUSTER.max(order.pages()) || objects == 0 {
                break;
            }
        }
        let purged = freed() < CLUSTER.max(order.pages()) && self.purge(hal, gfp);
        match freed() {
            0 if objects == 0 && !purged => Harvest::Barren,
            0 => Harvest::Nothing,
            _ => Harvest::Pages,
        }
    }

    /// Waits until the request could be served. Meanwhile frees take the slow path, where they wake waiters.
    /// The next attempt reaches into the reserves if this one did not, so a request that they can serve does not wait.
    fn wait_for_pages<H: ReclaimHal<Relax = R>>(&self, pages: &PageAllocator<H>, shortage: &Shortage) -> Relief {
        count(&self.counters.waits, 1);
        pages.await_frees();
        let next = Shortage { attempt: shortage.attempt.saturating_add(1), ..*shortage };
        let waited = pages.hal().wait(&self.freed, &mut || pages.would_serve(&next));
        pages.stop_awaiting();
        match waited {
            Waited::Woken => Relief::Fruitless,
            Waited::WouldNeverWake => self.out_of_memory(pages, shortage, true),
        }
    }
}
