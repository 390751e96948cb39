//! One example for each family of calls, with nothing but the prelude: the documentation of each owning type shows its own,
//! `make test` builds this package, and the kernel tests run every one (`kernel::families`).
#![no_std]

#[path = "../../../docs/families/caches.rs"]
pub mod caches;
#[path = "../../../docs/families/devices.rs"]
pub mod devices;
#[path = "../../../docs/families/errors.rs"]
pub mod errors;
#[path = "../../../docs/families/kmalloc.rs"]
pub mod kmalloc;
#[path = "../../../docs/families/kvmalloc.rs"]
pub mod kvmalloc;
#[path = "../../../docs/families/mappings.rs"]
pub mod mappings;
#[path = "../../../docs/families/pages.rs"]
pub mod pages;
#[path = "../../../docs/families/percpu.rs"]
pub mod percpu;
#[path = "../../../docs/families/resources.rs"]
pub mod resources;
#[path = "../../../docs/families/stacks.rs"]
pub mod stacks;
#[path = "../../../docs/families/vmalloc.rs"]
pub mod vmalloc;
