//! The kernel's user address spaces: their pages come from its page allocator, their tables are reached through its linear map.

use super::linear::{linear, phys_range_to_virt, pointer};
use super::{BuddyFrames, KernelMmu, KernelPages, alloc_page, linear_mmu, page_allocator, page_to_pfn};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::{icache, mem};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::hal::mmu::Asid;
use crate::mm::user::pages::{PagesError, UserHal, UserPages};
use crate::mm::zone::PageAllocator;
use crate::sync::Once;
use core::sync::atomic::{AtomicUsize, Ordering};

/// The page that reads of memory find that was never written. Allocated with the first space, for good.
static ZERO_PAGE: Once<Pfn, Relax> = Once::new();

/// User address spaces that exist.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// User address spaces that exist, registered or not.
pub(super) fn live_spaces() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// The tables and pages of one user address space, with all of the kernel's machinery behind it.
pub type UserSpacePages = UserPages<KernelPages>;

// SAFETY: HAL-14: MACH-1 for the tables; the allocator is the kernel's. The code that put a root into a TTBR promises
// that it is in none any more when its space ends. HAL-15: the page was allocated zeroed and is never given away.
unsafe impl UserHal for KernelPages {
    type Mmu = KernelMmu;
    type Frames = BuddyFrames;
    type Pages = Self;
    type Relax = Relax;

    #[inline]
    fn mmu(&self) -> KernelMmu {
        // SAFETY: `new_user_space`, which alone makes spaces of this machine, is called when the kernel's tables are there.
        unsafe { linear_mmu() }
    }

    #[inline]
    fn frames(&self, gfp: Gfp) -> BuddyFrames {
        BuddyFrames::new(gfp)
    }

    #[inline(always)]
    fn pages(&self) -> &PageAllocator<Self> {
        page_allocator()
    }

    #[inline]
    fn zero_page(&self) -> Pfn {
        // There is one before there is a space; a frame that no RAM has is mapped by no leaf.
        ZERO_PAGE.get().copied().unwrap_or(Pfn::new(u64::MAX))
    }

    #[inline]
    fn copy_page(&self, _: Internal, from: PhysAddr, to: PhysAddr) {
        let (from, to) = (pointer(linear(from)), pointer(linear(to)));
        // SAFETY: both are pages of RAM, by the contract of the method; nobody else has `to`, and nobody writes `from`, or the
        // bytes that a device writes there meanwhile come as they come.
        unsafe { mem::copy_page(to.cast(), from.cast()) }
    }

    fn count_space(&self, begins: bool) {
        if begins {
            LIVE.fetch_add(1, Ordering::Relaxed);
        } else {
            LIVE.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn sync_instructions(&self, start: PhysAddr, pages: u64) {
        if let Some(range) = PhysRange::from_size(start, pages * PAGE_SIZE).and_then(phys_range_to_virt) {
            icache::sync(range);
        }
    }
}

/// Makes the page of zeros, if there is none yet. May sleep if `gfp` says so.
///
/// # Errors
///
/// [`PagesError::OutOfMemory`]; also before [`bring_up`](super::bring_up()) has made the kernel's tables.
pub(super) fn prepare(gfp: Gfp) -> Result<(), PagesError> {
    if super::kernel_tables().is_none() {
        return Err(PagesError::OutOfMemory);
    }
    if ZERO_PAGE.get().is_none() {
        let page = alloc_page(gfp | Gfp::ZERO)?;
        let pfn = page_to_pfn(page);
        if *ZERO_PAGE.call_once(|| pfn) != pfn {
            // Another CPU was quicker.
            let _ = page_allocator().do_free_pages(page, crate::addr::Order::ZERO);
        }
    }
    Ok(())
}

/// A new, empty user address space. `asid` is its number in the TLB for now. May sleep if `gfp` says so.
///
/// # Errors
///
/// [`PagesError::OutOfMemory`]; also before [`bring_up`](super::bring_up()) has made the kernel's tables.
pub fn new_user_space(asid: Asid, gfp: Gfp) -> Result<UserSpacePages, PagesError> {
    prepare(gfp)?;
    UserPages::new(KernelPages(()), asid, gfp)
}
