//! Debugged caches: every byte that is changed where it must not be is found, and as many errors are counted as Linux's
//! `slub_kunit` expects.

use super::*;
use quarry::mm::slab::{CacheSpec, Findings, Misuse, SlabFlags, SlabOptions};
use std::ptr::NonNull;

const RED_USED: u8 = 0xcc;
const NONE: Findings = Findings { bugs: 0, fixes: 0 };

fn debugged(name: &'static str, size: u32, flags: SlabFlags) -> CacheSpec {
    CacheSpec { flags, ..spec(name, size) }
}

fn with_options(debug: &'static str) -> Spec {
    Spec::of_size(32 << 20).options(SlabOptions { debug: Some(debug), ..SlabOptions::default() })
}

/// A cache, one object of it that is in use, and four more.
fn with_objects(flags: SlabFlags, f: impl for<'p, 'm> FnOnce(&Slabs<'p, 'm>, &machine::Handle<'m>, VirtAddr)) {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&debugged("test", 64, flags)).unwrap();
        let others = take(slabs, cache.cache(), 4);
        others.iter().for_each(|object| fill(*object, 0x11, 64));
        let object = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
        f(slabs, &cache, object);
        assert!(others.iter().all(|object| holds(*object, 0x11, 64)));
        give(slabs, cache.cache(), others);
        assert_eq!(slabs.validate(cache.cache()), NONE);
        check(slabs);
        slabs.destroy(cache).unwrap();
    });
}

fn overwritten(misuse: &Misuse) -> (&'static str, VirtAddr, VirtAddr, u8) {
    match *misuse {
        Misuse::Overwritten { what, at, end, found, .. } => (what, at, end, found),
        other => panic!("{other:?}"),
    }
}

// Behaviour 145.
#[test]
fn a_byte_behind_an_object_is_found_and_the_object_can_be_freed() {
    with_objects(SlabFlags::RED_ZONE, |slabs, cache, object| {
        fill(offset(object, 64), 0x12, 1);
        assert_eq!(slabs.validate(cache.cache()).errors(), 2);
        let reports = slabs.hal().reports();
        let end = offset(object, 65);
        assert_eq!(
            reports.iter().map(overwritten).collect::<Vec<_>>(),
            [("Right Redzone", offset(object, 64), end, 0x12)]
        );
        assert_eq!(slabs.validate(cache.cache()), NONE);
        give(slabs, cache.cache(), [object]);
        assert_eq!(slabs.hal().reports(), []);
    });
}

// Behaviour 145: before the object too, found when it is freed.
#[test]
fn a_byte_before_an_object_is_found_when_it_is_freed() {
    with_objects(SlabFlags::RED_ZONE, |slabs, cache, object| {
        let before = VirtAddr::new(object.get() - 1);
        fill(before, 0x99, 1);
        give(slabs, cache.cache(), [object]);
        let reports = slabs.hal().reports();
        assert_eq!(reports.iter().map(overwritten).collect::<Vec<_>>(), [("Left Redzone", before, object, 0x99)]);
    });
}

// Behaviour 145: the red zone of a free object has another pattern, and is as well guarded.
#[test]
fn the_red_zone_of_a_free_object_is_guarded() {
    with_objects(SlabFlags::RED_ZONE, |slabs, cache, object| {
        assert!(holds(offset(object, 64), RED_USED, 8));
        give(slabs, cache.cache(), [object]);
        assert!(holds(offset(object, 64), 0xbb, 8));
        fill(offset(object, 64), 0xab, 1);
        assert_eq!(slabs.validate(cache.cache()), Findings { bugs: 1, fixes: 1 });
        assert!(holds(offset(object, 64), 0xbb, 8));
    });
}

