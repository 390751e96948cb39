//! The kernel's side of changing permissions, and Linux's names for it as free functions.

use super::machine::machine;
use super::tags::untag;
use super::vmalloc::space_of;
use super::{BuddyFrames, KernelPages, kernel_tables, online_cpus, phys_to_virt};
use crate::addr::{PAGE_SIZE, Pointer, VirtAddr, VirtRange};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::{break_window, icache};
use crate::hal::cpu::Interrupts;
use crate::hal::entry::Entry;
use crate::hal::level::LeafLevel;
use crate::hal::mmu::{BbmLevel, Mmu};
use crate::hal::wait::{Context, Scope};
use crate::mm::layout::FIXMAP_START;
use crate::mm::pgtable::{LivePolicy, PgtableError};
use crate::mm::vmalloc::{Permission, SetMemoryError, SetMemoryHal};
use crate::sync::{OrderedLock, class};
use core::ops::ControlFlow;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

/// Held while live mappings are changed on a machine where no CPU has to stop for it.
static CHANGING: OrderedLock<(), class::LiveMappings, Relax> = OrderedLock::new(());

// SAFETY: HAL-10: with BBM level 2 under a lock, otherwise alone: the other CPUs are held, or do not exist, and interrupts are
// masked.
unsafe impl SetMemoryHal<'static> for KernelPages {
    fn change_live(&self, f: &mut dyn FnMut(LivePolicy) -> Result<(), SetMemoryError>) -> Result<(), SetMemoryError> {
        if self.is_inside(Scope::Interrupt) {
            return Err(SetMemoryError::InInterrupt);
        }
        if kernel_tables().is_some_and(|tables| tables.mmu().bbm_level() == BbmLevel::Two) {
            let _alone = CHANGING.lock();
            return f(LivePolicy::BbmLevel2);
        }
        let mut result = Err(SetMemoryError::OtherCpus);
        let mut change = || result = f(LivePolicy::BreakBeforeMake);
        if online_cpus().count() > 1 {
            // Held CPUs do not contend for the lock, and only one CPU at a time holds others. MACH-2.
            machine().hold_others(&mut change);
        } else {
            let saved = self.save();
            change();
            self.restore(saved);
        }
        result
    }

    fn sync_instructions(&self, range: VirtRange) {
        icache::sync(range);
    }
}

/// Enables the split of live blocks of the linear map, through the first page of the fixmap, which is unused once the linear
/// map is up. Boot CPU, once.
///
/// # Errors
///
/// [`PgtableError::NoFrame`].
pub(crate) fn set_memory_init() -> Result<(), PgtableError> {
    let page = VirtAddr::new(FIXMAP_START);
    let (Some(tables), Some(range)) = (kernel_tables(), VirtRange::from_size(page, PAGE_SIZE)) else { return Ok(()) };
    tables.populate(&BuddyFrames::ATOMIC, range, LeafLevel::Pte)?;
    let mut last = None;
    let _ = tables.walk(range, |visit| {
        if let Entry::Table(table) = visit.entry {
            last = Some(table);
        }
        ControlFlow::<()>::Continue(())
    });
    // The fixmap begins where a table of last entries does, so that its first page has the first entry.
    let entry = last.and_then(phys_to_virt).and_then(|table| NonNull::new(table.as_ptr::<AtomicU64>()));
    if let Some(entry) = entry {
        // SAFETY: the entry of the page in the live tables, which are never freed there since devices are mapped beside it;
        // nobody uses the page or the entry since the switch to these tables.
        unsafe { break_window::set(entry, page) };
    }
    Ok(())
}

fn change(addr: VirtAddr, pages: usize, permission: Permission) -> Result<(), SetMemoryError> {
    let addr = untag(addr);
    space_of(addr).do_set_memory(addr, pages as u64, permission)
}

/// Makes pages of a vmalloc area read-only; see [`VmapSpace::set_memory`](crate::mm::vmalloc::VmapSpace::set_memory). Not
/// from an interrupt handler.
///
/// # Errors
///
/// [`SetMemoryError`].
///
/// # Safety
///
/// The caller owns the area. Nobody holds a reference, or goes on executing, as the new permissions forbid.
pub unsafe fn set_memory_ro(addr: impl Pointer, pages: usize) -> Result<(), SetMemoryError> {
    change(addr.at(), pages, Permission::ReadOnly)
}

/// Makes pages writable; executable ones must lose that first. As [`set_memory_ro`].
///
/// # Errors
///
/// [`SetMemoryError`].
///
/// # Safety
///
/// The caller owns the area. Nobody holds a reference, or goes on executing, as the new permissions forbid.
pub unsafe fn set_memory_rw(addr: impl Pointer, pages: usize) -> Result<(), SetMemoryError> {
    change(addr.at(), pages, Permission::ReadWrite)
}

/// Makes pages executable; writable ones must lose that first. The CPUs execute the instructions written there before. As
/// [`set_memory_ro`].
///
/// # Errors
///
/// [`SetMemoryError`].
///
/// # Safety
///
/// The caller owns the area. Nobody holds a reference, or goes on executing, as the new permissions forbid; the area holds code
/// that was meant to be executed.
pub unsafe fn set_memory_x(addr: impl Pointer, pages: usize) -> Result<(), SetMemoryError> {
    change(addr.at(), pages, Permission::Execute)
}

/// Makes pages not executable. As [`set_memory_ro`].
///
/// # Errors
///
/// [`SetMemoryError`].
///
/// # Safety
///
/// The caller owns the area. Nobody holds a reference, or goes on executing, as the new permissions forbid.
pub unsafe fn set_memory_nx(addr: impl Pointer, pages: usize) -> Result<(), SetMemoryError> {
    change(addr.at(), pages, Permission::NoExecute)
}
