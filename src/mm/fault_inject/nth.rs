//! The n-th call of one context (Linux: `/proc/self/fail-nth`).

use super::{FaultContext, FaultInjector};
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Contexts that can have a call fail at the same time.
pub(super) const SLOTS: usize = 8;

/// No context.
const FREE: u32 = u32::MAX;

/// A context and how many of its calls are left to the one that fails.
#[derive(Debug)]
pub(super) struct NthSlot {
    /// - `NTH-1`: the number of the context that has the slot, or `FREE`; no two slots have the same one.
    context: AtomicU32,
    /// 0: the call has failed.
    left: AtomicU32,
}

impl NthSlot {
    pub(super) const fn new() -> Self {
        Self { context: AtomicU32::new(FREE), left: AtomicU32::new(0) }
    }

    pub(super) fn is_of(&self, context: FaultContext) -> bool {
        context != FaultContext::INTERRUPT && self.context.load(Relaxed) == context.get()
    }

    /// Counts a call of the context of the slot. Returns whether it is the one that fails, or `None` if that one is past.
    pub(super) fn count(&self) -> Option<bool> {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok().map(|left| left == 1)
    }
}

/// Why no call can be counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSlot;

impl fmt::Display for NoSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the context's calls are counted already, or too many others' are, or it is an interrupt")
    }
}

impl core::error::Error for NoSlot {}

/// One context's n-th call from now fails, as long as this is there.
#[derive(Debug)]
#[must_use = "nothing fails any more once this is dropped"]
pub struct FailNth<'i> {
    injector: &'i FaultInjector,
    slot: &'i NthSlot,
}

impl FailNth<'_> {
    /// Whether the call has come and failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.slot.left.load(Relaxed) == 0
    }
}

impl Drop for FailNth<'_> {
    fn drop(&mut self) {
        self.slot.left.store(0, Relaxed);
        self.slot.context.store(FREE, Relaxed);
        self.injector.disarm();
    }
}

impl FaultInjector {
    /// Makes the `nth` call of `context` from now on fail, at any site and regardless of the site's filters; 1 is the very next
    /// one. Only [`Gfp::NOFAIL`](crate::gfp::Gfp::NOFAIL) is never counted. Any context; called by the context itself, or while
    /// it does nothing.
    ///
    /// # Errors
    ///
    /// [`NoSlot`].
    pub fn fail_nth(&self, context: FaultContext, nth: u32) -> Result<FailNth<'_>, NoSlot> {
        if context == FaultContext::INTERRUPT || self.slots.iter().any(|slot| slot.is_of(context)) {
            return Err(NoSlot);
        }
        // INVARIANT: NTH-1: nobody else claims a slot for this context.
        let claim = |slot: &&NthSlot| slot.context.compare_exchange(FREE, context.get(), Relaxed, Relaxed).is_ok();
        let slot = self.slots.iter().find(claim).ok_or(NoSlot)?;
        slot.left.store(nth, Relaxed);
        self.arm();
        Ok(FailNth { injector: self, slot })
    }
}
