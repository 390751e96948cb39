//! L2: the scopes of the running context, and locks that know them.
//!
//! Sleeping is allowed where interrupts are unmasked, no interrupt is being handled, no lock is held and no memory is being
//! reclaimed. [`Scopes`] counts all of it, so that one test answers; the guards keep the counts. In a kernel with threads
//! [`switch_thread`] moves the counts with the thread.
//!
//! Every lock is an [`OrderedLock`] of a [`class`], whose place in the one order of all locks the checking build holds every
//! call to (docs/locks.md).

pub mod class;
mod cpu_guard;
mod held_locks;
mod lock;
mod ordered;
mod scopes;
mod sleep;
mod thread;
mod waiting;

pub use cpu_guard::{CpuGuard, pin_cpu};
pub use held_locks::{CHECKED, Held, HeldLocks, LockContext, LockHal, Violation, Watched};
pub use lock::{Lock, LockGuard};
pub use ordered::{OrderedGuard, OrderedLock};
pub use scopes::{ScopeGuard, Scopes, enter};
pub use sleep::{Sleeper, rest, sleep_for_memory};
pub use thread::{RunningThread, SwitchError, ThisCpu, ThreadContext, switch_thread};
pub(crate) use waiting::{Once, Waiting};
