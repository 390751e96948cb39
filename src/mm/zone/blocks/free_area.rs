//! The free lists of a zone: one for each order and migrate type, linked through the page descriptors.
#![forbid(unsafe_code)]

use crate::addr::MAX_ORDER;
use crate::mm::page::{MigrateType, Page, PageDescriptor, PageMap, PageState, ZoneId};
use crate::sync::CHECKED;

/// Lists in a row, a power of two above the highest order, so that an index is masked and not checked.
const ROW: usize = 16;
/// Rows, a power of two above the number of migrate types.
const ROWS: usize = 8;

/// The free lists of a zone. They do not know their lengths: counting them would cost every merge and split six
/// instructions, and the descriptors tell who asks.
///
/// # Invariants
///
/// - `BUD-1`: a list holds exactly the blocks whose state is free, of this zone, of its order and type.
/// - `BUD-2`: the links of neighbours agree, and the first block has none before it.
/// - `BUD-3`: bit `o` of `filled[t]` is set exactly if the list of order `o` and type `t` is not empty.
/// - `BUD-4`: no two free buddies of one order could merge.
/// - `BUD-5`: a free block is on the lists of its page block's type.
#[derive(Debug)]
pub(in crate::mm::zone) struct FreeLists {
    /// The first block of each list, or [`Page::NIL`].
    lists: [[u32; ROW]; ROWS],
    filled: [u16; ROWS],
}

/// A free list points to a page that is no free block of its kind: somebody wrote to a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mm::zone) struct Corrupt(pub(in crate::mm::zone) Page);

impl FreeLists {
    pub(super) const EMPTY: Self = Self { lists: [[Page::NIL; ROW]; ROWS], filled: [0; ROWS] };

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "masked to the size of the array")]
    fn first_mut(&mut self, order: u8, kind: MigrateType) -> &mut u32 {
        &mut self.lists[kind.index() & (ROWS - 1)][order as usize & (ROW - 1)]
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "masked to the size of the array")]
    fn filled_mut(&mut self, kind: MigrateType) -> &mut u16 {
        &mut self.filled[kind.index() & (ROWS - 1)]
    }

    /// The orders whose list of this type is not empty, as bits.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "masked to the size of the array")]
    pub(in crate::mm::zone) fn filled(&self, kind: MigrateType) -> u16 {
        self.filled[kind.index() & (ROWS - 1)]
    }

    /// The first block of a list.
    #[expect(clippy::indexing_slicing, reason = "masked to the size of the array")]
    pub(in crate::mm::zone) fn first(&self, order: u8, kind: MigrateType) -> Option<Page> {
        let first = self.lists[kind.index() & (ROWS - 1)][order as usize & (ROW - 1)];
        (first != Page::NIL).then_some(Page::new(first))
    }

    /// Puts a block at the front of its list and makes its descriptor say so.
    #[inline(always)]
    pub(in crate::mm::zone) fn push<M: PageMap>(
        &mut self,
        map: M,
        zone: ZoneId,
        page: Page,
        order: u8,
        kind: MigrateType,
    ) {
        let first = self.first_mut(order, kind);
        let descriptor = map.get(page);
        let next = *first;
        // INVARIANT: BUD-1, BUD-2, BUD-3.
        *first = page.index();
        descriptor.set_state(PageState::free(zone, order, kind));
        descriptor.set_next(next);
        descriptor.set_prev(Page::NIL);
        if next == Page::NIL {
            *self.filled_mut(kind) |= 1_u16.wrapping_shl(u32::from(order));
        } else {
            map.get(Page::new(next)).set_prev(page.index());
        }
    }

    /// Takes a block that is on the list of `order` and `kind` off it. Its state stays as it is.
    #[inline(always)]
    pub(in crate::mm::zone) fn remove<M: PageMap>(&mut self, map: M, page: Page, order: u8, kind: MigrateType) {
        let descriptor = map.get(page);
        let (next, prev) = (descriptor.next(), descriptor.prev());
        if CHECKED && !are_linked(map, page) {
            self.drop_list(page, order, kind);
            return;
        }
        // INVARIANT: BUD-2, BUD-3.
        if next != Page::NIL {
            map.get(Page::new(next)).set_prev(prev);
        }
        if prev != Page::NIL {
            map.get(Page::new(prev)).set_next(next);
        } else {
            *self.first_mut(order, kind) = next;
            if next == Page::NIL {
                *self.filled_mut(kind) &= !1_u16.wrapping_shl(u32::from(order));
            }
        }
    }

    /// Takes the first block of a list, which is not empty, off it. Its state stays as it is.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the list points to something else; the list is given up then, as nothing on it can be trusted.
    #[inline(always)]
    pub(in crate::mm::zone) fn pop<M: PageMap>(
        &mut self,
        map: M,
        zone: ZoneId,
        order: u8,
        kind: MigrateType,
    ) -> Result<Page, Corrupt> {
        let first = self.first_mut(order, kind);
        let page = Page::new(*first);
        let descriptor = map.get(page);
        let sound = descriptor.state() == PageState::free(zone, order, kind) && (!CHECKED || are_linked(map, page));
        let next = if sound { descriptor.next() } else { Page::NIL };
        // INVARIANT: BUD-2, BUD-3.
        *first = next;
        if next == Page::NIL {
            *self.filled_mut(kind) &= !1_u16.wrapping_shl(u32::from(order));
        } else {
            map.get(Page::new(next)).set_prev(Page::NIL);
        }
        if sound { Ok(page) } else { Err(Corrupt(page)) }
    }
}

impl FreeLists {
    /// Empties a list that points to a page that is not on it: nothing on it can be trusted.
    #[cold]
    fn drop_list(&mut self, page: Page, order: u8, kind: MigrateType) {
        log::error!("BUD-2 broken: a link of the free block at page {} leads off its list", page.index());
        *self.first_mut(order, kind) = Page::NIL;
        *self.filled_mut(kind) &= !1_u16.wrapping_shl(u32::from(order));
    }
}

/// Whether what a free block is linked to is on the same list and leads back: asked before a link is followed to write there
/// (Linux: `__list_del_entry_valid`).
fn are_linked<M: PageMap>(map: M, page: Page) -> bool {
    let here = map.get(page);
    let leads_back = |link: u32, back: fn(&PageDescriptor) -> u32| {
        let there = map.get_checked(Page::new(link));
        link == Page::NIL || there.is_some_and(|there| there.state() == here.state() && back(there) == page.index())
    };
    leads_back(here.next(), PageDescriptor::prev) && leads_back(here.prev(), PageDescriptor::next)
}

const _: () = assert!(ROW > MAX_ORDER as usize && ROWS > MigrateType::COUNT && ROW <= u16::BITS as usize);
