//! Calls on per-CPU memory that the caller names: only the caller knows whether it owns it.
//!
//! Each is declared `unsafe` here for outside callers, and calls a `do_…` function of this crate, which does the work.

use super::{PerCpuAllocator, PerCpuError, PerCpuHal, PerCpuPtr};

impl<'s, 'a, H: PerCpuHal<'a>> PerCpuAllocator<'s, 'a, H> {
    /// Frees an allocation (Linux: `free_percpu`). Any context; needs no memory.
    ///
    /// # Errors
    ///
    /// [`PerCpuError::NotAllocated`].
    ///
    /// # Safety
    ///
    /// The caller owns the memory, alone: it came from this allocator, no owning type (`PerCpu`) holds it, and nobody
    /// uses it after the call. A name that is wrong in itself (free already, not its start) is found and refused.
    #[inline]
    pub unsafe fn free(&self, ptr: PerCpuPtr) -> Result<(), PerCpuError> {
        self.do_free(ptr)
    }
}
