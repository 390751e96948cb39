//! Changing what a range permits. Where it is to permit nothing, its pages stay behind parked entries, which are invalid.
#![forbid(unsafe_code)]

use super::frame::Frames;
use super::hal::Format;
use super::space_pages::UserPages;
use super::usual::{ordinary, without_address};
use super::zap::{is_one_part, run_of};
use super::{Backing, PagesError, Sharing, UserHal};
use crate::addr::{Order, PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level, Run, Slot};
use crate::hal::mmu::Mmu;
use crate::hal::prot::{Access, Prot};
use crate::mm::page::Kind;
use crate::mm::pgtable::{Gather, Table};

/// The effect of a change on an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Same,
    /// A CPU may have the old one.
    Changed,
    /// It was parked: no CPU has anything for the address.
    Restored,
}

/// Entries that a loop over like ones left as they were.
#[derive(Default)]
struct Others {
    count: usize,
    /// Some are to be changed.
    unusual: bool,
}

impl Others {
    #[cold]
    fn add(&mut self, is_unusual: bool) {
        self.count += 1;
        self.unusual |= is_unusual;
    }
}

impl<H: UserHal> UserPages<H> {
    /// Changes what accesses to everything mapped in `range` may do (Linux: `change_protection`). When it returns, no CPU acts
    /// on what was permitted before. A page that others have too stays read-only where the range is private: its first write
    /// copies it. Holes are no error; device memory does not become executable. May sleep if `gfp` says so. Cost: one flush.
    ///
    /// # Errors
    ///
    /// [`PagesError::SharedExecutable`], [`PagesError::Range`]; [`PagesError::OutOfMemory`] as for [`UserPages::unmap`].
    /// Nothing has changed then.
    pub fn protect(&self, range: VirtRange, access: Access, sharing: Sharing, gfp: Gfp) -> Result<(), PagesError> {
        self.admit(range)?;
        let area = Backing { range, access, sharing, largest: Order::ZERO };
        if area.is_shared_code() {
            return Err(PagesError::SharedExecutable);
        }
        self.carve(range, gfp)?;
        self.protect_cut(range, access, sharing);
        Ok(())
    }

    /// [`Self::protect`] where the edges of `range` are edges of leaves, and its code is not shared.
    pub(in crate::mm::user) fn protect_cut(&self, range: VirtRange, access: Access, sharing: Sharing) {
        let mut changed = None;
        if is_one_part(range) && !self.protect_few(range, access, &mut changed) {
            if let Some((start, pages)) = changed {
                self.tables().flush_leaves(start, pages, LeafLevel::Pte);
            }
            return;
        }
        self.protect_all(&Backing { range, access, sharing, largest: Order::ZERO }, changed);
    }

    /// Changes all of a range, of which these pages have been changed and are to be flushed.
    #[inline(never)]
    fn protect_all(&self, area: &Backing, changed: Option<(VirtAddr, u64)>) {
        let frames = self.hal().frames(Gfp::ATOMIC);
        let mut gather = self.tables().gather(&frames);
        if let Some((start, pages)) = changed {
            gather.note(start, pages, LeafLevel::Pte);
        }
        self.each_part(area.range, |part| self.protect_part(part, area, &mut gather));
        gather.flush();
    }

    /// Changes the usual entries of a part; whether there may be others to be changed. The pages that were changed lie in
    /// `changed`: they are not flushed.
    #[inline(never)]
    fn protect_few(&self, part: VirtRange, access: Access, changed: &mut Option<(VirtAddr, u64)>) -> bool {
        if access == Access::Execute {
            // Code is written to by the kernel.
            return true;
        }
        let _entries = self.lock_entries(part.start());
        let Some((table, ..)) = self.tables().last_entry(part.start()) else { return true };
        self.cut_groups(table, part);
        let rest;
        (*changed, rest) = self.protect_usual(table, part, access);
        rest
    }

