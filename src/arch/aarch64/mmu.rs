//! The [`Mmu`] of a CPU at EL1: table entries through a window onto table frames, the rest by instruction.
//!
//! Only the window differs: the linear map ([`Linear`]), where it is one addition, or, before the linear map exists, a fixmap
//! slot ([`super::fixmap::FixmapSlots`]).

use super::desc::Stage1;
#[cfg(feature = "mem")]
use super::mem;
pub use super::window::TableWindow;
use super::{break_window, entries, irq, tlb};
use crate::addr::{PhysAddr, to_usize};
use crate::hal::entry::RawEntry;
use crate::hal::level::{ENTRIES, Run, Slot};
use crate::hal::mmu::{Asid, BbmLevel, Invalidation, Mmu};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// A table as the CPU sees it.
type Entries = [AtomicU64; ENTRIES];

/// Frames through the linear map: the frame at physical address `p` is mapped at `p + OFFSET`, wrapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Linear<const OFFSET: u64>(());

// SAFETY: by the promise made to `LinearMmu::new`, memory at `p` is mapped at `p + OFFSET`, always.
unsafe impl<const OFFSET: u64> TableWindow for Linear<OFFSET> {
    #[inline]
    unsafe fn window(&self, table: PhysAddr) -> NonNull<u64> {
        let addr = to_usize(table.get().wrapping_add(OFFSET));
        let pointer = core::ptr::with_exposed_provenance_mut(addr);
        // SAFETY: the linear map lies in the upper half, so the address is not zero.
        unsafe { NonNull::new_unchecked(pointer) }
    }
}

/// The tables of EL1&0 on this machine, reached through a window.
#[derive(Clone, Copy, Debug)]
pub struct El1Mmu<W> {
    window: W,
}

/// Tables through the linear map.
pub type LinearMmu<const OFFSET: u64> = El1Mmu<Linear<OFFSET>>;

impl<const OFFSET: u64> LinearMmu<OFFSET> {
    /// Tables through the linear map.
    ///
    /// # Safety
    ///
    /// While the value lives, all RAM that page tables are taken from is mapped at its physical address plus `OFFSET`
    /// (wrapping), readable and writable, write-back, in the upper half. [`tlb::init_cpu`] has run.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self { window: Linear(()) }
    }
}

impl<W: TableWindow> El1Mmu<W> {
    /// Tables through `window`. [`tlb::init_cpu`] should have run; until it has, nothing is done by range.
    #[must_use]
    pub const fn with_window(window: W) -> Self {
        Self { window }
    }

    /// The table's entries.
    ///
    /// # Safety
    ///
    /// `table` is a table frame that is not freed during the borrow, and the window is not moved meanwhile.
    #[inline]
    unsafe fn entries(&self, table: PhysAddr) -> &Entries {
        // SAFETY: by this function's `# Safety`, `table` is not freed and the window not moved during the borrow.
        let window = unsafe { self.window.window(table) };
        // SAFETY: `TableWindow` gives 4 KiB, aligned; all access to tables is atomic, so sharing is sound.
        unsafe { window.cast::<Entries>().as_ref() }
    }

    /// One entry.
    ///
    /// # Safety
    ///
    /// As for [`El1Mmu::entries`].
    #[inline]
    unsafe fn entry(&self, table: PhysAddr, slot: Slot) -> &AtomicU64 {
        // SAFETY: this function's `# Safety` is that of `entries`.
        let entries = unsafe { self.entries(table) };
        // SAFETY: SLOT-1.
        unsafe { entries.get_unchecked(slot.get()) }
    }

    /// The entries of a run.
    ///
    /// # Safety
    ///
    /// As for [`El1Mmu::entries`].
    #[inline]
    unsafe fn run(&self, table: PhysAddr, run: Run) -> &[AtomicU64] {
        // SAFETY: this function's `# Safety` is that of `entries`.
        let entries = unsafe { self.entries(table) };
        let first = run.first().get();
        // SAFETY: RUN-1.
        unsafe { entries.get_unchecked(first..first + run.count()) }
    }
}

// SAFETY: entries are single 64-bit accesses to the frame itself by `TableWindow`; barriers and TLBI are those that the
// Arm ARM (D8.16) asks for, inner shareable, which is where the kernel's CPUs are.
unsafe impl<W: TableWindow> Mmu for El1Mmu<W> {
    type Format = Stage1;

    #[inline]
    unsafe fn read(&self, table: PhysAddr, slot: Slot) -> RawEntry {
        // SAFETY: `Mmu::read`: `table` is a reachable table frame that is not freed during the call.
        RawEntry::new(unsafe { self.entry(table, slot) }.load(Ordering::Relaxed))
    }

    #[inline]
    unsafe fn write(&self, table: PhysAddr, slot: Slot, entry: RawEntry) {
        // SAFETY: `Mmu::write`: `table` is a reachable table frame, and the caller may change the translation.
        unsafe { self.entry(table, slot) }.store(entry.get(), Ordering::Relaxed);
    }

