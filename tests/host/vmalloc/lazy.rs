//! The lazy list: bounded, flushed once for many, and pages freed only behind the flush.

use super::machine::{Machine, memory, run_on};
use super::{GIB, MIB, Space, all_free, alloc, free, of_pages, pages_at, space};
use quarry::addr::PAGE_SIZE;
use quarry::mm::vmalloc::Tuning;
use std::sync::atomic::Ordering;

#[test]
fn one_flush_serves_many_areas() {
    let mut nodes = memory(5_000);
    let space = space(Machine::new(1, &mut nodes), 1 << 16);
    assert_eq!(space.lazy_max_pages(), 2 * MIB / PAGE_SIZE);
    let rounds = if cfg!(miri) { 600 } else { 50_000 };
    for _ in 0..rounds {
        let area = alloc(&space, &of_pages(1)).unwrap();
        free(&space, area.start());
        assert!(space.lazy_pages() <= space.lazy_max_pages());
    }
    let flushes = space.hal().flushes.load(Ordering::Relaxed);
    assert_eq!(flushes, rounds / space.lazy_max_pages());
    all_free(&space);
    assert_eq!(space.hal().released.load(Ordering::Relaxed), rounds);
}

#[test]
fn the_bound_grows_with_the_cpus_and_ends_at_a_64th_of_memory() {
    for (cpus, ram, pages) in [
        (1, 64 * GIB, 512),
        (2, 64 * GIB, 2 * 512),
        (8, 64 * GIB, 8 * 512),
        (16, 64 * GIB, 16 * 512),
        (8, GIB, 4096),
        (1, 32 * MIB, 128),
    ] {
        let mut nodes = memory(4);
        let space = Space::new(Machine::new(cpus, &mut nodes));
        space.set_up(&Tuning { region: pages_at(0, 1 << 20), ram_pages: ram / PAGE_SIZE }).unwrap();
        assert_eq!(space.lazy_max_pages(), pages, "{cpus} CPUs, {ram:#x} bytes");
    }
}

#[test]
fn a_handler_lets_areas_wait() {
    let mut nodes = memory(20_000);
    let space = space(Machine::new(1, &mut nodes), 1 << 16);
    let areas = if cfg!(miri) { 20 } else { 1_000 };
    let starts: Vec<_> = (0..areas).map(|_| alloc(&space, &of_pages(1)).unwrap().start()).collect();
    space.hal().in_handler.store(true, Ordering::Relaxed);
    for start in starts {
        free(&space, start);
    }
    assert_eq!(space.hal().flushes.load(Ordering::Relaxed), 0);
    assert_eq!(space.lazy_pages(), areas);
    space.hal().in_handler.store(false, Ordering::Relaxed);
    all_free(&space);
    assert_eq!(space.hal().flushes.load(Ordering::Relaxed), 1);
}

#[test]
fn too_many_waiting_areas_are_purged_in_a_handler_too() {
    let mut nodes = memory(20_000);
    let space = space(Machine::new(1, &mut nodes), 1 << 16);
    space.hal().in_handler.store(true, Ordering::Relaxed);
    for _ in 0..if cfg!(miri) { 1_100 } else { 20_000 } {
        let area = alloc(&space, &of_pages(1)).unwrap();
        free(&space, area.start());
        assert!(space.lazy_pages() <= 2 * space.lazy_max_pages());
    }
    assert!(space.hal().flushes.load(Ordering::Relaxed) > 0);
    space.hal().in_handler.store(false, Ordering::Relaxed);
    all_free(&space);
}

#[test]
fn a_forgotten_flush_is_noticed() {
    let mut nodes = memory(64);
    let space = space(Machine::new(1, &mut nodes), 1 << 10);
    space.hal().forget_flush.store(true, Ordering::Relaxed);
    let area = alloc(&space, &of_pages(1)).unwrap();
    free(&space, area.start());
    assert_eq!(space.hal().too_early.load(Ordering::Relaxed), 0);
    space.purge_all();
    assert_eq!(space.hal().too_early.load(Ordering::Relaxed), 1);
}

#[test]
fn pools_keep_what_is_used_and_give_back_what_is_not() {
    let mut nodes = memory(5_000);
    let space = space(Machine::new(2, &mut nodes), 1 << 16);
    run_on(1);
    let burst = if cfg!(miri) { 1_100 } else { 3_000 };
    let starts: Vec<_> = (0..burst).map(|_| alloc(&space, &of_pages(3)).unwrap().start()).collect();
    for start in starts {
        free(&space, start);
    }
    space.check().unwrap();
    // From now on another size: the pooled areas are not needed, and the purges give them back.
    for _ in 0..8 * burst {
        let area = alloc(&space, &of_pages(7)).unwrap();
        free(&space, area.start());
    }
    space.check().unwrap();
    run_on(0);
    all_free(&space);
}
