//! Objects with memory tags, on a machine that keeps them in a model. No pointer with a tag is followed here: a desk machine
//! would not know what to make of one.

use super::*;
use proptest::prelude::*;
use quarry::addr::{Order, PAGE_SIZE, Tag};
use quarry::mm::page::PageMap;
use quarry::mm::slab::{Misuse, SlabFlags, SlabOptions};
use quarry::mm::zone::PageHal;

/// All of an object has its pointer's tag, up to the last granule that was asked for, and nothing behind it.
fn is_tagged(slabs: &Slabs<'_, '_>, object: VirtAddr, asked: u64) {
    let hal = slabs.hal();
    assert!(!object.is_untagged() && object.tag() != Tag::FREE);
    let end = asked.next_multiple_of(16);
    assert!((0..end).step_by(16).all(|at| hal.tag_of(offset(object, at)) == object.tag()), "{object}, {asked} bytes");
    let behind = offset(object, end);
    if !behind.untagged().is_aligned(PAGE_SIZE) {
        assert_ne!(hal.tag_of(behind), object.tag(), "{object}, {asked} bytes");
    }
}

// Behaviour 469, in every cache of kmalloc and with whole slabs in use.
#[test]
fn neighbours_differ_and_each_owner_has_another_tag() {
    Spec::of_size(16 << 20).tagged().run(|slabs| {
        for size in [8, 16, 24, 64, 96, 192, 256, 1024, 4096, 8192] {
            let mut objects: Vec<_> = (0..100).map(|_| slabs.kmalloc(size, KERNEL).unwrap()).collect();
            objects.sort_unstable_by_key(|object| object.untagged());
            let cache = slabs.kmalloc_cache(quarry::mm::slab::KmallocCacheType::Normal, size).unwrap();
            assert!(cache.size() >= 16 && cache.size().is_multiple_of(16) && cache.flags().contains(SlabFlags::KASAN));
            for pair in objects.windows(2) {
                if pair[1].distance_from(pair[0]) == Some(cache.size().into()) {
                    assert_ne!(pair[0].tag(), pair[1].tag(), "{size}: {} {}", pair[0], pair[1]);
                }
            }
            for object in &mut objects {
                is_tagged(slabs, *object, size as u64);
                raw!(slabs.kfree(*object)).unwrap();
                assert_eq!(slabs.hal().tag_of(*object), Tag::FREE);
                // Other slabs may have free objects as well.
                let mut others = Vec::new();
                let again = loop {
                    let again = slabs.kmalloc(size, KERNEL).unwrap();
                    if again.same_byte(*object) {
                        break again;
                    }
                    others.push(again);
                };
                others.into_iter().for_each(|other| raw!(slabs.kfree(other)).unwrap());
                assert_ne!(again.tag(), object.tag(), "{object} and {again}");
                *object = again;
            }
            check(slabs);
            objects.into_iter().for_each(|object| raw!(slabs.kfree(object)).unwrap());
        }
    });
}

#[test]
fn a_pointer_with_a_wrong_tag_frees_nothing() {
    Spec::of_size(16 << 20).tagged().run(|slabs| {
        for size in [64, 20_000] {
            let object = slabs.kmalloc(size, KERNEL).unwrap();
            let wrong = object.with_tag(Tag::from_bits(u64::from(object.tag().get() ^ 1)));
            for refused in [raw!(slabs.kfree(wrong)), slabs.ksize(wrong).map(drop), raw!(slabs.kfree_sensitive(wrong))]
            {
                let Err(Misuse::Stale { at, memory, .. }) = refused else { panic!("{refused:?}") };
                assert_eq!((at, memory), (wrong, object.tag()));
            }
            assert!(raw!(slabs.krealloc(wrong, 10, KERNEL)).is_err());
            assert!(matches!(slabs.hal().reports()[..], [Misuse::Stale { .. }]));
            is_tagged(slabs, object, size as u64);
            // Without a tag it is as good as with the right one.
            raw!(slabs.kfree(object.untagged())).unwrap();
        }
        let object = slabs.kmalloc(64, KERNEL).unwrap();
        raw!(slabs.kfree(object)).unwrap();
        assert!(matches!(raw!(slabs.kfree(object)), Err(Misuse::DoubleFree { .. })));
    });
}

#[test]
fn bulk_calls_tag_as_well() {
    Spec::of_size(16 << 20).tagged().run(|slabs| {
        let handle = slabs.create(&spec("bulk", 100)).unwrap();
        let mut objects = [VirtAddr::ZERO; 40];
        slabs.alloc_bulk(handle.cache(), KERNEL, &mut objects).unwrap();
        objects.iter().for_each(|object| is_tagged(slabs, *object, 100));
        assert_eq!(raw!(slabs.free_bulk(handle.cache(), &objects)), 0);
        assert!(objects.iter().all(|object| slabs.hal().tag_of(*object) == Tag::FREE));
        slabs.destroy(handle).unwrap();
    });
}

