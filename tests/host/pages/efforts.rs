//! How hard each request tries: once, until sixteen attempts in a row freed nothing, with the hook or without; and what a
//! shrinker is asked for.

use super::machine::{MIB, Reclaiming, run_on};
use super::reclaim::{Hook, alloc, exhaust, exhaust_reserves, finish, leak, machine};
use super::{Spec, order};
use quarry::addr::{CpuId, Order};
use quarry::gfp::{Gfp, ZoneType};
use quarry::mm::page::Page;
use quarry::mm::zone::{AllocError, Balanced, Purge, Scanned, Shrinker};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Holds something that it does not give.
struct Miser;

impl Shrinker for Miser {
    fn name(&self) -> &str {
        "miser"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        4
    }

    fn scan_objects(&self, _: Gfp, _: u64) -> Scanned {
        Scanned::Freed(0)
    }
}

impl Purge for Miser {
    fn name(&self) -> &str {
        "miser"
    }

    fn lazy_pages(&self) -> u64 {
        4
    }

    fn purge(&self, _: Gfp) {}
}

/// How often a request that fails asks for relief, and how often the hook is called for it.
fn efforts(machine: Reclaiming, hook: &Hook, gfp: Gfp, o: u8) -> (u64, usize) {
    let reliefs = || machine.pages.hal().watcher.reliefs.load(Ordering::Relaxed);
    let before = (reliefs(), hook.calls());
    assert_eq!(alloc(machine, gfp, o), Err(AllocError::OutOfMemory), "{gfp}, order {o}");
    (reliefs() - before.0, hook.calls() - before.1)
}

// docs/reclaim.md, "How hard it tries".
#[test]
fn each_request_tries_as_often_as_the_table_says() {
    let machine = machine();
    let (hal, hook) = (machine.pages.hal(), Hook::register(machine));
    let taken = exhaust_reserves(machine);
    let place = machine.reclaim.shrinkers().register(hal, &Miser).unwrap();
    // Marks that were raised would be one attempt more.
    let _ = machine.pages.settle_boost();
    let table = [
        (Gfp::KERNEL, 0, (17, 1)),
        (Gfp::KERNEL, 3, (17, 1)),
        // More than eight pages: once.
        (Gfp::KERNEL, 4, (2, 0)),
        (Gfp::KERNEL | Gfp::NORETRY, 0, (2, 0)),
        (Gfp::KERNEL | Gfp::RETRY_MAYFAIL, 0, (17, 0)),
        (Gfp::KERNEL | Gfp::RETRY_MAYFAIL, 4, (17, 0)),
        (Gfp::NOFS, 0, (17, 0)),
        (Gfp::NOIO, 0, (17, 0)),
        (Gfp::KERNEL | Gfp::DMA, 0, (17, 0)),
        (Gfp::KERNEL | Gfp::DMA32, 0, (17, 0)),
    ];
    for (gfp, o, expected) in table {
        assert_eq!(efforts(machine, hook, gfp, o), expected, "{gfp}, order {o}");
    }
    machine.reclaim.shrinkers().unregister(hal, place).unwrap();
    // Nobody holds anything: there is no second attempt.
    assert_eq!(efforts(machine, hook, Gfp::KERNEL, 0), (1, 1));
    assert_eq!(efforts(machine, hook, Gfp::KERNEL, 4), (1, 0));
    let place = machine.reclaim.purges().register(hal, &Miser).unwrap();
    assert_eq!(efforts(machine, hook, Gfp::KERNEL, 0), (17, 1), "lazy pages are something");
    machine.reclaim.purges().unregister(hal, place).unwrap();
    finish(machine, taken);
}

/// Gives pages back by another CPU, in one attempt: no progress of who asks, but memory all the same.
struct Elsewhere {
    machine: Reclaiming,
    attempt: u64,
    pages: Mutex<Vec<Page>>,
}

impl Shrinker for Elsewhere {
    fn name(&self) -> &str {
        "elsewhere"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        4
    }

    fn scan_objects(&self, _: Gfp, _: u64) -> Scanned {
        if self.machine.reclaim.events().direct == self.attempt {
            run_on(1);
            super::give_back(self.machine.pages, self.pages.lock().unwrap().drain(..), Order::ZERO);
            self.machine.pages.drain_local();
            run_on(0);
        }
        Scanned::Freed(0)
    }
}

#[test]
fn the_hook_is_not_called_when_another_cpu_has_just_freed_enough() {
    let machine = Spec::of_size(16 * MIB).cpus(2).with_reclaimer();
    let hook = Hook::register(machine);
    let mut taken = exhaust(machine);
    let freed = Mutex::new(taken.split_off(taken.len() - 1000));
    let elsewhere = leak(Elsewhere { machine, attempt: 17, pages: freed });
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), elsewhere).unwrap();
    taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
    assert_eq!((machine.reclaim.events().direct, hook.calls()), (17, 0));
    finish(machine, taken);
}

/// A cache whose objects cost something to make again.
struct Costly {
    machine: Reclaiming,
    pages: Mutex<Vec<Page>>,
    seeks: u32,
    asked: AtomicU64,
}

impl Shrinker for Costly {
    fn name(&self) -> &str {
        "costly"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        self.pages.lock().unwrap().len() as u64
    }

