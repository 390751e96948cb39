//! Per-CPU page lists.

use super::machine::{MIB, in_interrupt, on_cpus, run_on};
use super::{Spec, blocks, give_back, order};
use quarry::addr::{CpuId, Order};
use quarry::gfp::{Gfp, ZoneType};
use quarry::mm::page::Page;
use quarry::mm::zone::PageBatch;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

/// Pages that move between a list and its zone at once on a machine of some size, and what a list holds.
const BATCH: usize = 64;
const HIGH: usize = 128;

// Behaviour 100.
#[test]
fn a_page_that_goes_and_comes_takes_no_lock() {
    Spec::of_size(256 * MIB).run(|pages| {
        let rounds = if cfg!(miri) { 100 } else { 1_000_000 };
        // The first one finds no page block for its use and takes one over, the second fills the list.
        let held = [0; 2].map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap());
        let before = pages.zone(ZoneType::Dma).unwrap();
        for _ in 0..rounds {
            let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
            raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        }
        let after = pages.zone(ZoneType::Dma).unwrap();
        assert_eq!(before, after, "free pages, events and batches");
        let traffic = pages.traffic(ZoneType::Dma).unwrap();
        assert_eq!((traffic.allocated, traffic.freed), (rounds + 2, rounds));
        give_back(pages, held, Order::ZERO);
    });
}

// Behaviour 101.
#[test]
fn a_full_list_gives_back_exactly_a_batch() {
    Spec::of_size(256 * MIB).run(|pages| {
        let mut taken: Vec<Page> =
            (0..3 * HIGH).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()).collect();
        pages.drain_all();
        for index in 0..2 * HIGH {
            let (free, listed) = (pages.free_page_count(), pages.pages_on_lists(CpuId::BOOT));
            raw!(pages.free_pages(taken.pop().unwrap(), Order::ZERO)).unwrap();
            let full = index >= HIGH && (index - HIGH).is_multiple_of(BATCH);
            let given = if full { BATCH as u64 } else { 0 };
            assert_eq!(pages.free_page_count() - free, given, "free number {index}");
            assert_eq!(pages.pages_on_lists(CpuId::BOOT) + given, listed + 1);
        }
        give_back(pages, taken, Order::ZERO);
    });
}

// Behaviour 102.
#[test]
fn the_page_that_was_freed_last_is_allocated_first() {
    Spec::of_size(256 * MIB).run(|pages| {
        for o in 0..=10 {
            let taken: Vec<Page> = (0..2).map(|_| pages.alloc_pages(Gfp::KERNEL, order(o)).unwrap()).collect();
            pages.drain_all();
            raw!(pages.free_pages(taken[0], order(o))).unwrap();
            assert_eq!(pages.alloc_pages(Gfp::KERNEL, order(o)), Ok(taken[0]), "order {o}");
            give_back(pages, taken, order(o));
        }
    });
}

#[test]
fn cold_pages_go_to_one_end_and_come_from_it() {
    Spec::of_size(256 * MIB).run(|pages| {
        let taken: Vec<Page> = (0..5).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()).collect();
        pages.drain_all();
        for page in &taken[..4] {
            raw!(pages.free_pages(*page, Order::ZERO)).unwrap();
        }
        raw!(pages.free_pages_cold(taken[4], Order::ZERO)).unwrap();
        pages.check().unwrap();
        let cold = |expected: Page| assert_eq!(pages.alloc_pages(Gfp::KERNEL | Gfp::COLD, Order::ZERO), Ok(expected));
        let hot = |expected: Page| assert_eq!(pages.alloc_pages(Gfp::KERNEL | Gfp::HOT, Order::ZERO), Ok(expected));
        cold(taken[4]);
        cold(taken[0]);
        hot(taken[3]);
        cold(taken[1]);
        hot(taken[2]);
        give_back(pages, taken, Order::ZERO);
    });
}

