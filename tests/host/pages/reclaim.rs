//! Memory that is short: shrinkers, the background reclaimer, waiting, the OOM hook.

use super::machine::{MIB, Reclaiming, in_interrupt, run_on};
use super::{Spec, order};
use quarry::addr::Order;
use quarry::gfp::{Gfp, ZoneType};
use quarry::hal::wait::{Context, Scope};
use quarry::mm::page::Page;
use quarry::mm::zone::{AllocError, Balanced, Mark, OomHook, OomReport, Purge, Relief, Scanned, Shrinker};
use quarry::sync;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub(super) fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A cache of pages that gives them back when it is asked.
pub(super) struct Cache {
    machine: Reclaiming,
    pub(super) pages: Mutex<Vec<Page>>,
    /// The flags that it was asked with.
    pub(super) asked: Mutex<Vec<Gfp>>,
    scans: AtomicU64,
}

impl Cache {
    pub(super) fn new(machine: Reclaiming) -> &'static Self {
        leak(Self { machine, pages: Mutex::default(), asked: Mutex::default(), scans: AtomicU64::new(0) })
    }

    /// As many pages as can be had without reclaim.
    pub(super) fn fill(&self) {
        let mut pages = self.pages.lock().unwrap();
        pages.extend(std::iter::from_fn(|| {
            self.machine.pages.alloc_pages(Gfp::NOWAIT | Gfp::RECLAIMABLE, Order::ZERO).ok()
        }));
    }

    pub(super) fn len(&self) -> usize {
        self.pages.lock().unwrap().len()
    }

    pub(super) fn empty(&self) {
        let pages = std::mem::take(&mut *self.pages.lock().unwrap());
        super::give_back(self.machine.pages, pages, Order::ZERO);
    }
}

impl Shrinker for Cache {
    fn name(&self) -> &str {
        "page-cache"
    }

    fn count_objects(&self, gfp: Gfp) -> u64 {
        self.machine.pages.hal().assert_reclaiming();
        self.asked.lock().unwrap().push(gfp);
        self.len() as u64
    }

    fn scan_objects(&self, _: Gfp, count: u64) -> Scanned {
        self.machine.pages.hal().assert_reclaiming();
        self.scans.fetch_add(1, Ordering::Relaxed);
        let mut freed = 0;
        while freed < count {
            let Some(page) = self.pages.lock().unwrap().pop() else { break };
            raw!(self.machine.pages.free_pages(page, Order::ZERO)).unwrap();
            freed += 1;
        }
        Scanned::Freed(freed)
    }
}

/// A hook that notes its reports and frees what it was told to.
pub(super) struct Hook {
    machine: Reclaiming,
    reports: Mutex<Vec<String>>,
    stuck: AtomicU32,
    pub(super) victim: Mutex<Vec<Page>>,
    /// Says that it freed something in any case.
    lies: AtomicBool,
}

impl Hook {
    pub(super) fn register(machine: Reclaiming) -> &'static Self {
        let hook = leak(Self {
            machine,
            reports: Mutex::default(),
            stuck: AtomicU32::new(0),
            victim: Mutex::default(),
            lies: AtomicBool::new(false),
        });
        let _ = machine.reclaim.oom_hooks().register(machine.pages.hal(), hook).unwrap();
        hook
    }

    pub(super) fn calls(&self) -> usize {
        self.reports.lock().unwrap().len()
    }
}

impl OomHook for Hook {
    fn out_of_memory(&self, report: &OomReport<'_>) -> Relief {
        self.machine.pages.hal().assert_reclaiming();
        self.reports.lock().unwrap().push(report.to_string());
        self.stuck.fetch_add(u32::from(report.stuck), Ordering::Relaxed);
        let victim = std::mem::take(&mut *self.victim.lock().unwrap());
        if victim.is_empty() && !self.lies.load(Ordering::Relaxed) {
            return Relief::GiveUp;
        }
        super::give_back(self.machine.pages, victim, Order::ZERO);
        Relief::Retry
    }
}

