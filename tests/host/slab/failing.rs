//! No memory, at every place where some is wanted.

use super::*;
use machine::{in_interrupt, run_on};
use quarry::mm::slab::{CacheSpec, CreateError, SlabAllocError, SlabFlags};
use std::sync::atomic::Ordering;

/// Runs `f` with the k-th allocation of pages failing, for every k, until it passes.
fn every_page_fails(slabs: &Slabs<'_, '_>, mut f: impl FnMut() -> bool) {
    slabs.pages().set_careful(true);
    for left in 0.. {
        let before = machine::free_pages(slabs);
        slabs.hal().pages_left.store(left, Ordering::Relaxed);
        let passed = f();
        let unused = slabs.hal().pages_left.swap(u64::MAX, Ordering::Relaxed) != 0;
        check(slabs);
        assert_eq!(machine::free_pages(slabs), before, "page {left}");
        if passed && unused {
            break;
        }
        assert!(left < 100);
    }
    slabs.pages().set_careful(false);
}

#[test]
#[cfg_attr(miri, ignore = "counts all free pages dozens of times")]
fn a_failure_changes_nothing() {
    Spec::of_size(16 << 20).cpus(2).run(|slabs| {
        every_page_fails(slabs, || match slabs.create(&spec("test", 300)) {
            Err(error) => {
                assert_eq!(error, CreateError::OutOfMemory);
                false
            }
            Ok(cache) => {
                let objects: Vec<_> = (0..100).map(|_| slabs.alloc_object(cache.cache(), KERNEL)).collect();
                let all = objects.iter().all(Result::is_ok);
                let some = objects.into_iter().filter_map(|object| {
                    object.inspect_err(|error| assert_eq!(*error, SlabAllocError::OutOfMemory)).ok()
                });
                give(slabs, cache.cache(), some);
                slabs.destroy(cache).unwrap();
                all
            }
        });
    });
}

// Behaviour 205.
#[test]
fn a_block_that_cannot_grow_stays() {
    Spec::of_size(16 << 20).run(|slabs| {
        let object = slabs.kmalloc(64, KERNEL).unwrap();
        fill(object, 0x77, 64);
        slabs.pages().set_careful(true);
        slabs.hal().pages_left.store(0, Ordering::Relaxed);
        assert_eq!(raw!(slabs.krealloc(object, 100_000, KERNEL)), Err(SlabAllocError::OutOfMemory));
        slabs.hal().pages_left.store(u64::MAX, Ordering::Relaxed);
        slabs.pages().set_careful(false);
        assert!(holds(object, 0x77, 64));
        raw!(slabs.kfree(object)).unwrap();
    });
}

#[test]
fn a_failure_on_request_comes_where_the_long_way_is() {
    Spec::of_size(16 << 20).run(|slabs| {
        slabs.set_careful(true);
        slabs.hal().slabs_left.store(1, Ordering::Relaxed);
        let object = slabs.kmalloc(64, KERNEL).unwrap();
        assert_eq!(slabs.kmalloc(64, KERNEL), Err(SlabAllocError::OutOfMemory));
        slabs.hal().slabs_left.store(u64::MAX, Ordering::Relaxed);
        slabs.set_careful(false);
        raw!(slabs.kfree(object)).unwrap();
    });
}

// An array that is switched off takes nothing in, so that the next allocation is asked about as well.
#[test]
fn every_allocation_is_asked_about_while_failures_are_wanted() {
    Spec::of_size(16 << 20).cpus(2).run(|slabs| {
        let cache = slabs.create(&spec("test", 64)).unwrap();
        for cpu in 0..2 {
            run_on(cpu);
            let objects = take(slabs, cache.cache(), 300);
            give(slabs, cache.cache(), objects);
            raw!(slabs.kfree(slabs.kmalloc(64, KERNEL).unwrap())).unwrap();
        }
        slabs.set_careful(true);
        for cpu in 0..2 {
            run_on(cpu);
            let of_cache = || slabs.alloc_object(cache.cache(), KERNEL);
            let by_size = || slabs.kmalloc(64, KERNEL);
            let ways: [&dyn Fn() -> Result<VirtAddr, SlabAllocError>; 2] = [&of_cache, &by_size];
            for (round, way) in ways.into_iter().cycle().take(8).enumerate() {
                slabs.hal().slabs_left.store(1, Ordering::Relaxed);
                let object = way().unwrap();
                assert_eq!(way(), Err(SlabAllocError::OutOfMemory), "round {round}");
                raw!(slabs.kfree(object)).unwrap();
                assert_eq!(way(), Err(SlabAllocError::OutOfMemory), "round {round}: the object that was freed last");
            }
            slabs.hal().slabs_left.store(u64::MAX, Ordering::Relaxed);
        }
        run_on(0);
        slabs.set_careful(false);
        slabs.destroy(cache).unwrap();
    });
}

