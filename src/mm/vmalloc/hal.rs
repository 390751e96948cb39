//! The machine traits of areas and of their mappings.

use super::pages::Blocks;
use super::{Area, Pages, SetMemoryError};
use crate::addr::VirtRange;
use crate::ds::rbtree::Owned;
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::hal::cpu::{Interrupts, PerCpu};
use crate::hal::frame::FrameSource;
use crate::hal::mmu::Mmu;
use crate::mm::pgtable::{LivePolicy, PageTable, UnmapFlags};
use crate::mm::zone::{PageAllocator, PageHal};
use crate::sync::LockHal;

/// The flags of page tables for callers that pass none: such calls are legal in any context.
pub(in crate::mm) const TABLE_GFP: Gfp = Gfp::ATOMIC;

/// An address space's interface to a machine.
///
/// # Safety
///
/// - `HAL-8`: when [`AreaHal::unmap_and_flush`] returns, no CPU translates any of the ranges; only then are their pages and
///   addresses given to others. [`AreaHal::descriptor`] returns a descriptor that nobody else has.
pub unsafe trait AreaHal<'a>: Interrupts + PerCpu {
    /// Way of waiting for a lock, or for another CPU.
    type Relax: LockHal;

    /// A new descriptor, or `None` if there is no memory for one; `gfp` says how it may be found. It stays a descriptor for
    /// good: a stale reference to it still points to a descriptor.
    fn descriptor(&self, gfp: Gfp) -> Option<Owned<'a, Area>>;

    /// Unmaps all of these ranges, `pages` pages together, and waits until no CPU translates any of them. One invalidation is
    /// enough.
    fn unmap_and_flush(&self, _: Internal, ranges: &mut dyn Iterator<Item = VirtRange>, pages: u64);

    /// Frees the tables that translate only `range`. Nothing is mapped there, and nobody maps there meanwhile. It is 2 MiB or 1
    /// GiB, and aligned to its size.
    fn free_tables(&self, _: Internal, range: VirtRange) {
        let _ = range;
    }

    /// Frees the pages of an area that no CPU translates any more.
    fn release(&self, _: Internal, pages: Pages);

    /// Whether the caller is an interrupt handler.
    fn in_interrupt(&self) -> bool;
}

/// vmalloc's interface to a machine: tables, frames for them, and pages.
///
/// # Safety
///
/// - `HAL-9`: [`VmallocHal::tables`] are the tables that all CPUs use, the same at each call; nobody else maps or unmaps in the
///   region that the space is given. [`VmallocHal::descriptor`] returns a descriptor that nobody else has.
///   [`VmallocHal::pages`] is the allocator of this machine's RAM, the same at each call.
pub unsafe trait VmallocHal<'a>: Interrupts + PerCpu {
    /// The machine's tables.
    type Mmu: Mmu;
    /// Source of frames for tables.
    type Frames: FrameSource;
    /// The machine of the page allocator.
    type Pages: PageHal;
    /// Way of waiting for a lock, or for another CPU.
    type Relax: LockHal;

    /// A new descriptor; see [`AreaHal::descriptor`].
    fn descriptor(&self, gfp: Gfp) -> Option<Owned<'a, Area>>;

    /// See [`AreaHal::in_interrupt`].
    fn in_interrupt(&self) -> bool;

    /// The kernel's tables.
    fn tables(&self) -> &PageTable<Self::Mmu>;

    /// The source of frames for them. It allocates as `gfp` says (the part that [`Gfp::effort`] keeps); freeing a table ignores
    /// `gfp`.
    fn frames(&self, gfp: Gfp) -> Self::Frames;

    /// The page allocator.
    fn pages(&self) -> &PageAllocator<Self::Pages>;
}

// SAFETY: HAL-8: the gather below flushes what it has unmapped, on all CPUs, before it frees any of it; descriptors by HAL-9.
unsafe impl<'a, H: VmallocHal<'a>> AreaHal<'a> for H {
    type Relax = <H as VmallocHal<'a>>::Relax;

    fn descriptor(&self, gfp: Gfp) -> Option<Owned<'a, Area>> {
        VmallocHal::descriptor(self, gfp)
    }

    fn unmap_and_flush(&self, _: Internal, ranges: &mut dyn Iterator<Item = VirtRange>, pages: u64) {
        let (tables, frames) = (self.tables(), self.frames(TABLE_GFP));
        let mut gather = tables.gather_pages(&frames, pages);
        for range in ranges {
            // The area was mapped as one, so its edges cut no leaf.
            let unmapped = tables.do_unmap(range, UnmapFlags::empty(), &mut gather);
            debug_assert!(unmapped.is_ok(), "an area can be unmapped: {unmapped:?}");
        }
        gather.flush();
    }

    fn free_tables(&self, _: Internal, range: VirtRange) {
        self.tables().free_tables(&self.frames(TABLE_GFP), range);
    }

    fn release(&self, _: Internal, pages: Pages) {
        Blocks::from_pages(&pages).free(self.pages());
    }

    fn in_interrupt(&self) -> bool {
        VmallocHal::in_interrupt(self)
    }
}

/// Interface for changing permissions, beside that of vmalloc.
///
/// # Safety
///
/// - `HAL-10`: the closure passed to [`SetMemoryHal::change_live`] runs with the policy that suits the CPU, and while nobody
///   else changes live mappings; by break-before-make only while no other code runs that may use the mappings that it changes.
pub unsafe trait SetMemoryHal<'a>: VmallocHal<'a> {
    /// Runs `f`, which may change live mappings by the given policy, while nobody else does: not in an interrupt handler; by
    /// break-before-make only while no other CPU runs and this one is not interrupted.
    ///
    /// # Errors
    ///
    /// [`SetMemoryError::InInterrupt`], [`SetMemoryError::OtherCpus`]; and those of `f`.
    fn change_live(&self, f: &mut dyn FnMut(LivePolicy) -> Result<(), SetMemoryError>) -> Result<(), SetMemoryError>;

    /// Every CPU executes the instructions written to these addresses from now on (Linux: `flush_icache_range`).
    fn sync_instructions(&self, range: VirtRange);
}
