//! Moving a page of user memory to another frame, so that somebody gets the range that it lies in (Linux: `migrate_pages`).
//!
//! It goes as if the mover was one more child: it takes a reference of its own, after which each space copies the page at its next
//! write, and makes every leaf read-only. So nobody writes while it copies; then each leaf that still maps the old frame gets the
//! new one. A space that wrote meanwhile has a copy already. Nobody waits for the mover, and it gives up at no cost.
#![forbid(unsafe_code)]

use super::UserHal;
use super::frame::Frames;
use super::hal::Format;
use super::space_pages::UserPages;
use super::usual::read_only;
use crate::addr::{Order, PAGE_SHIFT, Pfn, PhysAddr, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::entry::{Entry, EntryFormat, Leaf};
use crate::hal::level::{LeafLevel, Level};
use crate::hal::mmu::Mmu;
use crate::mm::page::Page;
use crate::mm::pgtable::Visit;
use core::ops::ControlFlow;

/// A function that shows a callback each space of a machine that it knows; none of them ends meanwhile.
pub type EverySpace<'e, H> = &'e dyn Fn(&mut dyn FnMut(&UserPages<H>));

/// Moves what `page` holds to another frame and frees it: whether it did. Not if it is no single page of private user memory, is
/// pinned, or is mapped by a space that `every` does not show; then spaces may have to copy it at their next write. Where locks
/// may be taken; may sleep. Cost: a copy of the page, two flushes a leaf, a descent a space; if the page was moved within its
/// space, a walk of the spaces.
pub fn evacuate<H: UserHal>(hal: &H, page: Page, every: EverySpace<'_, H>) -> bool {
    let frames = Frames::new(hal);
    if frames.find(frames.pfn(page)) != Some(page) || !frames.hold_movable(page) {
        return false;
    }
    // INVARIANT: USR-1, USR-4: with this reference nobody else becomes the page's only owner, nor pins it: a pin takes a copy.
    let is_moved = move_leaves(&frames, page, every);
    frames.put_last(frames.pfn(page)) && is_moved
}

/// Moves every leaf of a page of which the caller has a reference; whether there was any other.
fn move_leaves<H: UserHal>(frames: &Frames<'_, H>, page: Page, every: EverySpace<'_, H>) -> bool {
    let old = frames.pfn(page);
    let mut leaves = 0;
    every(&mut |space| leaves += u32::from(space.find_leaf(page, Where::Noted, true).is_some()));
    if leaves == 0 || frames.state(page).references() != leaves + 1 {
        // It was moved within its space since it came.
        leaves = 0;
        every(&mut |space| leaves += u32::from(space.find_leaf(page, Where::Anywhere, true).is_some()));
    }
    if frames.pins(page) != 0 || frames.state(page).references() != leaves + 1 {
        return false;
    }
    let gfp = Gfp::USER.difference(Gfp::ACCOUNT) | Gfp::MOVABLE | Gfp::NORETRY | Gfp::NOWARN;
    let Ok(target) = frames.pages().alloc_pages(gfp, Order::ZERO) else { return false };
    frames.claim_like(target, page);
    // Each leaf is read-only and flushed, and nobody makes one writable.
    frames.copy(old.start(), frames.phys(target), 1);
    every(&mut |space| {
        if !space.replace_moved(page, target, Where::Noted) {
            space.replace_moved(page, target, Where::Anywhere);
        }
    });
    frames.put(frames.pfn(target));
    true
}

/// Where to look for a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// At the address for which it came, as its descriptor says.
    Noted,
    Anywhere,
}

impl<H: UserHal> UserPages<H> {
    /// The address of a leaf of the last level that maps `page` alone; made read-only, if `protect`. `None` if there is none.
    fn find_leaf(&self, page: Page, place: Where, protect: bool) -> Option<VirtAddr> {
        let frames = Frames::new(self.hal());
        let phys = frames.phys(page);
        let at = match place {
            Where::Noted => self.noted(page, phys)?,
            Where::Anywhere => self.search(phys)?,
        };
        let _entries = self.lock_entries(at);
        let leaf = self.page_leaf(at, phys)?;
        if protect && leaf.prot.is_writable() {
            let (table, slot) = (self.tables().lowest(at).0, Level::Pte.slot(at));
            self.unfold_if_grouped(table, slot, at);
            let entry = Format::<H>::leaf(LeafLevel::Pte, phys, read_only(leaf.prot), false);
            table.write(self.tables().mmu(), slot, entry);
            self.tables().flush_leaf(at, LeafLevel::Pte);
        }
        Some(at)
    }

    /// Has the leaf that maps `page` map `target`; whether there was one.
    fn replace_moved(&self, page: Page, target: Page, place: Where) -> bool {
        let frames = Frames::new(self.hal());
        let phys = frames.phys(page);
        let Some(at) = self.find_leaf(page, place, false) else { return false };
        let _entries = self.lock_entries(at);
        let Some(leaf) = self.page_leaf(at, phys).filter(|leaf| !leaf.prot.is_writable()) else { return false };
        if !frames.hold(target, 1) {
            return false;
        }
        let (table, slot) = (self.tables().lowest(at).0, Level::Pte.slot(at));
        self.unfold_if_grouped(table, slot, at);
        if leaf.prot.is_executable() {
            self.hal().sync_instructions(frames.phys(target), 1);
        }
        let mmu = self.tables().mmu();
        // Break-before-make: the leaf maps another frame from now on.
        table.write(mmu, slot, crate::hal::entry::RawEntry::ABSENT);
        self.tables().flush_leaf(at, LeafLevel::Pte);
        mmu.publish_table();
        table.write(mmu, slot, Format::<H>::leaf(LeafLevel::Pte, frames.phys(target), leaf.prot, false));
        mmu.publish();
        // The mover still has a reference.
        frames.put(Pfn::containing(phys));
        true
    }

    /// The leaf of the last level for `at`, if it maps the page at `phys`. Under its lock.
    fn page_leaf(&self, at: VirtAddr, phys: PhysAddr) -> Option<Leaf> {
        self.leaf_at(at).filter(|leaf| leaf.level == LeafLevel::Pte && leaf.phys == phys)
    }

    /// The address that the page's descriptor notes, if it is mapped there. The number of a page has four bits more than the note.
    fn noted(&self, page: Page, phys: PhysAddr) -> Option<VirtAddr> {
        const HIGH: u64 = 1 << (48 - PAGE_SHIFT - u32::BITS);
        let low = u64::from(Frames::new(self.hal()).place(page));
        let at = |high: u64| VirtAddr::new((high << u32::BITS | low) << PAGE_SHIFT);
        // The lock is the same for all of them.
        let _entries = self.lock_entries(at(0));
        (0..HIGH).map(at).find(|at| self.page_leaf(*at, phys).is_some())
    }

    /// The address of a leaf that maps the page at `phys`, wherever it is.
    fn search(&self, phys: PhysAddr) -> Option<VirtAddr> {
        let found = self.tables().walk_all(|visit: Visit| match visit.entry {
            Entry::Leaf(leaf) if leaf.phys == phys && leaf.level == LeafLevel::Pte => ControlFlow::Break(visit.start),
            _ => ControlFlow::Continue(()),
        });
        found.break_value()
    }
}
