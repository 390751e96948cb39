//! Blocks too large for a cache, freed by two CPUs at the same moment.

use super::*;
use machine::run_on;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const CPUS: u32 = 2;

/// Waits until all have come as often as this one: spinning, so that they go on within nanoseconds of each other.
fn meet(arrivals: &AtomicU32) {
    let all = (arrivals.fetch_add(1, Ordering::SeqCst) + 1).next_multiple_of(CPUS);
    for look in 0_u32.. {
        if arrivals.load(Ordering::SeqCst) >= all {
            break;
        }
        if look > 1 << 8 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn of_cpus_that_free_one_large_block_at_once_one_succeeds() {
    Spec::of_size(16 << 20).cpus(CPUS).run(|slabs| {
        let rounds = if cfg!(miri) { 4 } else { 1000 };
        let (arrivals, block, freed) = (AtomicU32::new(0), AtomicU64::new(0), AtomicU32::new(0));
        (0..CPUS).for_each(|cpu| slabs.hal().set_online(cpu, true));
        std::thread::scope(|scope| {
            for cpu in 0..CPUS {
                let (arrivals, block, freed) = (&arrivals, &block, &freed);
                scope.spawn(move || {
                    run_on(cpu);
                    for round in 0..rounds {
                        if cpu == 0 {
                            block.store(slabs.kmalloc(50_000, KERNEL).unwrap().get(), Ordering::SeqCst);
                        }
                        meet(arrivals);
                        // One is a little later, more or less of it each time.
                        if cpu == round % CPUS {
                            (0..round % 61).for_each(|_| std::hint::spin_loop());
                        }
                        if raw!(slabs.kfree(VirtAddr::new(block.load(Ordering::SeqCst)))).is_ok() {
                            freed.fetch_add(1, Ordering::SeqCst);
                        }
                        meet(arrivals);
                        // Both see the same, so both stop.
                        if freed.load(Ordering::SeqCst) != round + 1 {
                            return;
                        }
                        meet(arrivals);
                    }
                });
            }
        });
        assert_eq!(freed.load(Ordering::SeqCst), rounds, "one block each time");
        (1..CPUS).for_each(|cpu| slabs.hal().set_online(cpu, false));
        run_on(0);
        check(slabs);
    });
}