/// All that can be had without reclaim, down to the mark that ordinary requests may reach.
pub(super) fn exhaust(machine: Reclaiming) -> Vec<Page> {
    let mut taken = Vec::new();
    loop {
        let before = taken.len();
        taken.extend(std::iter::from_fn(|| machine.pages.alloc_pages(Gfp::NOWAIT, Order::ZERO).ok()));
        if taken.len() == before {
            return taken;
        }
        // Marks that were raised on the way fall back.
        let _ = machine.reclaim.balance(machine.pages);
    }
}

/// All that can be had at all: of the reserves, too, as far as the deepest reach goes that a request may name.
pub(super) fn exhaust_reserves(machine: Reclaiming) -> Vec<Page> {
    let mut taken = exhaust(machine);
    taken.extend(std::iter::from_fn(|| alloc(machine, Gfp::ATOMIC, 0).ok()));
    taken
}

pub(super) fn machine() -> Reclaiming {
    Spec::of_size(16 * MIB).with_reclaimer()
}

pub(super) fn alloc(machine: Reclaiming, gfp: Gfp, o: u8) -> Result<Page, AllocError> {
    machine.pages.alloc_pages(gfp | Gfp::NOWARN, order(o))
}

pub(super) fn finish(machine: Reclaiming, taken: Vec<Page>) {
    super::give_back(machine.pages, taken, Order::ZERO);
    machine.pages.drain_all();
    machine.pages.check().unwrap();
    assert_eq!(machine.pages.free_page_count(), machine.pages.total_pages(), "a page is lost");
}

#[test]
fn allocations_are_served_from_a_cache_that_shrinks() {
    let machine = machine();
    let cache = Cache::new(machine);
    let place = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    cache.fill();
    let all = cache.len();
    let taken: Vec<_> = (0..all / 2).map(|_| alloc(machine, Gfp::KERNEL, 0).unwrap()).collect();
    assert!(cache.len() <= all - taken.len());
    assert!(machine.reclaim.events().direct > 0);
    machine.reclaim.shrinkers().unregister(machine.pages.hal(), place).unwrap();
    cache.empty();
    finish(machine, taken);
}

#[test]
fn a_large_block_is_reclaimed_too() {
    let machine = machine();
    let cache = Cache::new(machine);
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    for o in 1..=3 {
        cache.fill();
        let block = alloc(machine, Gfp::KERNEL, o).unwrap();
        raw!(machine.pages.free_pages(block, order(o))).unwrap();
    }
    cache.empty();
    finish(machine, Vec::new());
}

// Behaviour 125: woken once, reclaims up to high, goes back to rest, and is woken again.
#[test]
fn the_background_reclaimer_works_up_to_high_once_for_each_time_memory_is_low() {
    let machine = machine();
    let cache = Cache::new(machine);
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    let wakes = || machine.pages.hal().watcher.wakes.load(Ordering::Relaxed);
    for round in 1..=3 {
        assert_eq!(machine.reclaim.balance(machine.pages), Balanced::Idle);
        cache.fill();
        assert_eq!(wakes(), round, "once, however many allocations find memory low");
        assert!(machine.reclaim.is_background_wanted());
        assert!(!machine.pages.watermark_ok(ZoneType::Dma, Order::ZERO, Mark::Low));
        assert_eq!(machine.reclaim.balance(machine.pages), Balanced::Yes);
        assert!(machine.pages.watermark_ok(ZoneType::Dma, Order::ZERO, Mark::High));
        assert!(cache.len() > 2048, "no more than that");
    }
    // Woken for a block: there is one, but memory is no better than low.
    cache.fill();
    machine.reclaim.wake_background(machine.pages.hal(), ZoneType::Dma, order(3));
    assert_eq!(machine.reclaim.balance(machine.pages), Balanced::Yes);
    assert!(machine.pages.watermark_ok(ZoneType::Dma, Order::ZERO, Mark::High));
    assert_eq!(machine.reclaim.events().direct, 0, "no allocation had to wait for it");
    cache.empty();
    finish(machine, Vec::new());
}