    unsafe fn compare_exchange(
        &self,
        table: PhysAddr,
        slot: Slot,
        current: RawEntry,
        new: RawEntry,
    ) -> Result<(), RawEntry> {
        // SAFETY: `Mmu::compare_exchange`, which asks for as much as `Mmu::write`.
        let entry = unsafe { self.entry(table, slot) };
        // Acquire on failure: another CPU linked a table, and published its contents before.
        match entry.compare_exchange(current.get(), new.get(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(found) => Err(RawEntry::new(found)),
        }
    }

    #[inline]
    unsafe fn any(&self, table: PhysAddr, run: Run) -> RawEntry {
        // SAFETY: `Mmu::any`: `table` is a reachable table frame that is not freed during the call.
        RawEntry::new(entries::any(unsafe { self.run(table, run) }))
    }

    #[inline]
    unsafe fn fill(&self, table: PhysAddr, run: Run, first: RawEntry, step: u64) {
        // SAFETY: `Mmu::fill`: `table` is a reachable table frame, and the caller may change the run.
        entries::fill(unsafe { self.run(table, run) }, first.get(), step);
    }

    #[inline(always)]
    unsafe fn write_each<T: Copy>(
        &self,
        table: PhysAddr,
        run: Run,
        list: &[T],
        entry: impl FnMut(T) -> Option<RawEntry>,
    ) -> bool {
        // SAFETY: `Mmu::write_each`: `table` is a reachable table frame, and the caller may change the run.
        entries::write_each(unsafe { self.run(table, run) }, list, entry)
    }

    #[inline(always)]
    unsafe fn read_each(&self, table: PhysAddr, run: Run, each: impl FnMut(RawEntry)) {
        // SAFETY: `Mmu::read_each`: `table` is a reachable table frame that is not freed during the call.
        entries::read_each(unsafe { self.run(table, run) }, each);
    }

    #[inline(always)]
    unsafe fn change_each(&self, table: PhysAddr, run: Run, change: impl FnMut(RawEntry) -> Option<RawEntry>) {
        // SAFETY: `Mmu::change_each`: `table` is a reachable table frame, and the caller may change the run.
        entries::change_each(unsafe { self.run(table, run) }, change);
    }

    #[inline]
    unsafe fn keep(&self, table: PhysAddr, run: Run, mask: RawEntry) {
        // SAFETY: `Mmu::keep`: `table` is a reachable table frame, and the caller may change the run.
        entries::keep(unsafe { self.run(table, run) }, mask.get());
    }

    #[inline]
    unsafe fn clear(&self, table: PhysAddr, run: Run) {
        // SAFETY: `Mmu::clear`: `table` is a reachable table frame, and the caller may change the run.
        entries::clear(unsafe { self.run(table, run) });
    }

    unsafe fn rebuild(&self, table: PhysAddr, run: Run, keep: RawEntry, set: RawEntry, _: Invalidation) {
        // SAFETY: `Mmu::rebuild`: no other CPU runs, or none uses what the entries map, and this one is not interrupted.
        match unsafe { break_window::open() } {
            Some(slots) => {
                // SAFETY: `Mmu::rebuild`: `table` is a table frame that is not freed during the call.
                let entries = unsafe { slots.window(table) };
                // SAFETY: the window shows the frame, from outside the linear map, until `slots` is dropped.
                unsafe { break_window::rebuild(entries, run, keep, set) };
            }
            None => {
                // SAFETY: `Mmu::rebuild`: `table` is a table frame that is not freed during the call.
                let entries = unsafe { self.window.window(table) };
                // SAFETY: `Mmu::rebuild`: nobody else uses the entries; without a window the linear map has no split block.
                unsafe { break_window::rebuild(entries, run, keep, set) };
            }
        }
    }

    unsafe fn zero_table(&self, table: PhysAddr) {
        // SAFETY: `Mmu::zero_table`: the frame is the caller's own and reachable.
        let window = unsafe { self.window.window(table) };
        // SAFETY: 4 KiB by `TableWindow`, write-back and aligned; the frame is the caller's own, so that this races with nothing.
        #[cfg(feature = "mem")]
        unsafe {
            mem::clear_page(window.cast());
        }
        // SAFETY: the same.
        #[cfg(not(feature = "mem"))]
        unsafe {
            window.cast::<u8>().write_bytes(0, to_usize(crate::addr::PAGE_SIZE));
        }
    }

    #[inline]
    fn uninterrupted<R>(&self, f: impl FnOnce() -> R) -> R {
        let _masked = irq::local_irq_save();
        f()
    }

    #[inline]
    fn publish_table(&self) {
        tlb::order_before_invalidate();
    }

    #[inline]
    fn publish(&self) {
        tlb::publish();
    }

    #[inline]
    fn order_before_invalidate(&self) {
        tlb::order_before_invalidate();
    }

    #[inline(always)]
    fn invalidate(&self, what: Invalidation) {
        tlb::invalidate(what);
    }

    fn invalidate_range(&self, what: Invalidation) {
        tlb::invalidate_range(what);
    }

    fn invalidate_all(&self) {
        tlb::invalidate_all();
    }

    fn invalidate_asid(&self, asid: Asid) {
        tlb::invalidate_asid(asid);
    }

    #[inline]
    fn complete(&self) {
        tlb::complete();
    }

    #[inline]
    fn has_range_invalidation(&self) -> bool {
        tlb::has_range_invalidation()
    }

    fn bbm_level(&self) -> BbmLevel {
        tlb::bbm_level()
    }
}
