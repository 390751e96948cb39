//! The memory of the image that only booting needed.

use super::BootError;
use crate::addr::{PAGE_SIZE, Pfn, PhysRange, VirtRange};
use crate::arch::aarch64::boot;
use crate::gfp::Gfp;
use crate::global::{self, BuddyFrames, KVec};
use crate::mm::memblock::BOOT_ONLY;
use crate::mm::pgtable::{PgtableError, UnmapFlags};
use crate::mm::zone::SetupError;

/// Gives it to the page allocator, except the parts that the device tree reserves. Returns the number of pages. Boot CPU, once,
/// when objects can be allocated.
pub(crate) fn free_init_memory() -> Result<u64, BootError> {
    let Some(range) = VirtRange::new(boot::init_start(), boot::init_end()).filter(|range| !range.is_empty()) else {
        return Ok(0);
    };
    let mut parts = KVec::<PhysRange>::new();
    let count = global::memblock().reserved().len();
    parts.reserve(count, Gfp::KERNEL).map_err(BootError::NoMemory)?;
    {
        let memblock = global::memblock();
        if memblock.is_lent() {
            // It is still in use.
            return Ok(0);
        }
        let boot_only = memblock.reserved().regions().iter().filter(|region| region.owner == Some(BOOT_ONLY));
        for part in boot_only.filter_map(|region| region.range.align_inwards(PAGE_SIZE)) {
            // There is room for all.
            let _ = parts.push_within_capacity(part);
        }
    }
    let table = global::kernel_tables().ok_or(PgtableError::OutsideSpace)?;
    let frames = BuddyFrames::ATOMIC;
    // Its mapping in the image goes first; the next owner uses the linear map.
    table.do_unmap_and_flush(&frames, range, UnmapFlags::KEEP_TABLES)?;
    let mut freed = 0;
    for part in parts.iter() {
        let first = Pfn::containing(part.start());
        let page = global::pfn_to_page(first).ok_or(SetupError::NoDescriptor(first))?;
        let count = u32::try_from(part.size() / PAGE_SIZE).unwrap_or(u32::MAX);
        // SAFETY: the image's memory for booting, less the tree's reservations: the caller has done with it, and its mapping in
        // the image has just gone.
        freed += u64::from(unsafe { global::page_allocator().free_reserved(page, count) }.map_err(BootError::Free)?);
    }
    Ok(freed)
}
