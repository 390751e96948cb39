//! Fork: the child gets the parent's pages, read-only on both sides where they are private.
#![forbid(unsafe_code)]

use super::frame::{Counted, Frames};
use super::hal::Format;
use super::space_pages::{USER_END, UserPages};
use super::spare::Spare;
use super::usual::{Notes, ordinary, read_only, without_address};
use super::zap::run_of;
use super::{PagesError, Sharing, UserHal};
use crate::addr::{Order, PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level, Slot};
use crate::hal::mmu::Mmu;
use crate::hal::prot::Access;
use crate::mm::page::Kind;
use crate::mm::pgtable::{Count, Gather, Table};

/// How a range is copied.
#[derive(Clone, Copy)]
struct How {
    sharing: Sharing,
    /// The child has nothing in it.
    fresh: bool,
}

/// Where a part was left.
enum Left {
    /// All of it is done.
    Done,
    /// The page here is pinned, or part of a block that goes to the child in part, and is to be copied.
    Pinned(VirtAddr),
    /// The child needs a table of last entries here: the parent's block was split meanwhile.
    Table,
}

impl<H: UserHal> UserPages<H> {
    /// Gives `child`, a new space that no CPU runs, everything that `ranges` map here (Linux: `dup_mmap`). Pages of private
    /// ranges become read-only on both sides and are copied by the first writer; pages of shared ranges, and memory of
    /// drivers, stay as they are. A pinned page is copied for the child at once: the device goes on with the parent's. When
    /// it returns, whatever it returns, no CPU has a writable translation of what has become read-only. May sleep if `gfp`
    /// says so. Cost: about twenty instructions a page, one flush; ranges by rising address are the usual case, any others cost two
    /// more.
    ///
    /// # Errors
    ///
    /// [`PagesError::OutOfMemory`], [`PagesError::Range`]. The child is empty then, and the parent has what it had: its
    /// pages are its own again, and writable at the next write.
    pub fn fork(
        &self,
        child: &mut Self,
        ranges: impl IntoIterator<Item = (VirtRange, Sharing)>,
        gfp: Gfp,
    ) -> Result<(), PagesError> {
        let frames = self.hal().frames(Gfp::ATOMIC);
        let mut gather = self.tables().gather(&frames);
        let mut result = Ok(());
        let mut reached = if child.tables().table_frames() == 1 { VirtAddr::ZERO } else { VirtAddr::new(USER_END) };
        for (range, sharing) in ranges {
            // Nothing is there in the child yet, if ranges come by rising address, as areas do.
            let how = How { sharing, fresh: range.start() >= reached };
            reached = reached.max(range.end());
            result = self.fork_range(child, range, how, gfp, &mut gather);
            if result.is_err() {
                break;
            }
        }
        gather.flush();
        child.tables().mmu().publish();
        if result.is_err() {
            child.raze();
        }
        result
    }

    fn fork_range<F: FrameSource>(
        &self,
        child: &mut Self,
        range: VirtRange,
        how: How,
        gfp: Gfp,
        gather: &mut Gather<'_, H::Mmu, F>,
    ) -> Result<(), PagesError> {
        self.admit(range)?;
        let spare = Spare::new(child.hal(), gfp, Order::ZERO);
        let mut at = range.start();
        while let Some(part) = self.tables().next_part(at, range.end()) {
            at = part.start();
            // Before the lock. A block needs no such table, which is what the next look says.
            let level = if self.tables().look(|| self.tables().lowest(at)).0.level() == Level::Pte {
                LeafLevel::Pte
            } else {
                LeafLevel::Pmd
            };
            child.grow(at, level, &spare)?;
            while at < part.end() {
                let rest = VirtRange::new(at, part.end()).unwrap_or_default();
                match self.fork_part(child, rest, how, gather)? {
                    Left::Done => break,
                    Left::Table => child.grow(at, LeafLevel::Pte, &spare)?,
                    Left::Pinned(pinned) => {
                        at = pinned;
                        child.grow(at, LeafLevel::Pte, &spare)?;
                        self.fork_pinned(child, at, gfp)?;
                        at = VirtAddr::new(at.get() + PAGE_SIZE);
                    }
                }
            }
            at = part.end();
        }
        Ok(())
    }

