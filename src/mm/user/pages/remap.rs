//! Memory of drivers and devices in a user space.
#![forbid(unsafe_code)]

use super::anon::part_end;
use super::frame::Frames;
use super::hal::Format;
use super::space_pages::UserPages;
use super::zap::{is_one_part, run_of};
use super::{PagesError, UserHal};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PHYS_SHIFT_MAX, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::level::LeafLevel;
use crate::hal::mmu::Mmu;
use crate::hal::prot::{Access, MemoryType, Prot};
use crate::mm::page::{Kind, Page};
use crate::mm::pgtable::PgtableError;

/// Frames to be mapped, by their number: the same for the same number.
pub(in crate::mm::user) struct Inserted<F: Fn(u64) -> Option<Pfn>> {
    /// None of them has a descriptor.
    pub(in crate::mm::user) device: bool,
    /// They follow one on another.
    pub(in crate::mm::user) row: bool,
    /// Finds them.
    pub(in crate::mm::user) frame_of: F,
}

impl<H: UserHal> UserPages<H> {
    /// [`Self::insert_page`], for a page that this crate knows to be its own, or that its caller promises to be.
    pub(crate) fn do_insert_page(&self, at: VirtAddr, page: Page, access: Access, gfp: Gfp) -> Result<(), PagesError> {
        let range = VirtRange::from_size(at, PAGE_SIZE).ok_or(PagesError::Range(PgtableError::OutsideSpace))?;
        let frames = Frames::new(self.hal());
        let pfn = Pfn::containing(frames.phys(page));
        if frames.block(pfn).is_none() {
            return Err(PagesError::BadPage(pfn));
        }
        self.do_insert_pfn(range, pfn, MemoryType::WriteBack, access, gfp)
    }

    /// [`Self::insert_pfn`], for frames that this crate knows to be its own, or that its caller promises to be.
    pub(crate) fn do_insert_pfn(
        &self,
        range: VirtRange,
        pfn: Pfn,
        memory: MemoryType,
        access: Access,
        gfp: Gfp,
    ) -> Result<(), PagesError> {
        let pages = range.size() >> PAGE_SHIFT;
        let end = pfn.checked_add(pages).filter(|end| end.get() <= 1 << (PHYS_SHIFT_MAX - PAGE_SHIFT));
        end.ok_or(PagesError::Range(PgtableError::PhysOutOfRange))?;
        let frames = Inserted { device: false, row: true, frame_of: |index| Some(Pfn::new(pfn.get() + index)) };
        self.insert(range, &frames, memory, (Some(access), gfp), false)
    }

    /// Maps `range` to frames that this crate knows to be its caller's, or that its caller promises to be, in place of what is
    /// there, which is unmapped as [`UserPages::unmap`] does. Without access the entries are parked. All or nothing. May sleep
    /// if `gfp` says so.
    ///
    /// # Errors
    ///
    /// Those of [`UserPages::insert_page`] but [`PagesError::Occupied`].
    pub(in crate::mm::user) fn fill(
        &self,
        range: VirtRange,
        frames: &Inserted<impl Fn(u64) -> Option<Pfn>>,
        memory: MemoryType,
        access: Option<Access>,
        gfp: Gfp,
    ) -> Result<(), PagesError> {
        self.insert(range, frames, memory, (access, gfp), true)
    }

    fn insert(
        &self,
        range: VirtRange,
        frames: &Inserted<impl Fn(u64) -> Option<Pfn>>,
        memory: MemoryType,
        (access, gfp): (Option<Access>, Gfp),
        over: bool,
    ) -> Result<(), PagesError> {
        self.admit(range)?;
        let user = access.unwrap_or(Access::ReadOnly);
        if user == Access::Execute {
            return Err(PagesError::SharedExecutable);
        }
        let prot = Prot::user(user).with_dirty(user == Access::ReadWrite);
        let prot = prot.with_memory(memory).map_err(|error| PagesError::Range(error.into()))?;
        // All that can fail comes first: tables, and references to frames. Of one part the table can come when it is missed.
        let pages = range.size() >> PAGE_SHIFT;
        let mut at = if is_one_part(range) { range.end() } else { range.start() };
        while at < range.end() {
            if over {
                self.table_at(at, gfp)?;
            } else if !self.has_last_table(at) {
                self.grow_last(at, gfp)?;
            }
            at = part_end(at, range.end());
        }
        self.hold_frames(frames, pages, memory)?;
        let (mut at, mut index, attributes) = (range.start(), 0, Format::<H>::attributes(prot));
        while at < range.end() {
            let part = VirtRange::new(at, part_end(at, range.end())).unwrap_or_default();
            let mut over = over;
            let inserted = loop {
                match self.insert_part(part, index, frames, attributes, access.is_none()) {
                    Ok(true) => break Ok(()),
                    // The table was empty, and somebody who is short of memory took it.
                    Ok(false) => match self.grow_last(at, gfp) {
                        Ok(()) => {}
                        Err(error) => break Err(error.into()),
                    },
                    Err(PagesError::Occupied(_)) if over => {
                        // A block, of which the rest stays.
                        if let Err(error) = self.table_at(at, gfp) {
                            break Err(error);
                        }
                        self.zap_last(part);
                        over = false;
                    }
                    Err(error) => break Err(error),
                }
            };
            if let Err(error) = inserted {
                self.unhold_frames(frames, index, pages);
                if let Some(done) = VirtRange::new(range.start(), at).filter(|done| !done.is_empty()) {
                    self.zap_all(done);
                }
                return Err(error);
            }
            (at, index) = (part.end(), index + (part.size() >> PAGE_SHIFT));
        }
        Ok(())
    }

