//! Effects of a wrong free or a changed link without debugging, and the format of links.

use super::*;
use quarry::mm::slab::{CacheSpec, Misuse, SlabFlags};
use std::collections::BTreeSet;

/// The stored link of a free object.
fn link_of(cache: &Cache<machine::Sim<'_>>, object: VirtAddr) -> u64 {
    let place = offset(object, cache.link_offset().into());
    u64::from_le_bytes(bytes(place, 8).try_into().unwrap())
}

/// The secret of a cache without red zones, out of a free object of which the next on the list is known: what is stored is
/// the address, the secret, and the byte-swapped address of the place.
pub(super) fn secret(cache: &Cache<machine::Sim<'_>>, object: VirtAddr, next: VirtAddr) -> u64 {
    let place = offset(object, cache.link_offset().into());
    link_of(cache, object) ^ next.get() ^ place.get().swap_bytes()
}

/// Makes a free object point to any address.
pub(super) fn set_link(cache: &Cache<machine::Sim<'_>>, object: VirtAddr, next: VirtAddr, secret: u64) {
    let place = offset(object, cache.link_offset().into());
    let stored = next.get() ^ secret ^ place.get().swap_bytes();
    for (at, byte) in (0..).zip(stored.to_le_bytes()) {
        fill(offset(place, at), byte, 1);
    }
}

fn checked(name: &'static str) -> CacheSpec {
    CacheSpec { flags: SlabFlags::CONSISTENCY_CHECKS, ..spec(name, 64) }
}

// Behaviour 175.
#[test]
fn a_link_is_its_address_its_place_and_a_secret_of_the_cache_and_the_boot() {
    let secrets = |slabs: &Slabs<'_, '_>| {
        ["one", "two"].map(|name| {
            let cache = slabs.create(&checked(name)).unwrap();
            let objects = take(slabs, cache.cache(), 20);
            give(slabs, cache.cache(), objects.iter().copied());
            let of = |pair: &[VirtAddr]| secret(cache.cache(), pair[1], pair[0]);
            let found: BTreeSet<_> = objects.windows(2).map(of).collect();
            assert_eq!(found.len(), 1, "one secret explains all links");
            assert!(
                objects.iter().all(|object| objects.iter().all(|next| link_of(cache.cache(), *object) != next.get()))
            );
            slabs.destroy(cache).unwrap();
            found.into_iter().next().unwrap()
        })
    };
    let mut all = Vec::new();
    Spec::of_size(16 << 20).run(|first| {
        all.extend(secrets(first));
        // Another machine, whose boot loader has another seed.
        Spec::of_size(16 << 20).run(|second| all.extend(secrets(second)));
    });
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 4, "{all:x?}");
}

// Behaviour 177: out of the slab, between objects, behind the last one, far away, in another slab.
#[test]
fn a_link_that_leads_to_no_object_cuts_its_list_off() {
    Spec::of_size(16 << 20).run(|slabs| {
        let other = slabs.create(&checked("other")).unwrap();
        let foreign = slabs.alloc_object(other.cache(), KERNEL).unwrap();
        for kind in 0..6 {
            let cache = slabs.create(&checked("test")).unwrap();
            let objects = take(slabs, cache.cache(), 5);
            give(slabs, cache.cache(), objects.iter().copied());
            let secret = secret(cache.cache(), objects[4], objects[3]);
            let next = match kind {
                0 => offset(objects[0], 8),
                1 => offset(objects[0], 1),
                2 => VirtAddr::new(objects[0].get() ^ (1 << 30)),
                3 => foreign,
                4 => VirtAddr::MAX,
                _ => VirtAddr::new(objects[0].align_down(32 << 10).get().wrapping_sub(u64::from(cache.cache().size()))),
            };
            set_link(cache.cache(), objects[4], next, secret);
            let slabs_before = slabs.info(cache.cache()).slabs;
            let more = take(slabs, cache.cache(), 3);
            // The object with the wrong link is not given out, nor is what was behind it.
            assert!(more.iter().all(|object| !objects.contains(object)), "{kind}");
            let reports = slabs.hal().reports();
            assert_eq!(reports, [Misuse::FreeList { at: objects[4], cache: "test" }], "{kind}");
            assert!(slabs.info(cache.cache()).slabs > slabs_before);
            check(slabs);
            give(slabs, cache.cache(), more);
            // Objects that were cut off are free by their marks, and come back with the cache.
            slabs.destroy(cache).unwrap();
        }
        give(slabs, other.cache(), [foreign]);
        slabs.destroy(other).unwrap();
    });
}

