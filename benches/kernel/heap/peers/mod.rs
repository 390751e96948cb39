//! Heaps that others have published. One file a crate.

pub(crate) mod ax_allocator;
pub(crate) mod buddy_alloc;
pub(crate) mod buddy_slab_allocator;
pub(crate) mod buddy_system_allocator;
pub(crate) mod dlmalloc;
pub(crate) mod embedded_alloc;
pub(crate) mod good_memory_allocator;
pub(crate) mod linked_list_allocator;
pub(crate) mod rlsf;
pub(crate) mod slab_allocator_rs;
pub(crate) mod slabmalloc;
pub(crate) mod talc;
