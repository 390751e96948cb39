//! Data for a CPU that the kernel starts: a table that `boot/secondary.S` reads with the MMU off, by affinity.

use super::cache;
use super::cpu::MAX_CPUS;
use crate::addr::{CpuId, PhysAddr, VirtAddr, VirtRange, to_usize};
use core::sync::atomic::{AtomicU64, Ordering};

/// The affinity fields of `MPIDR_EL1`.
pub(crate) const AFFINITY: u64 = 0xff_00ff_ffff;
/// The bit of an entry that is in use.
const IN_USE: u64 = 1 << 63;

/// A CPU: its affinity with [`IN_USE`], and the end of the stack that it starts on.
#[repr(C)]
struct Secondary {
    affinity: AtomicU64,
    stack: AtomicU64,
}

/// Read by `secondary_entry`, in this layout.
///
/// # Invariants
///
/// - `SEC-1`: an entry in use belongs to one CPU for good, so that one that comes late finds its own stack.
#[repr(C, align(64))]
pub(super) struct Secondaries {
    tables: AtomicU64,
    count: AtomicU64,
    entries: [Secondary; MAX_CPUS],
}

pub(super) static SECONDARIES: Secondaries = Secondaries {
    tables: AtomicU64::new(0),
    count: AtomicU64::new(0),
    entries: [const { Secondary { affinity: AtomicU64::new(0), stack: AtomicU64::new(0) } }; MAX_CPUS],
};

/// Writes the start values for the CPU with `affinity`: its number, the kernel's tables and a stack that ends at `stack_end`. A
/// CPU keeps its number and affinity; the values have reached memory when this returns. By one CPU at a time.
pub fn prepare(cpu: CpuId, affinity: u64, tables: PhysAddr, stack_end: VirtAddr) {
    let Some(entry) = SECONDARIES.entries.get(to_usize(u64::from(cpu.get()))) else { return };
    SECONDARIES.tables.store(tables.get(), Ordering::Relaxed);
    entry.stack.store(stack_end.get(), Ordering::Relaxed);
    // INVARIANT: SEC-1: the caller's promise.
    entry.affinity.store(affinity & AFFINITY | IN_USE, Ordering::Relaxed);
    SECONDARIES.count.fetch_max(u64::from(cpu.get()) + 1, Ordering::Relaxed);
    let table = VirtAddr::of(&raw const SECONDARIES);
    if let Some(table) = VirtRange::from_size(table, size_of::<Secondaries>() as u64) {
        cache::clean_and_invalidate_to_poc(table);
    }
}
