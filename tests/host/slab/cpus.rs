//! Several CPUs: objects that are freed elsewhere, drains, and interrupts.

use super::*;
use machine::{at_open_points, in_interrupt, run_on};
use std::cell::{Cell, RefCell};
use std::sync::Mutex;

#[test]
fn an_object_freed_on_another_cpu_is_that_cpus() {
    Spec::of_size(16 << 20).cpus(2).run(|slabs| {
        let cache = slabs.create(&spec("test", 64)).unwrap();
        let objects = take(slabs, cache.cache(), 500);
        run_on(1);
        let last = *objects.last().unwrap();
        give(slabs, cache.cache(), objects);
        assert_eq!(slabs.alloc_object(cache.cache(), KERNEL), Ok(last));
        give(slabs, cache.cache(), [last]);
        check(slabs);
        run_on(0);
        // CPU 1 is not online, so its array is emptied from here.
        slabs.destroy(cache).unwrap();
    });
}

// Behaviours 184, 477: producers and consumers, with the memory bounded.
#[test]
fn what_one_cpu_allocates_another_frees() {
    Spec::of_size(16 << 20).cpus(4).run(|slabs| {
        let cache = slabs.create(&spec("test", 128)).unwrap();
        let queue = Mutex::new(Vec::new());
        let rounds = if cfg!(miri) { 50 } else { 3000 };
        (0..4).for_each(|cpu| slabs.hal().set_online(cpu, true));
        std::thread::scope(|scope| {
            for cpu in 0..4_u8 {
                let (queue, cache) = (&queue, &cache);
                scope.spawn(move || {
                    run_on(cpu.into());
                    for round in 0..rounds {
                        let object = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
                        fill(object, cpu, 128);
                        queue.lock().unwrap().push((object, cpu));
                        if round % 3 == 0 {
                            std::thread::yield_now();
                        }
                        let taken: Vec<_> = {
                            let mut queue = queue.lock().unwrap();
                            let half = queue.len() / 2;
                            queue.drain(half..).collect()
                        };
                        for (object, owner) in taken {
                            assert!(holds(object, owner, 128));
                            raw!(slabs.free_object(cache.cache(), object)).unwrap();
                        }
                    }
                });
            }
        });
        (1..4).for_each(|cpu| slabs.hal().set_online(cpu, false));
        run_on(0);
        give(slabs, cache.cache(), queue.into_inner().unwrap().into_iter().map(|(object, _)| object));
        check(slabs);
        assert!(slabs.info(cache.cache()).slabs < 100);
        slabs.destroy(cache).unwrap();
    });
}

#[test]
fn a_cpu_gives_its_objects_back_when_it_is_asked() {
    Spec::of_size(16 << 20).cpus(2).run(|slabs| {
        let cache = slabs.create(&spec("test", 64)).unwrap();
        run_on(1);
        let objects = take(slabs, cache.cache(), 40);
        give(slabs, cache.cache(), objects);
        slabs.hal().set_online(1, true);
        run_on(0);
        // It may not wait, so the other answers later.
        in_interrupt(|| slabs.set_careful(false));
        assert_ne!(slabs.info(cache.cache()).at_hand, 0);
        run_on(1);
        slabs.answer_requests();
        assert_eq!(slabs.info(cache.cache()).at_hand, 0);
        slabs.hal().set_online(1, false);
        run_on(0);
        slabs.destroy(cache).unwrap();
    });
}

/// Destroys a cache on CPU 1, while CPU 0, which this thread plays, answers from interrupts alone.
fn destroy_elsewhere<'m>(slabs: &Slabs<'_, 'm>, cache: machine::Handle<'m>) {
    std::thread::scope(|scope| {
        let destroyer = scope.spawn(|| {
            run_on(1);
            slabs.destroy(cache).unwrap();
        });
        while !destroyer.is_finished() {
            in_interrupt(|| slabs.answer_requests());
            std::thread::yield_now();
        }
    });
}

// Reclaim asks how much there is to have without any lock. Wherever it lets an interrupt in, a cache may be destroyed
// whose record it was looking at.
#[test]
#[cfg_attr(miri, ignore = "hundreds of threads")]
fn a_walk_over_caches_holds_no_record_where_it_can_be_interrupted() {
    Spec::of_size(16 << 20).cpus(2).run(|slabs| {
        slabs.hal().set_online(0, true);
        let walks: [&dyn Fn() -> u64; 2] = [&|| slabs.pages_at_hand(), &|| slabs.pages_in_slabs()];
        for walk in walks {
            // There are some 40 numbers before this one, and two such points at each.
            for point in 0..128 {
                let victim = slabs.create(&spec("victim", 64)).unwrap();
                let (record, size) = (VirtAddr::of(victim.cache()), size_of_val(victim.cache()));
                let (victim, steps) = (Cell::new(Some(victim)), Cell::new(0));
                let freed = RefCell::new(None);
                let interrupt = || {
                    if steps.replace(steps.get() + 1) == point
                        && let Some(cache) = victim.take()
                    {
                        destroy_elsewhere(slabs, cache);
                        *freed.borrow_mut() = Some(bytes(record, size));
                        // Open locks and large numbers.
                        (0..size as u64).step_by(8).for_each(|at| {
                            fill(offset(record, at), 0, 1);
                            fill(offset(record, at + 1), 0xff, 7);
                        });
                    }
                };
                let pages = at_open_points(&interrupt, walk);
                for (at, byte) in (0..).zip(freed.take().into_iter().flatten()) {
                    fill(offset(record, at), byte, 1);
                }
                assert!(pages < 4096, "{pages}");
                if let Some(cache) = victim.take() {
                    slabs.destroy(cache).unwrap();
                }
            }
        }
    });
}
