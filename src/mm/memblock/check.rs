//! The invariants as code, by their tags.
#![forbid(unsafe_code)]

use super::storage::array_size;
use super::{Broken, Memblock, PHYS_END, Region, RegionList};
use crate::addr::PAGE_SIZE;
use crate::hal::BootMemory;

impl<const INIT: usize> RegionList<'_, INIT> {
    /// Tests `MEMB-1` to `MEMB-6`. Cost: O(slots).
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, and where.
    pub fn check(&self) -> Result<(), Broken> {
        let broken = |tag, index| Broken { tag, list: self.name(), index };
        if self.len() > self.capacity() {
            return Err(broken("MEMB-5", self.len()));
        }
        let mut total = 0u64;
        for (index, region) in self.regions().iter().enumerate() {
            if region.range.is_empty() {
                return Err(broken("MEMB-2", index));
            }
            if region.end() > PHYS_END {
                return Err(broken("MEMB-6", index));
            }
            total = total.saturating_add(region.range.size());
        }
        for (index, pair) in self.regions().windows(2).enumerate() {
            let [low, high] = pair else { continue };
            if low.end() > high.start() {
                return Err(broken("MEMB-1", index));
            }
            if low.end() == high.start() && low.flags == high.flags {
                return Err(broken("MEMB-3", index));
            }
        }
        if total != self.total() {
            return Err(broken("MEMB-4", 0));
        }
        match self.slots().iter().skip(self.len()).position(|slot| *slot != Region::EMPTY) {
            Some(vacant) => Err(broken("MEMB-5", self.len() + vacant)),
            None => Ok(()),
        }
    }
}

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// Tests every invariant. Cost: O(slots).
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, and where.
    pub fn check(&self) -> Result<(), Broken> {
        self.memory.check()?;
        self.reserved.check()?;
        if let Some(index) = self.reserved.regions().iter().position(|region| !region.flags.is_empty()) {
            return Err(Broken { tag: "MEMB-8", list: self.reserved.name(), index });
        }
        for (list, other) in [(&self.memory, &self.reserved), (&self.reserved, &self.memory)] {
            let Some(place) = list.storage() else { continue };
            let mapped = |region: &&Region| region.is_mapped() && region.range.contains_range(place);
            let holds = place.start().is_aligned(PAGE_SIZE)
                && place.size() == array_size(list.capacity())
                && self.memory.find(place.start()).filter(mapped).is_some()
                && self.reserved.find(place.start()).is_some_and(|region| region.range.contains_range(place))
                && !other.storage().is_some_and(|second| second.overlaps(place));
            if !holds {
                return Err(Broken { tag: "MEMB-7", list: list.name(), index: 0 });
            }
        }
        Ok(())
    }
}
