//! How many entries of a user table are not absent: counted in the entry that points to the table, where no walker looks, so that
//! a table that has fallen empty is known without a look at its entries.
#![forbid(unsafe_code)]

use super::table::Table;
use crate::hal::entry::EntryFormat;
use crate::hal::level::{ENTRIES, Slot};
use crate::hal::mmu::Mmu;

/// Where the entries of a table are counted. The number is the caller's who may change these entries: nobody else changes it
/// meanwhile.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Count {
    above: Table,
    slot: Slot,
}

impl Count {
    /// Of the table that the entry at `slot` points to.
    #[inline(always)]
    pub(super) const fn of(above: Table, slot: Slot) -> Self {
        Self { above, slot }
    }

    /// Entries that are not absent.
    #[inline(always)]
    pub(in crate::mm) fn get<M: Mmu>(self, mmu: &M) -> usize {
        M::Format::live(self.above.read(mmu, self.slot))
    }

    /// So many entries are about to be written that were absent. The only place that counts more.
    #[inline(always)]
    pub(in crate::mm) fn add<M: Mmu>(self, mmu: &M, entries: usize) {
        let raw = self.above.read(mmu, self.slot);
        debug_assert!(M::Format::live(raw) + entries <= ENTRIES, "PT-5: more entries than a table has");
        // INVARIANT: PT-5.
        self.above.annotate(mmu, self.slot, M::Format::with_more(raw, entries));
    }

    /// So many entries have become absent: whether there is none left. The only place that counts fewer.
    #[inline(always)]
    pub(in crate::mm) fn take<M: Mmu>(self, mmu: &M, entries: usize) -> bool {
        let raw = self.above.read(mmu, self.slot);
        debug_assert!(M::Format::live(raw) >= entries, "PT-5: fewer entries than none");
        let less = M::Format::with_fewer(raw, entries);
        // INVARIANT: PT-5.
        self.above.annotate(mmu, self.slot, less);
        M::Format::live(less) == 0
    }
}