    fn scan_objects(&self, _: Gfp, count: u64) -> Scanned {
        self.asked.fetch_add(count, Ordering::Relaxed);
        let mut pages = self.pages.lock().unwrap();
        let left = pages.len().saturating_sub(usize::try_from(count).unwrap());
        let freed = pages.split_off(left);
        let count = freed.len() as u64;
        super::give_back(self.machine.pages, freed, Order::ZERO);
        Scanned::Freed(count)
    }

    fn seeks(&self) -> u32 {
        self.seeks
    }
}

fn costly(machine: Reclaiming, taken: &mut Vec<Page>, count: usize, seeks: u32) -> &'static Costly {
    let pages = Mutex::new(taken.split_off(taken.len() - count));
    let cache = leak(Costly { machine, pages, seeks, asked: AtomicU64::new(0) });
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    cache
}

#[test]
fn of_objects_that_cost_nothing_half_are_asked_for_at_once() {
    let machine = machine();
    let mut taken = exhaust(machine);
    let cache = costly(machine, &mut taken, 1000, 0);
    taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
    // In whole batches of 128.
    assert_eq!(cache.asked.load(Ordering::Relaxed), 384);
    taken.extend(cache.pages.lock().unwrap().drain(..));
    finish(machine, taken);
}

// A share that is less than a batch is put off, and adds up.
#[test]
fn of_objects_that_cost_much_some_are_freed_in_the_end() {
    let machine = machine();
    let mut taken = exhaust(machine);
    // A share of 40 in the hardest round.
    let cache = costly(machine, &mut taken, 1000, 100);
    taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
    assert!(cache.asked.load(Ordering::Relaxed) >= 128);
    taken.extend(cache.pages.lock().unwrap().drain(..));
    finish(machine, taken);
}

#[test]
fn the_background_reclaimer_tries_harder_until_there_is_no_harder() {
    let machine = machine();
    let mut taken = exhaust(machine);
    // Less than a batch: asked for only when it is all that there is.
    let cache = costly(machine, &mut taken, 20, 2);
    assert!(alloc(machine, Gfp::NOWAIT, 0).is_err());
    assert_eq!(machine.reclaim.balance(machine.pages), Balanced::No);
    assert!(cache.pages.lock().unwrap().is_empty());
    finish(machine, taken);
}

// The marks are far apart, and each round frees a batch or two.
#[test]
fn the_background_reclaimer_stops_at_the_high_mark_and_not_before() {
    let mut spec = Spec::of_size(16 * MIB);
    spec.tuning.scale_factor = 1000;
    let machine = spec.with_reclaimer();
    let mut taken = exhaust(machine);
    let cache = costly(machine, &mut taken, 2000, 2);
    let zone = || machine.pages.zone(ZoneType::Dma).unwrap();
    assert!(zone().marks.high > zone().marks.low + 400);
    assert!(alloc(machine, Gfp::NOWAIT, 0).is_err());
    assert_eq!(machine.reclaim.balance(machine.pages), Balanced::Yes);
    let (free, high) = (zone().free, zone().marks.high);
    assert!(high < free && free <= high + 256, "{free} pages free, {high} wanted");
    taken.extend(cache.pages.lock().unwrap().drain(..));
    finish(machine, taken);
}

// It may reach into the reserves, but reclaims first.
#[test]
fn nofail_reclaims_before_it_takes_from_the_reserves() {
    let machine = machine();
    let mut taken = exhaust(machine);
    let cache = costly(machine, &mut taken, 500, 2);
    let before = machine.reclaim.events().direct;
    taken.push(alloc(machine, Gfp::KERNEL | Gfp::NOFAIL, 0).unwrap());
    assert_eq!(machine.reclaim.events().direct, before + 1);
    assert!(cache.pages.lock().unwrap().len() < 500);
    taken.extend(cache.pages.lock().unwrap().drain(..));
    finish(machine, taken);
}

#[test]
fn frees_take_the_short_way_again_when_nobody_waits_any_more() {
    let machine = machine();
    let taken = exhaust_reserves(machine);
    let mut more = Vec::new();
    while let Ok(page) = alloc(machine, Gfp::KERNEL | Gfp::NOFAIL, 0) {
        more.push(page);
    }
    assert!(machine.reclaim.events().waits > 0);
    let listed = || machine.pages.pages_on_lists(CpuId::new(0));
    assert_eq!(listed(), 0);
    raw!(machine.pages.free_pages(taken[0], Order::ZERO)).unwrap();
    assert_eq!(listed(), 1);
    more.extend(&taken[1..]);
    finish(machine, more);
}

// Order 3 is the last that is worth it.
#[test]
fn what_a_hook_frees_serves_the_largest_order_that_it_is_called_for() {
    let machine = machine();
    let hook = Hook::register(machine);
    let mut taken = exhaust_reserves(machine);
    taken.sort_unstable_by_key(|page| page.index());
    let start = taken.iter().position(|page| page.is_aligned(5)).unwrap();
    hook.victim.lock().unwrap().extend(taken.drain(start..start + 512));
    let block = alloc(machine, Gfp::KERNEL, 3).unwrap();
    assert_eq!(hook.calls(), 1);
    raw!(machine.pages.free_pages(block, order(3))).unwrap();
    finish(machine, taken);
}
