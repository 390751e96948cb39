//! Starting a CPU that polls a word of memory (Linux: `arch/arm64/kernel/smp_spin_table.c`,
//! `Documentation/arch/arm64/booting.rst`).

use super::{cache, cpu};
use crate::addr::{PhysAddr, VirtAddr, VirtRange};

/// Writes `entry` to the word at `release` on which a CPU waits with its caches off, makes it reach memory, and ends the
/// CPU's sleep.
///
/// # Safety
///
/// `release` is a multiple of 8, mapped writable and cacheable, and a word of the spin table. The memory that the waiting
/// CPU executes from stays unchanged until it has left.
pub unsafe fn release(release: VirtAddr, entry: PhysAddr) {
    // SAFETY: by this function's `# Safety`, `release` is an aligned, writable word of the spin table.
    unsafe { release.as_ptr::<u64>().write_volatile(entry.get().to_le()) };
    if let Some(word) = VirtRange::from_size(release, 8) {
        cache::clean_and_invalidate_to_poc(word);
    }
    cpu::send_event();
}