#[test]
fn the_background_reclaimer_works_only_where_sleeping_is_allowed() {
    let machine = machine();
    machine.reclaim.wake_background(machine.pages.hal(), ZoneType::Dma, Order::ZERO);
    assert_eq!(in_interrupt(|| machine.reclaim.balance(machine.pages)), Balanced::Idle);
    assert_eq!(machine.pages.hal().watcher.atomic_calls.load(Ordering::Relaxed), 1, "reported");
    assert!(machine.reclaim.is_background_wanted(), "it is still due");
    assert_ne!(machine.reclaim.balance(machine.pages), Balanced::Idle);
}

#[test]
fn a_background_reclaimer_that_finds_nothing_rests() {
    let machine = machine();
    let taken = exhaust(machine);
    assert_eq!(machine.reclaim.balance(machine.pages), Balanced::No, "the last try has woken it");
    assert_eq!(machine.reclaim.balance(machine.pages), Balanced::Idle);
    assert_eq!(alloc(machine, Gfp::NOWAIT, 0), Err(AllocError::OutOfMemory));
    assert!(machine.reclaim.is_background_wanted(), "the next shortage wakes it again");
    finish(machine, taken);
}

/// Allocates in each of its calls.
struct Recursive {
    machine: Reclaiming,
    served: Mutex<Vec<Page>>,
    depth: AtomicU32,
    deepest: AtomicU32,
}

impl Shrinker for Recursive {
    fn name(&self) -> &str {
        "recursive"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        4
    }

    fn scan_objects(&self, _: Gfp, _: u64) -> Scanned {
        let depth = self.depth.fetch_add(1, Ordering::Relaxed) + 1;
        self.deepest.fetch_max(depth, Ordering::Relaxed);
        for gfp in [Gfp::KERNEL, Gfp::NOWAIT, Gfp::KERNEL | Gfp::NOMEMALLOC] {
            if let Ok(page) = self.machine.pages.alloc_pages(gfp | Gfp::NOWARN, Order::ZERO) {
                assert!(!gfp.contains(Gfp::NOMEMALLOC), "the reserve is not for this one");
                self.served.lock().unwrap().push(page);
            }
        }
        self.depth.fetch_sub(1, Ordering::Relaxed);
        Scanned::Freed(1)
    }
}

// Behaviour 137.
#[test]
fn a_shrinker_that_allocates_uses_the_reserve_and_reclaims_nothing_itself() {
    let machine = machine();
    let shrinker =
        leak(Recursive { machine, served: Mutex::default(), depth: AtomicU32::new(0), deepest: AtomicU32::new(0) });
    let taken = exhaust(machine);
    let place = machine.reclaim.shrinkers().register(machine.pages.hal(), shrinker).unwrap();
    assert_eq!(alloc(machine, Gfp::KERNEL, 0), Err(AllocError::OutOfMemory), "nothing was freed, whatever it says");
    assert_eq!(shrinker.deepest.load(Ordering::Relaxed), 1, "no recursion");
    let served = std::mem::take(&mut *shrinker.served.lock().unwrap());
    assert!(!served.is_empty());
    assert!(!machine.pages.hal().scopes_are_open(), "the scope is over");
    machine.reclaim.shrinkers().unregister(machine.pages.hal(), place).unwrap();
    super::give_back(machine.pages, served, Order::ZERO);
    finish(machine, taken);
}

#[test]
fn a_background_reclaimer_that_nobody_woke_rests() {
    let machine = machine();
    assert!(!machine.reclaim.is_background_wanted());
    assert_eq!(machine.reclaim.balance(machine.pages), Balanced::Idle);
    assert_eq!(machine.reclaim.serve(machine.pages), Balanced::Idle);
}

/// Gives a page back each time it is asked, and takes one again at once.
struct Thief {
    machine: Reclaiming,
    page: Mutex<Page>,
}

impl Shrinker for Thief {
    fn name(&self) -> &str {
        "thief"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        64
    }

