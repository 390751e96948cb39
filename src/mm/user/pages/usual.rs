//! The usual faults, straight through: the first read and write of a page, the write after a fork, by its last owner or not.
//! Anything else is left to the slow path, with nothing changed.
#![forbid(unsafe_code)]

use super::frame::{Dropped, Frames, Kept};
use super::hal::Format;
use super::space_pages::UserPages;
use super::{FaultError, Handled, UserHal};
use crate::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level};
use crate::hal::mmu::Mmu;
use crate::hal::prot::{Access, Prot};
use crate::mm::page::{Page, PageMap};
use crate::mm::pgtable::Gather;
use core::sync::atomic::Ordering;

/// The page that a write needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    /// A zeroed page: nothing is there.
    Fill,
    /// A zeroed page in place of the zero page.
    Replace,
    /// A copy: others have the page.
    Copy,
    /// Nothing: this space is the last owner.
    Reuse,
}

/// Looks of the fast path at one entry, before the slow path takes over: others change it all the time.
const LOOKS: usize = 3;

/// The outcome of a look.
enum Carried {
    Out(Handled),
    /// This, and the page that was there does not serve.
    Needs(Plan),
    /// It is no usual case.
    Unusual,
}

/// The lack of a place for a zeroed page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missed {
    /// There is no table of last entries.
    Table,
    /// The entry is not absent, or nobody has looked.
    Entry,
}

/// An ordinary leaf of the last level with the address taken out.
#[inline(always)]
pub(super) fn ordinary<F: EntryFormat>(access: Access) -> RawEntry {
    let prot = Prot::user(access).with_dirty(matches!(access, Access::ReadWrite));
    F::leaf(LeafLevel::Pte, PhysAddr::ZERO, prot, false)
}

/// An entry with the address taken out, which stands at its own bit positions.
#[inline(always)]
pub(super) fn without_address<F: EntryFormat>(raw: RawEntry) -> RawEntry {
    RawEntry::new(raw.get() ^ F::frame_of(raw).start().get())
}

/// Changed pages that follow on, noted together: what each costs is a comparison.
pub(super) struct Notes {
    start: u64,
    end: u64,
}

impl Notes {
    pub(super) const fn new() -> Self {
        Self { start: 0, end: 0 }
    }

    /// Notes the page at `at`.
    #[inline(always)]
    pub(super) fn add<M: Mmu, F: FrameSource>(&mut self, at: VirtAddr, gather: &mut Gather<'_, M, F>) {
        if self.end != at.get() || self.start == self.end {
            self.hand_on(gather);
            self.start = at.get();
        }
        self.end = at.get() + PAGE_SIZE;
    }

    /// Hands on what is left.
    #[inline(never)]
    pub(super) fn hand_on<M: Mmu, F: FrameSource>(&mut self, gather: &mut Gather<'_, M, F>) {
        if self.start != self.end {
            gather.note(VirtAddr::new(self.start), (self.end - self.start) / PAGE_SIZE, LeafLevel::Pte);
            self.start = self.end;
        }
    }
}

impl<H: UserHal> UserPages<H> {
    /// The need of a write to what an entry maps, and the descriptor of its page, if that has one that matters.
    #[inline(always)]
    fn plan(&self, raw: RawEntry, kept: &Kept<H>) -> Option<(Plan, Page)> {
        if raw.is_absent() {
            return Some((Plan::Fill, Page::new(0)));
        }
        if without_address::<Format<H>>(raw) != ordinary::<Format<H>>(Access::ReadOnly) {
            return None;
        }
        let pfn = Format::<H>::frame_of(raw);
        if pfn == self.zero_page() {
            return Some((Plan::Replace, Page::new(0)));
        }
        let page = kept.find(pfn)?;
        let descriptor = kept.0.get(page);
        let state = descriptor.state();
        // Nobody counts a pin while this entry is locked.
        if !state.is_unpinned_user_page() || descriptor.prev() != 0 {
            return None;
        }
        Some((if state.references() == 1 { Plan::Reuse } else { Plan::Copy }, page))
    }

