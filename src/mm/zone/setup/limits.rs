//! Where one zone ends and the next begins.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::gfp::ZoneType;

/// The DMA zone where the device tree states no limit: the first GiB of RAM.
const DMA_SIZE: u64 = 1 << 30;
/// Bytes that 32 address bits reach.
const DMA32_SIZE: u64 = 1 << 32;

/// Where zones end. Each starts where the one below it ends; any of them may be empty.
///
/// # Invariants
///
/// - `LIM-1`: both ends are multiples of the page size, and `dma_end <= dma32_end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneLimits {
    dma_end: PhysAddr,
    dma32_end: PhysAddr,
}

impl ZoneLimits {
    /// The limits for RAM that starts at `ram_start`.
    ///
    /// The DMA zone ends where the device tree says that the least able device ends (`dma_limit`: the lowest end of an
    /// enabled `dma-ranges`, on the CPU's side), if there is RAM below, and otherwise 1 GiB above the start of RAM;
    /// `dma_zone=` says how many bytes from the start of RAM it is instead. DMA32 ends at 4 GiB. Where RAM starts at or
    /// above 4 GiB no 32-bit device reaches any without translation, so that limit counts from the start of RAM.
    #[must_use]
    pub fn new(ram_start: PhysAddr, dma_limit: Option<PhysAddr>, dma_zone: Option<u64>) -> Self {
        let above = |bytes| PhysAddr::new(ram_start.get().saturating_add(bytes)).align_down(PAGE_SIZE);
        let stated = dma_limit.map(|end| end.align_down(PAGE_SIZE)).filter(|end| *end > ram_start);
        let dma_end = match dma_zone {
            Some(bytes) => above(bytes),
            None => stated.unwrap_or_else(|| above(DMA_SIZE)),
        };
        let four_gib = if ram_start.get() >= DMA32_SIZE { above(DMA32_SIZE) } else { PhysAddr::new(DMA32_SIZE) };
        // INVARIANT: LIM-1 by `align_down` and `max`.
        Self { dma_end, dma32_end: four_gib.max(dma_end) }
    }

    /// The zone that holds the byte at `addr`.
    #[must_use]
    pub fn zone_of(&self, addr: PhysAddr) -> ZoneType {
        if addr < self.dma_end {
            ZoneType::Dma
        } else if addr < self.dma32_end {
            ZoneType::Dma32
        } else {
            ZoneType::Normal
        }
    }

    /// The addresses of a zone.
    #[must_use]
    pub fn range(&self, zone: ZoneType) -> PhysRange {
        let (start, end) = match zone {
            ZoneType::Dma => (PhysAddr::ZERO, self.dma_end),
            ZoneType::Dma32 => (self.dma_end, self.dma32_end),
            ZoneType::Normal => (self.dma32_end, PhysAddr::MAX),
        };
        PhysRange::new(start, end).unwrap_or_default()
    }
}
