//! The lock of a map of areas: many readers (faults) or one writer (`mmap` and its kin), all of which may sleep while they hold
//! it, since they allocate (Linux: `mmap_lock`).
#![forbid(unsafe_code)]

use crate::hal::wait::{Context, Wait, WaitQueue, Waited};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};
use spin::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The lock was not to be had: the caller may not wait, or nobody is left who would give it back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

/// A value that many read or one changes.
///
/// # Invariants
///
/// - `MAPL-1`: a writer that waits is counted before it tries, and readers stand back while one is counted: a stream of
///   readers does not keep a writer out.
/// - `MAPL-2`: a guard wakes the queue after the lock has been given back.
#[derive(Debug)]
pub(super) struct MapLock<T> {
    data: RwLock<T>,
    writers: AtomicU32,
    queue: WaitQueue,
}

/// Wakes the queue when it is dropped.
struct Wake<'l, W: Wait> {
    queue: &'l WaitQueue,
    wait: &'l W,
}

impl<W: Wait> Drop for Wake<'_, W> {
    #[inline]
    fn drop(&mut self) {
        self.wait.wake(self.queue);
    }
}

/// The value, to read. Fields are dropped in their order.
pub(super) struct Reader<'l, T, W: Wait> {
    guard: RwLockReadGuard<'l, T>,
    // INVARIANT: MAPL-2: dropped after the guard.
    _wake: Wake<'l, W>,
}

/// The value, to change. Fields are dropped in their order.
pub(super) struct Writer<'l, T, W: Wait> {
    guard: RwLockWriteGuard<'l, T>,
    // INVARIANT: MAPL-2: dropped after the guard.
    _wake: Wake<'l, W>,
}

impl<T> MapLock<T> {
    pub(super) const fn new(data: T) -> Self {
        Self { data: RwLock::new(data), writers: AtomicU32::new(0), queue: WaitQueue::new() }
    }

    /// Reads, if nobody changes it or waits to. Never waits.
    #[inline]
    pub(super) fn try_read<'l, W: Wait>(&'l self, wait: &'l W) -> Result<Reader<'l, T, W>, Busy> {
        if self.writers.load(Ordering::Relaxed) != 0 {
            return Err(Busy);
        }
        let guard = self.data.try_read().ok_or(Busy)?;
        Ok(Reader { guard, _wake: Wake { queue: &self.queue, wait } })
    }

    /// Reads. Waits for a writer if the context may wait, and else is [`Self::try_read`].
    #[inline]
    pub(super) fn read<'l, W: Wait + Context>(&'l self, wait: &'l W) -> Result<Reader<'l, T, W>, Busy> {
        match self.try_read(wait) {
            Err(Busy) if wait.atomic().is_none() => self.wait_for(wait, || self.try_read(wait)),
            result => result,
        }
    }

    /// Changes. Waits for others if the context may wait, and else tries once.
    pub(super) fn write<'l, W: Wait + Context>(&'l self, wait: &'l W) -> Result<Writer<'l, T, W>, Busy> {
        let attempt = || {
            let guard = self.data.try_write().ok_or(Busy)?;
            Ok(Writer { guard, _wake: Wake { queue: &self.queue, wait } })
        };
        match attempt() {
            Err(Busy) if wait.atomic().is_none() => {
                // INVARIANT: MAPL-1.
                self.writers.fetch_add(1, Ordering::SeqCst);
                let result = self.wait_for(wait, attempt);
                self.writers.fetch_sub(1, Ordering::SeqCst);
                // Readers that stood back for this writer, if it gave up.
                if result.is_err() {
                    wait.wake(&self.queue);
                }
                result
            }
            result => result,
        }
    }

    #[cold]
    fn wait_for<'l, W: Wait, G>(
        &'l self,
        wait: &'l W,
        mut attempt: impl FnMut() -> Result<G, Busy>,
    ) -> Result<G, Busy> {
        let mut had = Err(Busy);
        let waited = wait.wait(&self.queue, &mut || {
            had = attempt();
            had.is_ok()
        });
        match waited {
            Waited::Woken => had,
            Waited::WouldNeverWake => Err(Busy),
        }
    }

    /// The value of a lock that nobody else has.
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }
}

impl<T, W: Wait> Deref for Reader<'_, T, W> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, W: Wait> Deref for Writer<'_, T, W> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, W: Wait> DerefMut for Writer<'_, T, W> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
