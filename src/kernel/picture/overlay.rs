//! The blocks of the page allocator, laid over the owners of all RAM.
#![forbid(unsafe_code)]

use super::Use;
use crate::addr::{PhysAddr, PhysRange};
use crate::kernel::owner_map::Row;

/// Shows every byte of RAM once, from low to high, with its use: that of the block which has it, and elsewhere its owner's. So
/// the amounts add up to all RAM at any moment, even if memory changes hands meanwhile.
pub struct Overlay<'r, F: FnMut(PhysRange, Use)> {
    rows: &'r [Row],
    /// Up to where RAM was shown.
    shown: u64,
    show: F,
}

impl<'r, F: FnMut(PhysRange, Use)> Overlay<'r, F> {
    /// Begins at the lowest RAM. `rows` are sorted and do not overlap (`ACCT-1`).
    pub const fn new(rows: &'r [Row], show: F) -> Self {
        Self { rows, shown: 0, show }
    }

    /// The next block, by ascending address. Takes no memory and no lock.
    pub fn block(&mut self, block: PhysRange, r#use: Use) {
        self.show_up_to(block.start().get(), None);
        self.show_up_to(block.end().get(), Some(r#use));
    }

    /// Shows the RAM behind the last block.
    pub fn finish(mut self) {
        self.show_up_to(u64::MAX, None);
    }

    fn show_up_to(&mut self, end: u64, r#use: Option<Use>) {
        while let [row, rest @ ..] = self.rows {
            let start = row.range.start().get().max(self.shown);
            let stop = row.range.end().get().min(end);
            let range = PhysRange::new(PhysAddr::new(start), PhysAddr::new(stop)).filter(|range| !range.is_empty());
            if let Some(range) = range {
                (self.show)(range, r#use.unwrap_or(Use::of_owner(row.owner)));
            }
            if row.range.end().get() > end {
                break;
            }
            self.rows = rest;
        }
        self.shown = self.shown.max(end);
    }
}
