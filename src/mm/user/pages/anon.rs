//! Anonymous memory that was not there: the zero page, a zeroed page, a contiguous run, a block; and whole ranges at once.
#![forbid(unsafe_code)]

use super::fault::{At, Need};
use super::frame::{BATCH, Dropped, Frames};
use super::hal::Format;
use super::space_pages::UserPages;
use super::spare::Spare;
use super::{Backing, FaultAccess, FaultError, Handled, PagesError, Sharing, UserHal};
use crate::addr::{Order, PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::level::{LeafLevel, Level, Run};
use crate::hal::mmu::Mmu;
use crate::hal::prot::Prot;
use crate::mm::page::{Page, PageMap};
use crate::mm::pgtable::Count;
use crate::mm::zone::{PageBatch, PageHal};

impl<H: UserHal> UserPages<H> {
    /// An absent entry of the last level.
    pub(super) fn fault_absent(&self, at: &At<'_>, count: Count, spare: &mut Spare<'_, H>) -> Result<Handled, Need> {
        if at.access != FaultAccess::Write && at.area.sharing == Sharing::Private && !at.own {
            let zero = self.zero_page().start();
            let entry = Format::<H>::leaf(LeafLevel::Pte, zero, at.area.read_prot(), false);
            count.add(self.tables().mmu(), 1);
            at.table.write(self.tables().mmu(), at.slot, entry);
            self.tables().mmu().publish();
            return Ok(Handled::ZeroPage);
        }
        if let Some(unit) = at.area.unit(at.addr, Backing::RUN, spare.largest)
            && at.table.is_empty(self.tables().mmu(), Run::group(at.slot))
        {
            let page = spare.take(Backing::RUN, true).ok_or(Need::Unit(Backing::RUN))?;
            self.install_run(at, count, unit, page);
            return Ok(Handled::Zeroed(Backing::RUN));
        }
        let page = spare.take(Order::ZERO, true).ok_or(Need::Zeroed)?;
        let frames = Frames::new(self.hal());
        frames.claim(page, at.addr);
        let entry = self.own_leaf(at.area.prot(), page, &frames);
        let mmu = self.tables().mmu();
        mmu.publish_table();
        count.add(mmu, 1);
        at.table.write(mmu, at.slot, entry);
        mmu.publish();
        self.count_anon(1);
        Ok(Handled::Zeroed(Order::ZERO))
    }

    /// The leaf for a page of this space's own.
    pub(super) fn own_leaf(&self, prot: Prot, page: Page, frames: &Frames<'_, H>) -> RawEntry {
        if prot.is_executable() {
            self.hal().sync_instructions(frames.phys(page), 1);
        }
        Format::<H>::leaf(LeafLevel::Pte, frames.phys(page), prot, false)
    }

    /// Maps sixteen new pages as a contiguous group.
    fn install_run(&self, at: &At<'_>, count: Count, unit: VirtRange, first: Page) {
        let frames = Frames::new(self.hal());
        let run = Run::group(at.slot);
        frames.claim_pages(first, 1 << Backing::RUN.get(), unit.start());
        let prot = at.area.prot();
        if prot.is_executable() {
            self.hal().sync_instructions(frames.phys(first), unit.size() / PAGE_SIZE);
        }
        let mmu = self.tables().mmu();
        mmu.publish_table();
        let leaf = Format::<H>::leaf(LeafLevel::Pte, frames.phys(first), prot, true);
        count.add(mmu, run.count());
        at.table.fill(mmu, run, leaf, PAGE_SIZE);
        mmu.publish();
        self.count_anon(run.count() as u64);
    }

    /// Maps a new block of 2 MiB around `at`, where nothing is and one can be had. `None` if not: then in smaller pieces.
    pub(super) fn fault_block(
        &self,
        at: VirtAddr,
        area: &Backing,
        spare: &mut Spare<'_, H>,
    ) -> Result<Option<Handled>, FaultError> {
        spare.get_block(Backing::BLOCK);
        let Some(page) = spare.take(Backing::BLOCK, true) else { return Ok(None) };
        let frames = Frames::new(self.hal());
        let pages = Backing::BLOCK.pages();
        let grown = self.grow(at, LeafLevel::Pmd, spare);
        frames.claim(page, at);
        let prot = area.prot();
        if prot.is_executable() {
            self.hal().sync_instructions(frames.phys(page), pages);
        }
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let slot = Level::Pmd.slot(at);
        let mut mapped = false;
        if grown.is_ok() {
            let _structure = self.lock_structure();
            let _entries = self.lock_entries(at);
            // Tables stay while the structure is locked.
            let found = tables.block_entries(at).filter(|(table, _)| table.read(mmu, slot).is_absent());
            if let Some((table, count)) = found {
                count.add(mmu, 1);
                mmu.publish_table();
                let leaf = Format::<H>::leaf(LeafLevel::Pmd, frames.phys(page), prot, false);
                table.write(mmu, slot, leaf);
                mmu.publish();
                self.count_anon(pages);
                mapped = true;
            }
        }
        if !mapped {
            // A table is there by now, or another block.
            spare.largest = Backing::RUN;
            frames.put(Pfn::containing(frames.phys(page)));
            return grown.map(|()| None);
        }
        Ok(Some(Handled::Zeroed(Backing::BLOCK)))
    }

    /// Brings in every page of `range`, part of an area, that is not there (Linux: `MAP_POPULATE`, `mm_populate`): zeroed
    /// ones, or the zero page where the area is private and read-only. Pages that are there stay as they are. May sleep if
    /// `gfp` says so. Cost: zeroing, and about thirty instructions a page.
    ///
    /// # Errors
    ///
    /// [`PagesError::OutOfMemory`], [`PagesError::Fault`] with [`FaultError::Guard`], [`FaultError::Outside`] or
    /// [`FaultError::Denied`]; [`PagesError::Range`]. Pages that were brought in until then stay.
    pub fn populate(&self, range: VirtRange, area: &Backing, gfp: Gfp) -> Result<(), PagesError> {
        self.admit(range)?;
        if !area.range.contains_range(range) {
            return Err(FaultError::Outside(range.start()).into());
        }
        if area.is_shared_code() {
            return Err(PagesError::SharedExecutable);
        }
        let writable = area.permits(FaultAccess::Write);
        if area.largest != Order::ZERO || !(writable || area.sharing == Sharing::Shared) {
            return self.populate_by_faults(range, area, writable, gfp);
        }
        let mut batch = PageBatch::<BATCH>::new();
        let (mut at, mut result) = (range.start(), Ok(()));
        let spare = Spare::new(self.hal(), gfp, Order::ZERO);
        while at < range.end() && result.is_ok() {
            let end = part_end(at, range.end());
            result = self.grow(at, LeafLevel::Pte, &spare);
            if result.is_ok() {
                result = self.fetch(&mut batch, (end.get() - at.get()) >> PAGE_SHIFT, gfp | area.mobility(Order::ZERO));
            }
            if result.is_ok() {
                (at, result) = self.place(at, end, area.prot(), &mut batch);
            }
        }
        let (frames, mut dropped) = (Frames::new(self.hal()), Dropped::default());
        frames.put_all(&mut batch, &mut dropped);
        result.map_err(PagesError::from)
    }

    /// Fills a batch with up to `wanted` zeroed pages of user memory.
    fn fetch(&self, batch: &mut PageBatch<BATCH>, wanted: u64, gfp: Gfp) -> Result<(), FaultError> {
        let frames = Frames::new(self.hal());
        let before = batch.pages().len();
        if before != 0 {
            return Ok(());
        }
        let gfp = gfp.difference(Gfp::ACCOUNT | Gfp::COMP | Gfp::ZERO);
        if wanted < BATCH as u64 {
            for _ in 0..wanted {
                let pushed = batch.push(frames.pages().alloc_pages(gfp, Order::ZERO)?);
                debug_assert!(pushed, "fewer than there is room for");
                self.prepare(batch.pages().last(), &frames);
            }
            return Ok(());
        }
        frames.pages().alloc_pages_bulk(gfp, batch)?;
        for page in batch.pages() {
            self.prepare(Some(page), &frames);
        }
        Ok(())
    }

    #[inline]
    fn prepare(&self, page: Option<&Page>, frames: &Frames<'_, H>) {
        if let Some(page) = page {
            frames.pages().hal().zero(Internal::CALL, frames.phys(*page), 1);
            frames.claim(*page, VirtAddr::ZERO);
        }
    }

    /// Maps pages of the batch where nothing is, from `at` on, until the batch or the part ends. Where it came to.
    fn place(
        &self,
        at: VirtAddr,
        end: VirtAddr,
        prot: Prot,
        batch: &mut PageBatch<BATCH>,
    ) -> (VirtAddr, Result<(), FaultError>) {
        let (tables, mmu, kept) = (self.tables(), self.tables().mmu(), Frames::new(self.hal()).kept());
        let _entries = self.lock_entries(at);
        let Some((table, _, count)) = tables.last_entry(at) else {
            // A block; or the table has just been unlinked, and is made once more.
            return (if tables.lowest(at).1.is_absent() { at } else { end }, Ok(()));
        };
        mmu.publish_table();
        let run = Run::from_slot(Level::Pte.slot(at), (end.get() - at.get()) >> PAGE_SHIFT);
        let attributes = Format::<H>::attributes(prot);
        let (mut reached, mut placed, mut result) = (at, 0, Ok(()));
        for slot in run.slots() {
            let raw = table.read(mmu, slot);
            if raw.is_absent() {
                let Some(page) = batch.pop() else { break };
                kept.note_place(page, reached);
                let leaf = Format::<H>::leaf_with(attributes, LeafLevel::Pte, kept.0.phys(page), false);
                table.write(mmu, slot, leaf);
                placed += 1;
            } else if raw == Format::<H>::GUARD {
                result = Err(FaultError::Guard(reached));
                break;
            }
            reached = VirtAddr::new(reached.get() + PAGE_SIZE);
        }
        mmu.publish();
        count.add(mmu, crate::addr::to_usize(placed));
        self.count_anon(placed);
        (reached, result)
    }

    /// [`UserPages::populate`] page by page, or by larger units.
    fn populate_by_faults(&self, range: VirtRange, area: &Backing, writable: bool, gfp: Gfp) -> Result<(), PagesError> {
        let access = if writable { FaultAccess::Write } else { FaultAccess::Read };
        let mut at = range.start();
        while at < range.end() {
            let found = self.tables().translate(at).map(|found| found.leaf.level);
            let size = match found {
                Some(level) => level.size(),
                None => match self.fault_slow(at, access, area, false, gfp)? {
                    Handled::Zeroed(order) => order.pages() * PAGE_SIZE,
                    _ => PAGE_SIZE,
                },
            };
            let Some(next) = at.align_down(size).checked_add(size) else { break };
            at = next;
        }
        Ok(())
    }
}

/// One past the last address of the 2 MiB that hold `at`, but at most `end`.
pub(super) fn part_end(at: VirtAddr, end: VirtAddr) -> VirtAddr {
    let size = LeafLevel::Pmd.size();
    at.align_down(size).checked_add(size).map_or(end, |next| next.min(end))
}
