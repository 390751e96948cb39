//! Page blocks: what is in one, and changing what it is for (Linux: `move_freepages_block`).
#![forbid(unsafe_code)]

use super::buddy::{block_type, set_block_type};
use super::zone::Zone;
use crate::addr::MAX_ORDER;
use crate::gfp::Mobility;
use crate::mm::page::{Kind, MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Page, PageMap};

/// Owners of the pages of a page block.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct BlockUse {
    /// On free lists of the zone.
    pub(super) free: u32,
    /// Allocated as movable, or on a per-CPU list for movable pages.
    pub(super) movable: u32,
    /// Allocated otherwise, reserved, or no RAM.
    pub(super) other: u32,
}

impl Zone {
    /// The first page of the page block that holds `page`, if all of the page block lies in the zone.
    pub(in crate::mm::zone) fn whole_block(&self, page: Page) -> Option<Page> {
        let first = page.align_down(PAGEBLOCK_ORDER);
        let inside = self.start <= first.index() && first.index() + PAGEBLOCK_PAGES <= self.end;
        inside.then_some(first)
    }

    /// Counts the pages of a page block. CPUs go on taking pages from their lists and giving them back meanwhile, so only
    /// the free ones are exact. Cost: O(blocks in it), at most 512.
    pub(super) fn census<M: PageMap>(&self, map: M, first: Page) -> BlockUse {
        let mut census = BlockUse::default();
        let mut at = 0;
        while at < PAGEBLOCK_PAGES {
            let state = map.get(first.offset(at)).state();
            let pages = if state.kind().is_head() { 1 << state.raw_order().min(PAGEBLOCK_ORDER) } else { 1 };
            match state.kind() {
                Kind::Free => census.free += pages,
                kind if (kind.is_allocated() || kind == Kind::Pcp) && state.mobility() == Some(Mobility::Movable) => {
                    census.movable += pages;
                }
                _ => census.other += pages,
            }
            at += pages;
        }
        census
    }

    /// Makes a whole page block one of another type, its free pages included. A free block that reaches beyond it is cut
    /// in two first. Cost: O(blocks in it), at most 512.
    pub(in crate::mm::zone) fn retype<M: PageMap>(&mut self, map: M, first: Page, to: MigrateType) {
        self.cut_at_block(map, first);
        let from = block_type(map, first);
        set_block_type(map, first, to);
        self.count_retyped(from, to);
        let mut at = 0;
        while at < PAGEBLOCK_PAGES {
            let page = first.offset(at);
            let state = map.get(page).state();
            let order = state.raw_order().min(PAGEBLOCK_ORDER);
            if state.kind() == Kind::Free {
                self.lists.remove(map, page, order, state.list());
                self.count_allocated(state.list(), 1 << order);
                self.lists.push(map, self.id, page, order, to);
                self.count_freed(to, 1 << order);
            }
            at += if state.kind().is_head() { 1 << order } else { 1 };
        }
    }

    fn count_retyped(&mut self, from: MigrateType, to: MigrateType) {
        let pages = u64::from(PAGEBLOCK_PAGES);
        match from {
            MigrateType::Cma => self.cma -= pages,
            MigrateType::HighAtomic => self.high_atomic -= pages,
            _ => {}
        }
        match to {
            MigrateType::Cma => self.cma += pages,
            MigrateType::HighAtomic => self.high_atomic += pages,
            _ => {}
        }
    }

    /// If a free block of the highest order holds this page block and its neighbour: makes two of it.
    fn cut_at_block<M: PageMap>(&mut self, map: M, first: Page) {
        let head = first.align_down(MAX_ORDER);
        let state = map.get(head).state();
        if !state.is_free_buddy(self.id, MAX_ORDER) {
            return;
        }
        let kind = state.list();
        self.lists.remove(map, head, MAX_ORDER, state.list());
        for half in [head, head.buddy(PAGEBLOCK_ORDER)] {
            let own = block_type(map, half);
            self.count_allocated(kind, u64::from(PAGEBLOCK_PAGES));
            self.count_freed(own, u64::from(PAGEBLOCK_PAGES));
            self.lists.push(map, self.id, half, PAGEBLOCK_ORDER, own);
        }
    }

    /// Lets the free block of a page block's size that starts at `first`, if there is one, merge with its neighbour:
    /// after a page block has got an ordinary type again.
    pub(in crate::mm::zone) fn rejoin<M: PageMap>(&mut self, map: M, first: Page) {
        let state = map.get(first).state();
        if state.is_free_buddy(self.id, PAGEBLOCK_ORDER) {
            self.lists.remove(map, first, PAGEBLOCK_ORDER, state.list());
            self.count_allocated(state.list(), u64::from(PAGEBLOCK_PAGES));
            self.free_block(map, first, PAGEBLOCK_ORDER);
        }
    }
}

const _: () = assert!(MAX_ORDER == PAGEBLOCK_ORDER + 1, "cut_at_block makes two of the highest order");
