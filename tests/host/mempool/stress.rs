//! Several CPUs at once: everybody who waits gets an element, nobody gets one that another has, and the counts are exact.

use super::*;
use crate::slab::machine::run_on;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;

const CPUS: u32 = 4;

/// How often each CPU allocates.
const fn rounds() -> u32 {
    if cfg!(miri) { 20 } else { 20_000 }
}

/// Two elements for four CPUs, each of which holds one at a time, so that others wait. One more CPU makes the reserve larger
/// and smaller all the while, if `resized`; it wakes waiters too.
fn share_two_elements(resized: bool) {
    Spec::of_size(16 << 20).cpus(CPUS + 1).run(|slabs| {
        let source = Source::of(2);
        let pool = numbers(slabs, 1, &source).unwrap();
        let owners: Vec<AtomicBool> = (0..200_000).map(|_| AtomicBool::new(false)).collect();
        let working = AtomicU32::new(CPUS);
        let before = SLEEPS.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let (pool, owners, working) = (&pool, &owners, &working);
            for cpu in 0..CPUS {
                scope.spawn(move || {
                    run_on(cpu);
                    OTHERS.set(true);
                    for round in 0..rounds() {
                        let element = pool.alloc(KERNEL).unwrap();
                        let owner = &owners[number(element) % owners.len()];
                        assert!(!owner.swap(true, Ordering::Relaxed), "{element:?} has two owners");
                        if round % 16 == 0 {
                            thread::yield_now();
                        }
                        owner.store(false, Ordering::Relaxed);
                        raw!(pool.free(element.as_ptr())).unwrap();
                    }
                    working.fetch_sub(1, Ordering::Relaxed);
                });
            }
            scope.spawn(move || {
                run_on(CPUS);
                let mut min = 1;
                while resized && working.load(Ordering::Relaxed) != 0 {
                    min = min % 3 + 1;
                    pool.resize(min).unwrap();
                    thread::yield_now();
                }
            });
        });
        run_on(0);
        pool.check().unwrap();
        assert!(cfg!(miri) || SLEEPS.load(Ordering::Relaxed) != before, "nobody ever had to wait");
        assert_eq!(u32::try_from(source.out()), Ok(pool.stats().reserve));
        pool.destroy().unwrap();
        assert_eq!(source.out(), 0);
    });
}

// Behaviour 329: a wake-up that is lost is lost for ever.
#[test]
fn every_waiter_is_served() {
    share_two_elements(false);
}

// Behaviour 335: a resize beside allocations and frees.
#[test]
fn the_counts_stay_exact_while_the_reserve_is_resized() {
    share_two_elements(true);
}

// Memory from `kmalloc`, some of which fails, with handlers' flags and with the right to wait.
#[test]
fn blocks_survive_a_backing_that_fails_now_and_then() {
    use quarry::addr::VirtAddr;
    use quarry::mm::mempool::KmallocBacking;
    Spec::of_size(16 << 20).cpus(CPUS).exchanging().run(|slabs| {
        let backing = KmallocBacking::new(slabs, 512).unwrap();
        let pool = RawMempool::create(slabs, &PoolSpec::new("blocks", CPUS), backing)
            .map_err(|refused| refused.error)
            .unwrap();
        slabs.set_careful(true);
        thread::scope(|scope| {
            let pool = &pool;
            for cpu in 0..CPUS {
                scope.spawn(move || {
                    run_on(cpu);
                    OTHERS.set(true);
                    for round in 0..rounds() / 4 {
                        if round % 3 == 0 {
                            slabs.hal().slabs_left.store(u64::from(round % 7), Ordering::Relaxed);
                        }
                        let Ok(element) = pool.alloc(if round % 2 == 0 { KERNEL } else { NOWAIT }) else { continue };
                        let at = VirtAddr::of(element.as_ptr());
                        let byte = u8::try_from(cpu).unwrap() + 1;
                        crate::slab::machine::fill(at, byte, 512);
                        assert!(crate::slab::machine::holds(at, byte, 512));
                        raw!(pool.free(element.as_ptr())).unwrap();
                    }
                });
            }
        });
        run_on(0);
        slabs.hal().slabs_left.store(u64::MAX, Ordering::Relaxed);
        slabs.set_careful(false);
        pool.check().unwrap();
        assert_eq!(pool.stats().reserve, CPUS);
        assert!(slabs.hal().lines().is_empty() && slabs.hal().reports().is_empty());
        pool.destroy().map_err(|(_, why)| why).unwrap();
    });
}
