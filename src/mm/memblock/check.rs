//! The invariants as code, by their tags.
#![forbid(unsafe_code)]

use super::storage::array_size;
use super::{Memblock, MemblockBroken, PHYS_END, Region, RegionList};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::hal::BootMemory;

/// A list as `check` sees it: any list, not only one that a memblock keeps, so that a checker can be shown a broken one.
#[derive(Clone, Copy, Debug)]
pub struct ListView<'a> {
    /// `memory` or `reserved`.
    pub name: &'static str,
    /// All slots, in use or not.
    pub slots: &'a [Region],
    /// Slots in use.
    pub count: usize,
    /// Bytes of all regions, as the list says.
    pub total: u64,
    /// Place of the slots, if in memory that the memblock describes.
    pub storage: Option<PhysRange>,
}

impl ListView<'_> {
    fn broken(&self, tag: &'static str, index: usize) -> MemblockBroken {
        MemblockBroken { tag, list: self.name, index }
    }

    fn find(&self, addr: PhysAddr) -> Option<&Region> {
        self.slots.iter().take(self.count).find(|region| region.range.contains(addr))
    }

    /// Tests `MEMB-1` to `MEMB-6`. Cost: O(slots).
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, and where.
    pub fn check(&self) -> Result<(), MemblockBroken> {
        let Some((regions, vacant)) = self.slots.split_at_checked(self.count) else {
            return Err(self.broken("MEMB-5", self.count));
        };
        let mut total = 0u64;
        for (index, region) in regions.iter().enumerate() {
            if region.range.is_empty() {
                return Err(self.broken("MEMB-2", index));
            }
            if region.end() > PHYS_END {
                return Err(self.broken("MEMB-6", index));
            }
            total = total.saturating_add(region.range.size());
        }
        for (index, pair) in regions.windows(2).enumerate() {
            let [low, high] = pair else { continue };
            if low.end() > high.start() {
                return Err(self.broken("MEMB-1", index));
            }
            if low.end() == high.start() && low.is_like(high) {
                return Err(self.broken("MEMB-3", index));
            }
        }
        if total != self.total {
            return Err(self.broken("MEMB-4", 0));
        }
        match vacant.iter().position(|slot| *slot != Region::EMPTY) {
            Some(index) => Err(self.broken("MEMB-5", self.count + index)),
            None => Ok(()),
        }
    }
}

/// Tests every invariant of a memblock with these lists. Cost: O(slots).
///
/// # Errors
///
/// The first invariant that does not hold, and where.
pub fn check_lists(memory: ListView<'_>, reserved: ListView<'_>) -> Result<(), MemblockBroken> {
    memory.check()?;
    reserved.check()?;
    if let Some(index) = reserved.slots.iter().position(|region| !region.flags.is_empty()) {
        return Err(reserved.broken("MEMB-8", index));
    }
    if let Some(index) = memory.slots.iter().position(|region| region.owner.is_some()) {
        return Err(memory.broken("MEMB-8", index));
    }
    for (list, other) in [(memory, reserved), (reserved, memory)] {
        let Some(place) = list.storage else { continue };
        let mapped = |region: &&Region| region.is_mapped() && region.range.contains_range(place);
        let holds = place.start().is_aligned(PAGE_SIZE)
            && place.size() == array_size(list.slots.len())
            && memory.find(place.start()).filter(mapped).is_some()
            && reserved.find(place.start()).is_some_and(|region| region.range.contains_range(place))
            && !other.storage.is_some_and(|second| second.overlaps(place));
        if !holds {
            return Err(list.broken("MEMB-7", 0));
        }
    }
    Ok(())
}

impl<const INIT: usize> RegionList<'_, INIT> {
    /// View of this list for [`check_lists`].
    #[must_use]
    pub fn view(&self) -> ListView<'_> {
        ListView {
            name: self.name(),
            slots: self.slots(),
            count: self.len(),
            total: self.total(),
            storage: self.storage(),
        }
    }
}

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// Tests every invariant. Cost: O(slots).
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, and where.
    pub fn check(&self) -> Result<(), MemblockBroken> {
        check_lists(self.memory.view(), self.reserved.view())
    }
}