    /// Changes the entries of a part that are like the first one, if that is a usual one: a page with one of the other two
    /// permissions, all of which leave it readable. They need no look at who else has the page, or one at a single descriptor,
    /// which is like that of the first. The pages that were changed lie in the result; `true`: there are others to be changed.
    /// Under their lock.
    #[inline(always)]
    fn protect_usual(&self, table: Table, part: VirtRange, access: Access) -> (Option<(VirtAddr, u64)>, bool) {
        let (mmu, run) = (self.tables().mmu(), run_of(part));
        let wanted = ordinary::<Format<H>>(access);
        let one = if access == Access::ReadOnly { Access::ReadWrite } else { Access::ReadOnly };
        let other = Access::Execute;
        let is_absent = |slot: &Slot| table.read(mmu, *slot).is_absent();
        let (mut part, mut run) = (part, run);
        if is_absent(&run.first()) {
            let ahead = run.slots().take_while(is_absent).count();
            if ahead == run.count() {
                return (None, false);
            }
            let start = VirtAddr::new(part.start().get() + ahead as u64 * PAGE_SIZE);
            part = VirtRange::new(start, part.end()).unwrap_or_default();
            run = run_of(part);
        }
        let like = table.read(mmu, run.first());
        let plain = without_address::<Format<H>>(like);
        if plain != ordinary::<Format<H>>(one) && plain != ordinary::<Format<H>>(other) {
            return (None, true);
        }
        let (turn, mut others) = (plain.get() ^ wanted.get(), Others::default());
        if access == Access::ReadWrite {
            let kept = Frames::new(self.hal()).kept();
            let Some(alone) = kept.sole_state(Format::<H>::frame_of(like)) else { return (None, true) };
            table.change_each(mmu, run, |raw| {
                let found = without_address::<Format<H>>(raw);
                let state = kept.state_near(Format::<H>::frame_of(raw));
                if state.is_some_and(|state| (state == alone) & (found == plain)) {
                    return Some(RawEntry::new(raw.get() ^ turn));
                }
                others.add(found != wanted && !raw.is_absent());
                None
            });
        } else {
            table.change_each(mmu, run, |raw| {
                let found = without_address::<Format<H>>(raw);
                if found == plain {
                    return Some(RawEntry::new(raw.get() ^ turn));
                }
                others.add(found != wanted && !raw.is_absent());
                None
            });
        }
        let Others { count, unusual } = others;
        if count == run.count() {
            return (None, unusual);
        }
        // All between the first page and the last together: what is not there between them is in no TLB.
        let behind = run.slots().rev().take_while(is_absent).count();
        (Some((part.start(), (run.count() - behind) as u64)), unusual)
    }

    /// Keeps everything that `range` maps from every access, and keeps the pages (Linux: `PROT_NONE`): their entries are
    /// parked until [`UserPages::protect`] gives them a permission again. They are shared, moved and freed as others are; a
    /// fault in one is [`FaultError::Denied`](super::FaultError::Denied). When it returns, no CPU reaches them. May sleep if
    /// `gfp` says so. Cost: one flush.
    ///
    /// # Errors
    ///
    /// [`PagesError::Range`]; [`PagesError::OutOfMemory`] as for [`UserPages::unmap`]. Nothing has changed then.
    pub fn park(&self, range: VirtRange, gfp: Gfp) -> Result<(), PagesError> {
        self.admit(range)?;
        self.carve(range, gfp)?;
        self.park_cut(range);
        Ok(())
    }

    /// [`Self::park`] where the edges of `range` are edges of leaves.
    #[inline(never)]
    pub(in crate::mm::user) fn park_cut(&self, range: VirtRange) {
        let frames = self.hal().frames(Gfp::ATOMIC);
        let mut gather = self.tables().gather(&frames);
        self.each_part(range, |part| self.park_part(part, &mut gather));
        gather.flush();
    }

