//! Making memory smaller: to whole pages, to a total, to an end address.
#![forbid(unsafe_code)]

use super::repaint::Paint;
use super::{Memblock, MemblockError, PHYS_END, PhysAddr, PhysRange, Region, Which};
use crate::addr::PAGE_SIZE;
use crate::hal::BootMemory;

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// Rounds every memory region inwards to multiples of `align` bytes, a power of two. Regions without a whole unit
    /// vanish.
    ///
    /// # Errors
    ///
    /// [`BadAlignment`](MemblockError::BadAlignment); [`HoldsList`](MemblockError::HoldsList) if that would cut off an
    /// array of the memblock, which cannot happen for `align` up to the page size, nor before
    /// [`allow_resize`](Self::allow_resize); [`Retired`](MemblockError::Retired).
    #[track_caller]
    pub fn trim_memory(&mut self, align: u64) -> Result<(), MemblockError> {
        self.open("trim_memory")?;
        if !align.is_power_of_two() {
            return Err(MemblockError::BadAlignment { align });
        }
        for storage in [self.memory.storage(), self.reserved.storage()].into_iter().flatten() {
            let whole = self.memory.find(storage.start()).and_then(|region| region.range.align_inwards(align));
            if !whole.is_some_and(|whole| whole.contains_range(storage)) {
                return Err(MemblockError::HoldsList { storage });
            }
        }
        self.memory.trim(align);
        Ok(())
    }

    /// Keeps `total` bytes of mapped memory, the lowest ones, down to a whole page; the rest is memory no more. `NOMAP`
    /// memory and reservations stay: their owners still matter. Linux on arm64 gives `mem=` this meaning.
    ///
    /// # Errors
    ///
    /// [`NoMemory`](MemblockError::NoMemory) if nothing would be left, and those of [`remove`](Self::remove).
    #[track_caller]
    pub fn enforce_memory_limit(&mut self, total: u64) -> Result<(), MemblockError> {
        self.open("enforce_memory_limit")?;
        let mut left = total;
        let cut = self.mapped_ranges().find_map(|range| {
            if left < range.size() {
                return range.start().checked_add(left);
            }
            left -= range.size();
            None
        });
        self.cut_mapped(cut.unwrap_or(PHYS_END).align_down(PAGE_SIZE))
    }

    /// Keeps the mapped memory below `end`, down to a whole page; the rest is memory no more. `NOMAP` memory and
    /// reservations stay. For memory that the device tree states and the machine does not have.
    ///
    /// # Errors
    ///
    /// As for [`enforce_memory_limit`](Self::enforce_memory_limit).
    #[track_caller]
    pub fn cap_memory_end(&mut self, end: PhysAddr) -> Result<(), MemblockError> {
        self.open("cap_memory_end")?;
        self.cut_mapped(end.align_down(PAGE_SIZE).min(PHYS_END))
    }

    /// Keeps the memory that lies in one of `ranges`, which come in any order; the rest is memory no more. Cost: O(ranges²) and
    /// O(regions) for each gap between them.
    ///
    /// # Errors
    ///
    /// Those of [`remove`](Self::remove).
    #[track_caller]
    pub fn keep_memory(&mut self, ranges: impl Iterator<Item = PhysRange> + Clone) -> Result<(), MemblockError> {
        self.open("keep_memory")?;
        let mut at = PhysAddr::ZERO;
        while at < PHYS_END {
            let around = ranges.clone().filter(|range| range.contains(at)).map(PhysRange::end).max();
            if let Some(end) = around {
                at = end;
                continue;
            }
            let next = ranges.clone().filter(|range| !range.is_empty()).map(PhysRange::start).filter(|next| *next > at);
            let next = next.min().unwrap_or(PHYS_END).min(PHYS_END);
            let gap = PhysRange::new(at, next).unwrap_or(Region::EMPTY.range);
            self.change(Which::Memory, gap, Paint::Erase)?;
            at = next;
        }
        Ok(())
    }

    /// Removes mapped memory from `cut` on, unless that is all memory.
    fn cut_mapped(&mut self, cut: PhysAddr) -> Result<(), MemblockError> {
        if !self.mapped_ranges().any(|range| range.start() < cut) {
            return Err(MemblockError::NoMemory);
        }
        let rest = PhysRange::new(cut, PHYS_END).unwrap_or(Region::EMPTY.range);
        self.change(Which::Memory, rest, Paint::EraseMapped)
    }
}
