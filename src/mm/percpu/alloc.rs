//! Allocating and freeing.
#![forbid(unsafe_code)]

use super::chunk::{Chunk, Chunks, Detached, Taken};
use super::map::{BITS, PAGES};
use super::{MIN_ALLOC, PerCpuError, PerCpuHal, PerCpuPtr, UNIT_SIZE};
use crate::addr::{CpuId, PAGE_SIZE, VirtRange};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::vmalloc::{AreaHal, AreaRequest, VmFlags, VmapSpace};
use crate::sync::{OrderedLock, class};
use core::fmt;
use core::panic::Location;

/// Records in the first array; each further one is twice as long.
const FIRST_ROW: usize = 4;

/// Amounts of per-CPU memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PerCpuStats {
    /// Chunks.
    pub chunks: usize,
    /// Allocations.
    pub allocations: usize,
    /// Bytes of them, in each unit.
    pub bytes: u64,
    /// Pages of all units.
    pub pages: u64,
}

impl fmt::Display for PerCpuStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chunks, allocations, bytes, pages } = self;
        write!(f, "{allocations} allocations of {bytes} bytes a CPU, {pages} pages in {chunks} chunks")
    }
}

/// Per-CPU memory in the areas of a space.
pub struct PerCpuAllocator<'s, 'a, H: PerCpuHal<'a>> {
    space: &'s VmapSpace<'a, H>,
    chunks: OrderedLock<Chunks<'a>, class::PerCpuChunks, <H as AreaHal<'a>>::Relax>,
}

