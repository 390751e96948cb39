//! The end of a memblock: its free pages go to the page allocator, once.
#![forbid(unsafe_code)]

use super::{FreeRanges, Memblock, MemblockError, PhysRange};
use crate::addr::PAGE_SIZE;
use crate::hal::BootMemory;
use core::iter::FusedIterator;

/// The free memory at the hand-over, in whole pages by ascending address. A page that a reservation touches is not
/// among it.
#[derive(Debug)]
#[must_use = "the pages that are not taken here are lost"]
pub struct HandOver<'a>(FreeRanges<'a>);

impl HandOver<'_> {
    /// Pages still to come. Cost: O(regions).
    #[must_use]
    pub fn pages(&self) -> u64 {
        whole_pages(self.0.clone()).map(|range| range.size() / PAGE_SIZE).sum()
    }
}

impl Iterator for HandOver<'_> {
    type Item = PhysRange;

    fn next(&mut self) -> Option<PhysRange> {
        whole_pages(&mut self.0).next()
    }
}

impl FusedIterator for HandOver<'_> {}

fn whole_pages(free: impl Iterator<Item = PhysRange>) -> impl Iterator<Item = PhysRange> {
    free.filter_map(|range| range.align_inwards(PAGE_SIZE))
}

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// Hands the free memory over and ends allocation from here. From now on every call that would change something
    /// fails with [`Retired`](MemblockError::Retired) and logs its caller; the lists stay readable, and their arrays stay
    /// reserved.
    ///
    /// # Errors
    ///
    /// [`Retired`](MemblockError::Retired) the second time; [`NoMemory`](MemblockError::NoMemory) if there is no whole
    /// free page, and the memblock stays in use.
    #[track_caller]
    pub fn retire(&mut self) -> Result<HandOver<'_>, MemblockError> {
        self.open("retire")?;
        if self.free_pages().next().is_none() {
            return Err(MemblockError::NoMemory);
        }
        self.retired = true;
        Ok(self.free_pages())
    }

    /// The free memory in whole pages: what [`Memblock::retire`] hands over.
    pub fn free_pages(&self) -> HandOver<'_> {
        HandOver(self.free_ranges())
    }
}
