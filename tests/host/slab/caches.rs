//! Caches: what can be made, what objects are like, what comes back.

use super::*;
use quarry::addr::PAGE_SIZE;
use quarry::mm::slab::{CacheSpec, CreateError, Misuse, SlabAllocError, SlabFlags};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

// Behaviour 164.
#[test]
fn a_cache_that_makes_no_sense_is_refused() {
    Spec::of_size(16 << 20).run(|slabs| {
        let good = spec("good", 64);
        let kept = slabs.create(&good).unwrap();
        let refused = |spec: CacheSpec| slabs.create(&spec).map(|_| ()).unwrap_err();
        assert_eq!(refused(CacheSpec { name: "", ..good }), CreateError::Name);
        for name in ["two words", "\0", "a\u{1b}[2J", "line\n", "wide\u{3000}", "\u{85}"] {
            assert_eq!(refused(CacheSpec { name, ..good }), CreateError::Name, "{name:?}");
        }
        assert_eq!(refused(good), CreateError::Duplicate);
        assert_eq!(refused(spec("kmalloc-64", 64)), CreateError::Duplicate);
        assert_eq!(refused(spec("kmem_cache", 64)), CreateError::Duplicate);
        assert_eq!(refused(spec("none", 0)), CreateError::Empty);
        assert_eq!(refused(spec("large", 32_769)), CreateError::TooLarge);
        assert_eq!(refused(CacheSpec { name: "odd", align: 24, ..good }), CreateError::Align);
        assert_eq!(refused(CacheSpec { name: "far", align: 8192, ..good }), CreateError::Align);
        let rcu = CacheSpec { name: "rcu", flags: SlabFlags::TYPESAFE_BY_RCU, ..good };
        assert_eq!(refused(rcu), CreateError::Unsupported);
        slabs.destroy(kept).unwrap();
        // The name is free again.
        let again = slabs.create(&good).unwrap();
        slabs.destroy(again).unwrap();
    });
}

// Behaviours 182, 190: every size, every alignment; no object crosses the end of its slab, at most 1/8 is lost.
#[test]
fn objects_lie_apart_aligned_and_inside_their_slab() {
    Spec::of_size(32 << 20).run(|slabs| {
        let sizes = [1, 7, 8, 9, 24, 63, 64, 65, 96, 200, 700, 1000, 1365, 2049, 4095, 4096, 4097, 5000, 8192, 10_000];
        for size in sizes.into_iter().step_by(if cfg!(miri) { 6 } else { 1 }) {
            for align in [0, 16, 64, 4096] {
                let cache = slabs.create(&CacheSpec { align, ..spec("test", size) }).unwrap();
                let objects = take(slabs, cache.cache(), 150);
                let mut sorted = objects.clone();
                sorted.sort();
                for pair in sorted.windows(2) {
                    assert!(pair[1].get() - pair[0].get() >= u64::from(size), "size {size}");
                }
                for object in &objects {
                    assert!(object.get().is_multiple_of(u64::from(align.max(8))), "size {size} align {align}");
                    assert_eq!(slabs.ksize(*object).map(|bytes| bytes >= size as usize), Ok(true));
                }
                check(slabs);
                let info = slabs.info(cache.cache());
                assert_eq!(info.active_objects, 150);
                if align <= 64 && size <= 4096 {
                    let used = info.objects * u64::from(cache.cache().size());
                    let taken = info.pages * PAGE_SIZE;
                    assert!(taken - used <= taken / 8, "size {size}: {used} of {taken}");
                }
                give(slabs, cache.cache(), objects);
                slabs.destroy(cache).unwrap();
            }
        }
    });
}

#[test]
fn what_one_user_writes_no_other_sees() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 48)).unwrap();
        let objects = take(slabs, cache.cache(), 1000);
        for (byte, object) in (0..=u8::MAX).cycle().zip(&objects) {
            fill(*object, byte, 48);
        }
        for (byte, object) in (0..=u8::MAX).cycle().zip(&objects) {
            assert!(holds(*object, byte, 48));
        }
        give(slabs, cache.cache(), objects);
        slabs.destroy(cache).unwrap();
    });
}

// Under Miri an access behind the last byte of RAM is an error.
#[test]
fn objects_are_had_up_to_the_last_byte_of_ram() {
    Spec::of_size(4 << 20).run(|slabs| {
        let (pages, single) = (slabs.pages(), quarry::addr::Order::ZERO);
        let gfp = Gfp::ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN;
        for size in [4096, 1024] {
            let cache = slabs.create(&spec("test", size)).unwrap();
            let mut held: Vec<_> = std::iter::from_fn(|| pages.alloc_pages(gfp, single).ok()).collect();
            let last = held.iter().copied().max_by_key(|page| page.index()).unwrap();
            held.retain(|page| *page != last);
            raw!(pages.free_pages(last, single)).unwrap();
            let objects: Vec<_> = std::iter::from_fn(|| slabs.alloc_object(cache.cache(), gfp).ok()).collect();
            objects.iter().for_each(|object| fill(*object, 0x5c, size as usize));
            let end = offset(*objects.iter().max().unwrap(), size.into());
            assert_eq!(end, slabs.hal().end(), "{objects:?}");
            give(slabs, cache.cache(), objects);
            slabs.destroy(cache).unwrap();
            held.into_iter().for_each(|page| raw!(pages.free_pages(page, single)).unwrap());
        }
    });
}