// Behaviour 146.
#[test]
fn a_changed_link_is_three_errors_and_two_when_it_is_changed_back() {
    with_objects(SlabFlags::POISON, |slabs, cache, object| {
        give(slabs, cache.cache(), [object]);
        let link = offset(object, cache.cache().link_offset().into());
        let before = bytes(link, 1)[0];
        fill(link, !before, 1);
        let kept = bytes(link, 8);
        assert_eq!(slabs.validate(cache.cache()).errors(), 3);
        let reports = slabs.hal().reports();
        assert!(matches!(reports[..], [Misuse::FreeList { .. }, Misuse::Count { .. }]), "{reports:?}");
        check(slabs);
        for (at, byte) in (0..).zip(kept) {
            fill(offset(link, at), if at == 0 { before } else { byte }, 1);
        }
        assert_eq!(slabs.validate(cache.cache()).errors(), 2);
        assert_eq!(slabs.validate(cache.cache()).errors(), 0);
    });
}

// Behaviour 147.
#[test]
fn a_write_to_a_free_object_is_found_with_its_place() {
    for (place, byte) in [(0, 0x78), (50, 0x9a), (63, 0x6b)] {
        with_objects(SlabFlags::POISON, |slabs, cache, object| {
            give(slabs, cache.cache(), [object]);
            fill(offset(object, place), byte, 1);
            assert_eq!(slabs.validate(cache.cache()).errors(), 2);
            let (what, at, end, found) = overwritten(&slabs.hal().reports()[0]);
            assert!(what.ends_with("oison"), "{what}");
            assert_eq!((at, end, found), (offset(object, place), offset(object, place + 1), byte));
        });
    }
}

// Behaviour 147: without a look in between, the next allocation finds it. The object stays away.
#[test]
fn an_object_that_was_written_to_while_free_is_not_given_out_again() {
    with_objects(SlabFlags::POISON | SlabFlags::RED_ZONE, |slabs, cache, object| {
        give(slabs, cache.cache(), [object]);
        fill(offset(object, 7), 0, 3);
        let all = usize::try_from(slabs.info(cache.cache()).objects).unwrap();
        let more = take(slabs, cache.cache(), all);
        assert!(!more.contains(&object));
        let reports = slabs.hal().reports();
        assert_eq!(
            reports.iter().map(overwritten).collect::<Vec<_>>(),
            [("Poison", offset(object, 7), offset(object, 10), 0)]
        );
        assert_eq!(slabs.info(cache.cache()).events.isolated, 1);
        // Its holder may free it once more: that is one free too many.
        assert!(matches!(raw!(slabs.free_object(cache.cache(), object)), Err(Misuse::DoubleFree { .. })));
        give(slabs, cache.cache(), more);
        check(slabs);
        // The end of the test destroys the cache, which brings its slab back.
    });
}

// Behaviour 149.
#[test]
fn the_red_zone_starts_where_the_request_ends() {
    with_options("ZU,kmalloc-32").run(|slabs| {
        let object = slabs.kmalloc(18, KERNEL).unwrap();
        let cache = slabs.kmalloc_cache(quarry::mm::slab::KmallocCacheType::Normal, 18).unwrap();
        assert_eq!(slabs.ksize(object), Ok(18));
        assert_eq!(slabs.validate(cache), NONE);
        fill(offset(object, 18), 0xab, 2);
        assert_eq!(slabs.validate(cache).errors(), 2);
        assert_eq!(
            overwritten(&slabs.hal().reports()[0]),
            ("kmalloc Redzone", offset(object, 18), offset(object, 20), 0xab)
        );
        raw!(slabs.kfree(object)).unwrap();
        for size in 17..=32 {
            let object = slabs.kmalloc(size, KERNEL | Gfp::ZERO).unwrap();
            assert!(holds(object, 0, size) && holds(offset(object, size as u64), RED_USED, 40 - size), "{size}");
            fill(object, 0xff, size);
            fill(offset(object, size as u64), 0xff, 1);
            raw!(slabs.kfree(object)).unwrap();
            assert_eq!(slabs.hal().reports().len(), 1, "{size}");
        }
    });
}

