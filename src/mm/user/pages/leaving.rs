//! Frames that leave tables in numbers, after their flush: dropped in batches, a run that nobody else has as one block.
#![forbid(unsafe_code)]

use super::frame::{BATCH, Dropped, Frames, Kept};
use super::hal::Format;
use super::{Backing, UserHal};
use crate::addr::Pfn;
use crate::hal::entry::EntryFormat;
use crate::hal::level::{Run, Slot};
use crate::mm::page::{Kind, PageMap, find_far, find_near};
use crate::mm::pgtable::Table;
use crate::mm::zone::PageBatch;

/// Frames that leave tables together, when no CPU holds them any more. Those that nobody else has are free in the end.
pub(super) struct Leaving<'h, H: UserHal> {
    frames: Frames<'h, H>,
    map: Kept<H>,
    batch: PageBatch<BATCH>,
    dropped: Dropped,
}

impl<'h, H: UserHal> Leaving<'h, H> {
    #[inline]
    pub(super) fn new(hal: &'h H) -> Self {
        let frames = Frames::new(hal);
        Self { map: frames.kept(), frames, batch: PageBatch::new(), dropped: Dropped::default() }
    }

    /// Drops the references of the leaves in `run`, a part of a table of last entries: valid, parked, or made invalid with all
    /// else kept. Guard pages have none: whether there are any.
    pub(super) fn add_entries(&mut self, table: Table, mmu: &H::Mmu, run: Run) -> bool {
        let (mut guards, end) = (false, run.first().get() + run.count());
        let mut first = run.first();
        while first.get() < end {
            let next = (first.get() / BATCH + 1) * BATCH;
            let part = Run::from_slot(first, (next.min(end) - first.get()) as u64);
            let raw = table.read(mmu, first);
            if Format::<H>::is_contiguous(raw) && first == first.group_start() {
                for group in part.groups() {
                    guards |= !self.add_group(table, mmu, group) && self.add_part(table, mmu, group);
                }
            } else if !raw.is_absent() || !table.is_empty(mmu, part) {
                guards |= self.add_part(table, mmu, part);
            }
            match Slot::new(next) {
                Some(next) => first = next,
                None => break,
            }
        }
        guards
    }

    /// [`Self::add_entries`] for no more entries than there are places in a batch.
    fn add_part(&mut self, table: Table, mmu: &H::Mmu, run: Run) -> bool {
        if self.batch.room() < run.count() {
            self.free();
        }
        let (map, mut guards, mut mapped) = (self.map.0, false, 0);
        self.batch.fill(|places| {
            table.read_each(mmu, run, |raw| {
                let pfn = Format::<H>::frame_of(raw);
                let mut put = |page| {
                    let put = places.put(page);
                    debug_assert!(put, "there is room for the whole part");
                };
                // An entry without a frame names frame 0.
                match find_near(&map, pfn) {
                    Some(page) if pfn != Pfn::new(0) => put(page),
                    _ if raw.is_absent() || raw == Format::<H>::GUARD => guards |= !raw.is_absent(),
                    _ => match find_far(map, pfn) {
                        Some(page) => put(page),
                        None => mapped += 1,
                    },
                }
            });
        });
        self.dropped.mapped += mapped;
        guards
    }

    /// Frees what a contiguous group maps as one block, if it is a whole one that is nobody else's: whether it did.
    fn add_group(&mut self, table: Table, mmu: &H::Mmu, group: Run) -> bool {
        let raw = table.read(mmu, group.first());
        let first = Format::<H>::frame_of(raw);
        let whole = group.count() as u64 == Backing::RUN.pages() && Format::<H>::is_contiguous(raw);
        if !whole || !self.map.is_sole(first, &mut None) {
            return false;
        }
        let (mut next, mut follows) = (first.get(), !raw.is_absent());
        table.read_each(mmu, group, |raw| {
            follows &= Format::<H>::frame_of(raw).get() == next;
            next += 1;
        });
        let freed = follows && self.frames.pages().free_claimed_row(self.map.0.page(first), Backing::RUN, Kind::User);
        if freed {
            self.dropped.anon += Backing::RUN.pages();
        }
        freed
    }

    /// Drops the reference of a leaf that maps so many pages at once.
    pub(super) fn add_block(&mut self, pfn: Pfn, pages: u64) {
        let mut one = Dropped::default();
        one.add(self.frames.put(pfn));
        self.dropped.anon += one.anon * pages;
        self.dropped.mapped += one.mapped * pages;
    }

    #[inline(never)]
    fn free(&mut self) {
        self.frames.put_all(&mut self.batch, &mut self.dropped);
    }

    /// Frees what is left; what all of it counted as.
    pub(super) fn finish(mut self) -> Dropped {
        self.free();
        self.dropped
    }
}