// Red zones and records lie behind the object's granules; constructed objects keep what they are.
#[test]
fn tags_go_with_debugging_and_constructors() {
    let options = SlabOptions { debug: Some("FZPU,fenced"), ..SlabOptions::default() };
    Spec::of_size(16 << 20).tagged().options(options).run(|slabs| {
        for (name, size) in [("fenced", 40), ("fenced", 16), ("fenced", 9)] {
            let handle = slabs.create(&spec(name, size)).unwrap();
            let objects = take(slabs, handle.cache(), 20);
            objects.iter().for_each(|object| is_tagged(slabs, *object, size.into()));
            assert_eq!(slabs.validate(handle.cache()).errors(), 0);
            check(slabs);
            give(slabs, handle.cache(), objects);
            assert_eq!(slabs.validate(handle.cache()).errors(), 0);
            slabs.destroy(handle).unwrap();
        }
        let construct = |start: std::ptr::NonNull<u8>| fill(VirtAddr::of(start.as_ptr()), 0x77, 40);
        let made = quarry::mm::slab::CacheSpec { constructor: Some(construct), ..spec("made", 40) };
        let handle = slabs.create(&made).unwrap();
        for _ in 0..3 {
            let object = slabs.alloc_object(handle.cache(), KERNEL).unwrap();
            is_tagged(slabs, object, 40);
            assert!(holds(object.untagged(), 0x77, 40));
            raw!(slabs.free_object(handle.cache(), object)).unwrap();
        }
        slabs.destroy(handle).unwrap();
    });
}

// Owners of memory are recorded: the pointer, the bytes requested, the caller.
#[test]
fn owners_are_remembered() {
    Spec::of_size(16 << 20).tagged().run(|slabs| {
        let events = || std::mem::take(&mut *slabs.hal().tags.as_ref().unwrap().events.lock().unwrap());
        events();
        for size in [100, 20_000] {
            machine::call_from(0x1000, 1);
            let object = slabs.kmalloc(size, KERNEL).unwrap();
            machine::call_from(0x2000, 2);
            raw!(slabs.kfree(object)).unwrap();
            let seen = events();
            let known: Vec<_> = seen.iter().map(|event| (event.pointer, event.caller.get(), event.freed)).collect();
            assert_eq!(known, [(object, 0x1000, false), (object, 0x2000, true)]);
            assert_eq!(seen[0].bytes, size as u64);
        }
    });
}

// Behaviour 470 for pages: neighbouring blocks differ, for all orders, and free ones have the tag of free memory.
#[test]
fn neighbouring_blocks_of_pages_differ() {
    Spec::of_size(16 << 20).tagged().run(|slabs| {
        let (pages, hal) = (slabs.pages(), slabs.hal());
        let tag_at = |page| hal.tags(raw!(quarry::hal::Internal::promised())).unwrap().get(hal.map().phys(page));
        let mut blocks = Vec::new();
        for turn in 0..300_u32 {
            let order = Order::new(u8::try_from(turn % 4).unwrap()).unwrap();
            let Ok(page) = pages.alloc_pages(KERNEL, order) else { break };
            let tag = tag_at(page);
            assert!(tag != Tag::MATCH_ALL && tag != Tag::FREE && pages.page_tag(page) == tag);
            assert!((0..1 << order.get()).all(|index| tag_at(page.offset(index)) == tag));
            blocks.push((page, order));
        }
        blocks.sort_unstable_by_key(|(page, _)| page.index());
        for pair in blocks.windows(2) {
            let [(left, order), (right, _)] = pair else { continue };
            if left.offset(1 << order.get()) == *right {
                assert_ne!(tag_at(*left), tag_at(*right), "{left:?} {right:?}");
            }
        }
        for (page, order) in blocks {
            raw!(pages.free_pages(page, order)).unwrap();
            assert_eq!((tag_at(page), pages.page_tag(page)), (Tag::FREE, Tag::MATCH_ALL));
        }
    });
}

#[derive(Clone, Debug)]
enum Step {
    Alloc(usize),
    Free(usize),
    Resize(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![4 => 1..300_usize, 1 => 1..20_000_usize];
    let step = prop_oneof![
        3 => size.clone().prop_map(Step::Alloc),
        2 => any::<usize>().prop_map(Step::Free),
        1 => (any::<usize>(), size).prop_map(|(which, size)| Step::Resize(which, size)),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 24 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// After every call, each pointer's tag is its memory's, to the last granule requested and no further.
    #[test]
    fn tags_follow_whatever_is_done(steps in steps()) {
        Spec::of_size(16 << 20).tagged().run(|slabs| {
            let mut held: Vec<(VirtAddr, usize)> = Vec::new();
            for step in &steps {
                match *step {
                    Step::Alloc(size) => held.push((slabs.kmalloc(size, KERNEL).unwrap(), size)),
                    Step::Free(which) if !held.is_empty() => {
                        let (object, _) = held.swap_remove(which % held.len());
                        raw!(slabs.kfree(object)).unwrap();
                        assert_ne!(slabs.hal().tag_of(object), object.tag());
                    }
                    // To another place the content would go through pointers with tags.
                    Step::Resize(which, size) if !held.is_empty() => {
                        let index = which % held.len();
                        let (object, before) = held[index];
                        let size = size.min(before.next_power_of_two().min(if before > 8192 { before } else { 64 })).max(1);
                        if size <= before {
                            assert_eq!(raw!(slabs.krealloc(object, size, KERNEL)), Ok(object));
                            held[index].1 = size;
                        }
                    }
                    _ => {}
                }
                held.iter().for_each(|(object, size)| is_tagged(slabs, *object, *size as u64));
            }
            check(slabs);
            held.into_iter().for_each(|(object, _)| raw!(slabs.kfree(object)).unwrap());
        });
    }
}
