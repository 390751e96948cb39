//! A spin lock with a place in the order of all locks.
#![forbid(unsafe_code)]

use super::Waiting;
use super::class::Class;
use super::held_locks::{self, Attempt, CHECKED, LockHal};
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A spin lock of class `C` (Linux: `raw_spinlock_t` with its `lock_class_key`). In the checking build every call is checked
/// against the locks that the CPU holds, and a call that could deadlock panics, naming both locks; in a release there is
/// nothing but the lock.
pub struct OrderedLock<T, C, R> {
    data: SpinMutex<T, Waiting<R>>,
    class: PhantomData<fn() -> C>,
}

impl<T, C: Class, R: LockHal> OrderedLock<T, C, R> {
    /// An open lock.
    pub const fn new(data: T) -> Self {
        Self { data: SpinMutex::new(data), class: PhantomData }
    }

    fn address(&self) -> usize {
        self.data.as_mut_ptr().addr()
    }

    /// Waits for the lock and takes it. Contexts as its class states.
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> OrderedGuard<'_, T, C, R> {
        if CHECKED {
            // Before it waits: a CPU that waits for itself would never report it.
            held_locks::taking::<R>(C::CLASS, self.address(), Attempt::Wait);
        }
        OrderedGuard { data: self.data.lock(), class: PhantomData, this_cpu: PhantomData }
    }

    /// [`OrderedLock::lock`] while another lock is held, and the compiler checks the order.
    ///
    /// ```
    /// use quarry::arch::host::Spin;
    /// use quarry::sync::{OrderedLock, class::{SlabNode, Zone}};
    /// let (node, zone) = (OrderedLock::<_, SlabNode, Spin>::new(1), OrderedLock::<_, Zone, Spin>::new(2));
    /// let outer = node.lock();
    /// assert_eq!(*zone.lock_inside(&outer), 2);
    /// ```
    ///
    /// The reverse order does not compile:
    ///
    /// ```compile_fail,E0080
    /// use quarry::arch::host::Spin;
    /// use quarry::sync::{OrderedLock, class::{SlabNode, Zone}};
    /// let (node, zone) = (OrderedLock::<_, SlabNode, Spin>::new(1), OrderedLock::<_, Zone, Spin>::new(2));
    /// let outer = zone.lock();
    /// assert_eq!(*node.lock_inside(&outer), 1);
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn lock_inside<U, O: Class, S: LockHal>(&self, outer: &OrderedGuard<'_, U, O, S>) -> OrderedGuard<'_, T, C, R> {
        const {
            assert!(O::CLASS.level < C::CLASS.level, "the lock that is held comes later in the order");
        }
        let _ = outer;
        self.lock()
    }

    /// Takes the lock if it is open. Any context, with any other lock held: it does not wait.
    #[inline(always)]
    #[track_caller]
    pub fn try_lock(&self) -> Option<OrderedGuard<'_, T, C, R>> {
        let data = self.data.try_lock()?;
        if CHECKED {
            held_locks::taking::<R>(C::CLASS, self.address(), Attempt::Taken);
        }
        Some(OrderedGuard { data, class: PhantomData, this_cpu: PhantomData })
    }
}

impl<T, C, R> fmt::Debug for OrderedLock<T, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderedLock").finish_non_exhaustive()
    }
}

/// A lock that is held until this is dropped, by the CPU that took it: so it is not `Send`.
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>() {}
/// is_send::<quarry::sync::OrderedGuard<'_, u8, quarry::sync::class::Zone, quarry::arch::host::Spin>>();
/// ```
#[must_use = "the lock is opened when the guard is dropped"]
pub struct OrderedGuard<'l, T, C: Class, R: LockHal> {
    data: SpinMutexGuard<'l, T, Waiting<R>>,
    class: PhantomData<C>,
    /// Neither `Send` nor `Sync`.
    this_cpu: PhantomData<*mut ()>,
}

impl<T, C: Class, R: LockHal> Drop for OrderedGuard<'_, T, C, R> {
    #[inline(always)]
    fn drop(&mut self) {
        if CHECKED {
            held_locks::giving::<R>(C::CLASS, (&raw const *self.data).addr());
        }
    }
}

impl<T, C: Class, R: LockHal> Deref for OrderedGuard<'_, T, C, R> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T, C: Class, R: LockHal> DerefMut for OrderedGuard<'_, T, C, R> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

impl<T: fmt::Debug, C: Class, R: LockHal> fmt::Debug for OrderedGuard<'_, T, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}
