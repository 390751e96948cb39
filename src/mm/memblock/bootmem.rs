//! The older names of boot-time allocation, `alloc_bootmem` and its family, as thin calls.
#![forbid(unsafe_code)]

use super::{Memblock, MemblockError, PhysAddr, PhysRange, Window};
use crate::addr::PAGE_SIZE;
use crate::hal::BootMemory;

/// Bytes of the cache line that small allocations are aligned to (Linux: `SMP_CACHE_BYTES`).
pub const SMP_CACHE_BYTES: u64 = 64;

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// One past the highest address that counts as low.
    #[must_use]
    pub const fn low_limit(&self) -> PhysAddr {
        self.low_limit
    }

    /// Calls memory below `limit` low: the end of the board's DMA limit (Linux: `ARCH_LOW_ADDRESS_LIMIT`).
    pub const fn set_low_limit(&mut self, limit: PhysAddr) {
        self.low_limit = limit;
    }

    /// `size` zeroed bytes on a cache line of their own, if possible not in low memory.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_bootmem(&mut self, size: u64) -> Result<PhysRange, MemblockError> {
        self.alloc(size, SMP_CACHE_BYTES, Window::at_least(self.low_limit))
    }

    /// `size` zeroed bytes from the start of a page, if possible not in low memory.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_bootmem_pages(&mut self, size: u64) -> Result<PhysRange, MemblockError> {
        self.alloc(size, PAGE_SIZE, Window::at_least(self.low_limit))
    }

    /// `size` zeroed bytes of low memory on a cache line of their own.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_bootmem_low(&mut self, size: u64) -> Result<PhysRange, MemblockError> {
        self.alloc(size, SMP_CACHE_BYTES, Window::below(self.low_limit))
    }

    /// `size` zeroed bytes of low memory from the start of a page.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_bootmem_low_pages(&mut self, size: u64) -> Result<PhysRange, MemblockError> {
        self.alloc(size, PAGE_SIZE, Window::below(self.low_limit))
    }

    /// Frees memory that one of the family returned. The size need not be whole pages.
    ///
    /// # Errors
    ///
    /// As for [`free`](Self::free).
    #[track_caller]
    pub fn free_bootmem(&mut self, range: PhysRange) -> Result<(), MemblockError> {
        self.free(range)
    }
}
