//! Pinning: a page stays where it is, with this space, while a device uses it (Linux: `pin_user_pages`, `FOLL_PIN`).
#![forbid(unsafe_code)]

use super::anon::part_end;
use super::frame::Frames;
use super::hal::Format;
use super::space_pages::{USER_END, UserPages};
use super::usual::{ordinary, without_address};
use super::{Backing, FaultAccess, FaultError, Sharing, UserHal};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::entry::EntryFormat;
use crate::hal::level::{Level, Run};
use crate::hal::prot::Access;
use crate::mm::page::{Kind, Page, PageMap};
use crate::mm::zone::PageHal;
use core::fmt;

/// A page of user memory that a device may use. Dropping it unpins the page, which is freed then if its space has given it up.
#[must_use = "dropping it unpins the page"]
pub struct Pinned<H: UserHal> {
    hal: H,
    page: Page,
    /// The block that the page belongs to, if its pins are counted.
    head: Option<Page>,
}

impl<H: UserHal> Pinned<H> {
    /// The page.
    #[must_use]
    pub const fn page(&self) -> Page {
        self.page
    }

    /// The page's first byte.
    #[must_use]
    pub fn phys(&self) -> PhysAddr {
        self.hal.pages().hal().map().phys(self.page)
    }

    /// Unpins the page. The same as dropping it.
    pub fn unpin(self) {
        drop(self);
    }
}

impl<H: UserHal> fmt::Debug for Pinned<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("page", &self.page).finish_non_exhaustive()
    }
}

impl<H: UserHal> Drop for Pinned<H> {
    fn drop(&mut self) {
        let frames = Frames::new(&self.hal);
        if let Some(head) = self.head {
            // Before the reference goes, which may be the last.
            frames.add_pin(head, -1);
            if frames.kept().unpin(head) {
                return;
            }
        }
        frames.put(Pfn::containing(frames.phys(self.page)));
    }
}

impl<H: UserHal> UserPages<H> {
    /// Pins the page at `addr`, for reading or for writing as well: brought in, and made this space's own where the area is
    /// private, if it is not. It keeps its frame and its content through whatever the space does: a fork copies it for the
    /// child, a write by the space goes to the same frame. May sleep if `gfp` says so.
    ///
    /// # Errors
    ///
    /// Those of [`UserPages::fault`]; [`FaultError::NotPinnable`].
    pub fn pin(&self, addr: VirtAddr, write: bool, area: &Backing, gfp: Gfp) -> Result<Pinned<H>, FaultError> {
        let mut one = [None];
        self.pin_pages(addr, write, area, gfp, &mut one)?;
        let [pinned] = one;
        // There is one if there was no error.
        pinned.ok_or(FaultError::OutOfMemory)
    }

    /// [`UserPages::pin`] of as many pages from `addr` on as there is room for in `pinned` (Linux: `pin_user_pages`): those before
    /// the first error are in their places all the same. Cost: a lock and a descent for 2 MiB of addresses, and some
    /// forty-five instructions a page that is there.
    ///
    /// # Errors
    ///
    /// Those of [`UserPages::pin`], for the first page that cannot be pinned.
    pub fn pin_pages(
        &self,
        addr: VirtAddr,
        write: bool,
        area: &Backing,
        gfp: Gfp,
        pinned: &mut [Option<Pinned<H>>],
    ) -> Result<(), FaultError> {
        let access = if write { FaultAccess::Write } else { FaultAccess::Read };
        let (mut at, mut left) = (addr.align_down(PAGE_SIZE), pinned);
        while !left.is_empty() {
            if !area.range.contains(at) || area.range.end().get() > USER_END {
                return Err(FaultError::Outside(at.max(addr)));
            }
            if !area.permits(access) || area.is_shared_code() {
                return Err(FaultError::Denied(at.max(addr)));
            }
            let mut done = self.pin_ordinary(at, write, area, left);
            if done == 0 {
                done = self.pin_any(at, write, area, gfp, left)?;
            }
            left = left.get_mut(done..).unwrap_or_default();
            at = VirtAddr::new(at.get() + done as u64 * PAGE_SIZE);
        }
        Ok(())
    }

