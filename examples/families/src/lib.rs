//! One example for each family of calls, with nothing but the prelude: the documentation of each owning type shows its own,
//! `make test` builds this package, and the kernel tests run every one (`kernel::families`).
#![no_std]

pub mod caches;
pub mod devices;
pub mod errors;
pub mod kmalloc;
pub mod kvmalloc;
pub mod mappings;
pub mod pages;
pub mod percpu;
pub mod resources;
pub mod stacks;
pub mod vmalloc;
