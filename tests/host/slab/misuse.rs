//! Wrong frees, and damage: each is named, and no object is given out twice.

use super::*;
use quarry::mm::page::Kind;
use quarry::mm::slab::{CacheSpec, Misuse, SlabFlags};
use std::collections::BTreeSet;

// Behaviours 155, 156: with nothing in between, with another, with many so that the first has left the array.
#[test]
fn an_object_that_is_freed_twice_is_in_one_place() {
    Spec::of_size(16 << 20).run(|slabs| {
        for size in [16, 64, 96, 256, 2048] {
            let cache = slabs.create(&spec("test", size)).unwrap();
            for between in [0, 1, 100, 3000] {
                let mut objects = take(slabs, cache.cache(), between + 1);
                let twice = objects.pop().unwrap();
                give(slabs, cache.cache(), [twice]);
                give(slabs, cache.cache(), objects);
                let second = raw!(slabs.free_object(cache.cache(), twice));
                assert_eq!(second, Err(Misuse::DoubleFree { at: twice, cache: "test" }), "{size}, {between}");
                assert_eq!(raw!(slabs.kfree(twice)), Err(Misuse::DoubleFree { at: twice, cache: "test" }));
                check(slabs);
                let again = take(slabs, cache.cache(), 2 * between + 2);
                assert_eq!(again.iter().collect::<BTreeSet<_>>().len(), again.len());
                give(slabs, cache.cache(), again);
            }
            slabs.destroy(cache).unwrap();
        }
    });
}

// Behaviours 157, 159, 160, 161, 187.
#[test]
fn pointers_that_are_no_objects_are_named() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 96)).unwrap();
        let object = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
        for bytes in [1, 8, 48, 95] {
            let wrong = raw!(slabs.kfree(offset(object, bytes)));
            assert!(matches!(wrong, Err(Misuse::Misaligned { object: named, .. }) if named == object), "{wrong:?}");
            assert!(slabs.ksize(offset(object, bytes)).is_err());
        }
        // Behind the last object of the page: 42 of 96 bytes leave 64.
        let behind = raw!(slabs.kfree(offset(object.align_down(4096), 42 * 96)));
        assert!(matches!(behind, Err(Misuse::Misaligned { .. })), "{behind:?}");
        let outside = slabs.hal().outside();
        assert_eq!(raw!(slabs.kfree(outside)), Err(Misuse::NotLinear(outside)));
        let page = slabs.pages().alloc_pages(KERNEL, quarry::addr::Order::ZERO).unwrap();
        let at = {
            use quarry::mm::page::PageMap;

            use quarry::mm::zone::PageHal;
            slabs.hal().to_virt(slabs.hal().map().phys(page))
        };
        assert_eq!(raw!(slabs.kfree(at)), Err(Misuse::Foreign { at, kind: Kind::Block }));
        assert_eq!(raw!(slabs.free_object(cache.cache(), at)), Err(Misuse::Foreign { at, kind: Kind::Block }));
        raw!(slabs.pages().free_pages(page, quarry::addr::Order::ZERO)).unwrap();
        raw!(slabs.kfree(object)).unwrap();
        slabs.destroy(cache).unwrap();
    });
}

#[test]
fn an_object_of_another_cache_is_named() {
    Spec::of_size(16 << 20).run(|slabs| {
        let one = slabs.create(&spec("one", 64)).unwrap();
        let two = slabs.create(&spec("two", 64)).unwrap();
        let object = slabs.alloc_object(one.cache(), KERNEL).unwrap();
        let wrong = raw!(slabs.free_object(two.cache(), object));
        assert_eq!(wrong, Err(Misuse::WrongCache { at: object, freed_to: "two", cache: "one" }));
        raw!(slabs.free_object(one.cache(), object)).unwrap();
        slabs.destroy(one).unwrap();
        slabs.destroy(two).unwrap();
    });
}

// Behaviour 197.
#[test]
fn a_large_block_is_freed_at_its_start_and_once() {
    Spec::of_size(32 << 20).run(|slabs| {
        let block = slabs.kmalloc(100_000, KERNEL).unwrap();
        assert_eq!(slabs.ksize(block), Ok(128 << 10));
        for bytes in [1, 8, 4096, 100_000] {
            assert!(raw!(slabs.kfree(offset(block, bytes))).is_err(), "{bytes}");
        }
        raw!(slabs.kfree(block)).unwrap();
        assert!(raw!(slabs.kfree(block)).is_err() && slabs.ksize(block).is_err());
    });
}

// Behaviour 181: the page has another owner by now.
#[test]
fn a_pointer_into_a_slab_that_is_gone_is_named() {
    Spec::of_size(16 << 20).run(|slabs| {
        for size in [64, 1024, 2048, 4096] {
            let cache = slabs.create(&spec("test", size)).unwrap();
            let objects = take(slabs, cache.cache(), 200);
            give(slabs, cache.cache(), objects.iter().copied());
            slabs.shrink(cache.cache());
            for overwritten in [false, true] {
                // In every page of the slab, after any write of their next owner.
                for object in &objects {
                    if overwritten {
                        fill(*object, 0xa5, size as usize);
                    }
                    let refused = raw!(slabs.kfree(*object));
                    assert!(matches!(refused, Err(Misuse::Foreign { .. })), "{size} bytes: {refused:?}");
                }
            }
            check(slabs);
            slabs.destroy(cache).unwrap();
        }
    });
}

// Behaviours 175, 177.
#[test]
fn an_overwritten_link_is_found_when_the_object_is_taken() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 64)).unwrap();
        let kept = take(slabs, cache.cache(), 64);
        let (front, rest) = kept.split_at(40);
        give(slabs, cache.cache(), rest.iter().copied());
        slabs.shrink(cache.cache());
        // All free objects are on the list of their slab; each has its link in the middle.
        let link = |object: VirtAddr| u64::from_le_bytes(bytes(offset(object, 32), 8).try_into().unwrap());
        assert!(rest.iter().all(|object| !rest.iter().any(|other| link(*object) == other.get())));
        for object in rest {
            fill(offset(*object, 32), 0x41, 8);
        }
        let more = take(slabs, cache.cache(), 100);
        assert!(more.iter().all(|object| !front.contains(object) && !rest.contains(object)));
        let reports = slabs.hal().reports();
        assert!(matches!(reports[..], [Misuse::FreeList { cache: "test", .. }]), "{reports:?}");
        // The objects on the list are lost, with their slab, for good: so are the cache and its page. The others are put back.
        give(slabs, cache.cache(), more);
        give(slabs, cache.cache(), front.iter().copied());
        give(
            slabs,
            cache.cache(),
            rest.iter().map(|object| {
                fill(*object, 0, 64);
                *object
            }),
        );
        check(slabs);
        slabs.destroy(cache).unwrap();
    });
}

#[test]
fn a_cache_that_the_kernel_cannot_do_without_is_made_or_ends_it() {
    Spec::of_size(16 << 20).run(|slabs| {
        let needed = CacheSpec { flags: SlabFlags::PANIC | SlabFlags::NO_MERGE, ..spec("needed", 64) };
        let cache = slabs.create(&needed).unwrap();
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| slabs.create(&needed).map(drop)));
        let words = end.unwrap_err().downcast_ref::<String>().unwrap().clone();
        assert_eq!(words, "cache needed: another cache has the name");
        slabs.destroy(cache).unwrap();
    });
}
