//! The machine trait of the page allocator.

use super::{CpuPages, Pressure, contents};
use crate::addr::{Order, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange};
use crate::hal::Internal;
use crate::hal::cpu::{Interrupts, PerCpu};
use crate::hal::tags::TagMemory;
use crate::mm::page::{Page, PageMap};
use crate::sync::LockHal;
use core::sync::atomic::{AtomicU64, Ordering};

/// Interface of a machine for the page allocator.
///
/// # Safety
///
/// The allocator hands out memory by what it is told here, so each answer is relied on:
///
/// - `HAL-1`: between [`Interrupts::save`] and [`Interrupts::restore`] nothing else runs on this CPU that calls the
///   allocator, and [`PerCpu::local`] and [`PerCpu::cpu`] are those of this CPU, which no other running CPU has.
/// - `HAL-2`: [`PerCpu::is_online`] is true of each CPU that may call the allocator, and
///   [`PerCpu::while_offline`] runs its work only while the CPU is not online and does not come online.
/// - `HAL-3`: the descriptors of [`PageHal::map`] are those of this machine's RAM, the same at each call.
/// - `HAL-4`: [`PageHal::to_virt`] and [`PageHal::to_phys`] undo each other, are the same at each call, and RAM that is
///   handed over is mapped there, read-write, for good (but while [`PageHal::set_present`] has taken it out).
/// - `HAL-5`: [`PageHal::store_exclusive`] stores only if nobody has stored since [`PageHal::load_exclusive`].
pub unsafe trait PageHal: Interrupts + PerCpu + Pressure {
    /// Where the page descriptors are.
    type Map: PageMap;
    /// How a CPU waits for a lock, or for another CPU.
    type Relax: LockHal;

    /// The page descriptors.
    fn map(&self) -> Self::Map;

    /// The same, from the CPU's own data.
    fn local_map(local: &Self::Local) -> Self::Map;

    /// The page lists of a CPU.
    fn pages(local: &Self::Local) -> &CpuPages;

    /// Whether the running context may wait: interrupts were not masked, no handler is running, no lock is held, and this
    /// is no reclaimer. `saved` is what [`Interrupts::save`] has just returned.
    fn may_wait(&self, local: &Self::Local, saved: Self::Saved) -> bool;

    /// Where the linear map has physical memory. Whether anything is mapped there is another question.
    fn to_virt(&self, phys: PhysAddr) -> VirtAddr;

    /// The physical address behind an address of the linear map, or `None` outside of it. An address with a memory tag is
    /// outside.
    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr>;

    /// Where the linear map has a range of physical memory, or `None` if it does not reach all of it.
    fn range_to_virt(&self, phys: PhysRange) -> Option<VirtRange> {
        let last = phys.end().checked_sub(1)?;
        let range = VirtRange::from_size(self.to_virt(phys.start()), phys.size())?;
        (self.to_phys(range.start()) == Some(phys.start()) && self.to_phys(self.to_virt(last)) == Some(last))
            .then_some(range)
    }

    /// Bytes of addresses that vmalloc has, for [`MemInfo`](super::MemInfo).
    fn vmalloc_size(&self) -> u64 {
        0
    }

    /// Zeroes `pages` whole pages of RAM from `start` on. They are the caller's.
    fn zero(&self, _: Internal, start: PhysAddr, pages: u64);

    /// Makes every byte of `pages` whole pages of RAM from `start` on `byte`. They are nobody else's.
    fn fill(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8);

    /// Maps `pages` whole pages of RAM from `start` on in the linear map, or takes them out of it and waits until no CPU
    /// translates them. They are nobody else's. Any context; for [`Scrub::UNMAP`](super::Scrub::UNMAP).
    fn set_present(&self, _: Internal, start: PhysAddr, pages: u64, present: bool) {
        let _ = (start, pages, present);
    }

    /// Whether `vm_map_ram` maps one of `pages` frames from `first` on now. Any context.
    fn is_mapped_briefly(&self, first: Pfn, pages: u64) -> bool {
        let _ = (first, pages);
        false
    }

    /// Asks the owners of movable pages to move what the block of `order` that starts at `page` holds, and to free it:
    /// whether one of them has. No lock is held, and it may wait.
    fn evacuate(&self, _: Internal, page: Page, order: Order) -> bool {
        let _ = (page, order);
        false
    }

    /// The first byte of `pages` whole pages from `start` on that is not `byte`, and what it is.
    fn find_other(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) -> Option<(PhysAddr, u8)>;

    /// Somebody wrote to memory that was free: `found` is what the byte at `at` holds, the first of those that changed.
    fn overwritten(&self, at: PhysAddr, found: u8) {
        contents::report_overwritten(at, found);
    }

    /// The tags of memory, if the machine has them and they are on.
    fn tags(&self, _: Internal) -> Option<&dyn TagMemory> {
        None
    }

    /// Where the function that this is inlined into returns to, or zero where that cannot be told.
    #[inline(always)]
    fn caller(&self) -> VirtAddr {
        VirtAddr::ZERO
    }

    /// One step of waiting.
    fn relax() {
        Self::Relax::relax();
    }

    /// Loads `word` for [`PageHal::store_exclusive`], which comes next on this CPU if it comes, and without another
    /// access to memory in between: a load-exclusive where the machine has one.
    #[inline(always)]
    fn load_exclusive(word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed)
    }

    /// Stores `new` if nobody has stored to `word` since [`PageHal::load_exclusive`] found `found` there: whether it did.
    /// May fail for no reason.
    #[inline(always)]
    fn store_exclusive(word: &AtomicU64, found: u64, new: u64) -> bool {
        word.compare_exchange_weak(found, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// [`PageHal::store_exclusive`] that orders all accesses before it on this CPU before the store.
    #[inline(always)]
    fn store_exclusive_release(word: &AtomicU64, found: u64, new: u64) -> bool {
        word.compare_exchange_weak(found, new, Ordering::Release, Ordering::Relaxed).is_ok()
    }
}
