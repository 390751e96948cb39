//! What an address is, as far as the kernel's own map tells: for the reports of faults.

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::arch::aarch64::{boot, stack};
use crate::instance;
use crate::mm::layout;
use core::fmt;

/// Addresses below this are taken for a null pointer with an offset.
const NEAR_NULL: u64 = 64 << 10;

/// Writes what `addr` is, in words; nothing if the map does not know it. Any context, takes no lock.
///
/// # Errors
///
/// Those of `out`.
pub fn describe(addr: VirtAddr, out: &mut dyn fmt::Write) -> fmt::Result {
    if addr.get() < NEAR_NULL {
        return out.write_str("near address zero, as behind a null pointer");
    }
    if let Some(stack) = stack::containing(addr) {
        return write!(out, "on the {stack}");
    }
    // Nothing else lies within a stack's size below a stack, but for the boot stacks, which have a page.
    let guarded = addr.align_down(PAGE_SIZE).checked_add(PAGE_SIZE).and_then(stack::containing);
    if let Some(stack) = guarded.or_else(|| stack::overflowed(addr).filter(|_| instance::is_vmalloc_addr(addr))) {
        return write!(out, "in a guard page, below the {stack}");
    }
    if let Some((name, _)) = boot::image_sections().iter().find(|(_, range)| range.contains(addr)) {
        return write!(out, "in the kernel's {name}");
    }
    let area = instance::vmap_space().try_find(addr).or_else(|| instance::execmem_space().try_find(addr));
    if let Some(area) = area {
        return match area.is_guard(addr) {
            true => write!(out, "guard page after vmalloc area {area}"),
            false => write!(out, "in vmalloc area {area}"),
        };
    }
    match layout::region_of(addr) {
        Some(region) => {
            write!(out, "in the region {}, of which it is byte {:#x}", region.name, into(addr, region.start))
        }
        None if addr.get() < 1 << 48 => out.write_str("in the user half, where nothing is mapped"),
        None => out.write_str("in no region of the kernel's address map"),
    }
}

fn into(addr: VirtAddr, start: VirtAddr) -> u64 {
    addr.offset_from(start).unwrap_or(0)
}
