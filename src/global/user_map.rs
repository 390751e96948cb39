//! A driver's `mmap` operation gives the process its registers, or memory of vmalloc.

use super::{IoMem, kernel_tables, untag, vmalloc_to_page, vmap_space};
use crate::addr::{Address, PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::mm::page::Page;
use crate::mm::user::map::{MapError, NewArea};
use crate::mm::vmalloc::VmFlags;

/// Linux's `EINVAL`.
const EINVAL: MapError = MapError::File(22);

/// The area maps the pages of `registers` from its own offset on, with the memory type that they are mapped with in the kernel
/// (Linux: `vm_iomap_memory`; promise 9). Any context.
///
/// # Errors
///
/// [`MapError::File`] with `EINVAL` if the area is not within them.
///
/// # Safety
///
/// The process may do to the device what it can do with all that lies in the pages of `registers`. The driver keeps `registers`
/// for as long as an area maps its file.
pub unsafe fn vm_iomap_memory<const SIZE: u64>(area: &mut NewArea, registers: &IoMem<SIZE>) -> Result<(), MapError> {
    let mapped = kernel_tables().and_then(|tables| tables.translate(registers.start())).ok_or(EINVAL)?;
    // SAFETY: as this function says of the registers; `mapped` is the live claim on them, with this type.
    unsafe { area.vm_iomap_memory(mapped.phys, registers.size(), mapped.leaf.prot.memory()) }
}

/// The area maps the pages of an area of [`vmalloc_user`](super::vmalloc_user) from its own offset on (Linux:
/// `remap_vmalloc_range`). Each page stays until its last mapping is gone, also if the driver frees the area before. Any
/// context that may take locks.
///
/// # Errors
///
/// [`MapError::File`] with `EINVAL`: `addr` is not the start of an area that may be mapped into user space, or the new area
/// is not within it.
///
/// # Safety
///
/// The driver does not free the area of vmalloc before `mmap` has returned, and reads and writes it as memory that a process
/// changes at any time.
pub unsafe fn remap_vmalloc_range(area: &mut NewArea, addr: impl Address) -> Result<(), MapError> {
    let addr = untag(addr.at());
    let may_be_mapped = VmFlags::ALLOC | VmFlags::USERMAP;
    let found = vmap_space().find(addr).filter(|found| found.range.start() == addr);
    let found = found.filter(|found| found.flags.contains(may_be_mapped)).ok_or(EINVAL)?;
    // SAFETY: the caller keeps the area, whose pages stay the same, and which was made to be shown to processes.
    unsafe { area.vm_map_pages(addr.get(), found.size() >> PAGE_SHIFT, page_of) }
}

/// The page with this number of an area of vmalloc.
fn page_of(start: u64, number: u64) -> Option<Page> {
    vmalloc_to_page(VirtAddr::new(number.checked_mul(PAGE_SIZE)?.checked_add(start)?))
}
