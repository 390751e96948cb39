//! The memory routines of `mem.S`: faster replacements for the compiler's own `memset`, `memcpy`, `memmove` and
//! `memcmp` (feature `mem`), and whole pages.

use super::features::IdRegisters;
use crate::addr::{PAGE_SIZE, to_usize};
use core::arch::global_asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

global_asm!(include_str!("mem.S"));

/// Read by `mem.S`: nonzero once this is known to be a machine whose CPUs all have FEAT_MOPS.
#[unsafe(no_mangle)]
#[used]
static quarry_has_mops: AtomicU8 = AtomicU8::new(0);

unsafe extern "C" {
    #[link_name = "clear_page"]
    fn clear_page_asm(page: *mut u8);
    #[link_name = "clear_pages"]
    fn clear_pages_asm(first: *mut u8, pages: u64);
    #[link_name = "copy_page"]
    fn copy_page_asm(to: *mut u8, from: *const u8);
}

/// Lets the routines use FEAT_MOPS from now on, if this CPU has it. Once, on the boot CPU; no other CPU may run that
/// [`can_run_on`] refuses.
pub fn use_features(cpu: &IdRegisters) {
    quarry_has_mops.store(u8::from(cpu.has_mops()), Ordering::Relaxed);
}

/// Whether these routines, as they are used, run on this CPU.
#[must_use]
pub fn can_run_on(cpu: &IdRegisters) -> bool {
    cpu.has_mops() || quarry_has_mops.load(Ordering::Relaxed) == 0
}

/// A page of Normal memory, to be written as a whole.
pub type Page = [u8; to_usize(PAGE_SIZE)];

/// Zeroes a page: 136 instructions with 64-byte DC ZVA blocks. Any context.
///
/// # Safety
///
/// `page` is page aligned, mapped as Normal memory, writable, and nobody else accesses it meanwhile.
pub unsafe fn clear_page(page: NonNull<Page>) {
    // SAFETY: by this function's `# Safety`, a writable page of Normal memory that nobody else accesses.
    unsafe { clear_page_asm(page.as_ptr().cast()) }
}

/// Zeroes `pages` contiguous pages, at least one: 130 instructions each with 64-byte DC ZVA blocks. Any context.
///
/// # Safety
///
/// As for [`clear_page`], for each of them.
pub unsafe fn clear_pages(first: NonNull<Page>, pages: u64) {
    debug_assert!(pages != 0, "the loop runs at least once");
    // SAFETY: by this function's `# Safety`, writable pages of Normal memory that nobody else accesses.
    unsafe { clear_pages_asm(first.as_ptr().cast(), pages) }
}

/// Copies a page: 581 instructions, 8 with FEAT_MOPS. Any context.
///
/// # Safety
///
/// Both pages are page aligned, distinct and mapped as Normal memory; nobody writes `from` or accesses `to` meanwhile.
pub unsafe fn copy_page(to: NonNull<Page>, from: NonNull<Page>) {
    // SAFETY: by this function's `# Safety`, two pages of Normal memory; nobody writes `from` or accesses `to`.
    unsafe { copy_page_asm(to.as_ptr().cast(), from.as_ptr().cast_const().cast()) }
}
