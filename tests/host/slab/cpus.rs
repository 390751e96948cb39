//! Several CPUs: objects that are freed elsewhere, drains, and interrupts.

use super::*;
use machine::{in_interrupt, run_on};
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
                            slabs.free_object(cache.cache(), object).unwrap();
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
        in_interrupt(|| slabs.shrink(cache.cache()));
        assert_ne!(slabs.info(cache.cache()).at_hand, 0);
        run_on(1);
        slabs.answer_requests();
        assert_eq!(slabs.info(cache.cache()).at_hand, 0);
        slabs.hal().set_online(1, false);
        run_on(0);
        slabs.destroy(cache).unwrap();
    });
}
