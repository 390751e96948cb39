//! The machine trait of user pages.

use crate::addr::{Pfn, PhysAddr};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::hal::frame::FrameSource;
use crate::hal::mmu::Mmu;
use crate::mm::zone::{PageAllocator, PageHal};
use crate::sync::LockHal;

/// The machine interface of the pages of user address spaces.
///
/// A value is a handle: clones are the same machine.
///
/// # Safety
///
/// - `HAL-14`: [`UserHal::mmu`] reaches the tables of every space on the CPU that calls; [`UserHal::pages`] is the allocator
///   of this machine's RAM, the same at each call. A root is in a TTBR of a CPU only while its space exists,
///   and with its number, which no other space has.
/// - `HAL-15`: [`UserHal::zero_page`] is a frame of RAM, zero from end to end for good, which nobody writes or frees.
///   [`UserHal::copy_page`] copies as it says.
pub unsafe trait UserHal: Clone {
    /// The machine's tables.
    type Mmu: Mmu;
    /// Where frames for tables come from.
    type Frames: FrameSource;
    /// The machine of the page allocator.
    type Pages: PageHal;
    /// How a CPU waits for a lock.
    type Relax: LockHal;

    /// The tables' machine, for a new space.
    fn mmu(&self) -> Self::Mmu;

    /// The source of frames for tables. It allocates as `gfp` says; freeing a table ignores `gfp`.
    fn frames(&self, gfp: Gfp) -> Self::Frames;

    /// The page allocator.
    fn pages(&self) -> &PageAllocator<Self::Pages>;

    /// The page that is mapped read-only where memory was read and never written (Linux: `ZERO_PAGE`).
    fn zero_page(&self) -> Pfn;

    /// Copies a page of RAM to another one, which is nobody else's.
    fn copy_page(&self, _: Internal, from: PhysAddr, to: PhysAddr);

    /// Makes instruction fetches coherent with writes: every CPU executes the bytes that were written to these `pages` whole
    /// pages of RAM. Called before user space may execute them.
    fn sync_instructions(&self, start: PhysAddr, pages: u64);

    /// A space begins to exist, or ends: for a machine that counts them.
    fn count_space(&self, begins: bool) {
        let _ = begins;
    }
}

/// The entry format of a machine's tables.
pub(super) type Format<H> = <<H as UserHal>::Mmu as Mmu>::Format;
