//! The buddy system: blocks of 2^order pages that split and merge (Linux: `__free_one_page`, `__rmqueue_smallest`).
//!
//! Two blocks of one order that differ in one bit of their number are buddies; together they are a block of the next
//! order. A free block merges with its buddy as long as that is free too, so after any sequence of operations and their
//! undoing the largest blocks are back. Everything here is O(orders); no list is ever searched.
#![forbid(unsafe_code)]

use super::free_area::Corrupt;
use super::zone::Zone;
use crate::mm::page::{MigrateType, PAGEBLOCK_ORDER, Page, PageMap, PageState, ZoneId};
use core::sync::atomic::Ordering;

/// The migrate type of the page block that holds `page`.
#[inline]
pub(in crate::mm::zone) fn block_type<M: PageMap>(map: M, page: Page) -> MigrateType {
    MigrateType::from_bits(map.block_type(page).load(Ordering::Relaxed))
}

/// Changes the migrate type of the page block that holds `page`. With the zone's lock held.
pub(in crate::mm::zone) fn set_block_type<M: PageMap>(map: M, page: Page, kind: MigrateType) {
    map.block_type(page).store(kind as u8, Ordering::Relaxed);
}

impl Zone {
    /// Makes a block free that is on no list, and merges it as far as it goes. Its head's descriptor may say anything;
    /// the others say that they are inside.
    #[inline]
    pub(in crate::mm::zone) fn free_block<M: PageMap>(&mut self, map: M, page: Page, order: u8) {
        if self.free_uncounted(map, self.id, page, order) {
            self.free = self.free.wrapping_add(1 << order);
        }
    }

    /// Does the same for a block of this zone, whose number is `id`. Whether the caller has to count its pages as free:
    /// in a loop that is one addition at the end.
    #[inline(always)]
    #[must_use]
    pub(in crate::mm::zone) fn free_uncounted<M: PageMap>(
        &mut self,
        map: M,
        id: ZoneId,
        page: Page,
        order: u8,
    ) -> bool {
        let kind = block_type(map, page);
        let ordinary = kind.is_mergeable();
        if !ordinary {
            self.count_special(kind, 1 << order);
        }
        let (mut page, mut order) = (page, order);
        // INVARIANT: PAGE-1: a head that is not the lowest one in the end is a head no more, and the lowest gets its state
        // when it is put on its list.
        map.get(page).set_state(PageState::INSIDE);
        while order < PAGEBLOCK_ORDER {
            let buddy = page.buddy(order);
            // The state holds the zone: a buddy in another one, or a hole, is not equal. The type is that of the page
            // block, which is the same (BUD-5).
            if map.get(buddy).state() != PageState::free(id, order, kind) {
                self.lists.push(map, id, page, order, kind);
                return ordinary;
            }
            self.lists.remove(map, buddy, order, kind);
            map.get(buddy).set_state(PageState::INSIDE);
            order += 1;
            page = page.align_down(order);
        }
        self.insert_page_block(map, page, order, kind);
        ordinary
    }

    /// The last step, where the migrate types of two page blocks have a say.
    #[inline(never)]
    fn insert_page_block<M: PageMap>(&mut self, map: M, page: Page, order: u8, kind: MigrateType) {
        let (mut page, mut order) = (page, order);
        let buddy = page.buddy(PAGEBLOCK_ORDER);
        if order == PAGEBLOCK_ORDER {
            let state = map.get(buddy).state();
            if state.is_free_buddy(self.id, order) && join_types(map, page, buddy) {
                self.lists.remove(map, buddy, order, state.list());
                map.get(buddy).set_state(PageState::INSIDE);
                order += 1;
                page = page.align_down(order);
            }
        }
        self.lists.push(map, self.id, page, order, kind);
    }

    /// Takes a free block of `order` from the smallest of the blocks of this type that hold one; the rest goes back on
    /// the lists. Its state still says that it is free.
    #[inline]
    pub(super) fn alloc_smallest<M: PageMap>(
        &mut self,
        map: M,
        order: u8,
        kind: MigrateType,
    ) -> Result<Option<Page>, Corrupt> {
        let larger = self.lists.filled(kind) >> order;
        if larger == 0 {
            return Ok(None);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 15")]
        let found = order + larger.trailing_zeros() as u8;
        let page = self.lists.pop(map, self.id, found, kind)?;
        self.count_allocated(kind, 1 << order);
        self.expand(map, page, found, order, kind);
        Ok(Some(page))
    }

    /// Cuts a block of order `from` down to order `to`: the upper halves go on the lists, the lowest part is the
    /// caller's.
    #[inline]
    pub(in crate::mm::zone) fn expand<M: PageMap>(&mut self, map: M, page: Page, from: u8, to: u8, kind: MigrateType) {
        let mut order = from;
        while order > to {
            order -= 1;
            self.lists.push(map, self.id, page.offset(1 << order), order, kind);
        }
    }
}

/// Whether two page blocks may become one free block. If so they are of one type from now on.
fn join_types<M: PageMap>(map: M, page: Page, buddy: Page) -> bool {
    let (own, other) = (block_type(map, page), block_type(map, buddy));
    if own == other {
        return true;
    }
    if !own.is_mergeable() || !other.is_mergeable() {
        return false;
    }
    set_block_type(map, buddy, own);
    true
}

const _: () =
    assert!(crate::addr::MAX_ORDER == PAGEBLOCK_ORDER + 1, "one step leads from a page block to the highest order");