// Behaviour 150.
#[test]
fn a_cache_with_an_object_in_use_names_it_and_stays() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&debugged("leaky", 64, SlabFlags::STORE_USER)).unwrap();
        machine::call_from(0xffff_8000_0000_1234, 100);
        let objects = take(slabs, cache.cache(), 30);
        let (lost, rest) = objects.split_at(1);
        give(slabs, cache.cache(), rest.iter().copied());
        machine::call_from(0, 107);
        let (cache, left) = slabs.destroy(cache).unwrap_err();
        assert_eq!((left.in_use().unwrap().objects, left.in_use().unwrap().first), (1, Some(lost[0])));
        let lines = slabs.hal().lines().join("\n");
        assert!(lines.contains("BUG leaky: cannot be destroyed, objects in use: 1"), "{lines}");
        assert!(lines.contains(&format!("Object {} @offset=", lost[0])), "{lines}");
        assert!(lines.contains("Allocated in 0xffff800000001234 age=7 cpu=0"), "{lines}");
        assert_eq!(slabs.hal().reports(), [Misuse::Remaining { cache: "leaky", objects: 1, first: Some(lost[0]) }]);
        // By a CPU whose counter is behind that of the one which allocated.
        machine::call_from(0, 90);
        let (cache, _) = slabs.destroy(cache).unwrap_err();
        assert!(slabs.hal().lines().join("\n").contains("Allocated in 0xffff800000001234 age=0 cpu=0"));
        give(slabs, cache.cache(), lost.iter().copied());
        slabs.destroy(cache).unwrap();
    });
}

// Behaviour 152.
#[test]
fn resizing_keeps_the_red_zone_exact_and_new_bytes_zero() {
    with_options("ZU,kmalloc-64,kmalloc-128").run(|slabs| {
        let zero = KERNEL | Gfp::ZERO;
        let object = slabs.kmalloc(48, zero).unwrap();
        fill(object, 0xff, 48);
        assert_eq!(raw!(slabs.krealloc(object, 40, zero)), Ok(object));
        assert!(holds(object, 0xff, 40) && holds(offset(object, 40), RED_USED, 24));
        assert_eq!(raw!(slabs.krealloc(object, 56, zero)), Ok(object));
        assert!(holds(object, 0xff, 40) && holds(offset(object, 40), 0, 16));
        assert!(holds(offset(object, 56), RED_USED, 8));
        let cache = slabs.kmalloc_cache(quarry::mm::slab::KmallocCacheType::Normal, 64).unwrap();
        assert_eq!(slabs.validate(cache), NONE);
        fill(object, 0xff, 56);
        let moved = raw!(slabs.krealloc(object, 112, zero)).unwrap();
        assert_ne!(moved, object);
        assert!(holds(moved, 0xff, 56) && holds(offset(moved, 56), 0, 56));
        assert!(holds(offset(moved, 112), RED_USED, 16));
        assert_eq!(slabs.hal().reports(), []);
        // A write past the end is not swept under the carpet by a later resize.
        fill(offset(moved, 112), 1, 1);
        assert_eq!(raw!(slabs.krealloc(moved, 120, zero)), Ok(moved));
        assert_eq!(slabs.hal().reports().len(), 1);
        raw!(slabs.kfree(moved)).unwrap();
    });
}

// Behaviour 155: the object says that it is free; if that was overwritten too, its slab's list does.
#[test]
fn a_double_free_is_found_in_every_kind_of_debugged_cache() {
    for flags in [SlabFlags::CONSISTENCY_CHECKS, SlabFlags::RED_ZONE, SlabFlags::POISON, SlabFlags::DEBUG] {
        with_objects(flags, |slabs, cache, object| {
            let other = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
            give(slabs, cache.cache(), [object, other]);
            let twice = Err(Misuse::DoubleFree { at: object, cache: "test" });
            assert_eq!(raw!(slabs.free_object(cache.cache(), object)), twice);
            if flags.contains(SlabFlags::CONSISTENCY_CHECKS) {
                let mark = offset(object, u64::from(cache.cache().link_offset()) + 8);
                let before = bytes(mark, 8);
                fill(mark, 0, 8);
                assert_eq!(raw!(slabs.free_object(cache.cache(), object)), twice);
                let found = slabs.validate(cache.cache());
                assert_eq!((found.errors(), bytes(mark, 8)), (2, before));
            }
            assert_eq!(slabs.info(cache.cache()).active_objects, 4);
        });
    }
}