// Behaviour 176.
#[test]
fn a_debugged_cache_gives_its_first_objects_in_random_order_too() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&checked("test")).unwrap();
        let mut orders = BTreeSet::new();
        let mut objects = Vec::new();
        for _ in 0..64 {
            let before = slabs.info(cache.cache());
            assert_eq!(before.active_objects, before.objects, "the slabs are full");
            let first = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
            let count = slabs.info(cache.cache()).objects - before.objects;
            let mut slab = vec![first];
            slab.extend(take(slabs, cache.cache(), usize::try_from(count).unwrap() - 1));
            let size = u64::from(cache.cache().size());
            assert!(slab.windows(2).any(|pair| pair[1].get() != pair[0].get() + size));
            orders.insert(slab.iter().map(|object| object.offset_in(32 << 10)).collect::<Vec<_>>());
            objects.extend(slab);
        }
        assert!(orders.len() > 48, "{}", orders.len());
        give(slabs, cache.cache(), objects);
        slabs.destroy(cache).unwrap();
    });
}

// Behaviour 155: with another free in between, in a cache that nobody debugs; what is freed twice is found, and is lost to
// nobody twice.
#[test]
fn an_object_freed_twice_is_given_out_once() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&spec("test", 64)).unwrap();
        let objects = take(slabs, cache.cache(), 2);
        let [a, b] = objects[..] else { unreachable!() };
        for order in [&[a, a][..], &[a, b, a]] {
            let answers: Vec<_> = order.iter().map(|object| raw!(slabs.free_object(cache.cache(), *object))).collect();
            let (last, before) = answers.split_last().unwrap();
            assert!(before.iter().all(Result::is_ok));
            assert_eq!(*last, Err(Misuse::DoubleFree { at: a, cache: "test" }));
            let again = take(slabs, cache.cache(), 200);
            assert_eq!(again.iter().filter(|object| **object == a).count(), 1);
            give(slabs, cache.cache(), again.into_iter().filter(|object| ![a, b].contains(object)));
            if order.len() == 3 {
                give(slabs, cache.cache(), [a, b]);
            }
        }
        slabs.destroy(cache).unwrap();
    });
}

// Behaviours 157, 160, 161 and 187: in a plain cache and in a debugged one.
#[test]
fn a_pointer_that_is_no_object_is_refused_and_harms_nothing() {
    let global = {
        static GLOBAL: u64 = 7;
        VirtAddr::of(&raw const GLOBAL)
    };
    for flags in [SlabFlags::NO_MERGE, SlabFlags::DEBUG] {
        Spec::of_size(16 << 20).run(|slabs| {
            let cache = slabs.create(&CacheSpec { flags, ..spec("test", 72) }).unwrap();
            let objects = take(slabs, cache.cache(), 3);
            let stack = 0_u64;
            let stack = VirtAddr::of(&raw const stack);
            let far = [1_u64 << 30, 1 << 40].map(|bytes| offset(objects[0], bytes));
            for wrong in [stack, global, far[0], far[1], VirtAddr::new(8), VirtAddr::MAX] {
                assert_eq!(raw!(slabs.kfree(wrong)), Err(Misuse::NotLinear(wrong)));
                assert_eq!(raw!(slabs.free_object(cache.cache(), wrong)), Err(Misuse::NotLinear(wrong)));
                assert_eq!(slabs.ksize(wrong), Err(Misuse::NotLinear(wrong)));
                assert!(raw!(slabs.kfree_sensitive(wrong)).is_err());
            }
            assert!(raw!(slabs.kfree(offset(objects[0], 1))).is_err() && slabs.ksize(offset(objects[0], 1)).is_err());
            check(slabs);
            give(slabs, cache.cache(), objects.iter().copied());
            assert!(matches!(slabs.ksize(objects[0]), Err(Misuse::DoubleFree { .. })));
            assert_eq!(slabs.validate(cache.cache()).errors(), 0);
            slabs.destroy(cache).unwrap();
        });
    }
}

// Behaviour 186.
#[test]
fn every_byte_of_a_slot_leads_to_its_object() {
    for flags in [SlabFlags::NO_MERGE, SlabFlags::STORE_USER, SlabFlags::DEBUG] {
        Spec::of_size(16 << 20).run(|slabs| {
            let cache = slabs.create(&CacheSpec { flags, ..spec("test", 72) }).unwrap();
            let objects = take(slabs, cache.cache(), 40);
            let size = u64::from(cache.cache().size());
            let red = if flags.contains(SlabFlags::RED_ZONE) { 8 } else { 0 };
            for object in &objects {
                for at in (0..size).filter(|at| *at != red) {
                    let wrong = VirtAddr::new(object.get() - red + at);
                    let expected = Misuse::Misaligned { at: wrong, cache: "test", object: *object };
                    assert_eq!(raw!(slabs.kfree(wrong)), Err(expected));
                }
            }
            give(slabs, cache.cache(), objects);
            slabs.destroy(cache).unwrap();
        });
    }
}