// Behaviours 165, 166.
#[test]
fn a_constructor_runs_once_an_object_and_its_work_stays() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    fn construct(object: NonNull<u8>) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the object is 40 bytes large.
        unsafe { object.write_bytes(0x5a, 40) };
    }
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&CacheSpec { constructor: Some(construct), ..spec("made", 40) }).unwrap();
        for _ in 0..10 {
            let objects = take(slabs, cache.cache(), 200);
            assert!(objects.iter().all(|object| holds(*object, 0x5a, 40)));
            give(slabs, cache.cache(), objects);
            check(slabs);
        }
        let info = slabs.info(cache.cache());
        assert_eq!(CALLS.load(Ordering::Relaxed), info.objects);
        assert_eq!(slabs.alloc_object(cache.cache(), KERNEL | Gfp::ZERO), Err(SlabAllocError::ZeroConstructed));
        slabs.destroy(cache).unwrap();
    });
}

// Behaviour 174.
#[test]
fn empty_slabs_are_given_back_but_for_a_few() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 512)).unwrap();
        let objects = take(slabs, cache.cache(), 2000);
        let most = slabs.info(cache.cache()).slabs;
        give(slabs, cache.cache(), objects);
        let info = slabs.info(cache.cache());
        // Those of the cached objects, and `min_partial`.
        assert!(info.slabs <= info.at_hand.div_ceil(8) + 5 + 1, "{info:?}");
        assert!(info.slabs < most / 4);
        assert!(slabs.shrink(cache.cache()));
        assert_eq!(slabs.info(cache.cache()).slabs, 0);
        slabs.destroy(cache).unwrap();
    });
}

// Behaviour 172.
#[test]
fn shrinking_keeps_what_is_in_use() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 100)).unwrap();
        let mut objects = take(slabs, cache.cache(), 500);
        let kept = objects.swap_remove(77);
        fill(kept, 0xab, 100);
        give(slabs, cache.cache(), objects);
        slabs.shrink(cache.cache());
        assert!(holds(kept, 0xab, 100));
        assert_eq!(slabs.info(cache.cache()).slabs, 1);
        assert_eq!(slabs.info(cache.cache()).active_objects, 1);
        check(slabs);
        give(slabs, cache.cache(), [kept]);
        slabs.destroy(cache).unwrap();
    });
}

// Behaviours 150, 162: the second destruction does not compile, as the handle is gone.
#[test]
fn a_cache_with_objects_in_use_stays_and_names_one() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 100)).unwrap();
        let mut objects = take(slabs, cache.cache(), 10);
        let kept = objects.pop().unwrap();
        give(slabs, cache.cache(), objects);
        let (cache, left) = slabs.destroy(cache).unwrap_err();
        assert_eq!((left.in_use().unwrap().objects, left.in_use().unwrap().first), (1, Some(kept)));
        // It works on.
        let more = take(slabs, cache.cache(), 100);
        give(slabs, cache.cache(), more);
        give(slabs, cache.cache(), [kept]);
        slabs.destroy(cache).unwrap();
    });
}

// For all shapes and flags: otherwise a leak of one and a free to another would go unseen.
#[test]
fn caches_of_one_shape_keep_their_names_and_their_slabs() {
    Spec::of_size(16 << 20).run(|slabs| {
        for flags in [SlabFlags::empty(), SlabFlags::NO_MERGE, SlabFlags::RECLAIM_ACCOUNT] {
            // As large as a cache of kmalloc.
            let plain = |name| CacheSpec { flags, ..spec(name, 128) };
            let one = slabs.create(&plain("driver_one")).unwrap();
            let two = slabs.create(&plain("driver_two")).unwrap();
            assert_eq!((one.cache().name(), two.cache().name()), ("driver_one", "driver_two"));
            assert_eq!(slabs.create(&plain("driver_two")).map(|_| ()), Err(CreateError::Duplicate));
            let object = slabs.alloc_object(one.cache(), KERNEL).unwrap();
            let wrong = raw!(slabs.free_object(two.cache(), object));
            assert!(matches!(wrong, Err(Misuse::WrongCache { freed_to: "driver_two", cache: "driver_one", .. })));
            let (one, left) = slabs.destroy(one).unwrap_err();
            assert_eq!(left.in_use().unwrap().objects, 1);
            slabs.hal().reports();
            raw!(slabs.free_object(one.cache(), object)).unwrap();
            slabs.destroy(one).unwrap();
            // The one name is free again, the other is not.
            assert_eq!(slabs.create(&plain("driver_two")).map(|_| ()), Err(CreateError::Duplicate));
            let again = slabs.create(&plain("driver_one")).unwrap();
            slabs.destroy(again).unwrap();
            slabs.destroy(two).unwrap();
        }
    });
}