    fn fork_part<F: FrameSource>(
        &self,
        child: &Self,
        part: VirtRange,
        how: How,
        gather: &mut Gather<'_, H::Mmu, F>,
    ) -> Result<Left, PagesError> {
        let (at, sharing) = (part.start(), how.sharing);
        let _entries = self.lock_entries(at);
        let (table, raw) = self.tables().lowest(at);
        if table.level() == Level::Pte {
            // Nobody else has the child.
            return match child.tables().last_entry(at) {
                Some((copy, _, count)) => self.fork_entries(child, (table, copy, count), part, how, gather),
                None => Ok(Left::Table),
            };
        }
        let (copy, below) = child.tables().lowest(at);
        match Format::<H>::decode(table.level(), raw) {
            Entry::Leaf(leaf) if leaf.level == LeafLevel::Pmd => {
                let frames = Frames::new(self.hal());
                let block = frames.block(Pfn::containing(leaf.phys));
                let whole = part.size() == leaf.level.size() && copy.level() == Level::Pmd && below.is_absent();
                if let Some((head, state)) = block
                    && sharing == Sharing::Private
                    && state.kind() == Kind::User
                    && (frames.pins(head) != 0 || !whole)
                {
                    return Ok(Left::Pinned(at));
                }
                if !whole {
                    // The range ends inside: the pages beyond are not its own.
                    return Err(PagesError::Occupied(at));
                }
                let user = block.is_some_and(|(_, state)| state.kind() == Kind::User);
                if let Some((head, _)) = block
                    && !frames.hold(head, 1)
                {
                    return Err(PagesError::OutOfMemory);
                }
                let protect = user && sharing == Sharing::Private;
                let prot = if protect { read_only(leaf.prot) } else { leaf.prot };
                let entry = Format::<H>::leaf(LeafLevel::Pmd, leaf.phys, prot, false);
                if prot != leaf.prot {
                    table.write(self.tables().mmu(), Level::Pmd.slot(at), entry);
                    gather.note(at, 1, LeafLevel::Pmd);
                }
                child.enter_block(at, entry);
                let pages = leaf.level.size() >> PAGE_SHIFT;
                if user {
                    child.count_anon(pages)
                } else {
                    child.count_mapped(pages)
                }
                Ok(Left::Done)
            }
            Entry::Parked(leaf) if leaf.level == LeafLevel::Pmd => {
                self.fork_parked(child, (copy, below), part, raw, &leaf)
            }
            // Nothing is there any more.
            _ => Ok(Left::Done),
        }
    }

    /// Has this child, which nobody else has, a block where it has nothing in a table that is there.
    fn enter_block(&self, at: VirtAddr, block: RawEntry) {
        if let Some((table, count)) = self.tables().block_entries(at) {
            count.add(self.tables().mmu(), 1);
            table.write(self.tables().mmu(), Level::Pmd.slot(at), block);
        }
    }

    /// Gives the child a parked block.
    #[cold]
    fn fork_parked(
        &self,
        child: &Self,
        (copy, below): (Table, RawEntry),
        part: VirtRange,
        raw: RawEntry,
        leaf: &Leaf,
    ) -> Result<Left, PagesError> {
        let (at, frames) = (part.start(), Frames::new(self.hal()));
        let whole = part.size() == leaf.level.size() && copy.level() == Level::Pmd && below.is_absent();
        let Some((head, _)) = frames.block(Pfn::containing(leaf.phys)) else { return Ok(Left::Done) };
        if frames.pins(head) != 0 || !whole {
            return Ok(Left::Pinned(at));
        }
        if !frames.hold(head, 1) {
            return Err(PagesError::OutOfMemory);
        }
        child.enter_block(at, raw);
        child.count_anon(leaf.level.size() >> PAGE_SHIFT);
        Ok(Left::Done)
    }

    fn fork_entries<F: FrameSource>(
        &self,
        child: &Self,
        (table, copy, count): (Table, Table, Count),
        part: VirtRange,
        how: How,
        gather: &mut Gather<'_, H::Mmu, F>,
    ) -> Result<Left, PagesError> {
        let (mmu, map) = (self.tables().mmu(), Frames::new(self.hal()).kept());
        let (writable, read_only_leaf) =
            (ordinary::<Format<H>>(Access::ReadWrite), ordinary::<Format<H>>(Access::ReadOnly));
        let private = how.sharing == Sharing::Private;
        let first = part.start().align_down(LeafLevel::Pmd.size()).get();
        let (mut anon, mut mapped) = (0_u64, 0_u64);
        let (mut result, mut notes, mut alone, mut others) = (Ok(Left::Done), Notes::new(), None, 0_u64);
        for slot in run_of(part).slots() {
            let mut raw = table.read(mmu, slot);
            let (plain, pfn) = (without_address::<Format<H>>(raw), Format::<H>::frame_of(raw));
            // An entry that is there already came with a range that overlaps this one.
            if raw.is_absent() || !(how.fresh || copy.read(mmu, slot).is_absent()) {
                continue;
            }
            // The usual cases first: memory that nobody has pinned, already read-only, or to be so from now on.
            if plain == read_only_leaf && map.share(pfn, &mut alone) {
                // At most the entries of a table: this, and the next, cannot overflow.
                anon = u64::wrapping_add(anon, 1);
            } else if plain == writable && private && map.share(pfn, &mut alone) {
                anon = u64::wrapping_add(anon, 1);
                raw = RawEntry::new(read_only_leaf.get() | pfn.start().get());
                table.write(mmu, slot, raw);
                notes.add(VirtAddr::new(first + ((slot.get() as u64) << PAGE_SHIFT)), gather);
            } else {
                let here = VirtAddr::new(first + ((slot.get() as u64) << PAGE_SHIFT));
                match self.fork_unusual(table, (slot, here), raw, how.sharing, gather) {
                    Ok((entry, counted)) => {
                        raw = entry;
                        anon += u64::from(counted == Some(Counted::Anon));
                        mapped += u64::from(counted == Some(Counted::Mapped));
                        others += u64::from(matches!(counted, None | Some(Counted::Zero)));
                    }
                    Err(Unshared::Pinned) => {
                        result = Ok(Left::Pinned(here));
                        break;
                    }
                    Err(Unshared::Full) => {
                        result = Err(PagesError::OutOfMemory);
                        break;
                    }
                }
            }
            copy.write(mmu, slot, raw);
        }
        notes.hand_on(gather);
        count.add(child.tables().mmu(), crate::addr::to_usize(anon + mapped + others));
        child.count_anon(anon);
        child.count_mapped(mapped);
        result
    }

