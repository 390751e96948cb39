//! The slab allocator: the behaviours by number, random operations against a model, several CPUs, failures.

mod blocks;
mod cache_model;
mod caches;
mod cpus;
// It tests by the check of all invariants, which Miri leaves out.
#[cfg(not(miri))]
mod damage;
mod debug;
mod drain;
mod failing;
mod hardening;
mod heap;
mod kept;
mod kmalloc;
mod large;
pub(crate) mod machine;
mod marks;
mod misuse;
mod model;
mod page_tags;
// The model checker switches stacks, which Miri cannot.
#[cfg(not(miri))]
mod protocol;
mod report;
mod slabinfo;
mod sleeping;
mod stress;
mod tags;
pub(crate) mod thread;
mod typed;

use machine::{Slabs, Spec, bytes, check, fill, holds, spec};
use quarry::addr::VirtAddr;
use quarry::gfp::Gfp;
use quarry::mm::slab::Cache;

const KERNEL: Gfp = Gfp::KERNEL;

/// So many objects of a cache.
fn take<'m>(slabs: &Slabs<'_, 'm>, cache: &Cache<machine::Sim<'m>>, count: usize) -> Vec<VirtAddr> {
    (0..count).map(|_| slabs.alloc_object(cache, KERNEL).unwrap()).collect()
}

fn give<'m>(slabs: &Slabs<'_, 'm>, cache: &Cache<machine::Sim<'m>>, objects: impl IntoIterator<Item = VirtAddr>) {
    for object in objects {
        raw!(slabs.free_object(cache, object)).unwrap();
    }
}

/// `at`, so many bytes further on.
fn offset(at: VirtAddr, bytes: u64) -> VirtAddr {
    VirtAddr::new(at.get() + bytes)
}

/// Runs `f` on a machine whose page allocator gives out so many blocks and then no more.
fn with_pages<R>(slabs: &Slabs<'_, '_>, blocks: u64, f: impl FnOnce() -> R) -> R {
    let pages_left = &slabs.hal().pages_left;
    slabs.pages().set_careful(true);
    pages_left.store(blocks, std::sync::atomic::Ordering::Relaxed);
    let result = f();
    pages_left.store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
    slabs.pages().set_careful(false);
    result
}
