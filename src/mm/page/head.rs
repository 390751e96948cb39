//! From any page of a block to its head.
#![forbid(unsafe_code)]

use super::{Kind, Page, PageMap, PageState};
use crate::addr::MAX_ORDER;

/// The head of the block that `page` belongs to, with its state. `None` if no head speaks for it, which `PAGE-1` rules
/// out for every page that is not in the middle of being split or merged. Cost: at most eleven probes.
#[must_use]
pub fn find_head<M: PageMap>(map: &M, page: Page) -> Option<(Page, PageState)> {
    let state = map.get(page).state();
    if state.kind() == Kind::Tail {
        let head = Page::new(map.get(page).next());
        let reach = page.index().wrapping_sub(head.index());
        // A damaged link must not cause a read outside the block that it could point into.
        if reach >> MAX_ORDER != 0 || head.align_down(MAX_ORDER) != page.align_down(MAX_ORDER) {
            return None;
        }
        let found = map.get(head).state();
        return (found.is_compound() && reach >> found.raw_order() == 0).then_some((head, found));
    }
    for order in 0..=MAX_ORDER {
        let head = page.align_down(order);
        let state = map.get(head).state();
        if state.kind().is_head() {
            return (state.raw_order() >= order).then_some((head, state));
        }
    }
    None
}