    /// Maps the entries of a part, all of them absent, from the frame with this number on; whether there is a table for them.
    fn insert_part(
        &self,
        part: VirtRange,
        first: u64,
        frames: &Inserted<impl Fn(u64) -> Option<Pfn>>,
        attributes: RawEntry,
        parked: bool,
    ) -> Result<bool, PagesError> {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let _entries = self.lock_entries(part.start());
        let run = run_of(part);
        let Some((table, _, count)) = tables.last_entry(part.start()) else {
            let (_, raw) = tables.lowest(part.start());
            let is_leaf = Format::<H>::is_valid(raw) || Format::<H>::is_parked(raw);
            return if is_leaf { Err(PagesError::Occupied(part.start())) } else { Ok(false) };
        };
        if !table.is_empty(mmu, run) {
            return Err(PagesError::Occupied(part.start()));
        }
        count.add(mmu, run.count());
        let entry = |pfn: Pfn| {
            let leaf = Format::<H>::leaf_with(attributes, LeafLevel::Pte, pfn.start(), false);
            if parked { Format::<H>::park(leaf) } else { leaf }
        };
        if let Some(pfn) = (frames.frame_of)(first).filter(|_| frames.row) {
            table.fill(mmu, run, entry(pfn), PAGE_SIZE);
            mmu.publish();
            self.count_mapped(run.count() as u64);
            return Ok(true);
        }
        for (slot, index) in run.slots().zip(first..) {
            // Found before, when it was held.
            let Some(pfn) = (frames.frame_of)(index) else {
                count.take(mmu, 1);
                continue;
            };
            table.write(mmu, slot, entry(pfn));
        }
        mmu.publish();
        self.count_mapped(run.count() as u64);
        Ok(true)
    }

    /// Holds the blocks of frames that are allocated, a reference for each frame. All or none.
    fn hold_frames(
        &self,
        inserted: &Inserted<impl Fn(u64) -> Option<Pfn>>,
        count: u64,
        memory: MemoryType,
    ) -> Result<(), PagesError> {
        let frames = Frames::new(self.hal());
        if let Some(first) = (inserted.frame_of)(0).filter(|_| inserted.row)
            && frames.is_undescribed(first, count)
        {
            return Ok(());
        }
        for index in 0..count {
            let held = match (inserted.frame_of)(index) {
                Some(pfn) if inserted.device && frames.find(pfn).is_some() => Err(PagesError::BadPage(pfn)),
                Some(pfn) => Self::hold_frame(&frames, pfn, memory),
                None => Err(PagesError::Range(PgtableError::PhysOutOfRange)),
            };
            if held.is_err() {
                self.unhold_frames(inserted, 0, index);
                return held;
            }
        }
        Ok(())
    }

    fn hold_frame(frames: &Frames<'_, H>, pfn: Pfn, memory: MemoryType) -> Result<(), PagesError> {
        let Some(page) = frames.find(pfn) else { return Ok(()) };
        let Some((head, state)) = frames.block(pfn) else {
            // Not allocated: nobody's, or memory that no allocator ever had.
            return match frames.is_free(page) {
                true => Err(PagesError::BadPage(pfn)),
                false => Ok(()),
            };
        };
        if matches!(state.kind(), Kind::User | Kind::Slab | Kind::PageTable | Kind::PerCpu) {
            return Err(PagesError::BadPage(pfn));
        }
        if !state.memory_type().agrees_with(memory) {
            return Err(PagesError::MemoryType(pfn, state.memory_type()));
        }
        if frames.hold(head, 1) { Ok(()) } else { Err(PagesError::BadPage(pfn)) }
    }

    fn unhold_frames(&self, inserted: &Inserted<impl Fn(u64) -> Option<Pfn>>, from: u64, to: u64) {
        let frames = Frames::new(self.hal());
        for pfn in (from..to).filter_map(&inserted.frame_of) {
            frames.put(pfn);
        }
    }
}
