//! L2: what the running context is inside of, and locks that know it.
//!
//! Waiting is legal where interrupts are unmasked, no interrupt is being handled, no lock is held and no memory is being
//! reclaimed. [`Scopes`] counts all of it, so that one test answers; the guards keep the counts.

mod lock;
mod scopes;

pub use lock::{Lock, LockGuard};
pub use scopes::{ScopeGuard, Scopes, enter};
