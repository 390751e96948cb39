//! Room for the lists of memblock that lasts until memory is mapped: memory of the image that only booting needs.

use crate::addr::{VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::boot;
use crate::mm::memblock::Region;
use core::sync::atomic::{AtomicBool, Ordering};

/// Halves that have been given away.
static GIVEN: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

/// The slots for the list of memory; the second time none. Boot CPU. [`init_memory`](super::init_memory) gives the memory to the page
/// allocator when memblock has left it, and not before.
pub(crate) fn for_memory() -> &'static mut [Region] {
    slots(0)
}

/// The same for the list of reservations.
pub(crate) fn for_reserved() -> &'static mut [Region] {
    slots(1)
}

fn slots(half: usize) -> &'static mut [Region] {
    let room = VirtRange::new(boot::init_regions_start(), boot::init_regions_end()).unwrap_or_default();
    let size = to_usize(room.size() / 2);
    let first: *mut Region =
        room.start().checked_add((half * size) as u64).map_or(core::ptr::null_mut(), VirtAddr::as_ptr);
    let again = GIVEN.get(half).is_none_or(|given| given.swap(true, Ordering::Relaxed));
    if again || first.is_null() || !first.is_aligned() {
        return &mut [];
    }
    let count = size / size_of::<Region>();
    for index in 0..count {
        // SAFETY: the linker script sets these bytes aside for nothing else, and this half is given away for the first time.
        let slot = unsafe { first.add(index) };
        // SAFETY: bytes of this half, set aside by the linker script, aligned, and mapped read-write since the boot stub.
        unsafe { slot.write(Region::EMPTY) };
    }
    // SAFETY: this half, of which every element has just been written; it stays initialised as long as the list is in it.
    unsafe { core::slice::from_raw_parts_mut(first, count) }
}
