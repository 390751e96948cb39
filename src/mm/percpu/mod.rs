//! Dynamic per-CPU memory: a copy for every CPU (Linux: `mm/percpu.c`).
//!
//! A **chunk** is an area of the vmalloc region with a **unit** for each CPU, one behind the other. An allocation lies at the
//! same offset in every unit, so that a pointer is the address in CPU 0's unit, and the distance from CPU to CPU is a constant,
//! the same in every chunk.
//!
//! ```text
//!   chunk    │ unit of CPU 0 │ unit of CPU 1 │ unit of CPU 2 │ …
//!              ▲ +offset       ▲ +offset       ▲ +offset
//! ```
//!
//! A bitmap with a bit for every four bytes says which bytes of a unit are in use, a second one where allocations begin and
//! end. The bitmap is divided into **blocks**, each with hints that say whether it is worth looking at. Chunks are on lists by
//! the largest gap that they have. Pages come when an allocation touches them first, in all units together; an empty chunk
//! stays if it is the only one, and [`PerCpuAllocator::trim`] frees every unused page.
//!
//! # Words
//!
//! | verb | what moves |
//! |---|---|
//! | alloc, free | a run of bits in the chunks: an allocation |
//! | park | a small allocation that was freed, kept with its bits set for the next one of its size |
//! | drain | parked allocations, into the bits of their chunks |
//! | populate, depopulate | pages, into a chunk or out of it |
//! | detach, destroy | an empty chunk, off the lists; then its pages and its area |
//! | trim | every empty chunk, and every page without an allocation, to the page allocator |
//!
//! # Locks and contexts
//!
//! One lock, with interrupts masked, for looking at bitmaps alone: pages and addresses are allocated and freed without it,
//! while the pages in question are marked. Allocating is done in the contexts that its flags allow, freeing in any.

mod alloc;
mod check;
mod chunk;
mod counter;
mod error;
mod hal;
mod map;
mod populate;
mod raw_calls;

pub use alloc::{PerCpuAllocator, PerCpuStats};
pub use chunk::Chunk;
pub use counter::Counter;
pub use error::PerCpuError;
pub use hal::PerCpuHal;

use crate::addr::VirtAddr;

/// Bytes of a CPU's share of a chunk, and the largest allocation (Linux: `PCPU_MIN_UNIT_SIZE`).
pub const UNIT_SIZE: u64 = 32 << 10;
/// Unit of allocation, in bytes (Linux: `PCPU_MIN_ALLOC_SIZE`).
pub const MIN_ALLOC: u64 = 4;

/// Name of an allocation: its address in the unit of CPU 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PerCpuPtr(VirtAddr);

impl PerCpuPtr {
    /// The allocation whose address for CPU 0 is `addr`. That there is one is the caller's claim, which a free looks at.
    #[must_use]
    pub const fn new(addr: VirtAddr) -> Self {
        Self(addr)
    }

    /// The address for CPU 0.
    #[must_use]
    pub const fn addr(self) -> VirtAddr {
        self.0
    }

    /// The address for any CPU (Linux: `per_cpu_ptr`).
    #[inline(always)]
    #[must_use]
    pub const fn of(self, cpu: crate::addr::CpuId) -> VirtAddr {
        VirtAddr::new(self.0.get().wrapping_add(cpu.get() as u64 * UNIT_SIZE))
    }
}
