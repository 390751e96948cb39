//! Calls on mappings that the caller names: only the caller knows whether it owns them.
//!
//! Each is declared `unsafe` here for outside callers, and calls a `do_…` function of this crate, which does the work.

use super::devres::{Devres, NotKept};
use super::{IoError, IoHal, IoSpace};
use crate::addr::VirtAddr;
use crate::mm::alloc::{Allocator, Stateless};

impl<'s, 'a, H: IoHal<'a>> IoSpace<'s, 'a, H> {
    /// Unmaps a mapping, named by exactly the address that was returned for it; address zero is a no-op. When it returns, no
    /// CPU translates it. Any context. Needs no memory.
    ///
    /// # Errors
    ///
    /// [`IoError::Area`] for an address in no area or in one of another kind; [`NotThePointer`](IoError::NotThePointer)
    /// for another address of a mapping, or one that another caller is unmapping. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the area, alone: no owning type (`VBox`, `VVec`, `Vmap`, `IoMem`, …) holds it, and after the
    /// call nobody uses its addresses, or the memory of its pages if they are its own. A name that is wrong in itself
    /// (no area, not its start, another kind) is found and refused.
    #[inline]
    pub unsafe fn iounmap(&self, addr: VirtAddr) -> Result<(), IoError> {
        self.do_iounmap(addr)
    }

    /// Unmaps a mapping of [`IoSpace::memremap`]. For an address in the linear map it is a no-op.
    ///
    /// # Errors
    ///
    /// The errors of [`IoSpace::iounmap`].
    ///
    /// # Safety
    ///
    /// The caller owns the area, alone: no owning type (`VBox`, `VVec`, `Vmap`, `IoMem`, …) holds it, and after the
    /// call nobody uses its addresses, or the memory of its pages if they are its own. A name that is wrong in itself
    /// (no area, not its start, another kind) is found and refused.
    #[inline]
    pub unsafe fn memunmap(&self, addr: VirtAddr) -> Result<(), IoError> {
        self.do_memunmap(addr)
    }
}

impl<A: Allocator + Stateless> Devres<A> {
    /// Frees memory of the device early (Linux: `devm_kfree`). O(entries kept since). Any context.
    ///
    /// # Errors
    ///
    /// [`NotKept`] for anything else, null among it; nothing has changed then.
    ///
    /// # Safety
    ///
    /// The memory is the caller's, which got it from [`Devres::memory`], and nobody uses it afterwards.
    pub unsafe fn free_memory(&self, memory: *mut u8) -> Result<(), NotKept> {
        self.do_free_memory(memory)
    }
}