    fn scan_objects(&self, _: Gfp, _: u64) -> Scanned {
        let mut page = self.page.lock().unwrap();
        raw!(self.machine.pages.free_pages(*page, Order::ZERO)).unwrap();
        *page = self.machine.pages.alloc_pages(Gfp::NOWAIT | Gfp::NOWARN, Order::ZERO).unwrap();
        Scanned::Freed(1)
    }
}

// Pages come free all the time, and somebody else is always quicker.
#[test]
fn an_allocation_that_others_rob_gives_up_in_the_end() {
    let machine = machine();
    let mut taken = exhaust(machine);
    let thief = leak(Thief { machine, page: Mutex::new(taken.pop().unwrap()) });
    let place = machine.reclaim.shrinkers().register(machine.pages.hal(), thief).unwrap();
    assert_eq!(alloc(machine, Gfp::KERNEL, 0), Err(AllocError::OutOfMemory));
    machine.reclaim.shrinkers().unregister(machine.pages.hal(), place).unwrap();
    taken.push(*thief.page.lock().unwrap());
    finish(machine, taken);
}

struct Lazy {
    machine: Reclaiming,
    pages: Mutex<Vec<Page>>,
}

impl Purge for Lazy {
    fn name(&self) -> &str {
        "lazy areas"
    }

    fn lazy_pages(&self) -> u64 {
        self.machine.pages.hal().assert_reclaiming();
        self.pages.lock().unwrap().len() as u64
    }

    fn purge(&self, _: Gfp) {
        self.machine.pages.hal().assert_reclaiming();
        let pages = std::mem::take(&mut *self.pages.lock().unwrap());
        super::give_back(self.machine.pages, pages, Order::ZERO);
    }
}

#[test]
fn lazy_areas_are_purged_when_shrinkers_have_nothing() {
    let machine = machine();
    let hook = Hook::register(machine);
    let lazy = leak(Lazy { machine, pages: Mutex::default() });
    let _ = machine.reclaim.purges().register(machine.pages.hal(), lazy).unwrap();
    let mut taken = exhaust(machine);
    lazy.pages.lock().unwrap().extend(taken.split_off(taken.len() - 100));
    taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
    assert!(lazy.pages.lock().unwrap().is_empty());
    assert_eq!(hook.calls(), 0);
    finish(machine, taken);
}

// A failed allocation is reported where it was made: with locks held, in handlers.
#[test]
fn a_report_names_who_holds_memory_and_asks_nobody() {
    let machine = machine();
    let cache = Cache::new(machine);
    let lazy = leak(Lazy { machine, pages: Mutex::default() });
    let places = (
        machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap(),
        machine.reclaim.purges().register(machine.pages.hal(), lazy).unwrap(),
    );
    let report = || {
        let masked = in_interrupt(|| machine.reclaim.report(machine.pages).to_string());
        assert_eq!(machine.reclaim.report(machine.pages).to_string(), masked);
        masked
    };
    let line = |report: &str, name: &str| report.lines().find(|line| line.contains(name)).unwrap().to_owned();
    let before = report();
    for name in ["page-cache", "lazy areas"] {
        assert!(line(&before, name).ends_with("not asked yet"), "{before}");
    }
    cache.fill();
    let held = cache.len();
    let taken = alloc(machine, Gfp::KERNEL, 0).unwrap();
    let after = report();
    assert!(line(&after, "page-cache").ends_with(&format!(" {held} objects when asked last")), "{after}");
    let count = machine.reclaim.events().objects;
    assert_eq!(held - cache.len(), usize::try_from(count).unwrap());
    // Who comes next to the place has not been asked.
    machine.reclaim.shrinkers().unregister(machine.pages.hal(), places.0).unwrap();
    machine.reclaim.purges().unregister(machine.pages.hal(), places.1).unwrap();
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    assert!(line(&report(), "page-cache").ends_with("not asked yet"));
    cache.empty();
    finish(machine, vec![taken]);
}