    /// Pins the pages from `at` on that are this space's own already, as far as the table and the area go, until one is not: how
    /// many.
    #[inline]
    fn pin_ordinary(&self, at: VirtAddr, write: bool, area: &Backing, pinned: &mut [Option<Pinned<H>>]) -> usize {
        if area.sharing != Sharing::Private {
            return 0;
        }
        let (mmu, kept) = (self.tables().mmu(), Frames::new(self.hal()).kept());
        let (writable, read_only) = (ordinary::<Format<H>>(Access::ReadWrite), ordinary::<Format<H>>(Access::ReadOnly));
        let end = part_end(at, area.range.end());
        let _entries = self.lock_entries(at);
        let (table, _) = self.tables().lowest(at);
        if table.level() != Level::Pte {
            return 0;
        }
        let run = Run::from_slot(Level::Pte.slot(at), (end.get() - at.get()) >> PAGE_SHIFT);
        let (mut done, mut alone) = (0, None);
        for (slot, place) in run.slots().zip(pinned) {
            let raw = table.read(mmu, slot);
            // A page of a contiguous group is one like any other.
            let plain = Format::<H>::with_contiguous(without_address::<Format<H>>(raw), false);
            if plain != writable && (write || plain != read_only) {
                break;
            }
            let Some(page) = kept.pin(Format::<H>::frame_of(raw), &mut alone) else { break };
            *place = Some(Pinned { hal: self.hal().clone(), page, head: Some(page) });
            done += 1;
        }
        done
    }

    /// Pins a page that is not there, or is no ordinary one, and what follows in the same block: how many.
    #[inline(never)]
    fn pin_any(
        &self,
        at: VirtAddr,
        write: bool,
        area: &Backing,
        gfp: Gfp,
        pinned: &mut [Option<Pinned<H>>],
    ) -> Result<usize, FaultError> {
        let access = if write { FaultAccess::Write } else { FaultAccess::Read };
        loop {
            let done = self.try_pin(at, write, area, pinned)?;
            if done != 0 {
                return Ok(done);
            }
            self.fault_slow(at, access, area, area.sharing == Sharing::Private, gfp)?;
        }
    }

    /// Pins what one leaf maps from `at` on, as far as the area goes, if it can stay as it is: how many pages.
    fn try_pin(
        &self,
        at: VirtAddr,
        write: bool,
        area: &Backing,
        pinned: &mut [Option<Pinned<H>>],
    ) -> Result<usize, FaultError> {
        let frames = Frames::new(self.hal());
        let _entries = self.lock_entries(at);
        let Some(leaf) = self.leaf_at(at).filter(|leaf| leaf.prot.is_writable() || !write) else { return Ok(0) };
        let (inside, size) = (at.offset_in(leaf.level.size()), leaf.level.size());
        let pfn = Pfn::containing(PhysAddr::new(leaf.phys.get() + inside));
        if pfn == self.hal().zero_page() {
            return Ok(0);
        }
        let (Some(page), Some((head, state))) = (frames.find(pfn), frames.block(pfn)) else {
            return Err(FaultError::NotPinnable(at));
        };
        let user = state.kind() == Kind::User;
        if user && area.sharing == Sharing::Private && !self.is_own(&frames, head, state, leaf.level) {
            return Ok(0);
        }
        // A block of several leaves, or of a driver, is taken leaf by leaf.
        let whole = user && state.order().pages() * PAGE_SIZE == size;
        let reached = ((size - inside).min(area.range.end().get() - at.get())) >> PAGE_SHIFT;
        let count = if whole { reached.min(pinned.len() as u64) } else { 1 };
        let Ok(count) = u32::try_from(count) else { return Ok(0) };
        // Half of what can be counted is enough for pins.
        let full = user && frames.pins(head) > u32::MAX / 2;
        if full || !frames.hold(head, count) {
            return Err(FaultError::OutOfMemory);
        }
        if user {
            // INVARIANT: USR-2, USR-4.
            frames.add_pin(head, count.cast_signed());
        }
        for (index, place) in (0..count).zip(pinned) {
            *place = Some(Pinned { hal: self.hal().clone(), page: page.offset(index), head: user.then_some(head) });
        }
        Ok(crate::addr::to_usize(u64::from(count)))
    }
}