    fn park_part<F: FrameSource>(&self, part: VirtRange, gather: &mut Gather<'_, H::Mmu, F>) {
        let mmu = self.tables().mmu();
        let _entries = self.lock_entries(part.start());
        let (table, raw) = self.tables().lowest(part.start());
        if table.level() != Level::Pte {
            if let Entry::Leaf(leaf) = Format::<H>::decode(table.level(), raw)
                && part.size() == leaf.level.size()
            {
                table.write(mmu, table.level().slot(part.start()), Format::<H>::park(raw));
                gather.note(part.start(), 1, leaf.level);
            }
            return;
        }
        self.cut_groups(table, part);
        let (mut first, mut here) = (part.start(), part.start());
        for slot in run_of(part).slots() {
            let (raw, next) = (table.read(mmu, slot), VirtAddr::new(here.get() + PAGE_SIZE));
            if Format::<H>::is_valid(raw) {
                table.write(mmu, slot, Format::<H>::park(raw));
            } else {
                note(gather, first, here);
                first = next;
            }
            here = next;
        }
        note(gather, first, here);
    }

    fn protect_part<F: FrameSource>(&self, part: VirtRange, area: &Backing, gather: &mut Gather<'_, H::Mmu, F>) {
        let mut changed = None;
        let rest = self.protect_few(part, area.access, &mut changed);
        if let Some((start, pages)) = changed {
            gather.note(start, pages, LeafLevel::Pte);
        }
        if !rest {
            return;
        }
        let _entries = self.lock_entries(part.start());
        let (table, raw) = self.tables().lowest(part.start());
        if table.level() != Level::Pte {
            self.protect_block((table, raw), part, area, gather);
            return;
        }
        self.cut_groups(table, part);
        self.protect_rest(table, part, area, gather);
    }

    /// Gives those entries of a part that have no usual permission their new one.
    #[cold]
    fn protect_rest<F: FrameSource>(
        &self,
        table: Table,
        part: VirtRange,
        area: &Backing,
        gather: &mut Gather<'_, H::Mmu, F>,
    ) {
        let (mmu, wanted) = (self.tables().mmu(), ordinary::<Format<H>>(area.access));
        // Pages from `first` to `here` have changed.
        let (mut first, mut here, mut restored) = (part.start(), part.start(), false);
        for slot in run_of(part).slots() {
            let (raw, next) = (table.read(mmu, slot), VirtAddr::new(here.get() + PAGE_SIZE));
            let outcome = if raw.is_absent() || without_address::<Format<H>>(raw) == wanted {
                Outcome::Same
            } else {
                self.protect_unusual(table, (slot, here), raw, area)
            };
            if outcome != Outcome::Changed {
                restored |= outcome == Outcome::Restored;
                note(gather, first, here);
                first = next;
            }
            here = next;
        }
        note(gather, first, here);
        if restored {
            mmu.publish();
        }
    }

    /// Gives an entry of the last level its new permission.
    #[cold]
    fn protect_unusual(&self, table: Table, (slot, here): (Slot, VirtAddr), raw: RawEntry, area: &Backing) -> Outcome {
        let (mmu, frames) = (self.tables().mmu(), Frames::new(self.hal()));
        match Format::<H>::decode(Level::Pte, raw) {
            Entry::Leaf(leaf) => {
                let prot = self.protection(&frames, area, &leaf);
                let Some(prot) = prot.filter(|prot| *prot != leaf.prot) else { return Outcome::Same };
                if leaf.contiguous {
                    self.unfold(table, slot, here);
                }
                table.write(mmu, slot, Format::<H>::leaf(LeafLevel::Pte, leaf.phys, prot, false));
                Outcome::Changed
            }
            Entry::Parked(leaf) => {
                let Some(prot) = self.protection(&frames, area, &leaf) else { return Outcome::Same };
                table.write(mmu, slot, Format::<H>::leaf(LeafLevel::Pte, leaf.phys, prot, false));
                Outcome::Restored
            }
            _ => Outcome::Same,
        }
    }

