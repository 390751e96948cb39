//! Mapping frames that do not follow on: one entry each, table by table.
#![forbid(unsafe_code)]

use super::{PageTable, PgtableError};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PHYS_SHIFT_MAX, Pfn, VirtAddr, VirtRange};
use crate::hal::entry::EntryFormat;
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level, Run};
use crate::hal::mmu::Mmu;
use crate::hal::prot::Prot;

impl<M: Mmu> PageTable<M> {
    /// [`Self::map_frames`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_map_frames<F: FrameSource>(
        &self,
        source: &F,
        start: VirtAddr,
        mut frames: impl ExactSizeIterator<Item = Pfn>,
        prot: Prot,
    ) -> Result<(), PgtableError> {
        if !self.space.admits(prot) {
            return Err(PgtableError::WrongPrivilege);
        }
        let pages = frames.len() as u64;
        let range = pages.checked_mul(PAGE_SIZE).and_then(|bytes| VirtRange::from_size(start, bytes));
        let range = range.ok_or(PgtableError::OutsideSpace)?;
        self.admit(range)?;
        let attributes = M::Format::attributes(prot);
        let mut at = start;
        while at < range.end() {
            let table = match self.last_level(at) {
                Some(table) => table,
                None => match self.table_for(source, at, LeafLevel::Pte) {
                    Ok(table) => table,
                    Err(error) => return self.undo(source, range, at, error),
                },
            };
            let run = Run::from_slot(Level::Pte.slot(at), (range.end().get() - at.get()) >> PAGE_SHIFT);
            if table.level() != Level::Pte || !table.is_empty(&self.mmu, run) {
                return self.undo(source, range, at, PgtableError::Overlap(at));
            }
            for slot in run.slots() {
                // No more of them than the iterator said, and no fewer.
                let Some(frame) = frames.next() else { break };
                if frame.get() >> (PHYS_SHIFT_MAX - PAGE_SHIFT) != 0 {
                    return self.undo(source, range, at, PgtableError::PhysOutOfRange);
                }
                let leaf = M::Format::leaf_with(attributes, LeafLevel::Pte, frame.start(), false);
                table.write(&self.mmu, slot, leaf);
                at = VirtAddr::new(at.get() + PAGE_SIZE);
            }
            if at < range.end() && Level::Pte.slot(at).get() != 0 {
                return self.undo(source, range, at, PgtableError::Empty);
            }
        }
        self.mmu.publish();
        Ok(())
    }
}
