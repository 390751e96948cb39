//! Number of objects that a cache keeps: the contents of a CPU's arrays, and of the depot.

use super::*;
use machine::{in_interrupt, run_on};
use std::sync::atomic::Ordering;

/// Sizes, with the objects that an array of each holds and the full magazines that the depot does.
const SIZES: [(u32, usize, usize); 9] = [
    (8, 127, 8),
    (64, 127, 8),
    (72, 127, 4),
    (128, 127, 4),
    (136, 127, 2),
    (256, 127, 2),
    (512, 63, 2),
    (2048, 15, 2),
    (4096, 15, 1),
];

// An array and its spare, and full magazines up to the limit: with empty ones in the depot, and without.
#[test]
fn a_cache_keeps_as_many_objects_as_its_arrays_and_its_depot_hold() {
    for (size, capacity, magazines) in SIZES {
        Spec::of_size(32 << 20).cpus(2).exchanging().run(|slabs| {
            let cache = slabs.create(&spec("kept", size)).unwrap();
            let full = (capacity * (2 + magazines)) as u64;
            for round in 0..3 {
                let objects = take(slabs, cache.cache(), capacity * (magazines + 12));
                let mut most = 0;
                for object in objects {
                    raw!(slabs.free_object(cache.cache(), object)).unwrap();
                    most = slabs.info(cache.cache()).at_hand.max(most);
                }
                assert_eq!(most, full, "{size} bytes, round {round}");
                assert_eq!(slabs.info(cache.cache()).active_objects, 0);
                check(slabs);
            }
            // A CPU whose magazines are all full makes room for more than the next one.
            let info = slabs.info(cache.cache());
            assert!(info.slow_frees * 4 < info.fast_frees, "{size} bytes: {} slow frees", info.slow_frees);
            // Full magazines of other CPUs meet the same limit.
            run_on(1);
            give(slabs, cache.cache(), take(slabs, cache.cache(), capacity * (magazines + 12)));
            assert!(slabs.info(cache.cache()).at_hand <= full + 2 * capacity as u64);
            run_on(0);
            slabs.shrink(cache.cache());
            let info = slabs.info(cache.cache());
            assert_eq!((info.objects, info.pages, info.at_hand), (0, 0, 0), "{size} bytes");
            slabs.destroy(cache).unwrap();
        });
    }
}

#[test]
fn many_objects_freed_at_once_are_kept_like_one_after_the_other() {
    for (size, capacity, magazines) in SIZES {
        Spec::of_size(32 << 20).exchanging().run(|slabs| {
            let cache = slabs.create(&spec("kept", size)).unwrap();
            for _ in 0..2 {
                let mut objects = vec![VirtAddr::ZERO; capacity * (magazines + 12)];
                slabs.alloc_bulk(cache.cache(), KERNEL, &mut objects).unwrap();
                assert_eq!(raw!(slabs.free_bulk(cache.cache(), &objects)), 0);
                let kept = slabs.info(cache.cache()).at_hand;
                // Half of the spare may just have made room.
                assert!(kept > (capacity * (1 + magazines)) as u64, "{kept} objects of {size} bytes");
                check(slabs);
            }
            slabs.destroy(cache).unwrap();
        });
    }
}

// With all contents: from an array, from the depot, from slabs, and more than are cached.
#[test]
fn many_zeroed_objects_at_once_are_zero() {
    Spec::of_size(32 << 20).exchanging().run(|slabs| {
        for (size, capacity, _) in SIZES {
            let cache = slabs.create(&spec("kept", size)).unwrap();
            for count in [1, capacity / 2, capacity, 3 * capacity + 1] {
                let mut objects = vec![VirtAddr::ZERO; count];
                slabs.alloc_bulk(cache.cache(), KERNEL, &mut objects).unwrap();
                objects.iter().for_each(|object| fill(*object, 0xa5, size as usize));
                assert_eq!(raw!(slabs.free_bulk(cache.cache(), &objects)), 0);
                slabs.alloc_bulk(cache.cache(), KERNEL | Gfp::ZERO, &mut objects).unwrap();
                assert!(objects.iter().all(|object| holds(*object, 0, size as usize)), "{count} of {size} bytes");
                assert_eq!(raw!(slabs.free_bulk(cache.cache(), &objects)), 0);
            }
            slabs.destroy(cache).unwrap();
        }
    });
}

