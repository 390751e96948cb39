//! Threads that play CPUs: remote frees in the shapes that break allocators, while others shrink, create and destroy.

use super::machine::Sim;
use super::*;
use crate::random::Random;
use machine::run_on;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};

const CPUS: u32 = 4;
const ROUNDS: usize = if cfg!(miri) { 20 } else { 4000 };

/// An object, its size, and what each of its bytes is.
struct Owned(VirtAddr, usize, u8);

impl Owned {
    fn alloc(slabs: &Slabs<'_, '_>, size: usize, byte: u8) -> Self {
        let at = slabs.kmalloc(size, Gfp::ATOMIC).unwrap();
        fill(at, byte, size);
        Self(at, size, byte)
    }

    fn free(self, slabs: &Slabs<'_, '_>) {
        assert!(holds(self.0, self.2, self.1), "{} of {} bytes, of {}", self.0, self.1, self.2);
        raw!(slabs.kfree(self.0)).unwrap();
    }
}

fn byte(cpu: u32, round: usize) -> u8 {
    u8::try_from((cpu as usize * 64 + round % 64) & 0xff).unwrap()
}

/// Runs `work` on all CPUs but the first, on which caches are shrunk, made and destroyed until the others have ended. They
/// answer its requests, as an interrupt would.
fn beside_a_manager(work: impl Fn(&Slabs<'_, '_>, u32) + Sync) {
    Spec::of_size(64 << 20).cpus(CPUS).exchanging().run(|slabs| {
        (0..CPUS).for_each(|cpu| slabs.hal().set_online(cpu, true));
        let running = AtomicUsize::new(CPUS as usize - 1);
        let managed = AtomicBool::new(false);
        let start = Barrier::new(CPUS as usize);
        std::thread::scope(|scope| {
            for cpu in 1..CPUS {
                let (work, running, managed, start) = (&work, &running, &managed, &start);
                scope.spawn(move || {
                    run_on(cpu);
                    start.wait();
                    work(slabs, cpu);
                    running.fetch_sub(1, Ordering::Release);
                    while !managed.load(Ordering::Acquire) {
                        slabs.answer_requests();
                        std::thread::yield_now();
                    }
                });
            }
            run_on(0);
            start.wait();
            // The others may have ended before this thread runs at all.
            for times in 0.. {
                manage(slabs, times);
                if running.load(Ordering::Acquire) == 0 {
                    break;
                }
            }
            managed.store(true, Ordering::Release);
        });
        (1..CPUS).for_each(|cpu| slabs.hal().set_online(cpu, false));
        run_on(0);
        check(slabs);
        assert!(slabs.hal().reports().is_empty());
    });
}

fn manage(slabs: &Slabs<'_, '_>, times: usize) {
    let size = [24, 64, 200, 700][times % 4];
    let cache = slabs.create(&spec("passing", size)).unwrap();
    let objects = take(slabs, cache.cache(), 100);
    if times.is_multiple_of(2) {
        slabs.shrink_all();
    }
    give(slabs, cache.cache(), objects);
    slabs.destroy(cache).unwrap();
}

// Behaviours 184, 477: each CPU hands what it allocates to the next one.
#[test]
fn producers_and_consumers_in_a_ring() {
    let rings: [Mutex<Vec<Owned>>; CPUS as usize] = [const { Mutex::new(Vec::new()) }; CPUS as usize];
    beside_a_manager(|slabs, cpu| {
        for round in 0..ROUNDS {
            let next = cpu % (CPUS - 1) + 1;
            let made = Owned::alloc(slabs, 16 << (round % 5), byte(cpu, round));
            rings[next as usize].lock().unwrap().push(made);
            let all = std::mem::take(&mut *rings[cpu as usize].lock().unwrap());
            all.into_iter().for_each(|owned| owned.free(slabs));
            slabs.answer_requests();
        }
        // The first thread that ends leaves the last objects to the others, and those to itself.
        for ring in &rings {
            let all = std::mem::take(&mut *ring.lock().unwrap());
            all.into_iter().for_each(|owned| owned.free(slabs));
        }
    });
    assert!(rings.iter().all(|ring| ring.lock().unwrap().is_empty()));
}

