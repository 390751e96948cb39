//! Mapping pages that somebody looks at one by one, and unmapping them so that he may look again once no CPU translates them.
#![forbid(unsafe_code)]

use super::pinned::FRAMES;
use super::table::Table;
use super::{PageTable, PgtableError};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level, Run};
use crate::hal::mmu::{Invalidation, Mmu, WalkDepth};
use crate::hal::prot::Prot;

impl<M: Mmu> PageTable<M> {
    /// Maps each of `list` from `start` on with an entry of 4 KiB: `page_of` says how many frames behind `origin` its frame is.
    /// Up to the first of which it says nothing: whether there was none. If there was one, or an error, what was mapped stays,
    /// for [`PageTable::unmap_each`]. Any context that `source` allows. Cost: one descent for each table touched, and three
    /// instructions a page.
    ///
    /// # Errors
    ///
    /// Those of [`PageTable::map_frames`].
    #[inline(always)]
    pub(in crate::mm) fn map_each<F: FrameSource, T: Copy>(
        &self,
        source: &F,
        start: VirtAddr,
        list: &[T],
        origin: Pfn,
        mut page_of: impl FnMut(T) -> Option<u32>,
        prot: Prot,
    ) -> Result<bool, PgtableError> {
        if !self.space.admits(prot) {
            return Err(PgtableError::WrongPrivilege);
        }
        let bytes = (list.len() as u64).checked_mul(PAGE_SIZE);
        let range = bytes.and_then(|bytes| VirtRange::from_size(start, bytes)).ok_or(PgtableError::OutsideSpace)?;
        self.admit(range)?;
        if origin.get() > FRAMES - (1 << u32::BITS) {
            return Err(PgtableError::PhysOutOfRange);
        }
        let base = M::Format::leaf_with(M::Format::attributes(prot), LeafLevel::Pte, origin.start(), false);
        let (mut at, mut rest) = (start, list);
        while !rest.is_empty() {
            let table = match self.last_level(at) {
                Some(table) => table,
                None => self.table_for(source, at, LeafLevel::Pte)?,
            };
            let run = Run::from_slot(Level::Pte.slot(at), rest.len() as u64);
            if table.level() != Level::Pte || !table.is_empty(&self.mmu, run) {
                return Err(PgtableError::Overlap(at));
            }
            let Some((now, later)) = rest.split_at_checked(run.count()) else { break };
            let all = table.write_each(&self.mmu, run, now, |item| {
                let distance = u64::from(page_of(item)?);
                Some(RawEntry::new(base.get().wrapping_add(distance << PAGE_SHIFT)))
            });
            if !all {
                return Ok(false);
            }
            rest = later;
            at = VirtAddr::new(at.get().wrapping_add((run.count() as u64) << PAGE_SHIFT));
        }
        self.mmu.publish();
        Ok(true)
    }

    /// Unmaps `pages` entries of 4 KiB from `start` on, which are all there, and gives each frame to `each` in their order,
    /// once no CPU translates it. The tables stay. Any context. Cost: one descent and one flush for each table, and four
    /// instructions a page.
    #[inline(always)]
    pub(in crate::mm) fn unmap_each(&self, start: VirtAddr, pages: u64, mut each: impl FnMut(Pfn)) {
        let (mut at, mut left) = (start, pages);
        while left != 0 {
            let run = Run::from_slot(Level::Pte.slot(at), left);
            let count = run.count() as u64;
            if let Some(table) = self.last_level(at) {
                table.invalidate_each(&self.mmu, run);
                self.flush_span(Invalidation {
                    start: at,
                    count,
                    stride: LeafLevel::Pte,
                    depth: WalkDepth::LastLevel,
                    scope: self.scope(),
                });
                table.read_each(&self.mmu, run, |entry| each(M::Format::frame_of(entry)));
                // No barrier: walkers do not tell invalid entries apart.
                table.clear(&self.mmu, run);
            }
            at = VirtAddr::new(at.get().wrapping_add(count << PAGE_SHIFT));
            left -= count;
        }
    }

    /// How many of `pages` pages from `start` on are mapped by entries of 4 KiB, up to the first that is not.
    #[cold]
    pub(in crate::mm) fn mapped_from(&self, start: VirtAddr, pages: u64) -> u64 {
        let entry = |page: u64| VirtAddr::new(start.get().wrapping_add(page << PAGE_SHIFT));
        let is_mapped = |at: VirtAddr| {
            let read = |table: Table| table.read(&self.mmu, Level::Pte.slot(at));
            self.last_level(at).is_some_and(|table| M::Format::is_valid(read(table)))
        };
        (0..pages).take_while(|page| is_mapped(entry(*page))).count() as u64
    }
}
