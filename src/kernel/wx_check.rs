//! The check that no memory is writable and executable, over the tables of the running machine.

use crate::arch::aarch64::boot::{self, BootInfo};
use crate::global;
use crate::mm::pgtable::wx::{self, WxReport, WxViolation};
use crate::mm::pgtable::{PageTable, Space};

/// Walks the kernel's tables and the identity map: nothing is writable and executable, neither by an entry nor by an
/// alias.
pub(super) fn check_tables(boot: &BootInfo) -> Result<WxReport, WxViolation> {
    let Some(table) = global::kernel_tables() else { return Ok(WxReport::default()) };
    let idmap = boot.image_phys(boot::idmap_tables());
    // SAFETY: the boot stub's identity map keeps to the format; nobody edits it.
    let idmap = unsafe { PageTable::adopt(*table.mmu(), idmap, Space::Identity) };
    wx::check(&[table, &idmap])
}