// Behaviour 176.
#[test]
fn the_first_objects_of_a_slab_come_in_random_order() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 64)).unwrap();
        let mut orders = BTreeSet::new();
        let mut objects = Vec::new();
        for _ in 0..64 {
            let page = take(slabs, cache.cache(), 64);
            assert!(page.windows(2).any(|pair| pair[1].get() != pair[0].get() + 64));
            orders.insert(page.iter().take(16).map(|object| object.offset_in(4096)).collect::<Vec<_>>());
            objects.extend(page);
        }
        assert!(orders.len() > 60, "{}", orders.len());
        give(slabs, cache.cache(), objects);
        slabs.destroy(cache).unwrap();
    });
}

// Behaviours 169 and 171: all or none, and an object twice in one call.
#[test]
#[cfg_attr(miri, ignore = "looks for memory everywhere, thousands of times")]
fn many_at_once_are_all_or_none() {
    Spec::of_size(4 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 256)).unwrap();
        let mut objects = [VirtAddr::ZERO; 100];
        slabs.alloc_bulk(cache.cache(), KERNEL, &mut objects).unwrap();
        assert_eq!(objects.iter().collect::<BTreeSet<_>>().len(), 100);
        check(slabs);
        assert_eq!(raw!(slabs.free_bulk(cache.cache(), &objects)), 0);
        let mut many = vec![VirtAddr::ZERO; 20_000];
        let all = slabs.alloc_bulk(cache.cache(), KERNEL | Gfp::NOWARN, &mut many);
        assert_eq!(all, Err(SlabAllocError::OutOfMemory));
        assert_eq!(slabs.info(cache.cache()).active_objects, 0);
        slabs.alloc_bulk(cache.cache(), KERNEL, &mut objects[..10]).unwrap();
        objects[9] = objects[0];
        assert_eq!(raw!(slabs.free_bulk(cache.cache(), &objects[..10])), 1);
        assert_eq!(slabs.hal().reports().len(), 1);
        // The one that was not named.
        let lost = slabs.info(cache.cache()).active_objects;
        assert_eq!(lost, 1);
        let (cache, left) = slabs.destroy(cache).unwrap_err();
        give(slabs, cache.cache(), left.in_use().unwrap().first);
        slabs.destroy(cache).unwrap();
    });
}

// Behaviour 157, for many at once: objects of every size, and among them what is none.
#[test]
fn a_wrong_pointer_among_many_is_left_out_and_the_others_are_freed() {
    Spec::of_size(16 << 20).run(|slabs| {
        let sizes = [8, 24, 40, 64, 96, 104, 192, 200, 256, 1000, 1024, 3000, 8192];
        for size in sizes.into_iter().step_by(if cfg!(miri) { 7 } else { 1 }) {
            let cache = slabs.create(&spec("test", size)).unwrap();
            let other = slabs.create(&spec("other", size)).unwrap();
            let foreign = slabs.alloc_object(other.cache(), KERNEL).unwrap();
            let middle = u64::from(size / 16 * 8).max(4);
            // First, last, in and between the rounds of the loop.
            for (place, by) in
                [0, 1, 3, 4, 17, 39, 40].into_iter().flat_map(|place| [(place, 1), (place, middle), (place, 0)])
            {
                let mut objects = vec![VirtAddr::ZERO; 40];
                slabs.alloc_bulk(cache.cache(), KERNEL, &mut objects).unwrap();
                let wrong = if by == 0 { foreign } else { offset(objects[20], by) };
                let mut all = objects.clone();
                all.insert(place, wrong);
                assert_eq!(raw!(slabs.free_bulk(cache.cache(), &all)), 1, "{wrong} of {size} in place {place}");
                assert_eq!(slabs.info(cache.cache()).active_objects, 0);
                assert!(matches!(slabs.hal().reports()[..], [Misuse::Misaligned { .. } | Misuse::WrongCache { .. }]));
                // And all once more: free already, or in slabs that are not there any more.
                assert_eq!(raw!(slabs.free_bulk(cache.cache(), &objects)), 40);
                let again = slabs.hal().reports();
                let known = |each: &Misuse| matches!(each, Misuse::DoubleFree { .. } | Misuse::Foreign { .. });
                assert!(again.len() == 40 && again.iter().all(known), "{again:?}");
                check(slabs);
            }
            give(slabs, other.cache(), [foreign]);
            slabs.destroy(cache).unwrap();
            slabs.destroy(other).unwrap();
        }
    });
}

// It would have been emptied and given up as if it were its own.
#[test]
fn a_cache_is_destroyed_by_the_allocator_that_made_it_alone() {
    Spec::of_size(16 << 20).run(|slabs| {
        let other = quarry::mm::slab::SlabAllocator::new(slabs.pages());
        let cache = slabs.create(&spec("test", 64)).unwrap();
        let objects = take(slabs, cache.cache(), 100);
        give(slabs, cache.cache(), objects);
        let info = slabs.info(cache.cache());
        let (cache, why) = other.destroy(cache).unwrap_err();
        assert_eq!(why, quarry::mm::slab::DestroyError::Foreign);
        assert_eq!(slabs.info(cache.cache()), info);
        slabs.destroy(cache).unwrap();
    });
}
