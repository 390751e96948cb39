//! The count-down of one context.

use super::context::FaultContext;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Contexts that can have a call fail at the same time.
pub(super) const SLOTS: usize = 8;

/// No context.
pub(super) const FREE: u32 = u32::MAX;

/// A context and how many of its calls are left to the one that fails.
#[derive(Debug)]
pub(super) struct NthSlot {
    /// - `NTH-1`: the number of the context that has the slot, or `FREE`; no two slots have the same one.
    pub(super) context: AtomicU32,
    /// 0: the call has failed.
    pub(super) left: AtomicU32,
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