#[test]
fn the_oom_hook_is_the_last_and_says_all() {
    let machine = machine();
    let cache = Cache::new(machine);
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    let hook = Hook::register(machine);
    let mut taken = exhaust(machine);
    cache.pages.lock().unwrap().extend(taken.split_off(taken.len() - 10));
    for _ in 0..10 {
        taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
    }
    assert_eq!(hook.calls(), 0, "as long as there is something to reclaim");
    assert_eq!(alloc(machine, Gfp::KERNEL, 0), Err(AllocError::OutOfMemory));
    assert_eq!(hook.calls(), 1);
    let report = hook.reports.lock().unwrap().pop().unwrap();
    for part in [
        "out of memory: order:0",
        "DIRECT_RECLAIM",
        "Mem-Info:",
        "DMA free:",
        " min:",
        "*4kB",
        "page-cache",
        " 0 objects when asked last",
    ] {
        assert!(report.contains(part), "no {part:?} in:\n{report}");
    }
    // What it frees serves the allocation.
    hook.victim.lock().unwrap().extend(taken.split_off(taken.len() - 64));
    taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
    // A hook that claims and does not deliver is not believed for ever.
    taken.extend(exhaust(machine));
    hook.lies.store(true, Ordering::Relaxed);
    assert_eq!(alloc(machine, Gfp::KERNEL, 0), Err(AllocError::OutOfMemory));
    assert!(hook.calls() < 64);
    finish(machine, taken);
}

// Behaviour 131: on several CPUs at once, until another one frees.
#[test]
fn nofail_waits_until_another_cpu_frees() {
    let machine = Spec::of_size(16 * MIB).cpus(3).with_reclaimer();
    let hal = machine.pages.hal();
    hal.others.store(true, Ordering::SeqCst);
    for round in 0..20 {
        let mut taken = exhaust_reserves(machine);
        let got = Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            for cpu in [1, 2] {
                hal.set_online(cpu, true);
                let (got, o) = (&got, round % 2);
                threads.spawn(move || {
                    run_on(cpu);
                    let page = alloc(machine, Gfp::KERNEL | Gfp::NOFAIL, o).unwrap();
                    got.lock().unwrap().push((page, o));
                    machine.pages.drain_local();
                    hal.set_online(cpu, false);
                });
            }
            // Both get down to waiting, on top of which pages come back one by one.
            while got.lock().unwrap().len() < 2 {
                machine.pages.answer_requests();
                if machine.reclaim.events().waits >= 2 * (u64::from(round) + 1)
                    && let Some(page) = taken.pop()
                {
                    raw!(machine.pages.free_pages(page, Order::ZERO)).unwrap();
                }
                std::thread::yield_now();
            }
            while (1..3).any(|cpu| quarry::hal::cpu::PerCpu::is_online(hal, quarry::addr::CpuId::new(cpu))) {
                machine.pages.answer_requests();
                std::thread::yield_now();
            }
        });
        for (page, o) in got.into_inner().unwrap() {
            raw!(machine.pages.free_pages(page, order(o))).unwrap();
        }
        finish(machine, taken);
    }
}

// Linux lets such a request into the reserves at the end of its slow path, before it begins anew.
#[test]
fn nofail_takes_from_the_reserves_before_it_sleeps() {
    let machine = machine();
    machine.pages.hal().others.store(true, Ordering::SeqCst);
    let mut taken = exhaust(machine);
    let (sleeps, free) = (&machine.pages.hal().watcher.waits, machine.pages.free_page_count());
    let before = sleeps.load(Ordering::SeqCst);
    // Half of `min` is for it.
    for _ in 0..free / 2 - 1 {
        taken.push(alloc(machine, Gfp::KERNEL | Gfp::NOFAIL, 0).unwrap());
    }
    assert_eq!(sleeps.load(Ordering::SeqCst), before);
    finish(machine, taken);
}

