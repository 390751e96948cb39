//! The mark of a free object: whose secret it is, and what a second free finds, whenever and wherever that comes.

use super::*;
use machine::{at_open_points, call_from, in_interrupt, run_on};
use quarry::mm::slab::{CacheSpec, Misuse, SlabFlags};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Barrier;

/// First word of a free object.
fn mark_of(object: VirtAddr) -> u64 {
    u64::from_le_bytes(bytes(object, 8).try_into().unwrap())
}

fn double_free(at: VirtAddr, cache: &Cache<machine::Sim<'_>>) -> Result<(), Misuse> {
    Err(Misuse::DoubleFree { at, cache: cache.name() })
}

// The mark that a stale pointer reads from one object is no other object's, in its cache and elsewhere.
#[test]
fn a_mark_is_the_objects_address_and_a_secret_of_the_cache_and_the_boot() {
    let secrets = |slabs: &Slabs<'_, '_>| {
        ["one", "two"].map(|name| {
            let cache = slabs.create(&spec(name, 64)).unwrap();
            let objects = take(slabs, cache.cache(), 200);
            give(slabs, cache.cache(), objects.iter().copied());
            let marks: BTreeSet<_> = objects.iter().map(|object| mark_of(*object)).collect();
            assert_eq!(marks.len(), objects.len(), "no two are alike");
            let secrets: BTreeSet<_> = objects.iter().map(|object| mark_of(*object) ^ object.get()).collect();
            assert_eq!(secrets.len(), 1, "one secret explains all of them");
            slabs.destroy(cache).unwrap();
            secrets.into_iter().next().unwrap()
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

/// Frees `object` with `free`, and once more in an interrupt at the open point of that number, if there are so many: the
/// answers.
fn freed_in_between(
    point: u32,
    object: VirtAddr,
    free: &dyn Fn(VirtAddr) -> Result<(), Misuse>,
) -> (Result<(), Misuse>, Option<Result<(), Misuse>>) {
    let (steps, answer) = (Cell::new(0), Cell::new(None));
    let interrupt = || {
        if steps.replace(steps.get() + 1) == point {
            answer.set(Some(in_interrupt(|| free(object))));
        }
    };
    let outer = at_open_points(&interrupt, || free(object));
    (outer, answer.take())
}

// Where the array has room, where a magazine is exchanged, in a cache without arrays, in one that zeroes.
#[test]
fn an_object_that_an_interrupt_frees_meanwhile_is_freed_once() {
    for (flags, zeroes) in [(SlabFlags::NO_MERGE, false), (SlabFlags::NO_MERGE, true), (SlabFlags::DEBUG, false)] {
        let options = quarry::mm::slab::SlabOptions { init_on_free: zeroes, ..Default::default() };
        Spec::of_size(16 << 20).options(options).exchanging().run(|slabs| {
            let mut twice = 0;
            for kept in [0, 127, 254, 381, 1400] {
                for (point, by) in (0..20).flat_map(|point| [(point, 0), (point, 1)]) {
                    let cache = slabs.create(&CacheSpec { flags, ..spec("test", 64) }).unwrap();
                    let mut objects = take(slabs, cache.cache(), kept + 1);
                    let object = objects.pop().unwrap();
                    give(slabs, cache.cache(), objects);
                    let by_cache = |at| raw!(slabs.free_object(cache.cache(), at));
                    let by_address = |at| raw!(slabs.kfree(at));
                    let frees: [&dyn Fn(VirtAddr) -> Result<(), Misuse>; 2] = [&by_cache, &by_address];
                    let (outer, inner) = freed_in_between(point, object, frees[by]);
                    if let Some(inner) = inner {
                        let refused = double_free(object, cache.cache());
                        assert!(
                            [(Ok(()), refused), (refused, Ok(()))].contains(&(outer, inner)),
                            "{kept} kept, point {point}: {outer:?}, {inner:?}"
                        );
                        twice += 1;
                    } else {
                        assert_eq!(outer, Ok(()));
                    }
                    assert_eq!(slabs.info(cache.cache()).active_objects, 0);
                    check(slabs);
                    slabs.destroy(cache).unwrap();
                }
            }
            assert!(twice >= 5, "{twice}");
        });
    }
}

// The array, the spare, the depot, the slab's list, and a slab that nobody has had an object of.
#[test]
fn an_object_of_one_word_is_free_once_wherever_it_is() {
    for size in [1, 7, 8] {
        Spec::of_size(16 << 20).run(|slabs| {
            let cache = slabs.create(&spec("test", size)).unwrap();
            assert_eq!(cache.cache().size(), 8);
            let objects = take(slabs, cache.cache(), 2000);
            let (used, freed) = objects.split_at(50);
            give(slabs, cache.cache(), freed.iter().copied());
            let refused = |at: VirtAddr| {
                let twice = double_free(at, cache.cache());
                assert_eq!(raw!(slabs.free_object(cache.cache(), at)), twice);
                assert_eq!(raw!(slabs.kfree(at)), twice);
                assert_eq!(raw!(slabs.free_bulk(cache.cache(), &[at])), 1);
                assert_eq!(slabs.hal().reports(), [twice.unwrap_err()]);
                assert!(slabs.ksize(at).is_err());
            };
            freed.iter().for_each(|at| refused(*at));
            check(slabs);
            // To their slabs, of which those stay that have an object in use. The coldest of those that come back are out
            // of these.
            slabs.shrink(cache.cache());
            let stays = |at: &VirtAddr| used.iter().any(|used| used.align_down(4096) == at.align_down(4096));
            let stayed: Vec<_> = freed.iter().copied().filter(stays).collect();
            assert!(stayed.len() > 400);
            stayed.iter().for_each(|at| refused(*at));
            check(slabs);
            assert!(used.iter().all(|at| slabs.ksize(*at) == Ok(8)));
            // And back into an array, but for the one that is taken.
            let one = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
            assert!(stayed.contains(&one));
            check(slabs);
            stayed.iter().filter(|at| **at != one).for_each(|at| refused(*at));
            let more = take(slabs, cache.cache(), stayed.len() - 1);
            let all: BTreeSet<_> = used.iter().chain(&more).chain([&one]).collect();
            assert_eq!(all.len(), used.len() + stayed.len(), "each was given out once");
            give(slabs, cache.cache(), more.into_iter().chain([one]).chain(used.iter().copied()));
            slabs.destroy(cache).unwrap();
        });
    }
}

// Bytes that look like one half of a mark, and like a link: the word is the user's.
#[test]
fn what_an_object_holds_keeps_nobody_from_freeing_it() {
    Spec::of_size(16 << 20).run(|slabs| {
        for size in [8, 16, 64] {
            let cache = slabs.create(&spec("test", size)).unwrap();
            let secret = cache.cache().mark_secret();
            let object = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
            for high in [5_u64, 7, 9, 1 << 20, 0xffff_ffff] {
                // SAFETY: the object is this test's.
                unsafe { object.as_ptr::<u64>().write(secret ^ object.get() ^ high << 32) };
                let again =
                    if high == 7 { raw!(slabs.kfree(object)) } else { raw!(slabs.free_object(cache.cache(), object)) };
                again.unwrap();
                assert_eq!(raw!(slabs.kfree(object)), double_free(object, cache.cache()));
                assert_eq!(slabs.alloc_object(cache.cache(), KERNEL), Ok(object));
            }
            give(slabs, cache.cache(), [object]);
            slabs.destroy(cache).unwrap();
        }
    });
}

// The word of an object that is on its slab's list, overwritten by a stale pointer: found when the list is used.
#[test]
fn a_link_of_one_word_that_was_overwritten_cuts_its_list_off() {
    Spec::of_size(16 << 20).run(|slabs| {
        for (kind, planted) in [(0, 0), (1, 1 << 32), (2, 1 << 3), (3, 1 << 35), (4, u64::MAX)] {
            let cache = slabs.create(&spec("test", 8)).unwrap();
            let objects = take(slabs, cache.cache(), 512);
            let (used, freed) = objects.split_at(1);
            give(slabs, cache.cache(), freed.iter().copied());
            slabs.shrink(cache.cache());
            let first = freed.iter().find(|at| at.align_down(4096) == used[0].align_down(4096)).unwrap();
            let before = mark_of(*first);
            let word = if kind == 0 {
                0
            } else if kind == 3 {
                before ^ 1 << 54
            } else {
                before ^ planted
            };
            // SAFETY: free memory of the arena.
            unsafe { first.as_ptr::<u64>().write(word) };
            let more = take(slabs, cache.cache(), 511);
            let reports = slabs.hal().reports();
            assert_eq!(reports, [Misuse::FreeList { at: *first, cache: "test" }], "{kind}");
            assert!(!more.contains(first) && !more.contains(&used[0]));
            assert_eq!(more.iter().collect::<BTreeSet<_>>().len(), more.len());
            give(slabs, cache.cache(), more.into_iter().chain([used[0]]));
            // SAFETY: free memory of the arena.
            unsafe { first.as_ptr::<u64>().write(cache.cache().mark_secret() ^ first.get()) };
            slabs.destroy(cache).unwrap();
        }
    });
}

// Which of two CPUs is refused nobody knows. Without debugging neither may be: docs/slab.md.
#[test]
fn a_debugged_cache_lets_one_of_two_cpus_free_an_object() {
    for (size, flags) in [(8, SlabFlags::CONSISTENCY_CHECKS), (64, SlabFlags::STORE_USER), (64, SlabFlags::DEBUG)] {
        Spec::of_size(16 << 20).cpus(2).run(|slabs| {
            let cache = slabs.create(&CacheSpec { flags, ..spec("test", size) }).unwrap();
            let rounds: usize = if cfg!(miri) { 20 } else { 3000 };
            let kept = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
            let objects = take(slabs, cache.cache(), rounds);
            let barrier = Barrier::new(2);
            let free_all = |cpu| {
                run_on(cpu);
                call_from(cpu.into(), 0);
                let free = |object: &VirtAddr| {
                    barrier.wait();
                    raw!(slabs.kfree(*object))
                };
                objects.iter().map(free).collect::<Vec<_>>()
            };
            (0..2).for_each(|cpu| slabs.hal().set_online(cpu, true));
            let (one, other) = std::thread::scope(|scope| {
                let other = scope.spawn(|| free_all(1));
                (free_all(0), other.join().unwrap())
            });
            (0..2).for_each(|cpu| slabs.hal().set_online(cpu, false));
            for ((one, other), object) in one.into_iter().zip(other).zip(&objects) {
                // Its slab may have gone by then.
                assert_ne!(one.is_ok(), other.is_ok(), "{object}: {one:?}, {other:?}");
            }
            check(slabs);
            give(slabs, cache.cache(), [kept]);
            slabs.destroy(cache).unwrap();
        });
    }
}
