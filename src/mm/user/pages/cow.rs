//! A page that is there and may not be accessed so: copied, taken back by its last owner, split off.
#![forbid(unsafe_code)]

use super::fault::{At, Need};
use super::frame::{Dropped, Frames};
use super::hal::Format;
use super::space_pages::UserPages;
use super::spare::Spare;
use super::{FaultAccess, FaultError, Handled, Sharing, UserHal};
use crate::addr::{Order, PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::level::{ENTRIES, LeafLevel, Level, Run, Slot};
use crate::mm::page::{Kind, Page, PageState};
use crate::mm::pgtable::{LivePolicy, PgtableError, Table};

impl<H: UserHal> UserPages<H> {
    /// A leaf that does not permit the access, although the area does; or that is to be this space's alone.
    pub(super) fn fault_forbidden(&self, at: &At<'_>, leaf: &Leaf, spare: &mut Spare<'_, H>) -> Result<Handled, Need> {
        let frames = Frames::new(self.hal());
        let pfn = Pfn::containing(leaf.phys);
        let block = frames.block(pfn);
        let is_zero = pfn == self.zero_page() && leaf.level == LeafLevel::Pte;
        let shared = at.area.sharing == Sharing::Shared;
        let may_stay = match block {
            _ if is_zero => !at.own && at.access != FaultAccess::Write,
            // Nobody writes it, so it may be executed by others too.
            Some((_, state)) if state.kind() == Kind::User && at.access == FaultAccess::Execute => !shared,
            Some((head, state)) if state.kind() == Kind::User => {
                shared || self.is_own(&frames, head, state, leaf.level)
            }
            // A driver's memory permits what its driver said.
            _ => false,
        };
        if may_stay {
            return Ok(self.permit(at, leaf, &frames));
        }
        if leaf.level != LeafLevel::Pte {
            self.split_block(at.addr, &spare.tables)?;
            return Err(Need::Again);
        }
        if !is_zero && (block.is_none() || shared) {
            // A device's memory has no copy; and what is shared is not copied.
            return Err(Need::Never(FaultError::Denied(at.addr)));
        }
        if leaf.contiguous {
            self.unfold(at.table, at.slot, at.addr);
            return Err(Need::Again);
        }
        if is_zero {
            let page = spare.take(Order::ZERO, true).ok_or(Need::Zeroed)?;
            frames.claim(page, at.addr);
            self.replace_leaf(at, self.own_leaf(at.area.prot(), page, &frames));
            self.count_anon(1);
            return Ok(Handled::Zeroed(Order::ZERO));
        }
        let page = spare.take(Order::ZERO, false).ok_or(Need::Page)?;
        // Nobody writes the old page meanwhile: each leaf that maps it is read-only.
        frames.copy(leaf.phys, frames.phys(page), 1);
        frames.claim(page, at.addr);
        self.replace_leaf(at, self.own_leaf(at.area.prot(), page, &frames));
        // Not before the flush: the last other owner may free it at once.
        let mut dropped = Dropped::default();
        dropped.add(frames.put(pfn));
        self.count_anon(1);
        self.count_dropped(dropped);
        Ok(Handled::Copied)
    }

    /// Whether the leaf that maps this user block is the only one that does. One leaf of many that map a block of several
    /// pages is not; what is pinned is this space's by `USR-4`.
    pub(super) fn is_own(&self, frames: &Frames<'_, H>, head: Page, state: PageState, level: LeafLevel) -> bool {
        let whole = state.order().pages() * PAGE_SIZE == level.size();
        (whole && frames.is_sole(head, state)) || frames.pins(head) != 0
    }

    /// Gives a leaf what the area permits.
    fn permit(&self, at: &At<'_>, leaf: &Leaf, frames: &Frames<'_, H>) -> Handled {
        let start = at.addr.align_down(leaf.level.size());
        let Some(prot) = at.area.prot().with_memory(leaf.prot.memory()).ok().filter(|prot| *prot != leaf.prot) else {
            return Handled::Spurious;
        };
        let (mut raw_leaf, table) = (*leaf, at.table);
        if leaf.contiguous {
            self.unfold(table, at.slot, at.addr);
            raw_leaf.contiguous = false;
        }
        if prot.is_executable() && frames.find(Pfn::containing(leaf.phys)).is_some() {
            self.hal().sync_instructions(leaf.phys, leaf.level.size() / PAGE_SIZE);
        }
        self.write_leaf(at, &raw_leaf, prot);
        self.tables().flush_leaf(start, leaf.level);
        if at.access == FaultAccess::Write { Handled::Reused } else { Handled::Updated }
    }

    /// Makes the contiguous group around an entry plain entries. Under their lock.
    pub(super) fn unfold(&self, table: Table, slot: Slot, addr: VirtAddr) {
        let start = addr.align_down(LeafLevel::Pte.contiguous_size());
        let plain = |raw| Format::<H>::with_contiguous(raw, false);
        self.tables().rewrite(table, Run::group(slot), start, LeafLevel::Pte, LivePolicy::BreakBeforeMake, plain);
    }

    /// Puts a table in the place of the block around `addr`, and counts the references anew. Under its lock.
    pub(super) fn split_block<F: crate::hal::frame::FrameSource>(
        &self,
        addr: VirtAddr,
        source: &F,
    ) -> Result<(), Need> {
        let Some(leaf) = self.block_at(addr) else { return Ok(()) };
        let frames = Frames::new(self.hal());
        let block = frames.block(Pfn::containing(leaf.phys));
        let more = u32::try_from(ENTRIES - 1).unwrap_or(u32::MAX);
        let sole = match block {
            Some((head, state)) => {
                let whole =
                    state.order() == super::Backing::BLOCK && frames.find(Pfn::containing(leaf.phys)) == Some(head);
                let sole = state.kind() == Kind::User && whole && state.references() == 1;
                if !sole && !frames.hold(head, more) {
                    return Err(Need::Never(FaultError::OutOfMemory));
                }
                sole
            }
            None => false,
        };
        let start = addr.align_down(LeafLevel::Pmd.size());
        let second = VirtAddr::new(start.get() + PAGE_SIZE);
        let edge = VirtRange::from_size(second, PAGE_SIZE).unwrap_or_default();
        match self.tables().do_carve(source, edge, LivePolicy::BreakBeforeMake) {
            Ok(()) => {}
            Err(error) => {
                if let Some((head, _)) = block.filter(|_| !sole) {
                    frames.unhold(head, more);
                }
                return Err(match error {
                    PgtableError::NoFrame => Need::SplitTable,
                    _ => Need::Never(FaultError::Denied(addr)),
                });
            }
        }
        if let Some((head, _)) = block.filter(|_| sole) {
            // INVARIANT: USR-2: one leaf and one reference for each page.
            frames.claim_pages(head, more + 1, start);
        }
        Ok(())
    }

    /// The block of 2 MiB that maps `addr`, or would if it were not parked. Under its lock.
    pub(super) fn block_at(&self, addr: VirtAddr) -> Option<Leaf> {
        let (table, raw) = self.tables().lowest(addr);
        if table.level() != Level::Pmd || raw == RawEntry::ABSENT {
            return None;
        }
        match Format::<H>::decode(Level::Pmd, raw) {
            Entry::Leaf(leaf) | Entry::Parked(leaf) => Some(leaf),
            _ => None,
        }
    }
}