#[test]
fn nofail_with_nobody_left_asks_the_hook_and_then_fails() {
    let machine = machine();
    let hook = Hook::register(machine);
    let mut taken = exhaust(machine);
    hook.victim.lock().unwrap().extend(taken.split_off(taken.len() - 64));
    taken.push(alloc(machine, Gfp::KERNEL | Gfp::NOFAIL, 0).unwrap());
    // Below `min` as far as who must not fail may go, and then no further.
    while let Ok(page) = alloc(machine, Gfp::KERNEL | Gfp::NOFAIL, 0) {
        taken.push(page);
    }
    assert!(hook.stuck.load(Ordering::Relaxed) > 0);
    finish(machine, taken);
}

// Waiting is asserted on every call, also when memory is plenty, and whatever forbids it.
#[test]
fn a_sleeping_allocation_is_reported_once_for_each_call_in_every_atomic_context() {
    let machine = machine();
    let hal = machine.pages.hal();
    let seen = || hal.watcher.atomic_sleeps.load(Ordering::Relaxed);
    let mut taken = Vec::new();
    let mut expect = 0;
    for gfp in [Gfp::KERNEL, Gfp::NOFS, Gfp::NOIO, Gfp::KERNEL | Gfp::NORETRY, Gfp::KERNEL | Gfp::ZERO] {
        taken.push(in_interrupt(|| alloc(machine, gfp, 0)).unwrap());
        expect += 1;
        assert_eq!(seen(), expect, "{gfp} with interrupts masked");
        for scope in [Scope::Lock, Scope::Interrupt, Scope::Reclaim] {
            let guard = sync::enter(hal, scope);
            taken.push(alloc(machine, gfp, 0).unwrap());
            expect += 1;
            assert_eq!(seen(), expect, "{gfp} in {scope:?}");
            taken.push(alloc(machine, Gfp::ATOMIC, 0).unwrap());
            taken.push(alloc(machine, Gfp::NOWAIT, 0).unwrap());
            assert_eq!(seen(), expect);
            let inner = sync::enter(hal, scope);
            drop(inner);
            taken.push(alloc(machine, gfp, 0).unwrap());
            expect += 1;
            drop(guard);
            taken.push(alloc(machine, gfp, 0).unwrap());
            assert_eq!(seen(), expect, "{scope:?} is over");
        }
    }
    finish(machine, taken);
}

#[test]
fn a_lock_of_ours_forbids_waiting_while_it_is_held() {
    let machine = machine();
    let lock = sync::Lock::<_, _, super::machine::Yield>::new(Here(machine), 7);
    let seen = || machine.pages.hal().watcher.atomic_sleeps.load(Ordering::Relaxed);
    let mut guard = lock.lock();
    *guard += 1;
    let page = alloc(machine, Gfp::KERNEL, 0).unwrap();
    assert_eq!((seen(), *guard), (1, 8));
    drop(guard);
    let other = alloc(machine, Gfp::KERNEL, 0).unwrap();
    assert_eq!(seen(), 1);
    finish(machine, vec![page, other]);
}

/// The running CPU of a machine, for locks.
struct Here(Reclaiming);

impl Context for Here {
    fn enter(&self, scope: Scope) {
        self.0.pages.hal().enter(scope);
    }

    fn leave(&self, scope: Scope) {
        self.0.pages.hal().leave(scope);
    }

    fn is_inside(&self, scope: Scope) -> bool {
        self.0.pages.hal().is_inside(scope)
    }

    fn atomic(&self) -> Option<quarry::hal::wait::Atomic> {
        self.0.pages.hal().atomic()
    }
}

// From interrupts: whatever an interrupt frees or takes while a CPU reclaims.
#[test]
fn interrupts_allocate_and_free_while_memory_is_reclaimed() {
    let machine = machine();
    let cache = Cache::new(machine);
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    cache.fill();
    let mut taken = Vec::new();
    for round in 0..500 {
        taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
        in_interrupt(|| {
            let page = alloc(machine, Gfp::ATOMIC, 0).unwrap();
            if round % 3 == 0 {
                taken.push(page);
            } else {
                raw!(machine.pages.free_pages(page, Order::ZERO)).unwrap();
            }
        });
    }
    assert_eq!(machine.pages.hal().watcher.atomic_sleeps.load(Ordering::Relaxed), 0);
    cache.empty();
    finish(machine, taken);
}
