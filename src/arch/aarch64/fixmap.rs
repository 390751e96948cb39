//! Table frames through fixmap slots: for the time before the linear map, when the only way to write to a frame is to
//! map it temporarily.

use super::desc::Stage1;
use super::tlb;
use super::window::TableWindow;
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::level::LeafLevel;
use crate::hal::prot::Prot;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// `SLOTS` neighbouring pages of the fixmap, each a window onto one table frame at a time. Four are enough to keep a
/// whole descent mapped. One CPU's alone, hence not `Sync`.
///
/// # Invariants
///
/// - `FIX-1`: slot `n` is `first + n` pages, translated by the live entry `entries[n]`, which nobody else writes.
/// - `FIX-2`: `mapped[n]` is the frame that slot `n` shows, and no CPU has another translation for it.
#[derive(Debug)]
pub struct FixmapSlots<const SLOTS: usize> {
    entries: NonNull<[AtomicU64; SLOTS]>,
    first: VirtAddr,
    mapped: [Cell<Option<PhysAddr>>; SLOTS],
    /// The slot that is to be used next.
    victim: Cell<usize>,
}

impl<const SLOTS: usize> FixmapSlots<SLOTS> {
    /// Takes over the slots from `first` on.
    ///
    /// # Safety
    ///
    /// `entries` points to the last-level entries that translate the `SLOTS` pages from `first` on in the tables that
    /// TTBR1 holds. They are absent, and nobody else uses them or the pages while the value lives. `SLOTS` is not zero.
    #[must_use]
    pub const unsafe fn new(entries: NonNull<[AtomicU64; SLOTS]>, first: VirtAddr) -> Self {
        const { assert!(SLOTS > 0, "a window needs a slot") };
        // INVARIANT: FIX-1 is the caller's promise, FIX-2 holds as the entries are absent.
        Self { entries, first, mapped: [const { Cell::new(None) }; SLOTS], victim: Cell::new(0) }
    }

    fn addr(&self, slot: usize) -> VirtAddr {
        VirtAddr::new(self.first.get() + slot as u64 * PAGE_SIZE)
    }

    fn set(&self, slot: usize, entry: RawEntry) {
        // SAFETY: FIX-1.
        let entries = unsafe { self.entries.as_ref() };
        if let Some(place) = entries.get(slot) {
            place.store(entry.get(), Ordering::Relaxed);
        }
    }

    /// Makes slot `slot` show nothing, on every CPU.
    fn unmap(&self, slot: usize) {
        self.set(slot, RawEntry::ABSENT);
        tlb::flush_kernel_page(self.addr(slot));
    }
}

// SAFETY: the slot is mapped read-write and write-back when its address is returned, and is another frame's only after
// the next call.
unsafe impl<const SLOTS: usize> TableWindow for FixmapSlots<SLOTS> {
    unsafe fn window(&self, table: PhysAddr) -> NonNull<u64> {
        let shown = self.mapped.iter().position(|frame| frame.get() == Some(table));
        let slot = shown.unwrap_or_else(|| {
            let slot = self.victim.get();
            self.victim.set((slot + 1) % SLOTS);
            self.unmap(slot);
            self.set(slot, Stage1::leaf(LeafLevel::Pte, table, Prot::KERNEL_RW, false));
            tlb::publish();
            if let Some(frame) = self.mapped.get(slot) {
                // INVARIANT: FIX-2, as the former translation was broken before.
                frame.set(Some(table));
            }
            slot
        });
        // SAFETY: the slots lie in the upper half, so the address is not zero.
        unsafe { NonNull::new_unchecked(self.addr(slot).as_ptr()) }
    }
}

impl<const SLOTS: usize> Drop for FixmapSlots<SLOTS> {
    fn drop(&mut self) {
        for slot in 0..SLOTS {
            self.unmap(slot);
        }
    }
}