// Behaviours 165 and 166: debugging leaves what the constructor has made.
#[test]
fn a_constructor_keeps_its_word_in_a_debugged_cache() {
    fn construct(object: NonNull<u8>) {
        // SAFETY: the object is 40 bytes large.
        unsafe { object.write_bytes(0x5c, 40) };
    }
    Spec::of_size(16 << 20).run(|slabs| {
        let made = CacheSpec { constructor: Some(construct), ..debugged("made", 40, SlabFlags::DEBUG) };
        let cache = slabs.create(&made).unwrap();
        for _ in 0..10 {
            let objects = take(slabs, cache.cache(), 100);
            assert!(objects.iter().all(|object| holds(*object, 0x5c, 40)));
            give(slabs, cache.cache(), objects);
            assert_eq!(slabs.validate(cache.cache()), NONE);
        }
        slabs.destroy(cache).unwrap();
    });
}

#[test]
fn bytes_behind_the_last_object_and_between_objects_are_guarded() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&CacheSpec { align: 64, ..debugged("test", 140, SlabFlags::POISON) }).unwrap();
        let objects = take(slabs, cache.cache(), 1);
        let size = u64::from(cache.cache().size());
        fill(offset(objects[0], size - 1), 0, 1);
        // Up to a word the rest of the object's last word is nobody's.
        fill(offset(objects[0], 140), 0, 1);
        assert_eq!(slabs.validate(cache.cache()).errors(), 4);
        let what: Vec<_> = slabs.hal().reports().iter().map(|report| overwritten(report).0).collect();
        assert_eq!(what, ["Alignment padding", "Object padding"]);
        let start = objects[0].align_down(4096 << slabs_order(slabs, cache.cache()));
        let end = offset(start, (4096 << slabs_order(slabs, cache.cache())) - 1);
        let tail = (4096_u64 << slabs_order(slabs, cache.cache())) % size;
        assert_ne!(tail, 0);
        fill(end, 1, 1);
        assert_eq!(slabs.validate(cache.cache()).errors(), 2);
        assert_eq!(overwritten(&slabs.hal().reports()[0]).0, "Padding");
        give(slabs, cache.cache(), objects);
        slabs.destroy(cache).unwrap();
    });
}

/// The order of a cache's slabs, of which there is one.
fn slabs_order<'m>(slabs: &Slabs<'_, 'm>, cache: &Cache<machine::Sim<'m>>) -> u32 {
    let info = slabs.info(cache);
    assert_eq!(info.slabs, 1);
    (info.objects * u64::from(cache.size())).div_ceil(4096).next_power_of_two().trailing_zeros()
}

#[test]
fn a_list_that_leads_in_a_circle_is_cut() {
    with_objects(SlabFlags::POISON, |slabs, cache, object| {
        let more = take(slabs, cache.cache(), 3);
        give(slabs, cache.cache(), more.iter().copied().chain([object]));
        // Each points to the one freed before: the link of the first is given that of an object freed later.
        let secret = hardening::secret(cache.cache(), more[2], more[1]);
        hardening::set_link(cache.cache(), more[0], more[2], secret);
        let found = slabs.validate(cache.cache());
        let reports = slabs.hal().reports();
        assert!(matches!(reports[..], [Misuse::Cycle { .. }, Misuse::Count { .. }]), "{reports:?}");
        assert_eq!(found.errors(), 4);
        check(slabs);
    });
}