// Behaviour 480 (larson): objects of random sizes in slots that are replaced one by one; the slots wander from CPU to CPU.
#[test]
fn slots_that_wander_from_cpu_to_cpu() {
    const SLOTS: usize = 200;
    let parked: Mutex<Vec<Vec<Owned>>> = Mutex::new((1..CPUS).map(|_| Vec::new()).collect());
    beside_a_manager(|slabs, cpu| {
        let mut random = Random(u64::from(cpu) * 0x9e37_79b9 + 1);
        for round in 0..ROUNDS / 10 {
            let mut slots = parked.lock().unwrap().pop().unwrap();
            for turn in 0..20 {
                let size = 8 + usize::try_from(random.below(500)).unwrap();
                let made = Owned::alloc(slabs, size, byte(cpu, round + turn));
                if slots.len() < SLOTS {
                    slots.push(made);
                } else {
                    let place = usize::try_from(random.below(SLOTS as u64)).unwrap();
                    std::mem::replace(&mut slots[place], made).free(slabs);
                }
            }
            parked.lock().unwrap().insert(0, slots);
            slabs.answer_requests();
            std::thread::yield_now();
        }
        let slots = parked.lock().unwrap().pop().unwrap();
        slots.into_iter().for_each(|owned| owned.free(slabs));
    });
}

// Behaviour 481 (xmalloc): batches that some allocate and others free, with bulk calls in a cache of their own.
#[test]
fn batches_that_others_free() {
    let batches: Mutex<Vec<Vec<Owned>>> = Mutex::default();
    beside_a_manager(|slabs, cpu| {
        for round in 0..ROUNDS / 10 {
            if cpu == 1 {
                let batch = (0..50).map(|each| Owned::alloc(slabs, 64, byte(cpu, round + each))).collect();
                batches.lock().unwrap().push(batch);
            } else if let Some(batch) = { batches.lock().unwrap().pop() } {
                batch.into_iter().for_each(|owned| owned.free(slabs));
            }
            slabs.answer_requests();
            std::thread::yield_now();
        }
        if cpu != 1 {
            for batch in std::mem::take(&mut *batches.lock().unwrap()) {
                batch.into_iter().for_each(|owned| owned.free(slabs));
            }
        }
        if cpu == 1 {
            while let Some(batch) = { batches.lock().unwrap().pop() } {
                batch.into_iter().for_each(|owned| owned.free(slabs));
            }
        }
    });
}

// Behaviour 477: one cache, bulk calls, every object freed by another CPU than the one that has it.
#[test]
fn bulk_frees_of_others_objects() {
    Spec::of_size(32 << 20).cpus(CPUS).run(|slabs| {
        let cache = slabs.create(&spec("shared", 96)).unwrap();
        let shared: Mutex<Vec<Vec<VirtAddr>>> = Mutex::default();
        (0..CPUS).for_each(|cpu| slabs.hal().set_online(cpu, true));
        std::thread::scope(|scope| {
            for cpu in 0..CPUS {
                let (cache, shared) = (cache.cache(), &shared);
                scope.spawn(move || {
                    run_on(cpu);
                    for round in 0..ROUNDS / 10 {
                        let mut batch = [VirtAddr::ZERO; 33];
                        alloc_bulk(slabs, cache, &mut batch[..1 + round % 33]);
                        let batch = batch[..1 + round % 33].to_vec();
                        batch.iter().for_each(|object| fill(*object, byte(0, batch.len()), 96));
                        shared.lock().unwrap().insert(0, batch);
                        let theirs = shared.lock().unwrap().pop();
                        if let Some(theirs) = theirs {
                            assert!(theirs.iter().all(|object| holds(*object, byte(0, theirs.len()), 96)));
                            assert_eq!(raw!(slabs.free_bulk(cache, &theirs)), 0);
                        }
                    }
                });
            }
        });
        (1..CPUS).for_each(|cpu| slabs.hal().set_online(cpu, false));
        run_on(0);
        for batch in shared.into_inner().unwrap() {
            assert_eq!(raw!(slabs.free_bulk(cache.cache(), &batch)), 0);
        }
        check(slabs);
        slabs.destroy(cache).unwrap();
    });
}

fn alloc_bulk<'m>(slabs: &Slabs<'_, 'm>, cache: &Cache<Sim<'m>>, objects: &mut [VirtAddr]) {
    slabs.alloc_bulk(cache, Gfp::ATOMIC, objects).unwrap();
}