    /// The child's entry for one that is not there as usual, and what it counts as. The parent's becomes read-only if both have
    /// the page for themselves.
    #[cold]
    #[inline(never)]
    fn fork_unusual<F: FrameSource>(
        &self,
        table: Table,
        (slot, at): (Slot, VirtAddr),
        raw: RawEntry,
        sharing: Sharing,
        gather: &mut Gather<'_, H::Mmu, F>,
    ) -> Result<(RawEntry, Option<Counted>), Unshared> {
        if raw == Format::<H>::GUARD {
            return Ok((raw, None));
        }
        let counted = self.share_other(Format::<H>::frame_of(raw), sharing, &Frames::new(self.hal()))?;
        let protect = sharing == Sharing::Private && counted == Counted::Anon;
        // Of a parked entry the permission is looked at when it gets one.
        let Entry::Leaf(leaf) = Format::<H>::decode(Level::Pte, raw) else { return Ok((raw, Some(counted))) };
        if protect && leaf.prot.is_writable() {
            self.unfold_if_grouped(table, slot, at);
            let raw = Format::<H>::leaf(LeafLevel::Pte, leaf.phys, read_only(leaf.prot), false);
            table.write(self.tables().mmu(), slot, raw);
            gather.note(at, 1, LeafLevel::Pte);
            return Ok((raw, Some(counted)));
        }
        Ok((Format::<H>::with_contiguous(raw, false), Some(counted)))
    }

    /// Takes the child's reference to the frame of a leaf, if it is no ordinary page: what it counts as.
    fn share_other(&self, pfn: Pfn, sharing: Sharing, frames: &Frames<'_, H>) -> Result<Counted, Unshared> {
        if pfn == self.hal().zero_page() {
            return Ok(Counted::Zero);
        }
        let Some((head, state)) = frames.block(pfn) else { return Ok(Counted::Mapped) };
        let user = state.kind() == Kind::User;
        if user && sharing == Sharing::Private && frames.pins(head) != 0 {
            return Err(Unshared::Pinned);
        }
        match frames.hold(head, 1) {
            true => Ok(if user { Counted::Anon } else { Counted::Mapped }),
            false => Err(Unshared::Full),
        }
    }

    /// Gives the child a copy of the pinned page at `at`.
    fn fork_pinned(&self, child: &Self, at: VirtAddr, gfp: Gfp) -> Result<(), PagesError> {
        let frames = Frames::new(self.hal());
        let gfp = gfp.difference(Gfp::ACCOUNT | Gfp::COMP | Gfp::ZERO) | Gfp::MOVABLE;
        let page = frames.pages().alloc_pages(gfp, Order::ZERO)?;
        frames.claim(page, at);
        let _entries = self.lock_entries(at);
        let (table, raw) = self.tables().lowest(at);
        let leaf = match Format::<H>::decode(table.level(), raw) {
            Entry::Leaf(leaf) | Entry::Parked(leaf) => Some(leaf),
            _ => None,
        };
        let copy = child.tables().last_entry(at).filter(|(_, below, _)| below.is_absent());
        let (Some(leaf), Some((copy, _, count))) = (leaf, copy) else {
            // It went meanwhile.
            frames.put(Pfn::containing(frames.phys(page)));
            return Ok(());
        };
        let from = crate::addr::PhysAddr::new(leaf.phys.get() + at.offset_in(leaf.level.size()));
        frames.copy(from, frames.phys(page), 1);
        let entry = child.own_leaf(leaf.prot, page, &frames);
        let entry = if Format::<H>::is_parked(raw) { Format::<H>::park(entry) } else { entry };
        count.add(child.tables().mmu(), 1);
        copy.write(child.tables().mmu(), Level::Pte.slot(at), entry);
        child.count_anon(1);
        Ok(())
    }

    /// The leaf that maps `at`. Under its lock.
    pub(super) fn leaf_at(&self, at: VirtAddr) -> Option<Leaf> {
        let (table, raw) = self.tables().lowest(at);
        match Format::<H>::decode(table.level(), raw) {
            Entry::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }
}

/// Reason why the child gets no reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unshared {
    /// The page is pinned: to be copied.
    Pinned,
    /// The references cannot be counted.
    Full,
}