// Behaviour 179.
#[test]
fn an_object_in_use_is_never_given_out() {
    Spec::of_size(16 << 20).run(|slabs| {
        let kept = slabs.kmalloc(64, KERNEL).unwrap();
        for _ in 0..512 {
            let other = slabs.kmalloc(64, KERNEL).unwrap();
            assert_ne!(other, kept);
            raw!(slabs.kfree(other)).unwrap();
        }
        raw!(slabs.kfree(kept)).unwrap();
    });
}

// Behaviour 170.
#[test]
fn many_freed_at_once_may_be_of_any_slabs_in_any_order() {
    for flags in [SlabFlags::NO_MERGE, SlabFlags::DEBUG] {
        Spec::of_size(16 << 20).run(|slabs| {
            let cache = slabs.create(&CacheSpec { flags, ..spec("test", 256) }).unwrap();
            let mut objects = take(slabs, cache.cache(), 400);
            assert!(slabs.info(cache.cache()).slabs > 4);
            for step in [1, 7, 151] {
                let mixed: Vec<_> = (0..400).map(|index| objects[index * step % 400]).collect();
                assert_eq!(raw!(slabs.free_bulk(cache.cache(), &mixed)), 0);
                assert_eq!(slabs.info(cache.cache()).active_objects, 0);
                check(slabs);
                objects = take(slabs, cache.cache(), 400);
            }
            give(slabs, cache.cache(), objects);
            assert_eq!(slabs.hal().reports(), []);
            slabs.destroy(cache).unwrap();
        });
    }
}

// Behaviour 171: next to each other, in one round of the loop, and rounds apart; in a plain cache and in a debugged one.
#[test]
fn an_object_twice_among_many_is_freed_once() {
    for flags in [SlabFlags::NO_MERGE, SlabFlags::DEBUG] {
        Spec::of_size(16 << 20).run(|slabs| {
            let cache = slabs.create(&CacheSpec { flags, ..spec("test", 64) }).unwrap();
            for (first, second) in [(0, 1), (0, 3), (2, 5), (3, 4), (20, 21), (0, 40), (39, 40)] {
                let objects = take(slabs, cache.cache(), 40);
                let mut all = objects.clone();
                all.insert(second, objects[first]);
                assert_eq!(raw!(slabs.free_bulk(cache.cache(), &all)), 1, "{first} and {second}");
                let twice = Misuse::DoubleFree { at: objects[first], cache: "test" };
                assert_eq!(slabs.hal().reports(), [twice], "{first} and {second}");
                assert_eq!(slabs.info(cache.cache()).active_objects, 0);
                check(slabs);
                let again = take(slabs, cache.cache(), 200);
                assert_eq!(again.iter().collect::<BTreeSet<_>>().len(), 200);
                give(slabs, cache.cache(), again);
            }
            slabs.destroy(cache).unwrap();
        });
    }
}

// Behaviour 159: the page stays whose it is.
#[test]
fn freeing_a_page_as_an_object_leaves_it_alone() {
    use quarry::addr::Order;
    use quarry::mm::page::{Kind, PageMap};

    use quarry::mm::zone::PageHal;
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&CacheSpec { flags: SlabFlags::DEBUG, ..spec("test", 64) }).unwrap();
        let page = slabs.pages().alloc_pages(KERNEL, Order::ZERO).unwrap();
        let map = slabs.hal().map();
        let at = slabs.hal().to_virt(map.phys(page));
        fill(at, 0x77, 4096);
        let state = map.get(page).state();
        for at in [at, offset(at, 64), offset(at, 4088)] {
            let foreign = Err(Misuse::Foreign { at, kind: Kind::Block });
            assert_eq!(raw!(slabs.free_object(cache.cache(), at)), foreign);
            assert_eq!(raw!(slabs.kfree(at)), foreign);
        }
        assert!(holds(at, 0x77, 4096) && map.get(page).state() == state);
        raw!(slabs.pages().free_pages(page, Order::ZERO)).unwrap();
        slabs.destroy(cache).unwrap();
    });
}
