//! Changing what a range permits.
#![forbid(unsafe_code)]

use super::frame::Frames;
use super::space_pages::{Format, UserPages};
use super::usual::{Notes, ordinary, without_address};
use super::zap::run_of;
use super::{Backing, PagesError, Sharing, UserHal};
use crate::addr::{Order, PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::frame::FrameSource;
use crate::hal::level::{LeafLevel, Level, Run};
use crate::hal::prot::{Access, Prot};
use crate::mm::page::Kind;
use crate::mm::pgtable::Gather;

/// Entries that are ordinary, the address taken out.
struct Known([RawEntry; 3]);

impl Known {
    #[inline]
    fn new<F: EntryFormat>() -> Self {
        Self([Access::ReadOnly, Access::ReadWrite, Access::Execute].map(ordinary::<F>))
    }

    #[inline]
    fn has(&self, plain: RawEntry) -> bool {
        self.0.contains(&plain)
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
        let frames = self.hal().frames(Gfp::ATOMIC);
        let mut gather = self.tables().gather(&frames);
        self.each_part(range, |part| self.protect_part(part, &area, &mut gather));
        gather.flush();
        Ok(())
    }

    fn protect_part<F: FrameSource>(&self, part: VirtRange, area: &Backing, gather: &mut Gather<'_, H::Mmu, F>) {
        let frames = Frames::new(self.hal());
        let mmu = self.tables().mmu();
        let _entries = self.lock_entries(part.start());
        let (table, raw) = self.tables().lowest(part.start());
        if table.level() != Level::Pte {
            if let Entry::Leaf(leaf) = Format::<H>::decode(table.level(), raw)
                && part.size() == leaf.level.size()
                && let Some(prot) = self.protection(&frames, area, &leaf)
            {
                let entry = Format::<H>::leaf(leaf.level, leaf.phys, prot, leaf.contiguous);
                table.write(mmu, table.level().slot(part.start()), entry);
                gather.note(part.start(), 1, leaf.level);
            }
            return;
        }
        self.cut_groups(table, part);
        let (known, mut notes) = (Known::new::<Format<H>>(), Notes::new());
        let wanted = ordinary::<Format<H>>(area.access);
        let mut at = part.start();
        for slot in run_of(part).slots() {
            let here = at;
            at = VirtAddr::new(at.get() + PAGE_SIZE);
            let raw = table.read(mmu, slot);
            if raw.is_absent() {
                continue;
            }
            let plain = without_address::<Format<H>>(raw);
            if plain == wanted {
                continue;
            }
            // The usual case: it needs no look at who else has the page, or one at a single descriptor.
            let pfn = Format::<H>::frame_of(raw);
            let usual = known.has(plain)
                && match area.access {
                    Access::ReadOnly => true,
                    Access::ReadWrite => frames.find(pfn).is_some_and(|page| frames.is_sole_page(page)),
                    Access::Execute => false,
                };
            if usual {
                table.write(mmu, slot, RawEntry::new(wanted.get() | pfn.start().get()));
                notes.add(here, gather);
                continue;
            }
            let Entry::Leaf(leaf) = Format::<H>::decode(Level::Pte, raw) else { continue };
            let Some(prot) = self.protection(&frames, area, &leaf) else { continue };
            if leaf.contiguous {
                self.unfold(table, slot, here);
            }
            table.write(mmu, slot, Format::<H>::leaf(LeafLevel::Pte, leaf.phys, prot, false));
            notes.add(here, gather);
        }
        notes.hand_on(gather);
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

    /// A leaf's new protection, if it differs from the current one.
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
        (prot != leaf.prot).then_some(prot)
    }
}