#[test]
fn everything_works_with_everything_debugged() {
    let mut random = 0x1234_5678_u64;
    with_options("").cpus(2).run(|slabs| {
        let mut held = Vec::new();
        for round in 0..if cfg!(miri) { 100 } else { 4000_u64 } {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            machine::run_on(u32::from(round % 7 == 0));
            let size = (random >> 33) as usize % 9000 + 1;
            if random >> 62 != 0 || held.is_empty() {
                let object = slabs.kmalloc(size, KERNEL).unwrap();
                assert!(!size.is_power_of_two() || object.get().is_multiple_of(size.min(4096) as u64), "{size}");
                fill(object, 0x33, size);
                held.push((object, size));
            } else {
                let (object, size) = held.swap_remove(size % held.len());
                assert!(holds(object, 0x33, size));
                raw!(slabs.kfree(object)).unwrap();
            }
            if held.len() > 300 {
                held.drain(..250).for_each(|(object, _)| raw!(slabs.kfree(object)).unwrap());
            }
        }
        machine::run_on(0);
        slabs.for_each(|cache| assert_eq!(slabs.validate(cache), NONE, "{}", cache.name())).unwrap();
        check(slabs);
        held.into_iter().for_each(|(object, _)| raw!(slabs.kfree(object)).unwrap());
        assert_eq!(slabs.hal().reports(), []);
    });
}

#[test]
fn the_boot_argument_chooses_caches_and_kinds() {
    let (f, z, p, u) = (SlabFlags::CONSISTENCY_CHECKS, SlabFlags::RED_ZONE, SlabFlags::POISON, SlabFlags::STORE_USER);
    let none = SlabFlags::empty();
    for (argument, dentry, inode) in [
        ("", SlabFlags::DEBUG, SlabFlags::DEBUG),
        ("FZ", f | z, f | z),
        ("fzpu", SlabFlags::DEBUG, SlabFlags::DEBUG),
        ("-", none, none),
        (",dentry", SlabFlags::DEBUG, none),
        ("P,den*", p, none),
        ("P,*", p, p),
        ("U,inode,dentry", u, u),
        ("FZ;-,dentry", none, f | z),
        ("F,dentry;Z,inode", f, z),
        ("F,dentry;P", f, p),
        ("XF", f, f),
    ] {
        with_options(argument).run(|slabs| {
            let caches = ["dentry", "inode"].map(|name| slabs.create(&spec(name, 64)).unwrap());
            let [one, two] = caches.each_ref().map(|cache| cache.cache().flags() & SlabFlags::DEBUG);
            assert_eq!((one, two), (dentry, inode), "slub_debug={argument}");
            caches.into_iter().for_each(|cache| slabs.destroy(cache).unwrap());
        });
    }
}

#[test]
fn debugging_does_not_make_a_cache_impossible() {
    with_options("").run(|slabs| {
        let cache = slabs.create(&spec("large", 32 << 10)).unwrap();
        assert!((cache.cache().flags() & SlabFlags::DEBUG).is_empty());
        slabs.destroy(cache).unwrap();
    });
    with_options("O;FZPUO").run(|slabs| {
        let cache = slabs.create(&spec("page", 4096)).unwrap();
        assert_eq!(cache.cache().flags() & SlabFlags::DEBUG, SlabFlags::CONSISTENCY_CHECKS);
        let small = slabs.create(&spec("small", 100)).unwrap();
        assert_eq!(small.cache().flags() & SlabFlags::DEBUG, SlabFlags::DEBUG);
        slabs.destroy(cache).unwrap();
        slabs.destroy(small).unwrap();
    });
}

// Behaviour 177.
#[test]
fn misuse_ends_the_kernel_where_that_is_asked_for() {
    let options = SlabOptions { panic_on_misuse: true, ..SlabOptions::default() };
    Spec::of_size(16 << 20).options(options).run(|slabs| {
        let object = slabs.kmalloc(64, KERNEL).unwrap();
        raw!(slabs.kfree(object)).unwrap();
        let wrong = raw!(slabs.kfree(object)).unwrap_err();
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| slabs.report(&wrong)));
        assert!(end.unwrap_err().downcast_ref::<String>().unwrap().contains("double free"));
    });
}
