//! Pools of values of one type.

use super::backing::Backing;
use super::error::{PoolDestroyError, PoolEmpty};
use super::pool::{PoolHal, RawMempool};
use crate::gfp::Gfp;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// A pool of elements that hold a `T`, given out as boxes which give themselves back.
///
/// The boxes borrow the pool, so that it outlives them:
///
/// ```compile_fail,E0505
/// use quarry::mm::mempool::{Backing, Mempool, PoolHal};
/// fn destroy<H: PoolHal, B: Backing>(pool: Mempool<'_, u64, H, B>) {
///     let element = pool.alloc(1, quarry::gfp::Gfp::ATOMIC);
///     let _ = pool.destroy();
///     drop(element);
/// }
/// ```
///
/// # Invariants
///
/// - `TPOOL-1`: the elements of `pool` have the size and the alignment of `T`.
pub struct Mempool<'s, T, H: PoolHal, B: Backing> {
    pool: RawMempool<'s, H, B>,
    /// It has room for them, and owns none.
    holds: PhantomData<fn() -> T>,
}

impl<'s, T, H: PoolHal, B: Backing> Mempool<'s, T, H, B> {
    /// A pool of values in the elements of `pool`.
    ///
    /// # Safety
    ///
    /// `TPOOL-1`.
    #[must_use]
    pub const unsafe fn over(pool: RawMempool<'s, H, B>) -> Self {
        // INVARIANT: TPOOL-1 is the caller's promise.
        Self { pool, holds: PhantomData }
    }

    /// The pool as one of pointers, for its size and its figures.
    #[must_use]
    pub const fn raw(&self) -> &RawMempool<'s, H, B> {
        &self.pool
    }

    /// A box of `value`. Context as `gfp` says; with [`Gfp::DIRECT_RECLAIM`] it waits until there is room for one.
    ///
    /// # Errors
    ///
    /// As for [`RawMempool::alloc`]; the value is dropped then.
    #[inline]
    pub fn alloc(&self, value: T, gfp: Gfp) -> Result<MempoolBox<'_, 's, T, H, B>, PoolEmpty> {
        let at = self.pool.alloc(gfp)?.cast::<T>();
        // SAFETY: TPOOL-1: room for a value, without another owner.
        unsafe { at.write(value) };
        // INVARIANT: PBOX-1: written just now.
        Ok(MempoolBox { at, pool: &self.pool, owns: PhantomData })
    }

    /// Gives the pool up; see [`RawMempool::destroy`]. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// With the pool, if boxes were forgotten: [`PoolDestroyError`].
    #[expect(clippy::result_large_err, reason = "the pool comes back as it was, by value")]
    pub fn destroy(self) -> Result<B, (Self, PoolDestroyError)> {
        self.pool.destroy().map_err(|(pool, why)| (Self { pool, holds: PhantomData }, why))
    }
}

impl<T, H: PoolHal, B: Backing> fmt::Debug for Mempool<'_, T, H, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pool.fmt(f)
    }
}

/// Owns a value in an element of a pool. Dropping it drops the value and frees the element. Any context.
///
/// # Invariants
///
/// - `PBOX-1`: at `at` is a value, in an element of `pool`; both are this box's alone.
pub struct MempoolBox<'p, 's, T, H: PoolHal, B: Backing> {
    at: NonNull<T>,
    pool: &'p RawMempool<'s, H, B>,
    owns: PhantomData<T>,
}

// SAFETY: PBOX-1: the value is this box's alone; elements are freed on any CPU.
unsafe impl<T: Send, H: PoolHal + Sync, B: Backing + Sync> Send for MempoolBox<'_, '_, T, H, B> {}
// SAFETY: PBOX-1: the value is this box's alone; elements are freed on any CPU.
unsafe impl<T: Sync, H: PoolHal + Sync, B: Backing + Sync> Sync for MempoolBox<'_, '_, T, H, B> {}

impl<T, H: PoolHal, B: Backing> Drop for MempoolBox<'_, '_, T, H, B> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: PBOX-1, and the value is not used afterwards.
        unsafe { self.at.drop_in_place() };
        self.pool.do_free_reported(self.at.cast());
    }
}

impl<T, H: PoolHal, B: Backing> Deref for MempoolBox<'_, '_, T, H, B> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: PBOX-1.
        unsafe { self.at.as_ref() }
    }
}

impl<T, H: PoolHal, B: Backing> DerefMut for MempoolBox<'_, '_, T, H, B> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: PBOX-1.
        unsafe { self.at.as_mut() }
    }
}

impl<T: fmt::Debug, H: PoolHal, B: Backing> fmt::Debug for MempoolBox<'_, '_, T, H, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
