//! The n-th call of one context (Linux: `/proc/self/fail-nth`).

use super::nth_slot::{FREE, NthSlot};
use super::{FaultContext, FaultInjector};
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

/// Reason why no call can be counted.
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
