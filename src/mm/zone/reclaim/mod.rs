//! Reclaim: what frees memory when it is short, in the order of what it costs (Linux: `mm/vmscan.c`, `mm/oom_kill.c`).
//!
//! There is no page cache here and nothing to swap: memory comes back from caches that register a [`Shrinker`], from
//! areas that are unmapped lazily ([`Purge`]), from the lists of other CPUs, and at the very end from an [`OomHook`].
//!
//! ```text
//!   below low   the background reclaimer is woken, once; it reclaims up to high        (background.rs)
//!   below min   who may wait reclaims itself: shrinkers, lazy areas, CPUs' lists       (direct.rs)
//!   no success  the OOM hook, for small requests that may do anything                  (oom.rs)
//!   NOFAIL      waits until pages come back                                            (direct.rs)
//! ```
//!
//! All of it runs with no lock held, inside [`Scope::Reclaim`]: an allocation by a
//! shrinker or a hook uses the reserve, and neither reclaims nor waits. So nothing here calls itself.

mod background;
mod direct;
mod oom;
mod progress;
mod registry;
mod shrinker;

pub use background::Balanced;
pub use oom::{MemReport, OomHook, OomReport};
pub use registry::{Notes, REGISTRY_PLACES, Registration, Registry, RegistryError};
pub use shrinker::{Scanned, Shrinker};

use super::{PageAllocator, PageHal};
use crate::gfp::Gfp;
use crate::hal::wait::{Context, Scope, Wait, WaitQueue};
use crate::sync::LockHal;
use background::Background;
use core::sync::atomic::{AtomicU64, Ordering};
use shrinker::Round;

/// Interface of a machine for reclaim.
pub trait ReclaimHal: PageHal + Wait + Context {}

impl<H: PageHal + Wait + Context> ReclaimHal for H {}

/// Somebody who holds pages only because giving them back is cheaper for many at once: areas that wait for one TLB
/// invalidation. Runs as a [`Shrinker`] does.
pub trait Purge: Sync {
    /// The name in reports. Any context, whatever locks are held: takes none.
    fn name(&self) -> &str;

    /// Pages that it holds.
    fn lazy_pages(&self) -> u64;

    /// Gives all of them back.
    fn purge(&self, gfp: Gfp);
}

/// Counts of the work done so far. Each only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReclaimEvents {
    /// Times that an allocation reclaimed for itself (Linux: `allocstall`).
    pub direct: u64,
    /// Times that the background reclaimer worked.
    pub background: u64,
    /// Objects that shrinkers freed.
    pub objects: u64,
    /// Times that an OOM hook was called.
    pub oom: u64,
    /// Times that an allocation waited for pages.
    pub waits: u64,
}

#[derive(Debug, Default)]
struct Counters {
    direct: AtomicU64,
    background: AtomicU64,
    objects: AtomicU64,
    oom: AtomicU64,
    waits: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Sources of memory for a [`PageAllocator`] that runs short, and the state of their work.
///
/// # Invariants
///
/// - `RCL-1`: no lock is held while a shrinker, a purge or a hook runs.
/// - `RCL-2`: they run inside [`Scope::Reclaim`], and nobody starts to reclaim who is inside already.
/// - `RCL-3`: an allocation asks for relief `direct::ATTEMPTS_MAX` times at most, unless it is to wait.
pub struct Reclaim<R> {
    shrinkers: Registry<dyn Shrinker, R>,
    purges: Registry<dyn Purge, R>,
    hooks: Registry<dyn OomHook, R>,
    background: Background,
    /// Waiters for pages.
    freed: WaitQueue,
    /// Waiters for an OOM hook that runs for somebody else.
    hook: oom::Turn,
    counters: Counters,
}

impl<R: LockHal> Reclaim<R> {
    /// Nobody is registered: allocations fail when memory is used up.
    pub const fn new() -> Self {
        Self {
            shrinkers: Registry::new(),
            purges: Registry::new(),
            hooks: Registry::new(),
            background: Background::new(),
            freed: WaitQueue::new(),
            hook: oom::Turn::new(),
            counters: Counters {
                direct: AtomicU64::new(0),
                background: AtomicU64::new(0),
                objects: AtomicU64::new(0),
                oom: AtomicU64::new(0),
                waits: AtomicU64::new(0),
            },
        }
    }

    /// Caches that can shrink.
    pub const fn shrinkers(&self) -> &Registry<dyn Shrinker, R> {
        &self.shrinkers
    }

    /// Holders of lazily freed pages.
    pub const fn purges(&self) -> &Registry<dyn Purge, R> {
        &self.purges
    }

    /// Hooks that are asked last, in the order of registration.
    pub const fn oom_hooks(&self) -> &Registry<dyn OomHook, R> {
        &self.hooks
    }

    /// Counts of the work done so far.
    #[must_use]
    pub fn events(&self) -> ReclaimEvents {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReclaimEvents {
            direct: read(&self.counters.direct),
            background: read(&self.counters.background),
            objects: read(&self.counters.objects),
            oom: read(&self.counters.oom),
            waits: read(&self.counters.waits),
        }
    }

    /// Wakes the waiters for pages, since some have been freed: the body of [`Pressure::freed`](super::Pressure::freed). Any
    /// context.
    pub fn pages_freed<H: Wait>(&self, hal: &H) {
        hal.wake(&self.freed);
    }

    /// Once around all shrinkers. The caller is inside [`Scope::Reclaim`].
    fn round<H: ReclaimHal>(&self, hal: &H, gfp: Gfp, priority: u32) -> Round {
        let mut sum = Round::default();
        let _: Option<()> = self.shrinkers.visit(hal, |shrinker, notes| {
            let round = shrinker::shrink(shrinker, notes, gfp, priority);
            sum.objects = sum.objects.saturating_add(round.objects);
            sum.freed = sum.freed.saturating_add(round.freed);
            None
        });
        count(&self.counters.objects, sum.freed);
        sum
    }

    /// Lets everybody purge who holds pages lazily: whether there were any.
    fn purge<H: ReclaimHal>(&self, hal: &H, gfp: Gfp) -> bool {
        let mut any = false;
        let _: Option<()> = self.purges.visit(hal, |purge, notes| {
            let lazy = purge.lazy_pages();
            notes.set_held(lazy);
            if lazy != 0 {
                any = true;
                purge.purge(gfp);
            }
            None
        });
        any
    }
}

impl<R: LockHal> Default for Reclaim<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// The flags of an allocation as the scopes of its context leave them (Linux: `current_gfp_context`, and what
/// `PF_MEMALLOC` does): for [`Pressure::scoped`](super::Pressure::scoped).
pub fn scoped_gfp<C: Context>(context: &C, gfp: Gfp) -> Gfp {
    let mut scoped = gfp;
    if context.is_inside(Scope::NoIo) {
        scoped.remove(Gfp::IO | Gfp::FS);
    }
    if context.is_inside(Scope::NoFs) {
        scoped.remove(Gfp::FS);
    }
    if context.is_inside(Scope::Memalloc) || context.is_inside(Scope::Reclaim) {
        scoped.insert(Gfp::MEMALLOC);
    }
    scoped
}
