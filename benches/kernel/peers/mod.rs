//! Crates that others have published, each behind the trait of what it does. One file a crate.

pub(crate) mod aarch64_paging;
pub(crate) mod bitmap_allocator;
pub(crate) mod buddy_alloc;
pub(crate) mod buddy_slab_allocator;
pub(crate) mod buddy_system_allocator;
pub(crate) mod free_list;
pub(crate) mod linked_list_allocator;
pub(crate) mod memory_set;
pub(crate) mod page_table_multiarch;
pub(crate) mod talc;
pub(crate) mod vmem;

use core::alloc::Layout;

/// The layout of 2^`ORDER` pages, naturally aligned.
const fn block_layout<const ORDER: u8>() -> Layout {
    const {
        match Layout::from_size_align(4096 << ORDER, 4096 << ORDER) {
            Ok(layout) => layout,
            Err(_) => panic!("no layout of this order"),
        }
    }
}
