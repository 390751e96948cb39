//! Number of pages in a slab (Linux: `calculate_order`): few objects would mean many trips to the page allocator, many pages
//! would be hard to find, and the space behind the last object is lost.
#![forbid(unsafe_code)]

use crate::addr::{Order, PAGE_SIZE};

/// Order of the largest slab that is made where a smaller one would do (Linux: `PAGE_ALLOC_COSTLY_ORDER`).
pub(in crate::mm::slab) const MAX_SLAB_ORDER: u8 = 3;
/// Bytes of the largest slab.
pub(in crate::mm::slab) const MAX_SLAB_BYTES: u32 = slab_bytes(MAX_SLAB_ORDER);

/// Bytes of a slab.
#[expect(clippy::cast_possible_truncation, reason = "4,096")]
pub(in crate::mm::slab) const fn slab_bytes(order: u8) -> u32 {
    (PAGE_SIZE as u32) << order
}

/// Objects of `size` bytes in a slab of this order.
pub(super) const fn objects(order: u8, size: u32) -> u32 {
    slab_bytes(order) / size
}

/// The smallest order whose slab holds an object.
pub(super) const fn min_order(size: u32) -> u8 {
    let mut order = 0;
    while order < MAX_SLAB_ORDER && slab_bytes(order) < size {
        order += 1;
    }
    order
}

/// The preferred order for objects of `size` bytes, at most [`MAX_SLAB_BYTES`], on a machine with `cpus` CPUs: at most 1/16
/// lost and enough objects for the CPUs, else fewer objects, else 1/8 and 1/4 lost.
pub(super) const fn calculate_order(size: u32, cpus: u32) -> Order {
    let wanted = 4 * (u32::BITS - cpus.leading_zeros() + 1);
    let most = objects(MAX_SLAB_ORDER, size);
    let mut min_objects = if wanted < most { wanted } else { most };
    let first = min_order(size);
    while min_objects > 1 {
        let mut fraction = 16;
        while fraction >= 4 {
            let mut order = first;
            while order <= MAX_SLAB_ORDER {
                let bytes = slab_bytes(order);
                if bytes / size >= min_objects && bytes % size <= bytes / fraction {
                    return known(order);
                }
                order += 1;
            }
            fraction /= 2;
        }
        min_objects -= 1;
    }
    known(first)
}

const fn known(order: u8) -> Order {
    match Order::new(order) {
        Some(order) => order,
        None => Order::ZERO,
    }
}
