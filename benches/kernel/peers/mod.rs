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

use crate::rows::Row;
use crate::{areas, heap, heaps, mapping, pages};
use core::alloc::Layout;

/// Every row of a peer.
pub(crate) const ROWS: &[&[Row]] = &[
    &mapping::rows::<page_table_multiarch::Tables>(),
    &mapping::rows::<aarch64_paging::Tables>(),
    &pages::rows::<bitmap_allocator::Pages>(),
    &pages::rows::<buddy_alloc::Pages>(),
    &pages::rows::<buddy_slab_allocator::Pages>(),
    &pages::rows::<buddy_system_allocator::Pages>(),
    &pages::rows::<free_list::Pages>(),
    &pages::rows::<linked_list_allocator::Pages>(),
    &pages::rows::<talc::Pages>(),
    &heaps::rows::<heap::peers::ax_allocator::Slabs>(),
    &heaps::rows::<heap::peers::buddy_alloc::FastBuddy>(),
    &heaps::rows::<heap::peers::buddy_slab_allocator::SlabsOverBuddy>(),
    &heaps::rows::<heap::peers::buddy_system_allocator::Buddy>(),
    &heaps::rows::<heap::peers::dlmalloc::Dlmalloc>(),
    &heaps::rows::<heap::peers::embedded_alloc::Embedded>(),
    &heaps::rows::<heap::peers::good_memory_allocator::Bins>(),
    &heaps::rows::<heap::peers::linked_list_allocator::List>(),
    &heaps::rows::<heap::peers::rlsf::Tlsf>(),
    &heaps::rows::<heap::peers::slab_allocator_rs::Eighths>(),
    &heaps::rows::<heap::peers::slabmalloc::Zone>(),
    &heaps::rows::<heap::peers::talc::Binned>(),
    &areas::rows::<memory_set::Areas>(),
    &areas::rows::<vmem::Areas>(),
];

/// The layout of 2^`ORDER` pages, naturally aligned.
const fn block_layout<const ORDER: u8>() -> Layout {
    const {
        match Layout::from_size_align(4096 << ORDER, 4096 << ORDER) {
            Ok(layout) => layout,
            Err(_) => panic!("no layout of this order"),
        }
    }
}
