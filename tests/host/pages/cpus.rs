//! Several CPUs, and what pages hold when they change hands.

use super::machine::{MIB, on_cpus, run_on};
use super::{Spec, blocks, order};
use quarry::addr::{CpuId, Order};
use quarry::gfp::Gfp;
use quarry::hal::cpu::PerCpu;
use std::sync::atomic::{AtomicU32, Ordering};

// Behaviours 95, 99, 136: whatever the last owner left, at every order, also straight from a per-CPU list.
#[test]
fn zeroed_pages_are_zero_whatever_was_there() {
    Spec::of_size(32 * MIB).run(|pages| {
        for raw in 0..=10 {
            let order = order(raw);
            let page = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
            pages.hal().fill(page, 1 << raw, 0xab);
            raw!(pages.free_pages(page, order)).unwrap();
            let again = pages.alloc_pages(Gfp::KERNEL | Gfp::ZERO, order).unwrap();
            for index in 0..1 << raw {
                assert_eq!(pages.hal().byte(again.offset(index)), 0, "order {raw}, page {index}");
            }
            raw!(pages.free_pages(again, order)).unwrap();
        }
    });
}

// Behaviours 102, 477: one CPU takes, another gives back, and each page is in one place.
#[test]
fn pages_freed_on_another_cpu_come_back() {
    Spec::of_size(16 * MIB).cpus(2).run(|pages| {
        let before = blocks(pages);
        for raw in [0, 1, 3, 4, 9] {
            let order = order(raw);
            let taken: Vec<_> =
                (0..3 + (600 >> raw)).map_while(|_| pages.alloc_pages(Gfp::KERNEL, order).ok()).collect();
            assert!(taken.len() > 2, "order {raw}");
            run_on(1);
            for page in taken {
                raw!(pages.free_pages(page, order)).unwrap();
            }
            let hot = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
            raw!(pages.free_pages(hot, order)).unwrap();
            assert_eq!(
                pages.alloc_pages(Gfp::KERNEL, order).unwrap(),
                hot,
                "the page freed last is the next one given"
            );
            raw!(pages.free_pages(hot, order)).unwrap();
            run_on(0);
        }
        // A CPU that is gone has its lists emptied by those that stay.
        pages.hal().set_online(1, false);
        assert_eq!(blocks(pages), before);
    });
}

#[test]
fn a_cpu_that_goes_instead_of_answering_is_not_waited_for() {
    Spec::of_size(16 * MIB).cpus(2).run(|pages| {
        let before = blocks(pages);
        pages.hal().set_online(1, true);
        run_on(1);
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        run_on(0);
        assert_ne!(pages.pages_on_lists(CpuId::new(1)), 0);
        pages.hal().watcher.leaves.store(true, Ordering::Release);
        assert_eq!(blocks(pages), before);
        assert!(!pages.hal().is_online(CpuId::new(1)), "it has gone");
    });
}

// The CPU that is asked, the first of all, empties its lists anyway, and sets their lengths last. A request that comes
// meanwhile wants other lengths.
#[test]
fn a_request_that_comes_while_lists_are_emptied_is_answered_after_it() {
    let rounds = if cfg!(miri) { 2 } else { 4000 };
    Spec::of_size(8 * MIB).cpus(2).run(|pages| {
        let (turn, listed) = (AtomicU32::new(0), AtomicU32::new(0));
        let meet = |at: u32| {
            turn.fetch_add(1, Ordering::AcqRel);
            for spins in 0.. {
                if turn.load(Ordering::Acquire) >= 2 * at {
                    break;
                }
                if spins < 1000 { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
        };
        on_cpus(pages, 2, |cpu| {
            for round in 0..rounds {
                if cpu == 1 {
                    pages.set_careful(false);
                } else {
                    while turn.load(Ordering::Acquire) < 6 * round + 1 {
                        pages.answer_requests();
                    }
                }
                meet(3 * round + 1);
                if cpu == 1 {
                    // A little later in each round.
                    (0..round % 1000).for_each(|_| std::hint::spin_loop());
                    pages.set_careful(true);
                } else {
                    pages.drain_local();
                    while turn.load(Ordering::Acquire) < 6 * round + 3 {
                        pages.answer_requests();
                    }
                }
                meet(3 * round + 2);
                if cpu == 0 {
                    let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
                    raw!(pages.free_pages(page, Order::ZERO)).unwrap();
                    listed.fetch_add(u32::from(pages.pages_on_lists(CpuId::BOOT) != 0), Ordering::AcqRel);
                }
                meet(3 * round + 3);
            }
        });
        pages.set_careful(false);
        assert_eq!(listed.into_inner(), 0, "lists that were switched off took a page");
    });
}