    /// Resolves a write fault in a private writable area whose pages are allocated one by one. `None` if it is no usual case.
    ///
    /// The next such fault of the space probably needs what the last one needed: so its page is there before the lock is
    /// taken, and the usual case looks once. A wrong guess costs a second look, and the page that nobody needs.
    ///
    /// # Errors
    ///
    /// [`FaultError::OutOfMemory`].
    #[inline(always)]
    pub(in crate::mm::user) fn fault_write(&self, at: VirtAddr, gfp: Gfp) -> Result<Option<Handled>, FaultError> {
        let frames = Frames::new(self.hal());
        let gfp = gfp.difference(Gfp::ACCOUNT | Gfp::COMP | Gfp::ZERO) | Gfp::MOVABLE;
        let guess = self.guess();
        // Nobody is to give anything up for a guess, nor be asked twice who has nothing to give up.
        let lightly = match gfp.may_wait() {
            true => gfp.difference(Gfp::DIRECT_RECLAIM | Gfp::NOFAIL) | Gfp::NOWARN,
            false => gfp,
        };
        let page = match guess {
            Plan::Fill => {
                let Ok(page) = frames.pages().alloc_pages(lightly | Gfp::ZERO, Order::ZERO) else {
                    return self.fault_write_again(at, gfp, None, (guess, Missed::Entry));
                };
                return match self.fill_absent(at, page, &frames) {
                    Ok(handled) => Ok(Some(handled)),
                    Err(missed) => self.fault_write_again(at, gfp, Some((page, true)), (guess, missed)),
                };
            }
            Plan::Replace => frames.pages().alloc_pages(lightly | Gfp::ZERO, Order::ZERO).ok().map(|page| (page, true)),
            Plan::Copy => frames.pages().alloc_pages(lightly, Order::ZERO).ok().map(|page| (page, false)),
            Plan::Reuse => None,
        };
        match self.carry_out(at, page, &frames) {
            Carried::Out(handled) => Ok(Some(handled)),
            Carried::Needs(_) | Carried::Unusual => self.fault_write_again(at, gfp, page, (guess, Missed::Entry)),
        }
    }

    /// [`Self::fault_write`] after a wrong guess, for which this page was allocated, if it could be.
    #[cold]
    #[inline(never)]
    fn fault_write_again(
        &self,
        at: VirtAddr,
        gfp: Gfp,
        mut page: Option<(Page, bool)>,
        (guess, missed): (Plan, Missed),
    ) -> Result<Option<Handled>, FaultError> {
        let frames = Frames::new(self.hal());
        // Nor will there be one, where nobody may be asked.
        let refused = guess != Plan::Reuse && page.is_none() && !gfp.may_wait();
        if let (Missed::Table, Some((zeroed, _))) = (missed, page) {
            if let Err(error) = self.grow_last(at, gfp) {
                frames.discard(zeroed);
                return Err(error);
            }
            if let Ok(handled) = self.fill_absent(at, zeroed, &frames) {
                return Ok(Some(handled));
            }
        }
        for _ in 0..LOOKS {
            let plan = match self.carry_out(at, page, &frames) {
                Carried::Out(handled) => return Ok(Some(handled)),
                Carried::Needs(plan) => Some(plan),
                Carried::Unusual => None,
            };
            if let Some((page, _)) = page.take() {
                frames.discard(page);
            }
            page = match plan {
                None => return Ok(None),
                Some(Plan::Copy | Plan::Fill | Plan::Replace) if refused => return Err(FaultError::OutOfMemory),
                Some(Plan::Copy) => Some((frames.pages().alloc_pages(gfp, Order::ZERO)?, false)),
                Some(Plan::Fill | Plan::Replace) => {
                    Some((frames.pages().alloc_pages(gfp | Gfp::ZERO, Order::ZERO)?, true))
                }
                Some(Plan::Reuse) => None,
            };
        }
        if let Some((page, _)) = page {
            frames.discard(page);
        }
        Ok(None)
    }

    /// Maps a zeroed page where nothing is. If there is something, or no table, nothing has changed.
    #[inline(always)]
    fn fill_absent(&self, at: VirtAddr, page: Page, frames: &Frames<'_, H>) -> Result<Handled, Missed> {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let _entries = self.lock_entries(at);
        let (table, raw, count) = tables.last_entry(at).ok_or(Missed::Table)?;
        if !raw.is_absent() {
            return Err(Missed::Entry);
        }
        let kept = frames.kept();
        kept.claim(page, at);
        let leaf = ordinary::<Format<H>>(Access::ReadWrite).get() | kept.0.pfn(page).start().get();
        // The zeroes are visible to every CPU before the entry is.
        mmu.publish_table();
        count.add(mmu, 1);
        table.write(mmu, Level::Pte.slot(at), RawEntry::new(leaf));
        mmu.publish();
        self.count_anon(1);
        Ok(Handled::Zeroed(Order::ZERO))
    }

