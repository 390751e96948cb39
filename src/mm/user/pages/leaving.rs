//! Frames that leave tables in numbers, after their flush: dropped in batches, a run that nobody else has as one block.
#![forbid(unsafe_code)]

use super::frame::{Dropped, Frames, Kept};
use super::hal::Format;
use super::{Backing, UserHal};
use crate::addr::Pfn;
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::level::{Run, Slot};
use crate::mm::page::{Kind, Page, PageMap, find_far, find_near, is_undescribed};
use crate::mm::pgtable::Table;
use crate::mm::zone::{Freeing, PageBatch, Way};

/// Frames that leave tables together, when no CPU holds them any more. Those that nobody else has are free in the end.
pub(super) struct Leaving<'h, H: UserHal> {
    frames: Frames<'h, H>,
    map: Kept<H>,
    /// Pages that the fast path cannot free; there are rarely any.
    batch: Option<PageBatch<PART>>,
    dropped: Dropped,
}

/// Entries that are looked at together, interrupts masked.
const PART: usize = 128;

/// Entries that were looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Entries {
    /// Those that are not absent.
    pub(super) found: usize,
    /// Guard pages among them.
    pub(super) guards: usize,
}

/// Entries of a part whose pages the fast path does not free.
#[derive(Default)]
struct Others {
    absent: usize,
    guards: usize,
    /// Pages in the batch.
    kept: usize,
    /// Frames that nobody allocated.
    mapped: usize,
}

impl<'h, H: UserHal> Leaving<'h, H> {
    #[inline]
    pub(super) fn new(hal: &'h H) -> Self {
        let frames = Frames::new(hal);
        Self { map: frames.kept(), frames, batch: None, dropped: Dropped::default() }
    }

    /// Whether the leaves in `run`, a part of a table of last entries, map frames without descriptors, one behind the other: those of
    /// a device, which nobody counts.
    #[inline]
    pub(super) fn is_device_row(&self, table: Table, mmu: &H::Mmu, run: Run) -> bool {
        let first = Format::<H>::frame_of(table.read(mmu, run.first()));
        first != Pfn::new(0) && find_near(&self.map.0, first).is_none() && self.is_far_row(table, mmu, run, first)
    }

    #[cold]
    #[inline(never)]
    fn is_far_row(&self, table: Table, mmu: &H::Mmu, run: Run, first: Pfn) -> bool {
        let (mut next, mut follows) = (first.get(), true);
        table.read_each(mmu, run, |raw| {
            follows &= Format::<H>::frame_of(raw).get() == next;
            next += 1;
        });
        follows && is_undescribed(&self.map.0, first, run.count() as u64)
    }

    /// Drops the references of the leaves in `run`, a part of a table of last entries of which `live` are not absent: valid,
    /// parked, or made invalid with all else kept. Guard pages have none.
    pub(super) fn add_entries(&mut self, table: Table, mmu: &H::Mmu, run: Run, live: usize) -> Entries {
        let (mut seen, end) = (Entries::default(), run.first().get() + run.count());
        let mut first = run.first();
        while first.get() < end && seen.found != live {
            let next = (first.get() / PART + 1) * PART;
            let part = Run::from_slot(first, (next.min(end) - first.get()) as u64);
            let raw = table.read(mmu, first);
            if Format::<H>::is_contiguous(raw) && first == first.group_start() {
                for group in part.groups() {
                    if self.add_group(table, mmu, group) {
                        seen.found += group.count();
                    } else {
                        self.add_part(table, mmu, group, &mut seen);
                    }
                }
            } else if !raw.is_absent() {
                if !self.add_device(table, mmu, part, &mut seen) {
                    self.add_part(table, mmu, part, &mut seen);
                }
            } else if !table.is_empty(mmu, part) {
                // From the first one that is there, which says what the others probably are.
                let absent = part.slots().take_while(|slot| table.read(mmu, *slot).is_absent()).count();
                let there = Slot::wrapping((first.get() + absent) as u64);
                self.add_part(table, mmu, Run::from_slot(there, (part.count() - absent) as u64), &mut seen);
            }
            match Slot::new(next) {
                Some(next) => first = next,
                None => break,
            }
        }
        seen
    }

