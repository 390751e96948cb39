//! The calls: an object, a block or many of them, out and back; making and destroying caches.

mod alloc;
mod bulk;
mod free;
mod kmalloc;
mod large;
mod raw_calls;
mod registry;
mod resize;

pub use kmalloc::{
    KMALLOC_MAX_CACHE_SIZE, KMALLOC_MAX_SIZE, KMALLOC_MIN_SIZE, KMALLOC_SIZES, KmallocCacheType, kmalloc_index,
    kmalloc_size,
};
pub use registry::{CacheHandle, CacheSpec};