impl<'s, 'a, H: PerCpuHal<'a>> PerCpuAllocator<'s, 'a, H> {
    /// An allocator that has nothing yet.
    pub const fn new(space: &'s VmapSpace<'a, H>) -> Self {
        Self { space, chunks: OrderedLock::new(Chunks::new()) }
    }

    pub(super) const fn hal(&self) -> &'s H {
        self.space.hal()
    }

    pub(super) const fn space(&self) -> &'s VmapSpace<'a, H> {
        self.space
    }

    /// Runs `f` with the chunks locked and interrupts masked.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Chunks<'a>) -> R) -> R {
        let saved = self.hal().save();
        let result = f(&mut self.chunks.lock());
        self.hal().restore(saved);
        result
    }

    /// `size` zeroed bytes for each CPU, at a multiple of `align` (Linux: `__alloc_percpu_gfp`). Context as `gfp` says.
    /// Cost: about two hundred instructions after a free of the same size; otherwise at most 32 chunks are looked at in vain,
    /// usually none; and the pages that come in.
    ///
    /// # Errors
    ///
    /// [`PerCpuError`]; everything begun has been undone.
    #[track_caller]
    pub fn alloc(&self, size: u64, align: u64, gfp: Gfp) -> Result<PerCpuPtr, PerCpuError> {
        if size == 0 {
            return Err(PerCpuError::Empty);
        }
        if size > UNIT_SIZE {
            return Err(PerCpuError::TooLarge(size));
        }
        if !align.is_power_of_two() || align > PAGE_SIZE {
            return Err(PerCpuError::BadAlignment(align));
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most a unit's bits")]
        let (bits, align) = (size.div_ceil(MIN_ALLOC) as u32, align.div_ceil(MIN_ALLOC) as u32);
        gfp.check().map_err(PerCpuError::Flags)?;
        // Zone and `ZERO` mean nothing here (Linux: `pcpu_alloc_noprof`).
        let gfp = gfp.effort();
        let found = self.with(|chunks| chunks.alloc_parked(bits, align).or_else(|| chunks.alloc(bits, align)));
        let taken = match found {
            Some(taken) => taken,
            None => self.alloc_slow(bits, align, gfp, Location::caller())?,
        };
        if taken.missing != 0 {
            let populated = self.populate(taken.chunk, taken.base, taken.missing, gfp);
            self.with(|chunks| chunks.populated(&taken, populated.is_ok()));
            populated?;
        }
        let ptr = taken.ptr();
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            if let Some(range) = VirtRange::from_size(ptr.of(cpu), u64::from(bits) * MIN_ALLOC) {
                self.hal().clear(Internal::CALL, range);
            }
        }
        Ok(ptr)
    }

    /// Allocates the bits from what parked allocations leave, or from a new chunk.
    #[cold]
    fn alloc_slow(
        &self,
        bits: u32,
        align: u32,
        gfp: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<Taken, PerCpuError> {
        self.drain_parked();
        match self.with(|chunks| chunks.alloc(bits, align)) {
            Some(taken) => Ok(taken),
            None => self.alloc_from_new(bits, align, gfp, caller),
        }
    }

    /// Frees the offsets that are kept for the next allocations of their size.
    pub(super) fn drain_parked(&self) {
        while let Some(gone) = self.with(Chunks::drain_one) {
            if let Some(empty) = gone {
                self.destroy(&empty);
            }
        }
    }

    /// Makes a chunk, and allocates the bits from it, or from another chunk that has room by then.
    fn alloc_from_new(
        &self,
        bits: u32,
        align: u32,
        gfp: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<Taken, PerCpuError> {
        let size = u64::from(self.hal().cpus()) * UNIT_SIZE;
        // Never complete, so that nobody unmaps it by its address.
        let flags = VmFlags::ALLOC | VmFlags::UNINITIALIZED;
        let request = AreaRequest { align: PAGE_SIZE, caller: Some(caller), ..AreaRequest::new(size, flags) };
        let area = self.space.alloc_gfp(&request, gfp)?;
        loop {
            let taken = self.with(|chunks| {
                chunks.add(area)?;
                chunks.alloc(bits, align)
            });
            if let Some(taken) = taken {
                return Ok(taken);
            }
            // No record: all are in use.
            let rows = self.with(|chunks| chunks.rows.rows());
            let row = self.hal().row(FIRST_ROW << rows, gfp);
            if !row.is_some_and(|row| self.with(|chunks| chunks.add_row(row))) {
                self.space.cancel(area);
                return Err(PerCpuError::OutOfMemory);
            }
        }
    }

    /// [`Self::free`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_free(&self, ptr: PerCpuPtr) -> Result<(), PerCpuError> {
        let wrong = PerCpuError::NotAllocated(ptr.addr());
        let freed = self.with(|chunks| Some(chunks.free(chunks.recent_chunk(ptr)?, ptr)));
        let freed = match freed {
            Some(freed) => freed,
            None => {
                let chunk = self.chunk_at(ptr.addr()).ok_or(wrong)?;
                self.with(|chunks| chunks.free(chunk, ptr))
            }
        };
        if let Some(empty) = freed.ok_or(wrong)? {
            self.destroy(&empty);
        }
        Ok(())
    }

    /// Frees a chunk that no lookup finds any more. Returns the number of its pages.
    fn destroy(&self, chunk: &Detached<'a>) -> u64 {
        let pages = self.depopulate(chunk.area.start(), chunk.populated);
        self.space.cancel(chunk.area);
        self.with(|chunks| chunks.free_record(chunk.chunk));
        pages
    }

    /// Frees every empty chunk, every unused page, and surplus records. Returns how many pages of chunks. Any context.
    pub fn trim(&self) -> u64 {
        self.drain_parked();
        let mut freed = 0;
        let mut number = None;
        // By number, as lists change meanwhile.
        loop {
            number = self.with(|chunks| chunks.rows.after(number));
            let Some(chunk) = number else { break };
            if let Some(empty) = self.with(|chunks| chunks.detach(chunk)) {
                freed += self.destroy(&empty);
            } else if let Some((going, base)) = self.with(|chunks| chunks.start_trim(chunk)) {
                freed += self.depopulate(base, going);
                self.with(|chunks| chunks.end_trim(chunk, going));
            }
        }
        while let Some(row) = self.with(|chunks| chunks.remove_idle_row()) {
            self.hal().free_row(row);
        }
        freed
    }

    /// Pages that [`PerCpuAllocator::trim`] would free.
    #[must_use]
    pub fn idle_pages(&self) -> u64 {
        let idle = |chunk: &Chunk<'a>| {
            (0..PAGES).filter(|page| chunk.populated >> page & 1 != 0 && chunk.map.is_page_empty(*page)).count() as u64
        };
        self.with(|chunks| chunks.iter().map(|(_, chunk)| idle(chunk)).sum::<u64>()) * u64::from(self.hal().cpus())
    }

    /// Amounts of per-CPU memory.
    #[must_use]
    pub fn stats(&self) -> PerCpuStats {
        self.drain_parked();
        self.with(|chunks| {
            let mut stats =
                PerCpuStats { chunks: chunks.count, allocations: chunks.allocations, ..PerCpuStats::default() };
            for (_, chunk) in chunks.iter() {
                stats.bytes += u64::from(BITS - chunk.map.free_bits()) * MIN_ALLOC;
                stats.pages += u64::from(chunk.populated.count_ones()) * u64::from(self.hal().cpus());
            }
            stats
        })
    }
}