    /// [`Self::add_entries`] for no more entries than there are places in a batch.
    fn add_part(&mut self, table: Table, mmu: &H::Mmu, run: Run, seen: &mut Entries) {
        if self.batch.as_ref().is_some_and(|batch| batch.room() < run.count()) {
            self.free();
        }
        // The pages of a part are mostly alike.
        let first = Format::<H>::frame_of(table.read(mmu, run.first()));
        let like = find_near(&self.map.0, first).unwrap_or(Page::new(0));
        let mut freeing = self.frames.pages().begin_freeing(like, Kind::User);
        let (mut rest, mut left) = (run, run.count());
        while left != 0 {
            let (way, pages) = freeing.way(left);
            let part = Run::from_slot(rest.first(), pages as u64);
            *seen = match way {
                Way::List => self.add_alike(mmu, (table, part), &mut freeing, *seen, Freeing::give_list),
                Way::Reserve => self.add_alike(mmu, (table, part), &mut freeing, *seen, Freeing::give_reserve),
                Way::Others => self.add_alike(mmu, (table, part), &mut freeing, *seen, Freeing::give_others),
                Way::None => self.add_alike(mmu, (table, part), &mut freeing, *seen, |_, _| false),
            };
            left -= pages;
            rest = Run::from_slot(Slot::wrapping((rest.first().get() + pages) as u64), left as u64);
        }
        freeing.end();
    }

    /// Counts a part that maps the frames of a device, one behind the other: whether it does.
    #[inline]
    fn add_device(&mut self, table: Table, mmu: &H::Mmu, run: Run, seen: &mut Entries) -> bool {
        let is_row = self.is_device_row(table, mmu, run);
        if is_row {
            seen.found += run.count();
            self.dropped.mapped += run.count() as u64;
        }
        is_row
    }

    /// [`Self::add_part`] by one way, as far as that goes.
    #[inline(always)]
    fn add_alike(
        &mut self,
        mmu: &H::Mmu,
        (table, run): (Table, Run),
        freeing: &mut Freeing<'h, H::Pages>,
        seen: Entries,
        free: impl Fn(&mut Freeing<'h, H::Pages>, Page) -> bool,
    ) -> Entries {
        let (map, mut others) = (self.map.0, Others::default());
        for slot in run.slots() {
            let raw = table.read(mmu, slot);
            let pfn = Format::<H>::frame_of(raw);
            // An entry without a frame names frame 0. All that is rare is counted in memory: the loop keeps its registers.
            match find_near(&map, pfn).filter(|_| pfn != Pfn::new(0)) {
                Some(page) if free(freeing, page) => {}
                near => self.add_other(raw, near, &mut others),
            }
        }
        let Others { absent, guards, kept, mapped } = others;
        self.dropped.anon += (run.count() - absent - guards - kept - mapped) as u64;
        self.dropped.mapped += mapped as u64;
        Entries { found: seen.found + run.count() - absent, guards: seen.guards + guards }
    }

    /// The slow path: an entry without a page, or with one that the fast path cannot free.
    #[cold]
    fn add_other(&mut self, raw: RawEntry, near: Option<Page>, others: &mut Others) {
        let page = match near {
            None if raw.is_absent() => return others.absent += 1,
            None if raw == Format::<H>::GUARD => return others.guards += 1,
            None => find_far(self.map.0, Format::<H>::frame_of(raw)),
            near => near,
        };
        match page {
            Some(page) => {
                let kept = self.batch.get_or_insert_default().push(page);
                debug_assert!(kept, "there is room for the whole part");
                others.kept += 1;
            }
            None => others.mapped += 1,
        }
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

    #[cold]
    fn free(&mut self) {
        if let Some(batch) = &mut self.batch {
            self.frames.put_all(batch, &mut self.dropped);
        }
    }

    /// Frees what is left; what all of it counted as.
    pub(super) fn finish(&mut self) -> Dropped {
        if self.batch.is_some() {
            self.free();
        }
        self.dropped
    }
}
