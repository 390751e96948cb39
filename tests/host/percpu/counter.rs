//! Counters of which every CPU has a part, on threads that play CPUs.

use quarry::arch::host::Spin;
use quarry::hal::cpu::Interrupts;
use quarry::mm::percpu::Counter;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

/// A machine without interrupts.
struct Quiet;

impl Interrupts for Quiet {
    type Saved = ();

    fn save(&self) {}

    fn restore(&self, (): ()) {}
}

const CPUS: usize = 4;
const ADDS: i64 = if cfg!(miri) { 200 } else { 200_000 };

fn parts() -> [AtomicI64; CPUS] {
    [const { AtomicI64::new(0) }; CPUS]
}

// Behaviour 352: about right at any time, exact on demand.
#[test]
fn a_counter_is_off_by_less_than_a_batch_for_each_cpu_and_its_sum_is_exact() {
    for batch in [1, 2, 32, 1000] {
        let (counter, parts) = (Counter::<Spin>::new(5, batch), parts());
        let mut total = 5;
        for round in 0..4000_i64 {
            let by = (round * 7919) % 41 - 18;
            counter.add(&parts[usize::try_from(round).unwrap() % CPUS], by);
            total += by;
            let off = (counter.read() - total).abs();
            assert!(off <= i64::from(batch - 1) * 4, "batch {batch}: off by {off}");
            assert!(parts.iter().all(|part| part.load(Ordering::Relaxed).abs() < i64::from(batch)), "CNT-2");
        }
        assert_eq!(counter.sum(&Quiet, parts.iter()), total);
    }
    let (none, parts) = (Counter::<Spin>::new(0, 0), parts());
    assert_eq!(none.batch(), 1);
    none.add(&parts[0], 3);
    assert_eq!(none.read(), 3, "nothing is kept back");
}

// Behaviour 352: a caller that only subtracts earlier additions never sees a negative exact sum.
#[test]
fn no_sum_counts_anything_twice_or_misses_it() {
    let (counter, parts) = (Counter::<Spin>::new(0, 16), parts());
    let working = AtomicBool::new(true);
    thread::scope(|scope| {
        let (counter, parts, working) = (&counter, &parts, &working);
        let adders: Vec<_> = parts
            .iter()
            .map(|part| {
                scope.spawn(move || {
                    for _ in 0..ADDS {
                        counter.add(part, 1);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            let mut last = 0;
            while working.load(Ordering::Relaxed) {
                let sum = counter.sum(&Quiet, parts.iter());
                assert!((last..=ADDS * 4).contains(&sum), "{sum} after {last}");
                last = sum;
            }
        });
        adders.into_iter().for_each(|adder| adder.join().unwrap());
        working.store(false, Ordering::Relaxed);
    });
    assert_eq!(counter.sum(&Quiet, parts.iter()), ADDS * 4);
}

#[test]
fn a_counter_saturates() {
    let (counter, parts) = (Counter::<Spin>::new(i64::MAX - 1, 8), parts());
    counter.add(&parts[0], 1000);
    counter.add(&parts[1], 7);
    assert_eq!((counter.read(), counter.sum(&Quiet, parts.iter())), (i64::MAX, i64::MAX));
    counter.add(&parts[2], i64::MIN);
    assert_eq!(counter.sum(&Quiet, parts.iter()), 6);
}
