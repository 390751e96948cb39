//! Pinning: a page stays where it is, with this space, while a device uses it (Linux: `pin_user_pages`, `FOLL_PIN`).
#![forbid(unsafe_code)]

use super::frame::{Frames, Kept, PinCount};
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
use core::num::NonZeroU32;

/// A page of user memory that a device may use. Dropping it unpins the page, which is freed then if its space has given it up.
#[must_use = "dropping it unpins the page"]
pub struct Pinned<H: UserHal> {
    hal: H,
    page: Page,
    counted: Counted,
}

/// Where a pin is counted, in as few bytes as the page's number: a driver has an array of pins.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counted(NonZeroU32);

impl Counted {
    /// In the page's state.
    const STATE: Self = Self(NonZeroU32::MIN);
    /// Nowhere: the page is no user memory, and the pin has a reference alone.
    const NOWHERE: Self = Self::number(2);
    /// Beside the state of a block's first page, which is this one; the numbers above are those of the pages behind it.
    const BESIDE: Self = Self::number(3);

    const fn number(number: u32) -> Self {
        match NonZeroU32::new(number) {
            Some(number) => Self(number),
            None => Self::STATE,
        }
    }

    /// Of a page so far behind the first one of its block.
    const fn of(counted: PinCount, inside: u32) -> Self {
        match counted {
            PinCount::State => Self::STATE,
            // A block has far fewer pages than there are numbers.
            PinCount::Beside => Self::number(Self::BESIDE.0.get().saturating_add(inside)),
        }
    }

    /// The word that counts the pin, and how far the page is behind the first one of its block; `None` if none does.
    const fn place(self) -> Option<(PinCount, u32)> {
        match self.0.get().checked_sub(Self::BESIDE.0.get()) {
            Some(inside) => Some((PinCount::Beside, inside)),
            None if self.0.get() == Self::STATE.0.get() => Some((PinCount::State, 0)),
            None => None,
        }
    }
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

    /// Unpins a page that the fast path does not.
    #[cold]
    #[inline(never)]
    fn unpin_slow(&self) {
        let frames = Frames::new(&self.hal);
        match self.counted.place() {
            Some((counted, inside)) => frames.unpin(Page::new(self.page.index().wrapping_sub(inside)), counted),
            None => {
                frames.put(frames.pfn(self.page));
            }
        }
    }
}

impl<H: UserHal> fmt::Debug for Pinned<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("page", &self.page).finish_non_exhaustive()
    }
}

impl<H: UserHal> Drop for Pinned<H> {
    #[inline]
    fn drop(&mut self) {
        if self.counted != Counted::STATE || !Frames::new(&self.hal).kept().unpin_first(self.page) {
            self.unpin_slow();
        }
    }
}

