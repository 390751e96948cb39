//! A last-level table that is looked up once, for owners of 2 MiB of addresses who often change the mappings there.
#![forbid(unsafe_code)]

use super::table::Table;
use super::{PageTable, PgtableError, Space};
use crate::addr::{PAGE_SHIFT, PHYS_SHIFT_MAX, PMD_SIZE, Pfn, VirtAddr, VirtRange};
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Run, Slot};
use crate::hal::mmu::{Invalidation, Mmu, WalkDepth};
use crate::hal::prot::Prot;

/// Frames that an entry can name.
pub(super) const FRAMES: u64 = 1 << (PHYS_SHIFT_MAX - PAGE_SHIFT);

/// The table of the 512 last entries for 2 MiB of addresses.
///
/// It is good as long as nobody unmaps all of these addresses without
/// [`UnmapFlags::KEEP_TABLES`](super::UnmapFlags::KEEP_TABLES): its owner owns them, which is the contract of the
/// page table's maker.
#[derive(Clone, Copy, Debug)]
pub struct PinnedTable {
    table: Table,
    start: VirtAddr,
    space: Space,
}

impl PinnedTable {
    /// The address that entry `first` translates.
    #[inline]
    #[must_use]
    pub const fn address(&self, first: Slot) -> VirtAddr {
        VirtAddr::new(self.start.get() | (first.get() as u64) << PAGE_SHIFT)
    }
}

impl<M: Mmu> PageTable<M> {
    /// The last table for the 2 MiB that `at` lies in, made if need be. Any context that `frames` allows.
    ///
    /// # Errors
    ///
    /// [`PgtableError::NoFrame`]; [`Overlap`](PgtableError::Overlap) if a block is mapped there;
    /// [`OutsideSpace`](PgtableError::OutsideSpace).
    pub fn pin<F: FrameSource>(&self, frames: &F, at: VirtAddr) -> Result<PinnedTable, PgtableError> {
        let start = at.align_down(PMD_SIZE);
        let range = VirtRange::from_size(start, PMD_SIZE).ok_or(PgtableError::OutsideSpace)?;
        self.populate(frames, range, LeafLevel::Pte)?;
        let table = self.last_level(start).ok_or(PgtableError::Overlap(start))?;
        Ok(PinnedTable { table, start, space: self.space })
    }

    /// [`Self::map_pinned`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    pub(crate) fn do_map_pinned<T: Copy>(
        &self,
        pinned: &PinnedTable,
        first: Slot,
        list: &[T],
        origin: Pfn,
        mut page_of: impl FnMut(T) -> Option<u32>,
        prot: Prot,
    ) -> Result<bool, PgtableError> {
        if !pinned.space.admits(prot) {
            return Err(PgtableError::WrongPrivilege);
        }
        let run = Run::from_slot(first, list.len() as u64);
        if run.count() != list.len() {
            return Err(PgtableError::OutsideSpace);
        }
        debug_assert!(pinned.table.is_empty(&self.mmu, run), "whoever has the addresses knows what is mapped there");
        // Where no distance leads too far, none need be looked at.
        if origin.get() > FRAMES - (1 << u32::BITS) {
            let mut frames = list.iter().filter_map(|item| page_of(*item)).map(u64::from);
            if frames.any(|distance| origin.get().saturating_add(distance) >= FRAMES) {
                return Err(PgtableError::PhysOutOfRange);
            }
        }
        // As `Mmu::fill` has it: what is added to an entry is added to its address.
        let base = M::Format::leaf_with(M::Format::attributes(prot), LeafLevel::Pte, origin.start(), false);
        let all = pinned.table.write_each(&self.mmu, run, list, |item| {
            let distance = u64::from(page_of(item)?);
            Some(RawEntry::new(base.get().wrapping_add(distance << PAGE_SHIFT)))
        });
        if all {
            self.mmu.publish();
        }
        Ok(all)
    }

    /// The frame that is mapped at `slot`.
    #[must_use]
    pub fn frame_pinned(&self, pinned: &PinnedTable, slot: Slot) -> Option<Pfn> {
        let entry = pinned.table.read(&self.mmu, slot);
        M::Format::is_valid(entry).then(|| M::Format::frame_of(entry))
    }

    /// [`Self::unmap_pinned`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    pub(crate) fn do_unmap_pinned(&self, pinned: &PinnedTable, first: Slot, count: u64) {
        let run = Run::from_slot(first, count);
        pinned.table.clear(&self.mmu, run);
        self.flush_span(Invalidation {
            start: pinned.address(first),
            count: run.count() as u64,
            stride: LeafLevel::Pte,
            depth: WalkDepth::LastLevel,
            scope: self.scope(),
        });
    }
}
