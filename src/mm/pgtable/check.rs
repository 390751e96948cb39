//! The invariants `PT-1` to `PT-5`, tested by a walk over all entries.
#![forbid(unsafe_code)]

use super::PageTable;
use super::cursor::Cursor;
use super::place::Place;
use crate::addr::VirtAddr;
use crate::hal::entry::{Defect, Entry, EntryFormat, Leaf};
use crate::hal::level::{CONTIGUOUS_ENTRIES, LeafLevel, Run};
use crate::hal::mmu::Mmu;
use crate::hal::prot::Prot;
use core::fmt;

/// Counts of [`PageTable::check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableCensus {
    /// Tables, the root included.
    pub tables: u64,
    /// 1 GiB blocks.
    pub pud_blocks: u64,
    /// 2 MiB blocks, those in contiguous groups included.
    pub pmd_blocks: u64,
    /// 4 KiB pages, those in contiguous groups included.
    pub pages: u64,
    /// Contiguous groups, of either size.
    pub groups: u64,
}

/// Which invariant does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CheckError {
    /// `PT-1`: a malformed entry at this address.
    Malformed(VirtAddr, Defect),
    /// `PT-2`: the contiguous group at this address is incomplete or inconsistent.
    BrokenGroup(VirtAddr),
    /// `PT-3`: a leaf that does not belong in these tables.
    WrongPrivilege(VirtAddr),
    /// `PT-4`: tables found, tables accounted for.
    LostTables(u64, u64),
    /// `PT-5`: a table from this address on: entries found that are not absent, entries counted.
    WrongCount(VirtAddr, usize, usize),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(at, defect) => write!(f, "PT-1: {at:#x}: {defect}"),
            Self::BrokenGroup(at) => write!(f, "PT-2: {at:#x}: contiguous group incomplete or inconsistent"),
            Self::WrongPrivilege(at) => write!(f, "PT-3: {at:#x}: leaf of the wrong privilege"),
            Self::LostTables(found, counted) => write!(f, "PT-4: {found} tables found, {counted} accounted for"),
            Self::WrongCount(at, found, counted) => {
                write!(f, "PT-5: {at:#x}: {found} entries found, {counted} counted")
            }
        }
    }
}

impl core::error::Error for CheckError {}

impl<M: Mmu> PageTable<M> {
    /// Tests every invariant of the module. Where others edit the tables meanwhile, what they are about to finish may be
    /// named as an error. Cost: O(entries).
    ///
    /// # Errors
    ///
    /// The first [`CheckError`] in address order; the count of tables last.
    pub fn check(&self) -> Result<TableCensus, CheckError> {
        let mut census = TableCensus { tables: 1, ..TableCensus::default() };
        let mut cursor = Cursor::new(self.space.start(), self.space.last());
        while let Some(checked) = self.next_place(&mut cursor, |place| (self.check_place(&place, &mut census), 1)) {
            checked?;
        }
        match self.table_frames() {
            counted if counted == census.tables => Ok(census),
            counted => Err(CheckError::LostTables(census.tables, counted)),
        }
    }

    fn check_place(&self, place: &Place, census: &mut TableCensus) -> Result<(), CheckError> {
        match M::Format::decode(place.table.level(), place.raw) {
            Entry::Absent | Entry::Guard => Ok(()),
            // Only memory of a process is parked.
            Entry::Parked(leaf) if !self.space.admits(leaf.prot) => Err(CheckError::WrongPrivilege(place.start)),
            Entry::Parked(_) => Ok(()),
            Entry::Table(_) => {
                census.tables += 1;
                self.check_count(place)
            }
            Entry::Malformed(defect) => Err(CheckError::Malformed(place.start, defect)),
            Entry::Leaf(leaf) if !self.space.admits(leaf.prot) => Err(CheckError::WrongPrivilege(place.start)),
            Entry::Leaf(leaf) => self.count_leaf(place, leaf, census),
        }
    }

    fn check_count(&self, place: &Place) -> Result<(), CheckError> {
        let Ok(child) = place.table.descend(&self.mmu, place.slot) else { return Ok(()) };
        let entries = || Run::TABLE.slots().filter(|slot| !child.read(&self.mmu, *slot).is_absent()).count();
        let (found, counted) = (if self.counted { entries() } else { 0 }, M::Format::live(place.raw));
        if found == counted { Ok(()) } else { Err(CheckError::WrongCount(place.start, found, counted)) }
    }

    fn count_leaf(&self, place: &Place, leaf: Leaf, census: &mut TableCensus) -> Result<(), CheckError> {
        match leaf.level {
            LeafLevel::Pud => census.pud_blocks += 1,
            LeafLevel::Pmd => census.pmd_blocks += 1,
            LeafLevel::Pte => census.pages += 1,
        }
        if !leaf.contiguous {
            return Ok(());
        }
        let group = Run::group(place.slot);
        if place.slot == group.first() {
            census.groups += 1;
        }
        // Every member checks its right neighbour, the last one the first's alignment: together, all of PT-2.
        let index = place.slot.get() - group.first().get();
        let Some(first) = leaf.phys.checked_sub(index as u64 * leaf.level.size()) else {
            return Err(CheckError::BrokenGroup(place.start));
        };
        // The hardware sets these two in the one entry that it uses.
        let lasting = |prot: Prot| prot.with_accessed(true).with_dirty(false);
        let next = group.slots().nth((index + 1) % CONTIGUOUS_ENTRIES);
        let follows = next.is_some_and(|slot| {
            let raw = place.table.read(&self.mmu, slot);
            matches!(M::Format::decode(place.table.level(), raw), Entry::Leaf(other)
                if other.contiguous && lasting(other.prot) == lasting(leaf.prot)
                    && other.phys.checked_sub(((index + 1) % CONTIGUOUS_ENTRIES) as u64 * leaf.level.size())
                        == Some(first))
        });
        if follows && first.is_aligned(leaf.level.contiguous_size()) {
            Ok(())
        } else {
            Err(CheckError::BrokenGroup(place.start))
        }
    }
}
