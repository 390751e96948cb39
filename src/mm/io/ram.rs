//! Whether a physical range is RAM, by the page descriptors.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SIZE, Pfn, PhysRange};
use crate::mm::page::{Kind, Page, PageMap, find_head};

/// Share of a range that is RAM which the kernel may touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ram {
    /// No page of it.
    Nowhere,
    /// Some pages of it.
    Somewhere,
    /// All pages of it.
    Everywhere,
}

/// Checks the whole pages of `range`. Memory that a device tree marks `no-map` is not RAM here. O(1) away from RAM, otherwise
/// O(blocks).
pub(super) fn ram_in(map: &impl PageMap, range: PhysRange) -> Ram {
    let (mut at, end) = (range.start().get() / PAGE_SIZE, range.end().get() / PAGE_SIZE);
    let (mut some, mut all) = (false, true);
    while at < end && (all || !some) {
        let (is_ram, next) = match map.find(Pfn::new(at)) {
            None => (false, next_section(map, at).unwrap_or(end)),
            Some(page) => {
                let (is_ram, next) = block_of(map, page);
                (is_ram, map.origin().get() + next)
            }
        };
        (some, all) = (some | is_ram, all & is_ram);
        at = next;
    }
    match (some, all) {
        (false, _) => Ram::Nowhere,
        (true, false) => Ram::Somewhere,
        (true, true) => Ram::Everywhere,
    }
}

/// The first frame behind `at`, which is in no section, that is in one.
fn next_section(map: &impl PageMap, at: u64) -> Option<u64> {
    let origin = map.origin().get();
    let sections = map.sections();
    let place = sections.partition_point(|section| origin + u64::from(section.first) <= at);
    sections.get(place).map(|section| origin + u64::from(section.first))
}

/// Whether a page is RAM, and the number of a later page up to which all pages are the same.
fn block_of(map: &impl PageMap, page: Page) -> (bool, u64) {
    match find_head(map, page) {
        // Concurrent changes of a block do not matter: RAM stays RAM, and holes stay holes.
        Some((head, state)) => (state.kind() != Kind::Hole, u64::from(head.index()) + (1 << state.raw_order())),
        // In the middle of being split or merged, which only RAM is.
        None => (true, u64::from(page.index()) + 1),
    }
}
