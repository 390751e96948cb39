//! Emptying arrays: how often other CPUs are interrupted for it, how long interrupts stay out, and threads that move.

use super::*;
use machine::{Handle, at_open_points, in_interrupt, run_on};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use thread::{at_kicks, here, in_interrupt_of};

const NAMES: [&str; 40] = {
    const LETTERS: &str = "aabacadaeafagahaiajakalamanaoapaqarasabbcbdbebfbgbhbibjbkblbmbnbobpbqbrbsbtbubvb";
    let mut names = [""; 40];
    let mut at = 0;
    while at < names.len() {
        names[at] = LETTERS.split_at(2 * at).1.split_at(2).0;
        at += 1;
    }
    names
};

/// Many caches, each with objects in the array of each of so many CPUs.
fn caches<'m>(slabs: &Slabs<'_, 'm>, cpus: u32) -> Vec<Handle<'m>> {
    let caches: Vec<_> = NAMES.iter().map(|name| slabs.create(&spec(name, 64)).unwrap()).collect();
    for cpu in 0..cpus {
        run_on(cpu);
        for cache in &caches {
            let objects = take(slabs, cache.cache(), 200);
            give(slabs, cache.cache(), objects);
        }
    }
    run_on(0);
    caches
}

fn at_hand<'m>(slabs: &Slabs<'_, 'm>, caches: &[Handle<'m>]) -> Vec<u64> {
    caches.iter().map(|cache| slabs.info(cache.cache()).at_hand).collect()
}

fn online(slabs: &Slabs<'_, '_>, cpus: u32, online: bool) {
    (0..cpus).for_each(|cpu| slabs.hal().set_online(cpu, online));
}

// As many caches as there are, as often as memory is short: one interrupt for each of the other CPUs, until it answers.
#[test]
fn a_shrinker_interrupts_each_cpu_once() {
    Spec::of_size(32 << 20).cpus(4).exchanging().run(|slabs| {
        let caches = caches(slabs, 4);
        online(slabs, 4, true);
        let kicks = || slabs.hal().kicks.swap(0, Ordering::Relaxed);
        kicks();
        // As a shrinker is called: it may not wait.
        for _ in 0..16 {
            in_interrupt(|| slabs.try_shrink_all(u64::MAX)).unwrap();
        }
        assert_eq!(kicks(), 3);
        let answer = |cpu| in_interrupt_of(cpu, || slabs.answer_requests());
        (1..4).for_each(answer);
        let gone = at_hand(slabs, &caches);
        assert!(gone.iter().all(|objects| *objects == 0), "{gone:?}");
        // The memory of spare magazines goes to other arrays, for a few rounds; a CPU that has nothing is not asked.
        let mut rounds = 0;
        while kicks() != 0 || rounds == 0 {
            (1..4).for_each(answer);
            in_interrupt(|| slabs.try_shrink_all(u64::MAX)).unwrap();
            rounds += 1;
            assert!(rounds < 6);
        }
        // One that has something is asked again, as it has answered.
        run_on(2);
        let objects = take(slabs, caches[7].cache(), 3);
        give(slabs, caches[7].cache(), objects);
        run_on(0);
        in_interrupt(|| slabs.try_shrink_all(u64::MAX)).unwrap();
        assert_eq!(kicks(), 1);
        answer(2);
        // A caller that may wait asks once for all, too.
        at_kicks(&answer, || slabs.shrink_all());
        assert!(kicks() <= 24, "three CPUs, a few rounds");
        online(slabs, 4, false);
        caches.into_iter().for_each(|cache| slabs.destroy(cache).unwrap());
    });
}