// The caller may not wait, so work that is not done at once would stay.
#[test]
fn what_a_cpu_that_is_not_online_keeps_is_had_at_once() {
    Spec::of_size(32 << 20).cpus(2).exchanging().run(|slabs| {
        let cache = slabs.create(&spec("kept", 256)).unwrap();
        for _ in 0..2 {
            run_on(1);
            give(slabs, cache.cache(), take(slabs, cache.cache(), 300));
            run_on(0);
            assert!(slabs.info(cache.cache()).at_hand > 127);
            slabs.hal().kicks.store(0, Ordering::Relaxed);
            in_interrupt(|| slabs.try_shrink_all(u64::MAX)).unwrap();
            assert_eq!(slabs.info(cache.cache()).at_hand, 0);
            assert_eq!(slabs.hal().kicks.load(Ordering::Relaxed), 0, "nobody is there to be interrupted");
        }
        slabs.destroy(cache).unwrap();
    });
}

// No objects are cached, but memory that held some.
#[test]
fn spares_without_objects_go_back_when_memory_is_short() {
    Spec::of_size(32 << 20).exchanging().run(|slabs| {
        let cache = slabs.create(&spec("kept", 64)).unwrap();
        let magazines = || {
            let cache = slabs.kmalloc_cache(quarry::mm::slab::KmallocCacheType::Normal, 1024).unwrap();
            slabs.info(cache).active_objects
        };
        let shrink = || while in_interrupt(|| slabs.try_shrink_all(u64::MAX)) != Some(0) {};
        shrink();
        let before = magazines();
        let objects = take(slabs, cache.cache(), 5 * 127);
        give(slabs, cache.cache(), objects);
        let at_hand = usize::try_from(slabs.info(cache.cache()).at_hand).unwrap();
        let objects = take(slabs, cache.cache(), at_hand);
        assert_eq!(slabs.info(cache.cache()).at_hand, 0);
        assert!(magazines() > before);
        shrink();
        assert_eq!(magazines(), before);
        give(slabs, cache.cache(), objects);
        slabs.destroy(cache).unwrap();
    });
}

// From slabs that have a few free objects each: the last of them may have more than are wanted.
#[test]
fn an_array_is_filled_with_a_batch_and_no_more() {
    for (size, capacity, _) in SIZES {
        Spec::of_size(32 << 20).run(|slabs| {
            let cache = slabs.create(&spec("kept", size)).unwrap();
            let batch = (capacity + 1) as u64 / 2;
            let objects = take(slabs, cache.cache(), 20 * capacity);
            let (gone, kept): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(index, _)| index % 3 == 0);
            give(slabs, cache.cache(), gone.into_iter().map(|(_, object)| object));
            slabs.shrink(cache.cache());
            assert_eq!(slabs.info(cache.cache()).at_hand, 0);
            let mut kept: Vec<_> = kept.into_iter().map(|(_, object)| object).collect();
            for _ in 0..3 {
                kept.push(slabs.alloc_object(cache.cache(), KERNEL).unwrap());
                let at_hand = slabs.info(cache.cache()).at_hand;
                assert_eq!(at_hand, batch - 1, "{size} bytes");
                kept.extend(take(slabs, cache.cache(), usize::try_from(at_hand).unwrap()));
            }
            give(slabs, cache.cache(), kept);
            slabs.destroy(cache).unwrap();
        });
    }
}

#[test]
fn a_cache_that_is_made_while_every_call_goes_the_long_way_keeps_nothing_yet() {
    Spec::of_size(32 << 20).exchanging().run(|slabs| {
        slabs.set_careful(true);
        let cache = slabs.create(&spec("kept", 64)).unwrap();
        give(slabs, cache.cache(), take(slabs, cache.cache(), 300));
        assert_eq!(slabs.info(cache.cache()).at_hand, 0);
        slabs.set_careful(false);
        give(slabs, cache.cache(), take(slabs, cache.cache(), 300));
        assert_ne!(slabs.info(cache.cache()).at_hand, 0);
        slabs.destroy(cache).unwrap();
    });
}
