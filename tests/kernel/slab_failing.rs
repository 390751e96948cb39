//! Every allocation behind the slab allocator's calls fails once: nothing is lost, nothing breaks.

use core::ptr::NonNull;
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache, ThisKernel};
use quarry::ktest;
use quarry::mm::fault_inject::{MayRecover, Rounds, fail_every};
use quarry::mm::slab::{CacheSpec, SlabFlags};

const KERNEL: Gfp = Gfp::KERNEL;

/// An operation and its undoing, with each of its allocations failing once; afterwards the slabs are sound.
fn every<R, E: core::fmt::Debug>(operation: impl FnMut() -> Result<R, E>, undo: impl FnMut(R)) -> Rounds {
    let rounds = fail_every(&ThisKernel, MayRecover::Yes, operation, undo);
    let rounds = rounds.unwrap_or_else(|_| panic!("an allocation that failed has left something behind"));
    global::slab_allocator().check().unwrap_or_else(|broken| panic!("{broken}"));
    rounds
}

fn kfree(object: NonNull<u8>) {
    // SAFETY: the test's own, not used afterwards.
    unsafe { global::kfree(object.as_ptr()) };
}

fn spec(name: &'static str, size: u32) -> CacheSpec {
    CacheSpec { name, size, align: 0, flags: SlabFlags::NO_MERGE, constructor: None }
}

// Behaviour 497: objects, by size and by cache.
ktest!(no_failed_object_loses_anything, machine = "mem=64M", timeout = 120);
fn no_failed_object_loses_anything() {
    for size in [8, 64, 1000, 4096, 8192, 100_000] {
        let rounds = every(|| global::kmalloc(size, KERNEL), kfree);
        assert!(rounds.points >= 1, "{size}");
    }
    let grown = || {
        let small = global::kmalloc(60, KERNEL)?;
        // SAFETY: not used if this succeeds.
        unsafe { global::krealloc(small.as_ptr(), 3000, KERNEL) }.inspect_err(|_| kfree(small))
    };
    assert!(every(grown, kfree).points >= 2);
    let rounds = every(
        || KmemCache::create(&spec("failing", 300)),
        |cache| cache.destroy().map_err(|(_, left)| left).expect("nothing is in use"),
    );
    assert!(rounds.points >= 1);
}

ktest!(no_failed_bulk_loses_anything, machine = "mem=64M", timeout = 120);
fn no_failed_bulk_loses_anything() {
    let cache = KmemCache::create(&spec("failing", 200)).map_err(|_| "no cache").expect("a cache");
    let bulk = || {
        let mut objects = [NonNull::dangling(); 50];
        cache.alloc_bulk(KERNEL, &mut objects).map(|()| objects)
    };
    // SAFETY: the test's own, not used afterwards.
    let rounds = every(bulk, |objects| assert_eq!(unsafe { cache.free_bulk(&objects) }, 0));
    assert!(rounds.points >= 50, "each object of a careful allocator, and its slabs");
    let filled = || {
        let object = cache.alloc(KERNEL)?;
        cache.shrink();
        Ok::<_, quarry::mm::slab::SlabAllocError>(object)
    };
    // SAFETY: the test's own, not used afterwards.
    assert!(every(filled, |object| unsafe { cache.free(object) }).points >= 1);
    cache.destroy().map_err(|(_, left)| left).expect("nothing is in use");
}