// The shrinker is asked for so many pages, and empties what is next in turn until it has them.
#[test]
fn a_shrinker_stops_when_it_has_what_was_asked_for() {
    Spec::of_size(32 << 20).exchanging().run(|slabs| {
        let caches: Vec<_> = NAMES.iter().take(8).map(|name| slabs.create(&spec(name, 2048)).unwrap()).collect();
        for cache in &caches {
            let objects = take(slabs, cache.cache(), 300);
            give(slabs, cache.cache(), objects);
        }
        let all = slabs.pages_in_slabs();
        for wanted in [1, 8, 20, 64] {
            let before = slabs.pages_in_slabs();
            let freed = slabs.try_shrink_all(wanted).unwrap();
            assert_eq!(before - slabs.pages_in_slabs(), freed);
            // A magazine's objects and the last slab may be more.
            assert!((wanted..wanted + 32).contains(&freed), "{wanted} asked for, {freed} freed");
        }
        assert!(slabs.pages_in_slabs() > all / 4);
        assert_eq!(slabs.try_shrink_all(0), Some(0));
        assert!(slabs.try_shrink_all(u64::MAX).unwrap() > 64);
        check(slabs);
        caches.into_iter().for_each(|cache| slabs.destroy(cache).unwrap());
    });
}

// Work between two points where an interrupt may come: that of one cache, for all requesters and CPUs.
#[test]
fn interrupts_are_open_between_the_caches_that_are_emptied() {
    Spec::of_size(32 << 20).cpus(2).exchanging().run(|slabs| {
        let caches = caches(slabs, 2);
        online(slabs, 2, true);
        let before = RefCell::new(at_hand(slabs, &caches));
        let points = Cell::new(0);
        let look = || {
            points.set(points.get() + 1);
            let now = at_hand(slabs, &caches);
            let changed = now.iter().zip(before.borrow().iter()).filter(|(now, before)| now != before).count();
            assert!(changed <= 1, "{changed} caches were emptied in one stretch");
            *before.borrow_mut() = now;
        };
        // By the CPU that is asked, whose handler lets interrupts in.
        in_interrupt(|| slabs.try_shrink_all(u64::MAX)).unwrap();
        run_on(1);
        *before.borrow_mut() = at_hand(slabs, &caches);
        at_open_points(&look, || slabs.answer_requests());
        assert!(points.replace(0) > caches.len());
        assert_eq!(at_hand(slabs, &caches).iter().sum::<u64>(), 0);
        // Part by part, for a handler that opens them itself.
        online(slabs, 2, false);
        caches.iter().for_each(|cache| give(slabs, cache.cache(), take(slabs, cache.cache(), 200)));
        *before.borrow_mut() = at_hand(slabs, &caches);
        // By the CPU that asks.
        at_open_points(&look, || slabs.set_careful(true));
        assert!(points.get() > caches.len());
        slabs.set_careful(false);
        run_on(0);
        caches.into_iter().for_each(|cache| slabs.destroy(cache).unwrap());
    });
}

// All of this changes no array but that of the CPU that the thread is on at the moment: the others are asked.
#[test]
fn a_thread_that_is_moved_empties_the_arrays_of_the_cpu_that_it_is_on() {
    Spec::of_size(32 << 20).cpus(3).exchanging().run(|slabs| {
        let caches = caches(slabs, 3);
        thread::migrating(slabs, 3, || {
            thread::foreign_arrays();
            for round in 0..20 {
                let cache = caches[round % caches.len()].cache();
                give(slabs, cache, take(slabs, cache, 10));
                slabs.shrink(cache);
                slabs.set_careful(round % 2 == 0);
                let passing = slabs.create(&spec("passing", 64)).unwrap();
                give(slabs, passing.cache(), take(slabs, passing.cache(), 10));
                slabs.destroy(passing).unwrap();
                slabs.try_shrink_all(u64::MAX).unwrap();
            }
            slabs.set_careful(false);
            slabs.shrink_all();
            assert_eq!(thread::foreign_arrays(), 0);
        });
        caches.into_iter().for_each(|cache| slabs.destroy(cache).unwrap());
    });
}

