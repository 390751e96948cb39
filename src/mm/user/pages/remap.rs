//! Memory of drivers and devices in a user space.
#![forbid(unsafe_code)]

use super::anon::part_end;
use super::frame::Frames;
use super::space_pages::{Format, UserPages};
use super::spare::Spare;
use super::zap::run_of;
use super::{PagesError, UserHal};
use crate::addr::{Order, PAGE_SHIFT, PAGE_SIZE, PHYS_SHIFT_MAX, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::EntryFormat;
use crate::hal::level::{LeafLevel, Level};
use crate::hal::mmu::Mmu;
use crate::hal::prot::{Access, MemoryType, Prot};
use crate::mm::page::{Kind, Page};
use crate::mm::pgtable::PgtableError;

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
        self.admit(range)?;
        if access == Access::Execute {
            return Err(PagesError::SharedExecutable);
        }
        let pages = range.size() >> PAGE_SHIFT;
        let end = pfn.checked_add(pages).filter(|end| end.get() <= 1 << (PHYS_SHIFT_MAX - PAGE_SHIFT));
        end.ok_or(PagesError::Range(PgtableError::PhysOutOfRange))?;
        let prot = Prot::user(access).with_dirty(access == Access::ReadWrite);
        let prot = prot.with_memory(memory).map_err(|error| PagesError::Range(error.into()))?;
        let spare = Spare::new(self.hal(), gfp, Order::ZERO);
        let (mut at, mut first, mut result) = (range.start(), pfn, Ok(()));
        while at < range.end() && result.is_ok() {
            let part = VirtRange::new(at, part_end(at, range.end())).unwrap_or_default();
            let count = part.size() >> PAGE_SHIFT;
            result = self.grow(at, LeafLevel::Pte, &spare).map_err(PagesError::from);
            if result.is_ok() {
                result = self.hold_frames(first, count, memory);
            }
            if result.is_ok() {
                result = self.insert_part(part, first, prot);
                if result.is_err() {
                    self.unhold_frames(first, count);
                }
            }
            if result.is_ok() {
                (at, first) = (part.end(), Pfn::new(first.get() + count));
            }
        }
        if result.is_err()
            && let Some(done) = VirtRange::new(range.start(), at).filter(|done| !done.is_empty())
        {
            self.zap_all(done);
        }
        result
    }

    /// Maps the entries of a part, all of them absent.
    fn insert_part(&self, part: VirtRange, first: Pfn, prot: Prot) -> Result<(), PagesError> {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let _entries = self.lock_entries(part.start());
        let (table, _) = tables.lowest(part.start());
        let run = run_of(part);
        if table.level() != Level::Pte || !table.is_empty(mmu, run) {
            return Err(PagesError::Occupied(part.start()));
        }
        table.fill(mmu, run, Format::<H>::leaf(LeafLevel::Pte, first.start(), prot, false), PAGE_SIZE);
        mmu.publish();
        self.count_mapped(run.count() as u64);
        Ok(())
    }

    /// Holds the blocks of frames that are allocated, a reference for each frame. All or none.
    fn hold_frames(&self, first: Pfn, count: u64, memory: MemoryType) -> Result<(), PagesError> {
        let frames = Frames::new(self.hal());
        for index in 0..count {
            let pfn = Pfn::new(first.get() + index);
            let Err(error) = Self::hold_frame(&frames, pfn, memory) else { continue };
            self.unhold_frames(first, index);
            return Err(error);
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

    fn unhold_frames(&self, first: Pfn, count: u64) {
        let frames = Frames::new(self.hal());
        for index in 0..count {
            frames.put(Pfn::new(first.get() + index));
        }
    }
}
