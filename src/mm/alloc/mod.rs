//! Memory for Rust's own types, with [`Gfp`](crate::gfp::Gfp) and without panics (Linux: `rust/kernel/alloc.rs`).
//!
//! Each call of an [`Allocator`] takes flags that say how it may find memory, and returns a `Result`. [`KBox`] owns one value
//! in its memory, [`KVec`] an array of them, a [`Cache`] makes [`CacheBox`]es of one type. They are generic over the allocator;
//! the kernel's own names for them, with its `kmalloc` filled in, are in `global`. [`WithGfp`] is the bridge to collections
//! that are written against the `allocator-api2` trait, and `GlobalHeap` (with the feature `global-allocator`) the one to
//! `alloc`.
//!
//! No type here aborts for lack of memory, except what `alloc` itself does with a null from `GlobalHeap`.

mod allocator;
mod cache;
#[cfg(feature = "global-allocator")]
mod global;
mod into_iter;
mod kbox;
mod kmem;
mod kvec;
mod kvec_slice;
mod raw;
mod size;
mod with_gfp;

pub use allocator::{Allocator, Refused, Stateless};
pub use cache::{Cache, CacheBox, Constructed, ConstructedCache};
#[cfg(feature = "global-allocator")]
pub use global::GlobalHeap;
pub use into_iter::IntoIter;
pub use kbox::KBox;
pub use kmem::Kmem;
pub use kvec::{InsertError, KVec};
pub use size::{array_size, size_add, size_mul, size_sub, struct_size};
pub use with_gfp::WithGfp;
