//! The machine trait of DMA.

use super::debug::{Entry, Report};
use super::swiotlb::BounceSlot;
use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::hal::Internal;
use crate::hal::cache::DataCache;
use crate::hal::cpu::Interrupts;
use crate::mm::vmalloc::{SetMemoryError, Uncached};
use crate::mm::zone::{CmaArea, PageAllocator, PageHal};
use crate::sync::LockHal;

/// Interface of a machine for DMA.
///
/// # Safety
///
/// - `HAL-13`: [`DmaHal::to_virt`] and [`DmaHal::to_phys`] undo each other, and where RAM is, the memory can be accessed there
///   but while it is uncached. When [`DmaHal::uncache`] has succeeded, no cacheable mapping maps the block, so that no
///   cache fetches anything of it, and the address that it answers with reads and writes memory itself, until
///   [`DmaHal::recache`]. [`DmaHal::slots`], [`DmaHal::entries`] and [`DmaHal::words`] answer with memory that nobody else has.
pub unsafe trait DmaHal<'a>: Interrupts {
    /// The data caches.
    type Cache: DataCache;
    /// The machine of the page allocator.
    type Pages: PageHal;
    /// How a CPU waits for a lock.
    type Relax: LockHal;

    /// The data caches.
    fn cache(&self) -> &Self::Cache;

    /// The page allocator.
    fn pages(&self) -> &PageAllocator<Self::Pages>;

    /// Where the linear map has physical memory.
    fn to_virt(&self, phys: PhysAddr) -> VirtAddr;

    /// The physical address behind an address of the linear map, or `None` outside of it.
    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr>;

    /// Memory for the records of bounce slots, or `None`. May wait.
    fn slots(&self, count: usize) -> Option<&'a mut [BounceSlot]>;

    /// Memory for the records of the checks, or `None`. May wait.
    fn entries(&self, count: usize) -> Option<&'a mut [Entry]>;

    /// Memory for the bits of a pool, or `None`. May wait.
    fn words(&self, count: usize) -> Option<&'a mut [u64]>;

    /// The contiguous area of devices that have none of their own, if there is one.
    fn contiguous_area(&self) -> Option<CmaArea> {
        None
    }

    /// Copies bytes from one buffer to another. Both are the caller's, and apart.
    fn copy(&self, _: Internal, to: VirtAddr, from: VirtAddr, bytes: u64);

    /// Zeroes bytes that are the caller's.
    fn zero(&self, _: Internal, at: VirtAddr, bytes: u64);

    /// Fills bytes that are the caller's.
    fn fill(&self, _: Internal, at: VirtAddr, bytes: u64, byte: u8);

    /// The first of some bytes that is not `byte`: its distance from `at`, and what it is.
    fn find_other(&self, _: Internal, at: VirtAddr, bytes: u64, byte: u8) -> Option<(u64, u8)>;

    /// Reports a misuse of DMA.
    fn report(&self, report: &Report<'_>) {
        log::error!("DMA-API: {report}");
    }

    /// Takes a block of 2 MiB or more, which is the caller's, out of the linear map and maps it uncached. The caller
    /// handles the lines that caches still hold of it. Not from an interrupt handler.
    ///
    /// # Errors
    ///
    /// [`SetMemoryError`]; nothing has changed then.
    fn uncache(&self, _: Internal, block: PhysRange) -> Result<Uncached, SetMemoryError>;

    /// Takes back what [`DmaHal::uncache`] did.
    ///
    /// # Errors
    ///
    /// [`SetMemoryError`]: the block is in no mapping then, and lost.
    fn recache(&self, _: Internal, block: PhysRange, uncached: Uncached) -> Result<(), SetMemoryError>;
}
