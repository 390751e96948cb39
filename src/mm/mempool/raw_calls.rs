//! Calls on elements that the caller names: only the caller knows whether it owns them.
//!
//! Each is declared `unsafe` here for outside callers, and calls a `do_…` function of this crate, which does the work.

use super::backing::Backing;
use super::error::NotFreed;
use super::pool::{PoolHal, RawMempool};
use core::ptr::NonNull;

impl<H: PoolHal, B: Backing> RawMempool<'_, H, B> {
    /// Frees an element: into the reserve if that lacks one, and wakes its waiters; otherwise to the backing (Linux:
    /// `mempool_free`). Null is nothing to free. Any context. Cost: three instructions more than the backing's free.
    ///
    /// # Errors
    ///
    /// [`NotFreed`]; nothing has changed then. Errors that the backing finds are reported by it.
    ///
    /// # Safety
    ///
    /// The caller owns the element, alone: it came from this pool, no owning type (`MempoolBox`) holds it, and nobody uses it
    /// after the call. A name that is wrong in itself (no element, in the reserve already) is found and refused.
    #[inline(always)]
    pub unsafe fn free(&self, element: *mut u8) -> Result<(), NotFreed> {
        NonNull::new(element).map_or(Ok(()), |element| self.do_free(element))
    }
}