/// Unpins what the fast path does not, if there is a pin.
#[cold]
#[inline(never)]
fn drop_slow<H: UserHal>(place: &mut Option<Pinned<H>>) {
    drop(place.take());
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
        let (mut one, at) = ([None], addr.align_down(PAGE_SIZE));
        if self.pin_ordinary(at, write, area, &mut one, |kept, pfn, place| self.take_first(kept, pfn, place)) == 0 {
            return self.pin_slow(addr, write, area, gfp);
        }
        let [pinned] = one;
        // There is one.
        pinned.ok_or(FaultError::OutOfMemory)
    }

    #[cold]
    #[inline(never)]
    fn pin_slow(&self, addr: VirtAddr, write: bool, area: &Backing, gfp: Gfp) -> Result<Pinned<H>, FaultError> {
        let mut one = [None];
        self.pin_rest(addr, write, area, gfp, (&mut one, 0))?;
        let [pinned] = one;
        // There is one if there was no error.
        pinned.ok_or(FaultError::OutOfMemory)
    }

    /// [`UserPages::pin`] of as many pages from `addr` on as there is room for in `pinned` (Linux: `pin_user_pages`): those before
    /// the first error are in their places all the same. A pin that was in a place before goes. Cost: a lock and a descent for
    /// 2 MiB of addresses, and some twenty-five instructions a page that is there; half of that to unpin it.
    ///
    /// # Errors
    ///
    /// Those of [`UserPages::pin`], for the first page that cannot be pinned.
    #[inline]
    pub fn pin_pages(
        &self,
        addr: VirtAddr,
        write: bool,
        area: &Backing,
        gfp: Gfp,
        pinned: &mut [Option<Pinned<H>>],
    ) -> Result<(), FaultError> {
        let done = self.pin_first(addr.align_down(PAGE_SIZE), write, area, pinned);
        if done == pinned.len() { Ok(()) } else { self.pin_rest(addr, write, area, gfp, (pinned, done)) }
    }

    /// Unpins all pages in `pinned`, and leaves the places empty (Linux: `unpin_user_pages`). The same as dropping them one by
    /// one, at some thirteen instructions a page.
    pub fn unpin_pages(&self, pinned: &mut [Option<Pinned<H>>]) {
        let frames = Frames::new(self.hal());
        let kept = frames.kept();
        for place in pinned {
            // Those of another machine find their own descriptors.
            match place {
                Some(one)
                    if one.counted == Counted::STATE
                        && core::ptr::eq(one.hal.pages(), frames.pages())
                        && kept.unpin_first(one.page) =>
                {
                    core::mem::forget(place.take());
                }
                _ => drop_slow(place),
            }
        }
    }

    /// Pins what follows on the first `done` pages.
    #[inline(never)]
    fn pin_rest(
        &self,
        addr: VirtAddr,
        write: bool,
        area: &Backing,
        gfp: Gfp,
        (pinned, mut done): (&mut [Option<Pinned<H>>], usize),
    ) -> Result<(), FaultError> {
        let access = if write { FaultAccess::Write } else { FaultAccess::Read };
        let (mut at, mut left) = (addr.align_down(PAGE_SIZE), pinned);
        loop {
            left = left.get_mut(done..).unwrap_or_default();
            at = VirtAddr::new(at.get() + done as u64 * PAGE_SIZE);
            if left.is_empty() {
                return Ok(());
            }
            if !area.range.contains(at) || area.range.end().get() > USER_END {
                return Err(FaultError::Outside(at.max(addr)));
            }
            if !area.permits(access) || area.is_shared_code() {
                return Err(FaultError::Denied(at.max(addr)));
            }
            done = self.pin_first(at, write, area, left);
            if done == 0 {
                done = self.pin_again(at, write, area, left);
            }
            if done == 0 {
                done = self.pin_any(at, write, area, gfp, left)?;
            }
        }
    }

    /// Pins the pages from `at` on that are this space's own already and have no pin yet, as far as the table and the area go,
    /// until one is not: how many. Not into a place that has a pin.
    #[inline(never)]
    fn pin_first(&self, at: VirtAddr, write: bool, area: &Backing, pinned: &mut [Option<Pinned<H>>]) -> usize {
        self.pin_ordinary(at, write, area, pinned, |kept, pfn, place| self.take_first(kept, pfn, place))
    }

    /// Takes the first pin of the page of a frame, into a place that has none; whether it did.
    #[inline(always)]
    fn take_first(&self, kept: &Kept<H>, pfn: Pfn, place: &mut Option<Pinned<H>>) -> bool {
        if place.is_some() {
            return false;
        }
        let Some(page) = kept.pin_first(pfn) else { return false };
        // There is nothing to drop, which the compiler would test once more.
        core::mem::forget(place.replace(self.counted_in_state(page)));
        true
    }

    /// The same of pages that may have pins, into any place.
    #[inline(never)]
    fn pin_again(&self, at: VirtAddr, write: bool, area: &Backing, pinned: &mut [Option<Pinned<H>>]) -> usize {
        self.pin_ordinary(at, write, area, pinned, |kept, pfn, place| {
            let Some(page) = kept.pin(pfn) else { return false };
            *place = Some(self.counted_in_state(page));
            true
        })
    }

    /// The two above, with `pin` for the page of a frame and the place for its pin.
    #[inline(always)]
    fn pin_ordinary(
        &self,
        at: VirtAddr,
        write: bool,
        area: &Backing,
        pinned: &mut [Option<Pinned<H>>],
        pin: impl Fn(&Kept<H>, Pfn, &mut Option<Pinned<H>>) -> bool,
    ) -> usize {
        let (start, end) = (area.range.start(), area.range.end());
        let may = area.sharing == Sharing::Private && (!write || area.access == Access::ReadWrite);
        if !may || at < start || at >= end || end.get() > USER_END {
            return 0;
        }
        let (mmu, kept) = (self.tables().mmu(), Frames::new(self.hal()).kept());
        let (writable, read_only) = (ordinary::<Format<H>>(Access::ReadWrite), ordinary::<Format<H>>(Access::ReadOnly));
        let _entries = self.lock_entries(at);
        let table = self.tables().block_level(at).and_then(|table| table.descend(mmu, Level::Pmd.slot(at)).ok());
        let Some(table) = table else { return 0 };
        let wanted = ((end.get() - at.get()) >> PAGE_SHIFT).min(pinned.len() as u64);
        let run = Run::from_slot(Level::Pte.slot(at), wanted);
        let mut done = 0;
        while let (Some(slot), Some(place)) = (run.get(done), pinned.get_mut(done)) {
            let raw = table.read(mmu, slot);
            // A page of a contiguous group is one like any other.
            let plain = Format::<H>::with_contiguous(without_address::<Format<H>>(raw), false);
            if plain != writable && (write || plain != read_only) || !pin(&kept, Format::<H>::frame_of(raw), place) {
                break;
            }
            done += 1;
        }
        done
    }

    /// The pin of a page whose state counts it.
    #[inline(always)]
    fn counted_in_state(&self, page: Page) -> Pinned<H> {
        Pinned { hal: self.hal().clone(), page, counted: Counted::STATE }
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
        // INVARIANT: USR-2, USR-4.
        let counted = if user { frames.pin(head, count) } else { None };
        if counted.is_none() && (user || !frames.hold(head, count)) {
            return Err(FaultError::OutOfMemory);
        }
        for (index, place) in (0..count).zip(pinned) {
            let page = page.offset(index);
            let inside = page.index().wrapping_sub(head.index());
            let counted = counted.map_or(Counted::NOWHERE, |counted| Counted::of(counted, inside));
            *place = Some(Pinned { hal: self.hal().clone(), page, counted });
        }
        Ok(crate::addr::to_usize(u64::from(count)))
    }
}
