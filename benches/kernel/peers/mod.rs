//! Crates that others have published, each behind the trait of what it does. One file a crate.

pub(crate) mod aarch64_paging;
pub(crate) mod bitmap_allocator;
pub(crate) mod buddy_alloc;
pub(crate) mod buddy_slab_allocator;
pub(crate) mod buddy_system_allocator;
pub(crate) mod free_list;
pub(crate) mod linked_list_allocator;
pub(crate) mod page_table_multiarch;
pub(crate) mod talc;

use core::alloc::Layout;

/// The layout of 2^`order` pages, naturally aligned.
const fn block_layout(order: u8) -> Option<Layout> {
    let bytes = 4096 << order;
    match Layout::from_size_align(bytes, bytes) {
        Ok(layout) => Some(layout),
        Err(_) => None,
    }
}
