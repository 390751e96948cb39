//! Direct reclaim: an allocation that found nothing frees memory itself, and how often it may try (Linux:
//! `__alloc_pages_slowpath`, `should_reclaim_retry`).
//!
//! The allocator calls [`Reclaim::relieve`] once for each attempt that found nothing, with no lock held and interrupts as the
//! request came. The steps, in their order in this file:
//!
//! | step | function | what follows |
//! |---|---|---|
//! | how hard the request may try | [`Effort::of`] | |
//! | whether all of that is spent | [`Effort::is_spent`] | the request fails |
//! | one attempt: shrinkers, lazy areas | `reclaim` | pages came: the request looks again |
//! | nothing came | [`Effort::after`] | another attempt, up to [`FRUITLESS_MAX`] in a row; or the request fails |
//! | marks that were raised for large blocks | `settle_boost` | another attempt |
//! | the OOM hook, for requests that are worth it | `is_worth_killing`, `out_of_memory` | another attempt |
//! | `NOFAIL` alone: wait for a free | `wait_for_pages` | another attempt; the hook, if nobody is left who could free |
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

/// How hard a request tries: the table of docs/reclaim.md, whose last column is
/// [`is_worth_killing`](Reclaim::is_worth_killing).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effort {
    /// One attempt.
    Once,
    /// Until many attempts in a row have freed nothing.
    UntilFruitless,
    /// The same, and then it waits.
    NeverFails,
}

/// The next step of a request after an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// The allocator looks again.
    Look(Relief),
    /// The request fails.
    Fail,
    /// Reclaim has nothing more to offer.
    LastResorts,
}

impl Effort {
    const fn of(gfp: Gfp, costly: bool) -> Self {
        if gfp.contains(Gfp::NORETRY) {
            Self::Once
        } else if gfp.contains(Gfp::NOFAIL) {
            Self::NeverFails
        } else if costly && !gfp.contains(Gfp::RETRY_MAYFAIL) {
            Self::Once
        } else {
            Self::UntilFruitless
        }
    }

    /// Whether a request has made all attempts that it has, `attempt` of them.
    const fn is_spent(self, attempt: u32) -> bool {
        match self {
            Self::Once => attempt > 0,
            // INVARIANT: RCL-3.
            Self::UntilFruitless => attempt >= ATTEMPTS_MAX,
            Self::NeverFails => false,
        }
    }

    /// The step after an attempt, of which `fruitless` in a row before it freed nothing.
    const fn after(self, harvest: Harvest, costly: bool, fruitless: u32) -> Next {
        match (harvest, self) {
            // A large block needs neighbours: pages freed are no progress towards it as such.
            (Harvest::Pages, _) if !costly => Next::Look(Relief::Retry),
            (Harvest::Pages | Harvest::Nothing, Self::Once) => Next::Look(Relief::Fruitless),
            (Harvest::Barren, Self::Once) => Next::Fail,
            (Harvest::Pages | Harvest::Nothing, _) if fruitless < FRUITLESS_MAX => Next::Look(Relief::Fruitless),
            _ => Next::LastResorts,
        }
    }
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
        let costly = order.get() > COSTLY_ORDER;
        let effort = Effort::of(gfp, costly);
        // INVARIANT: RCL-2. The allocator asks nobody who may not wait; this is the second line.
        if pages.hal().is_inside(Scope::Reclaim) || effort.is_spent(attempt) {
            return Relief::GiveUp;
        }
        match effort.after(self.reclaim(pages, gfp, order), costly, fruitless) {
            Next::Look(relief) => relief,
            Next::Fail => Relief::GiveUp,
            Next::LastResorts => self.last_resorts(pages, shortage, effort),
        }
    }

    /// All that is left when attempts free nothing.
    fn last_resorts<H: ReclaimHal<Relax = R>>(
        &self,
        pages: &PageAllocator<H>,
        shortage: &Shortage,
        effort: Effort,
    ) -> Relief {
        // Marks that were raised to keep large blocks together are not worth killing or waiting for.
        if pages.settle_boost() && shortage.attempt < ATTEMPTS_MAX {
            return Relief::Fruitless;
        }
        if self.is_worth_killing(shortage) && shortage.fruitless < 2 * FRUITLESS_MAX {
            let answer = self.out_of_memory(pages, shortage, false);
            if answer != Relief::GiveUp {
                return answer;
            }
        }
        match effort {
            Effort::NeverFails => self.wait_for_pages(pages, shortage),
            Effort::Once | Effort::UntilFruitless => Relief::GiveUp,
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
