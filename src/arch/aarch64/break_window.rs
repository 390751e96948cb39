//! Break-before-make of what this very code may lie behind: blocks of the linear map, in which are the tables and every
//! CPU's data. While the entries are invalid, the CPU executes the loop below out of registers, and reaches the entries
//! through a page of the fixmap.

use super::alternative::complete_invalidation;
use super::fixmap::FixmapSlots;
use crate::addr::VirtAddr;
use crate::hal::entry::RawEntry;
use crate::hal::level::Run;
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The entry that translates the window, or null.
static ENTRY: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
/// The window's address.
static PAGE: AtomicU64 = AtomicU64::new(0);

/// From now on table entries are reached through the page at `page` while they are rebuilt.
///
/// # Safety
///
/// Those of [`FixmapSlots::new`] for one slot, for good; and `page` is outside the linear map.
pub unsafe fn set(entry: NonNull<AtomicU64>, page: VirtAddr) {
    PAGE.store(page.get(), Ordering::Relaxed);
    ENTRY.store(entry.as_ptr(), Ordering::Release);
}

/// The window, closed again when it is dropped; `None` before [`set`].
///
/// # Safety
///
/// Nobody else has it open.
pub(crate) unsafe fn open() -> Option<FixmapSlots<1>> {
    let entry = NonNull::new(ENTRY.load(Ordering::Acquire))?;
    // SAFETY: the promises that `set` was given; the caller's that nobody else uses the slot meanwhile.
    Some(unsafe { FixmapSlots::new(entry.cast(), VirtAddr::new(PAGE.load(Ordering::Relaxed))) })
}

/// Clears the valid bit of the entries of a run, drops every translation of every CPU, and makes each entry
/// `entry & keep | set`. All exceptions are masked meanwhile, and no memory but the entries is accessed: the code is in the
/// image.
///
/// # Safety
///
/// `table` points to a table, mapped by something else than the entries of the run, which the caller may change. The run
/// is not empty, and `set` makes its entries valid.
pub(super) unsafe fn rebuild(table: NonNull<u64>, run: Run, keep: RawEntry, set: RawEntry) {
    let first = run.first().get();
    // SAFETY: by `# Safety` the entries are the caller's; every exception is masked before the first changes and unmasked again
    // after the last; operands are in registers.
    unsafe {
        asm!(
            "mrs {daif}, daif",
            "msr daifset, #15",
            "mov {index}, {first}",
            "2: ldr {entry}, [{table}, {index}, lsl #3]",
            "bic {entry}, {entry}, #1",
            "str {entry}, [{table}, {index}, lsl #3]",
            "add {index}, {index}, #1",
            "cmp {index}, {end}",
            "b.lo 2b",
            "dsb ishst",
            "tlbi vmalle1is",
            complete_invalidation!(),
            "mov {index}, {first}",
            "3: ldr {entry}, [{table}, {index}, lsl #3]",
            "and {entry}, {entry}, {keep}",
            "orr {entry}, {entry}, {set}",
            "str {entry}, [{table}, {index}, lsl #3]",
            "add {index}, {index}, #1",
            "cmp {index}, {end}",
            "b.lo 3b",
            "dsb ishst",
            "isb",
            "msr daif, {daif}",
            table = in(reg) table.as_ptr(),
            first = in(reg) first,
            end = in(reg) first + run.count(),
            keep = in(reg) keep.get(),
            set = in(reg) set.get(),
            daif = out(reg) _,
            index = out(reg) _,
            entry = out(reg) _,
            options(nostack),
        );
    }
}
