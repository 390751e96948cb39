//! Resources that a fault may need, allocated before a lock is taken: a page, and frames for tables.

use super::{Backing, FaultError, UserHal};
use crate::addr::{Order, PhysAddr};
use crate::gfp::Gfp;
use crate::hal::frame::{FrameSource, NoFrame};
use crate::mm::page::Page;
use core::cell::Cell;

/// Tables that can be missing at once below the root.
const TABLES: usize = 3;

/// A page and frames for tables, allocated without a lock held and given back if they are not used.
pub(super) struct Spare<'h, H: UserHal> {
    hal: &'h H,
    gfp: Gfp,
    page: Option<(Page, Order)>,
    zeroed: bool,
    pub(super) tables: Stash<H::Frames>,
    /// Blocks and runs are a bonus: they are asked for once.
    pub(super) largest: Order,
}

impl<'h, H: UserHal> Spare<'h, H> {
    /// Nothing yet. `gfp` says how all of it is allocated.
    #[inline]
    pub(super) fn new(hal: &'h H, gfp: Gfp, largest: Order) -> Self {
        // The space accounts for its pages itself.
        let gfp = gfp.difference(Gfp::ACCOUNT | Gfp::COMP | Gfp::ZERO);
        let tables = Stash { frames: [const { Cell::new(None) }; TABLES], source: hal.frames(gfp) };
        Self { hal, gfp, page: None, zeroed: false, tables, largest }
    }

    /// Pages and runs are such that can be moved, unlike tables and blocks.
    #[inline]
    pub(super) fn movable(mut self, movable: Gfp) -> Self {
        self.gfp |= movable;
        self
    }

    /// Gets a page of its own, zeroed or not.
    #[inline]
    pub(super) fn get_page(&mut self, zeroed: bool) -> Result<(), FaultError> {
        self.give_back();
        let gfp = if zeroed { self.gfp | Gfp::ZERO } else { self.gfp };
        self.page = Some((self.hal.pages().alloc_pages(gfp, Order::ZERO)?, Order::ZERO));
        self.zeroed = zeroed;
        Ok(())
    }

    /// Gets a zeroed block, if one is free without reclaim; if not, this fault tries only smaller ones from then on.
    pub(super) fn get_block(&mut self, order: Order) {
        self.give_back();
        let still = if order > Backing::RUN { Gfp::MOVABLE } else { Gfp::empty() };
        let lightly = self.gfp.difference(still | Gfp::DIRECT_RECLAIM | Gfp::RETRY_MAYFAIL | Gfp::NOFAIL);
        match self.hal.pages().alloc_pages(lightly | Gfp::NORETRY | Gfp::NOWARN | Gfp::ZERO, order) {
            Ok(page) => (self.page, self.zeroed) = (Some((page, order)), true),
            Err(_) => self.largest = Order::new(order.get().saturating_sub(1)).unwrap_or(Order::ZERO),
        }
    }

    /// Gets frames for so many tables that are missing at once.
    pub(super) fn get_tables(&self, wanted: usize) -> Result<(), FaultError> {
        for _ in self.tables.count()..wanted {
            self.get_table()?;
        }
        Ok(())
    }

    /// Gets one more frame for a table.
    pub(super) fn get_table(&self) -> Result<(), FaultError> {
        let frame = self.tables.source.alloc_table()?;
        self.tables.keep(frame);
        Ok(())
    }

    /// Takes the page, if it is of this order and zeroed where that matters.
    #[inline]
    pub(super) fn take(&mut self, order: Order, zeroed: bool) -> Option<Page> {
        let fits = self.page.is_some_and(|(_, found)| found == order) && (self.zeroed || !zeroed);
        if fits { self.page.take().map(|(page, _)| page) } else { None }
    }

    #[inline]
    fn give_back(&mut self) {
        if let Some((page, order)) = self.page.take() {
            let freed = self.hal.pages().do_free_pages(page, order);
            debug_assert!(freed.is_ok(), "a spare page is nobody else's");
        }
    }
}

impl<H: UserHal> Drop for Spare<'_, H> {
    #[inline]
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Frames that were allocated in advance: a source that never allocates.
pub(super) struct Stash<F: FrameSource> {
    frames: [Cell<Option<PhysAddr>>; TABLES],
    source: F,
}

impl<F: FrameSource> Stash<F> {
    fn take(&self) -> Result<PhysAddr, NoFrame> {
        self.frames.iter().find_map(Cell::take).ok_or(NoFrame)
    }

    fn count(&self) -> usize {
        let has = |place: &&Cell<Option<PhysAddr>>| {
            let frame = place.take();
            place.set(frame);
            frame.is_some()
        };
        self.frames.iter().filter(has).count()
    }

    /// Keeps a frame for the next call, if there is room.
    fn keep(&self, frame: PhysAddr) {
        match self.frames.iter().find(|place| place.get().is_none()) {
            Some(place) => place.set(Some(frame)),
            None => self.give(frame),
        }
    }

    fn give(&self, frame: PhysAddr) {
        give_back(&self.source, frame);
    }
}

impl<F: FrameSource> Drop for Stash<F> {
    #[inline]
    fn drop(&mut self) {
        while let Ok(frame) = self.take() {
            self.give(frame);
        }
    }
}

// SAFETY: each frame came from the source behind, is handed out once, and goes back to it.
unsafe impl<F: FrameSource> FrameSource for Stash<F> {
    #[inline]
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        self.take()
    }

    unsafe fn free_table(&self, table: PhysAddr) {
        // For the next attempt: what was made of it was never linked, or is flushed.
        self.keep(table);
    }
}

/// Gives back a frame that was in no table.
fn give_back<F: FrameSource>(source: &F, frame: PhysAddr) {
    // SAFETY: it came from this source, and no table was made of it.
    unsafe { source.free_table(frame) }
}
