//! Moving pages out of a range that somebody wants as a whole: who does it, and asking them (Linux: `mm/migrate.c`, whose
//! part of it is the owners' here).
#![forbid(unsafe_code)]

use super::super::pcp::zone_of;
use super::super::{PageAllocator, PageHal};
use crate::addr::{MAX_ORDER, Order};
use crate::gfp::Mobility;
use crate::hal::Internal;
use crate::hal::cpu::with_local;
use crate::mm::page::{Kind, Page, PageMap as _, PageState, find_head};

/// An owner of pages allocated with [`Gfp::MOVABLE`](crate::gfp::Gfp::MOVABLE) that can move what they hold: user address
/// spaces, caches of files. An allocator of movable pages registers one; a page that nobody moves stays, and its range cannot
/// be allocated.
pub trait Mover: Sync {
    /// The name in reports. Any context, whatever locks are held: takes none.
    fn name(&self) -> &str;

    /// Moves what the block of `order` that starts at `page` holds to another block, changes every translation that leads
    /// there, and frees it: whether it did. The owner of the block may have changed since it was looked at, so the answer for
    /// a block that is not the mover's own, or is held by somebody (`get_page`), is `false`.
    ///
    /// No lock is held. May wait, and allocate pages; it asks for no contiguous range itself.
    fn evacuate(&self, page: Page, order: Order) -> bool;
}

/// Whether the owner of such a block may be asked to move it.
pub(super) fn may_move(state: PageState) -> bool {
    let kind = state.kind();
    matches!(kind, Kind::Block | Kind::User) && state.mobility() == Some(Mobility::Movable)
}

impl<H: PageHal> PageAllocator<H> {
    /// Asks the owners of the movable blocks in an isolated range to move them: whether any was moved. Gives up at the first
    /// block that stays. With the right to wait.
    pub(super) fn evacuate(&self, first: Page, pages: u32) -> bool {
        let map = self.hal.map();
        let end = first.index() + pages;
        let (mut at, mut moved) = (first.index(), false);
        while at < end {
            let Some((head, state)) = find_head(&map, Page::new(at)) else {
                at += 1;
                continue;
            };
            if state.kind().is_allocated() {
                if !may_move(state) || !self.hal.evacuate(Internal::CALL, head, state.order()) {
                    break;
                }
                moved = true;
                self.unlist(head);
            }
            at = head.index().saturating_add(1 << state.raw_order().min(MAX_ORDER)).max(at + 1);
        }
        moved
    }

    /// Makes a block free in its zone that its owner has just moved: on the list of this CPU it would be the next one to be
    /// moved to.
    fn unlist(&self, page: Page) {
        let done = with_local(&self.hal, |local| {
            let (map, pages) = (self.hal.map(), H::pages(local));
            let state = map.get(page).state();
            if state.kind() != Kind::Pcp {
                return true;
            }
            let (list, order) = (state.pcp_list(), state.order());
            match (pages.pop(list, order), self.zones.get(zone_of(list).index())) {
                (Some(top), Some(zone)) if top == page => {
                    let mut zone = zone.lock();
                    zone.events.freed += order.pages();
                    zone.free_block(map, page, order.get());
                    true
                }
                (Some(other), _) => {
                    // There is room: it was just taken from there.
                    let _ = pages.push(list, order, other);
                    false
                }
                (None, _) => false,
            }
        });
        if !done {
            self.drain_local();
        }
    }
}
