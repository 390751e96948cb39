//! A spin lock whose holder may not wait, and gets an error if it tries.
#![forbid(unsafe_code)]

use super::class::Embedder;
use super::held_locks::LockHal;
use super::ordered::{OrderedGuard, OrderedLock};
use super::{ScopeGuard, enter};
use crate::hal::wait::{Context, Scope};
use core::ops::{Deref, DerefMut};

/// A spin lock (Linux: `spinlock_t`). Not for data that an interrupt handler locks too: interrupts stay as they are. Taken
/// before all locks of the library, never while one of them is held.
#[derive(Debug)]
pub struct Lock<T, C: Context, R: LockHal> {
    context: C,
    data: OrderedLock<T, Embedder, R>,
}

impl<T, C: Context, R: LockHal> Lock<T, C, R> {
    /// An open lock; `context` belongs to the CPU that takes it.
    pub const fn new(context: C, data: T) -> Self {
        Self { context, data: OrderedLock::new(data) }
    }

    /// Waits for the lock and takes it. Any context that does not hold it, interrupt handlers aside.
    #[track_caller]
    pub fn lock(&self) -> LockGuard<'_, T, C, R> {
        // First, so that there is no moment at which the lock is held and waiting is not forbidden.
        let scope = enter(&self.context, Scope::Lock);
        LockGuard { data: self.data.lock(), _scope: scope }
    }
}

/// A lock that is held until this is dropped.
#[must_use = "the lock is opened when the guard is dropped"]
#[derive(Debug)]
pub struct LockGuard<'l, T, C: Context, R: LockHal> {
    /// Dropped first.
    data: OrderedGuard<'l, T, Embedder, R>,
    _scope: ScopeGuard<'l, C>,
}

impl<T, C: Context, R: LockHal> Deref for LockGuard<'_, T, C, R> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T, C: Context, R: LockHal> DerefMut for LockGuard<'_, T, C, R> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}