    /// The probable need of a write fault: that of the last one.
    #[inline(always)]
    fn guess(&self) -> Plan {
        match self.expected.load(Ordering::Relaxed) {
            0 => Plan::Fill,
            1 => Plan::Copy,
            2 => Plan::Reuse,
            _ => Plan::Replace,
        }
    }

    #[cold]
    fn expect(&self, plan: Plan) {
        let number = match plan {
            Plan::Fill => 0,
            Plan::Copy => 1,
            Plan::Reuse => 2,
            Plan::Replace => 3,
        };
        self.expected.store(number, Ordering::Relaxed);
    }

    /// One look at an entry to be written to, and what it needs done, if `page`, zeroed or not, serves for that.
    #[inline(always)]
    fn carry_out(&self, at: VirtAddr, page: Option<(Page, bool)>, frames: &Frames<'_, H>) -> Carried {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let _entries = self.lock_entries(at);
        let Some((table, raw, count)) = tables.last_entry(at) else { return Carried::Unusual };
        let kept = frames.kept();
        let Some((plan, old_page)) = self.plan(raw, &kept) else { return Carried::Unusual };
        let (slot, old) = (Level::Pte.slot(at), Format::<H>::frame_of(raw));
        let leaf = |pfn: Pfn| RawEntry::new(ordinary::<Format<H>>(Access::ReadWrite).get() | pfn.start().get());
        let page = match page {
            None if plan == Plan::Reuse => {
                table.write(mmu, slot, leaf(old));
                tables.flush_leaf(at, LeafLevel::Pte);
                return Carried::Out(Handled::Reused);
            }
            Some((page, zeroed)) if plan == Plan::Copy || (plan != Plan::Reuse && zeroed) => {
                if zeroed && plan != self.guess() {
                    // It serves, but the next one probably comes to an entry like this one.
                    self.expect(plan);
                }
                page
            }
            _ => {
                self.expect(plan);
                return Carried::Needs(plan);
            }
        };
        let new = kept.0.pfn(page);
        kept.claim(page, at);
        if plan == Plan::Copy {
            // Nobody writes the old page meanwhile: each leaf that maps it is read-only.
            frames.copy(old.start(), new.start(), 1);
        }
        // The content is visible to every CPU before the entry is.
        if plan != Plan::Fill {
            // Break-before-make: the leaf maps another frame from now on. The flush orders what comes before it.
            table.write(mmu, slot, RawEntry::ABSENT);
            tables.flush_leaf(at, LeafLevel::Pte);
        } else {
            count.add(mmu, 1);
            mmu.publish_table();
        }
        table.write(mmu, slot, leaf(new));
        mmu.publish();
        if plan == Plan::Copy {
            // Not before the flush: the last other owner may free it at once. One page of this space's for another.
            if !kept.unshare_page(old_page) {
                self.let_go(old, frames);
            }
            return Carried::Out(Handled::Copied);
        }
        self.count_anon(1);
        Carried::Out(Handled::Zeroed(Order::ZERO))
    }

    /// Drops what a leaf mapped that has been replaced by a page of the space's own, when nobody else has it any more.
    #[cold]
    fn let_go(&self, old: Pfn, frames: &Frames<'_, H>) {
        let mut dropped = Dropped::default();
        dropped.add(frames.put(old));
        self.count_anon(1);
        self.count_dropped(dropped);
    }

    /// Resolves a read fault in a private area, which may be executed or not, where nothing is mapped and the table exists. `None`
    /// if it is no usual case.
    #[inline(always)]
    pub(in crate::mm::user) fn fault_read(&self, at: VirtAddr, executable: bool) -> Option<Handled> {
        let (tables, mmu) = (self.tables(), self.tables().mmu());
        let _entries = self.lock_entries(at);
        let (table, _, count) = tables.last_entry(at).filter(|(_, raw, _)| raw.is_absent())?;
        let (code, data) = (ordinary::<Format<H>>(Access::Execute), ordinary::<Format<H>>(Access::ReadOnly));
        let leaf = if executable { code } else { data }.get() | self.zero_page().start().get();
        count.add(mmu, 1);
        table.write(mmu, Level::Pte.slot(at), RawEntry::new(leaf));
        mmu.publish();
        Some(Handled::ZeroPage)
    }
}

/// The same protection without the right to write.
pub(super) fn read_only(prot: Prot) -> Prot {
    if prot.is_writable() { Prot::user(Access::ReadOnly).with_accessed(prot.is_accessed()) } else { prot }
}