#[test]
fn smaller_slabs_do_where_large_ones_are_not_to_be_had() {
    Spec::of_size(4 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 1000)).unwrap();
        let mut held = Vec::new();
        // Every second page is free.
        let order = quarry::addr::Order::ZERO;
        while let Ok(page) = slabs.pages().alloc_pages(Gfp::ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN, order) {
            held.push(page);
        }
        let (kept, free): (Vec<_>, Vec<_>) = held.into_iter().partition(|page| page.index() % 2 == 0);
        free.into_iter().for_each(|page| raw!(slabs.pages().free_pages(page, order)).unwrap());
        let objects = take(slabs, cache.cache(), 100);
        assert_ne!(slabs.info(cache.cache()).events.smaller, 0);
        check(slabs);
        give(slabs, cache.cache(), objects);
        kept.into_iter().for_each(|page| raw!(slabs.pages().free_pages(page, order)).unwrap());
        slabs.destroy(cache).unwrap();
    });
}

// A block that is larger than it must be is looked for, and one that is just large enough is waited for.
#[test]
fn only_the_smallest_slab_is_waited_for() {
    Spec::of_size(16 << 20).run(|slabs| {
        let all = |flags: Gfp, wanted: Gfp| flags & wanted == wanted;
        let pressing = Gfp::DIRECT_RECLAIM | Gfp::NOFAIL | Gfp::RETRY_MAYFAIL;
        for (flags, always) in [
            (SlabFlags::empty(), Gfp::empty()),
            (SlabFlags::RECLAIM_ACCOUNT, Gfp::RECLAIMABLE),
            (SlabFlags::CACHE_DMA, Gfp::DMA),
        ] {
            let flags = flags | SlabFlags::NO_MERGE;
            let cache = slabs.create(&CacheSpec { flags, ..spec("test", 1000) }).unwrap();
            for gfp in [KERNEL, Gfp::ATOMIC, KERNEL | Gfp::RETRY_MAYFAIL, KERNEL | Gfp::NOFAIL] {
                let wanted = gfp | always;
                slabs.hal().asked.lock().unwrap().clear();
                let refused = with_pages(slabs, 0, || slabs.alloc_object(cache.cache(), gfp | Gfp::NOWARN));
                assert_eq!(refused, Err(SlabAllocError::OutOfMemory));
                let asked = std::mem::take(&mut *slabs.hal().asked.lock().unwrap());
                let [(first, large), (second, small)] = asked[..] else { panic!("{asked:?}") };
                assert!(large > small, "{asked:?}");
                assert!(!first.intersects(pressing) && all(first, wanted - pressing), "{first}, for {wanted}");
                assert!(all(second, wanted), "{second}, for {wanted}");
                // Where waiting is not legal, in spite of the caller's flags.
                let refused = with_pages(slabs, 0, || {
                    slabs.hal().asked.lock().unwrap().clear();
                    in_interrupt(|| slabs.alloc_object(cache.cache(), gfp | Gfp::NOWARN))
                });
                assert_eq!(refused, Err(SlabAllocError::OutOfMemory));
                let asked = std::mem::take(&mut *slabs.hal().asked.lock().unwrap());
                assert!(!asked.is_empty());
                let never = Gfp::DIRECT_RECLAIM | Gfp::NOFAIL;
                assert!(asked.iter().all(|(flags, _)| !flags.intersects(never)), "{asked:?}");
                // There are pages for a small one.
                slabs.hal().asked.lock().unwrap().clear();
                let object = slabs.alloc_object(cache.cache(), gfp).unwrap();
                raw!(slabs.free_object(cache.cache(), object)).unwrap();
                slabs.shrink(cache.cache());
            }
            slabs.destroy(cache).unwrap();
        }
    });
}