// Behaviour 105.
#[test]
fn draining_empty_lists_changes_nothing() {
    Spec::of_size(256 * MIB).run(|pages| {
        let before = pages.zone(ZoneType::Dma);
        pages.drain_all();
        pages.drain_local();
        assert_eq!(pages.zone(ZoneType::Dma), before);
    });
}

#[test]
fn a_cpu_that_is_not_online_is_drained_from_here() {
    Spec::of_size(256 * MIB).cpus(3).run(|pages| {
        let before = blocks(pages);
        for cpu in [1, 2] {
            run_on(cpu);
            let taken: Vec<Page> = (0..50).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()).collect();
            give_back(pages, taken, Order::ZERO);
            assert!(pages.pages_on_lists(CpuId::new(cpu)) >= 50);
        }
        run_on(0);
        pages.drain_all();
        assert_eq!((1..3).map(|cpu| pages.pages_on_lists(CpuId::new(cpu))).sum::<u64>(), 0);
        assert_eq!(blocks(pages), before);
    });
}

#[test]
fn an_online_cpu_answers_when_it_is_asked() {
    Spec::of_size(256 * MIB).cpus(2).run(|pages| {
        pages.hal().set_online(1, true);
        run_on(1);
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        run_on(0);
        // Who may not wait does not: the other CPU answers later.
        in_interrupt(|| pages.drain_all());
        assert_ne!(pages.pages_on_lists(CpuId::new(1)), 0);
        run_on(1);
        pages.answer_requests();
        assert_eq!(pages.pages_on_lists(CpuId::new(1)), 0);
        run_on(0);
        pages.hal().set_online(1, false);
    });
}

#[test]
fn two_cpus_that_drain_each_other_both_get_through() {
    Spec::of_size(256 * MIB).cpus(2).run(|pages| {
        on_cpus(pages, 2, |_| {
            for _ in 0..if cfg!(miri) { 3 } else { 200 } {
                let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
                raw!(pages.free_pages(page, Order::ZERO)).unwrap();
                pages.drain_all();
            }
        });
    });
}

// Behaviour 111: more is wanted than there is.
#[test]
fn cpus_that_share_too_little_memory_get_distinct_pages() {
    const CPUS: u32 = 4;
    let size = if cfg!(miri) { 4 * MIB } else { 32 * MIB };
    Spec::of_size(size).without_reserve().cpus(CPUS).run(|pages| {
        let all: Vec<Vec<Page>> = on_cpus(pages, CPUS, |_| {
            std::iter::from_fn(|| pages.alloc_pages(Gfp::ATOMIC | Gfp::NOWARN, Order::ZERO).ok()).collect()
        });
        let distinct: BTreeSet<Page> = all.iter().flatten().copied().collect();
        assert_eq!(distinct.len(), all.iter().map(Vec::len).sum::<usize>(), "a page was handed out twice");
        assert!(distinct.len() as u64 * 4096 > size / 2);
        give_back(pages, distinct, Order::ZERO);
        pages.drain_all();
        assert_eq!(pages.free_page_count(), size / 4096);
    });
}

// One CPU allocates, another frees: pages come back through the zone, and memory does not run out.
#[test]
fn pages_freed_on_another_cpu_are_not_lost() {
    let rounds = if cfg!(miri) { 200 } else { 100_000 };
    Spec::of_size(16 * MIB).cpus(2).run(|pages| {
        let (send, receive) = mpsc::sync_channel::<Page>(64);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                run_on(0);
                for _ in 0..rounds {
                    // The pages are in the channel or on the other CPU's lists: a moment later there are some.
                    let page = loop {
                        match pages.alloc_pages(Gfp::ATOMIC | Gfp::NOWARN, Order::ZERO) {
                            Ok(page) => break page,
                            Err(_) => std::thread::yield_now(),
                        }
                    };
                    send.send(page).unwrap();
                }
            });
            scope.spawn(move || {
                run_on(1);
                for page in receive {
                    raw!(pages.free_pages(page, Order::ZERO)).unwrap();
                }
            });
        });
        run_on(0);
        pages.drain_all();
        assert_eq!(pages.free_page_count(), 4096);
        let traffic = pages.traffic(ZoneType::Dma).unwrap();
        assert_eq!((traffic.allocated, traffic.freed), (rounds, rounds));
    });
}