/// CPUs, each of which one thread runs on at a time.
struct Cpus<'s, 'p, 'm> {
    slabs: &'s Slabs<'p, 'm>,
    taken: Vec<AtomicBool>,
    /// Interrupts that were sent.
    pending: Vec<AtomicU32>,
}

impl Cpus<'_, '_, '_> {
    /// Waits until a CPU is free, the next ones in turn, and runs on it.
    fn get_on(&self, mut cpu: u32) {
        while self.taken[cpu as usize].swap(true, Ordering::Acquire) {
            std::thread::yield_now();
            cpu = (cpu + 1) % u32::try_from(self.taken.len()).unwrap();
        }
        run_on(cpu);
    }

    fn get_off(&self) {
        self.taken[here() as usize].store(false, Ordering::Release);
    }

    /// An interrupt that is pending is taken, and the thread goes to another CPU.
    fn move_on(&self) {
        if self.pending[here() as usize].swap(0, Ordering::AcqRel) != 0 {
            in_interrupt(|| {
                self.slabs.pages().answer_requests();
                self.slabs.answer_requests();
            });
        }
        let next = (here() + 1) % u32::try_from(self.taken.len()).unwrap();
        self.get_off();
        self.get_on(next);
    }

    /// Runs `f` as one of the threads that share the CPUs.
    fn run(&self, f: impl FnOnce()) {
        self.get_on(0);
        let send = |cpu: u32| _ = self.pending[cpu as usize].fetch_add(1, Ordering::AcqRel);
        at_open_points(&|| self.move_on(), || at_kicks(&send, f));
        self.get_off();
    }
}

// A thread that reads the CPU number, is moved, and then empties that CPU's array works on an array that another thread uses.
#[test]
#[cfg_attr(miri, ignore = "thousands of switches")]
fn no_thread_empties_the_array_of_a_cpu_that_it_has_left() {
    const CPUS: usize = 3;
    Spec::of_size(64 << 20).cpus(3).exchanging().run(|slabs| {
        online(slabs, 3, true);
        let cpus = Cpus {
            slabs,
            taken: (0..CPUS).map(|_| AtomicBool::new(false)).collect(),
            pending: (0..CPUS).map(|_| AtomicU32::new(0)).collect(),
        };
        let shared = slabs.create(&spec("shared", 64)).unwrap();
        let running = AtomicU32::new(3);
        std::thread::scope(|scope| {
            for thread in 0..3_u8 {
                let (cpus, shared, running) = (&cpus, &shared, &running);
                scope.spawn(move || {
                    cpus.run(|| {
                        for round in 0..600 {
                            let objects = take(slabs, shared.cache(), 1 + round % 40);
                            objects.iter().for_each(|object| fill(*object, thread, 64));
                            let mut many = vec![VirtAddr::ZERO; 20];
                            slabs.alloc_bulk(shared.cache(), KERNEL, &mut many).unwrap();
                            many.iter().for_each(|object| fill(*object, thread, 64));
                            assert!(objects.iter().chain(&many).all(|object| holds(*object, thread, 64)));
                            give(slabs, shared.cache(), objects);
                            assert_eq!(raw!(slabs.free_bulk(shared.cache(), &many)), 0);
                        }
                        running.fetch_sub(1, Ordering::Release);
                    });
                });
            }
            cpus.run(|| {
                let mut round = 0;
                while running.load(Ordering::Acquire) != 0 {
                    slabs.shrink(shared.cache());
                    if round % 4 == 0 {
                        slabs.set_careful(round % 8 == 0);
                        let passing = slabs.create(&spec("passing", 64)).unwrap();
                        give(slabs, passing.cache(), take(slabs, passing.cache(), 10));
                        slabs.destroy(passing).unwrap();
                    }
                    round += 1;
                }
                slabs.set_careful(false);
            });
        });
        online(slabs, 3, false);
        run_on(0);
        assert_eq!(slabs.hal().reports(), []);
        check(slabs);
        slabs.destroy(shared).unwrap();
    });
}