    /// [`Self::protect_part`] for a block. Under its lock.
    fn protect_block<F: FrameSource>(
        &self,
        (table, raw): (Table, RawEntry),
        part: VirtRange,
        area: &Backing,
        gather: &mut Gather<'_, H::Mmu, F>,
    ) {
        let (leaf, parked) = match Format::<H>::decode(table.level(), raw) {
            Entry::Leaf(leaf) => (leaf, false),
            Entry::Parked(leaf) => (leaf, true),
            _ => return,
        };
        let Some(prot) = self.protection(&Frames::new(self.hal()), area, &leaf) else { return };
        if part.size() != leaf.level.size() || (prot == leaf.prot && !parked) {
            return;
        }
        let entry = Format::<H>::leaf(leaf.level, leaf.phys, prot, leaf.contiguous);
        table.write(self.tables().mmu(), table.level().slot(part.start()), entry);
        if parked {
            self.tables().mmu().publish();
        } else {
            gather.note(part.start(), 1, leaf.level);
        }
    }

    /// Clears the accessed flags of everything that `range` maps, and tells how many pages had it: were used since the last
    /// such call (Linux: `ptep_test_and_clear_young`, what its reclaim and the idle page tracking look at). The next access
    /// sets the flag, by itself or by a fault. Cost: one flush.
    ///
    /// # Errors
    ///
    /// [`PagesError::Range`].
    pub fn age(&self, range: VirtRange) -> Result<u64, PagesError> {
        self.admit(range)?;
        let frames = self.hal().frames(Gfp::ATOMIC);
        let mut gather = self.tables().gather(&frames);
        let mut young = 0;
        self.each_part(range, |part| {
            let mmu = self.tables().mmu();
            let _entries = self.lock_entries(part.start());
            let (table, _) = self.tables().lowest(part.start());
            let level = table.level();
            let count = if level == Level::Pte { part.size() / PAGE_SIZE } else { 1 };
            let mut at = part.start().align_down(level.size());
            for slot in Run::from_slot(level.slot(at), count).slots() {
                if let Entry::Leaf(leaf) = Format::<H>::decode(level, table.read(mmu, slot))
                    && leaf.prot.is_accessed()
                {
                    let prot = leaf.prot.with_accessed(false);
                    table.write(mmu, slot, Format::<H>::leaf(leaf.level, leaf.phys, prot, leaf.contiguous));
                    gather.note(at, 1, leaf.level);
                    young += leaf.level.size() / PAGE_SIZE;
                }
                at = VirtAddr::new(at.get() + level.size());
            }
        });
        gather.flush();
        Ok(young)
    }

    /// The protection that a leaf has in `area`; `None` if its memory cannot have one.
    fn protection(&self, frames: &Frames<'_, H>, area: &Backing, leaf: &Leaf) -> Option<Prot> {
        let pfn = Pfn::containing(leaf.phys);
        let own = match frames.block(pfn) {
            _ if pfn == self.hal().zero_page() => false,
            Some((head, state)) if state.kind() == Kind::User => {
                area.sharing == Sharing::Shared || self.is_own(frames, head, state, leaf.level)
            }
            // Memory of a driver is shared, whatever the area is.
            _ => true,
        };
        let prot = if own { area.prot() } else { area.read_prot() };
        let prot = prot
            .with_memory(leaf.prot.memory())
            .or_else(|_| Prot::user(Access::ReadOnly).with_memory(leaf.prot.memory()));
        let prot = prot.ok()?.with_accessed(leaf.prot.is_accessed());
        let prot = if prot.is_writable() { prot } else { prot.with_dirty(leaf.prot.is_dirty()) };
        if prot.is_executable() && !leaf.prot.is_executable() && frames.find(pfn).is_some() {
            self.hal().sync_instructions(leaf.phys, leaf.level.size() / PAGE_SIZE);
        }
        Some(prot)
    }
}

/// Notes that the pages from `start` to `end` have changed, if there are any.
#[inline(always)]
fn note<M: Mmu, F: FrameSource>(gather: &mut Gather<'_, M, F>, start: VirtAddr, end: VirtAddr) {
    if start != end {
        gather.note(start, (end.get() - start.get()) / PAGE_SIZE, LeafLevel::Pte);
    }
}