// Behaviours 107, 501.
#[test]
fn a_batch_gets_what_there_is() {
    Spec::of_size(MIB).without_reserve().run(|pages| {
        let held: Vec<Page> = (0..256 - 60).map(|_| pages.alloc_pages(Gfp::MEMALLOC, Order::ZERO).unwrap()).collect();
        let mut batch = PageBatch::<100>::new();
        assert_eq!(pages.alloc_pages_bulk(Gfp::MEMALLOC | Gfp::NOWARN, &mut batch), Ok(60));
        assert_eq!(batch.pages().len(), 60);
        let mut empty = PageBatch::<4>::new();
        assert!(pages.alloc_pages_bulk(Gfp::MEMALLOC | Gfp::NOWARN, &mut empty).is_err());
        pages.check().unwrap();
        raw!(pages.free_pages_bulk(&mut batch)).unwrap();
        assert!(batch.pages().is_empty());
        give_back(pages, held, Order::ZERO);
        pages.drain_all();
        assert_eq!(pages.free_page_count(), 256);
    });
}

#[test]
fn batches_of_any_size_come_and_go() {
    Spec::of_size(256 * MIB).run(|pages| {
        for wanted in 1..=200 {
            let mut batch = PageBatch::<200>::new();
            while batch.pages().len() < wanted {
                let mut part = PageBatch::<7>::new();
                pages.alloc_pages_bulk(Gfp::KERNEL, &mut part).unwrap();
                while let Some(page) = part.pop() {
                    if batch.pages().len() == wanted || !batch.push(page) {
                        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
                    }
                }
            }
            let distinct: BTreeSet<Page> = batch.pages().iter().copied().collect();
            assert_eq!(distinct.len(), wanted);
            raw!(pages.free_pages_bulk(&mut batch)).unwrap();
        }
        pages.drain_all();
        assert_eq!(pages.free_page_count(), 65536);
    });
}

#[test]
fn a_bad_page_in_a_batch_is_named_and_the_rest_of_it_stays() {
    Spec::of_size(256 * MIB).run(|pages| {
        let mut batch = PageBatch::<20>::new();
        pages.alloc_pages_bulk(Gfp::KERNEL, &mut batch).unwrap();
        let twice = batch.pages()[9];
        raw!(pages.free_pages(twice, Order::ZERO)).unwrap();
        assert!(raw!(pages.free_pages_bulk(&mut batch)).is_err());
        assert_eq!(batch.pages().last(), Some(&twice));
        batch.pop();
        raw!(pages.free_pages_bulk(&mut batch)).unwrap();
        pages.drain_all();
        assert_eq!(pages.free_page_count(), 65536);
    });
}

// What must see every allocation sees every allocation, and nothing else pays for it.
#[test]
fn while_careful_every_call_goes_the_long_way() {
    Spec::of_size(256 * MIB).run(|pages| {
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        pages.set_careful(true);
        assert_eq!(pages.pages_on_lists(CpuId::BOOT), 0);
        let free = pages.free_page_count();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        assert_eq!(pages.free_page_count(), free + 1);
        pages.hal().watcher.refuse.store(true, Ordering::Relaxed);
        assert!(pages.alloc_pages(Gfp::KERNEL, Order::ZERO).is_err());
        assert!(pages.alloc_pages(Gfp::KERNEL, order(3)).is_err());
        assert_eq!(pages.hal().watcher.failures.load(Ordering::Relaxed), 2);
        pages.hal().watcher.refuse.store(false, Ordering::Relaxed);
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        assert_eq!(pages.pages_on_lists(CpuId::BOOT), 0);
        pages.set_careful(false);
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        assert_ne!(pages.pages_on_lists(CpuId::BOOT), 0);
    });
}
