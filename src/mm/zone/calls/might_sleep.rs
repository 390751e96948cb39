//! The one test of whatever may sleep, before it changes anything (Linux: `might_sleep`).
#![forbid(unsafe_code)]

use super::super::{PageAllocator, PageHal};
use core::fmt;

/// A call was refused that may sleep, and that was made where sleeping is not allowed: with interrupts masked, in an interrupt
/// handler, with a lock held, inside a reclaimer. It has been reported, and nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SleepsInAtomic {
    /// The call.
    pub call: &'static str,
}

impl fmt::Display for SleepsInAtomic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} may sleep, and was called in atomic context", self.call)
    }
}

impl core::error::Error for SleepsInAtomic {}

impl<H: PageHal> PageAllocator<H> {
    /// Asserts that sleeping is allowed where the caller is: the first thing that a function does whose documentation says
    /// "where sleeping is allowed", on every call, whether it would sleep this time or not. `call` is its name. Where it is
    /// not legal, that is reported ([`Pressure::sleeps_in_atomic`](super::super::Pressure::sleeps_in_atomic)), and the function is
    /// to refuse. Any context.
    ///
    /// # Errors
    ///
    /// [`SleepsInAtomic`].
    pub fn might_sleep(&self, call: &'static str) -> Result<(), SleepsInAtomic> {
        if self.may_wait() {
            return Ok(());
        }
        self.hal.sleeps_in_atomic(call);
        Err(SleepsInAtomic { call })
    }
}
