//! Memory that is short, in the kernel itself: everything is taken until nothing is left, and given back.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use crate::interrupts::{wait_for, with_timer};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use quarry::addr::{Order, VirtAddr};
use quarry::arch::aarch64::cpu::Relax;
use quarry::arch::aarch64::irq;
use quarry::driver::gic::IntId;
use quarry::driver::timer;
use quarry::gfp::{Gfp, ZoneType};
use quarry::global::{self, Deferred, SpinLock};
use quarry::hal::wait::{Context, Scope};
use quarry::ktest;
use quarry::mm::page::Page;
use quarry::mm::zone::{AllocError, Mark, OomHook, OomReport, Registration, RegistryError, Relief, Scanned, Shrinker};
use quarry::sync::class::{Class, Interrupts, LockClass};
use quarry::sync::{self, OrderedLock};

/// The lock of a [`Chain`], which interrupt handlers take too.
struct ChainLock;

impl Class for ChainLock {
    const CLASS: &'static LockClass =
        &LockClass { name: "pages of a test", level: u8::MAX, interrupts: Interrupts::Masked };
}

/// Pages that this test holds, each of which keeps the next in its first bytes: no memory beside them is needed.
struct Chain {
    first: OrderedLock<Option<VirtAddr>, ChainLock, Relax>,
    length: AtomicU64,
}

impl Chain {
    const fn new() -> Self {
        Self { first: OrderedLock::new(None), length: AtomicU64::new(0) }
    }

    fn push(&self, page: Page) {
        let addr = global::page_address(page);
        let _masked = irq::local_irq_save();
        let mut first = self.first.lock();
        // SAFETY: the page is this test's, and mapped.
        unsafe { addr.as_ptr::<u64>().write(first.map_or(0, VirtAddr::get)) };
        *first = Some(addr);
        self.length.fetch_add(1, Ordering::Relaxed);
    }

    fn pop(&self) -> Option<VirtAddr> {
        let _masked = irq::local_irq_save();
        let mut first = self.first.lock();
        let addr = (*first)?;
        // SAFETY: `push` wrote it.
        let next = unsafe { addr.as_ptr::<u64>().read() };
        *first = (next != 0).then_some(VirtAddr::new(next));
        self.length.fetch_sub(1, Ordering::Relaxed);
        Some(addr)
    }

    fn len(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    /// As many pages as the flags get.
    fn fill(&self, gfp: Gfp) {
        while let Ok(page) = global::alloc_page(gfp | Gfp::NOWARN) {
            self.push(page);
        }
    }

    fn free(&self, count: u64) -> u64 {
        let mut freed = 0;
        while freed < count
            && let Some(page) = self.pop()
        {
            raw!(global::try_free_page(page)).expect("a page of this test");
            freed += 1;
        }
        freed
    }
}

/// A cache of pages that shrinks.
struct Cache(Chain);

impl Shrinker for Cache {
    fn name(&self) -> &str {
        "test-cache"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        assert!(global::context().is_inside(Scope::Reclaim), "nobody asks but reclaim");
        self.0.len()
    }

    fn scan_objects(&self, _: Gfp, count: u64) -> Scanned {
        assert!(irq::local_irqs_enabled(), "reclaim runs with interrupts unmasked");
        assert!(!global::context().is_inside(Scope::Lock), "and with no lock held");
        Scanned::Freed(self.0.free(count))
    }
}

static CACHE: Cache = Cache(Chain::new());
static HELD: Chain = Chain::new();

fn join() -> Registration {
    global::reclaim().shrinkers().register(global::context(), &CACHE).expect("a free place")
}

/// Gives everything back, and looks whether it is all there.
fn leave(place: Registration, before: u64) {
    global::reclaim().shrinkers().unregister(global::context(), place).expect("registered");
    CACHE.0.free(u64::MAX);
    HELD.free(u64::MAX);
    all_is_back(before);
}

fn all_is_back(before: u64) {
    assert_eq!(free_pages_now(), before, "pages are lost");
    global::page_allocator().check().expect("every invariant holds");
}

fn free_pages_now() -> u64 {
    // Pages kept for the next caller, and in caches, are pages in use. Areas are freed lazily.
    global::percpu_trim();
    global::dma().trim_reserves();
    global::vmap_space().purge_all();
    global::slab_allocator().shrink_all();
    global::drain_all_pages();
    global::nr_free_pages()
}

fn is_above(mark: Mark) -> bool {
    ZoneType::ALL.into_iter().any(|kind| global::page_allocator().watermark_ok(kind, Order::ZERO, mark))
}

ktest!(allocations_are_served_from_a_cache_that_shrinks);
fn allocations_are_served_from_a_cache_that_shrinks() {
    let before = free_pages_now();
    let place = join();
    CACHE.0.fill(Gfp::NOWAIT | Gfp::RECLAIMABLE);
    let cached = CACHE.0.len();
    for _ in 0..cached / 2 {
        HELD.push(global::alloc_page(Gfp::KERNEL).expect("the cache has memory"));
    }
    let block = global::alloc_pages(Gfp::KERNEL, Order::new(3).expect("an order")).expect("and larger blocks");
    raw!(global::try_free_pages(block, Order::new(3).expect("an order"))).expect("just allocated");
    assert!(CACHE.0.len() < cached);
    assert!(global::reclaim().events().direct > 0);
    leave(place, before);
}

ktest!(the_idle_cpu_keeps_free_memory_above_low);
fn the_idle_cpu_keeps_free_memory_above_low() {
    let before = free_pages_now();
    let place = join();
    let direct = global::reclaim().events().direct;
    for _ in 0..3 {
        CACHE.0.fill(Gfp::NOWAIT | Gfp::RECLAIMABLE);
        assert!(!is_above(Mark::Low));
        assert!(global::idle(), "the background reclaimer was woken");
        assert!(is_above(Mark::High), "and worked up to high");
        assert!(!global::idle(), "and rests");
        for _ in 0..16 {
            HELD.push(global::alloc_page(Gfp::KERNEL).expect("there is memory"));
        }
    }
    assert_eq!(global::reclaim().events().direct, direct, "no allocation reclaimed for itself");
    leave(place, before);
}

/// Notes that it was called.
struct Watch {
    calls: AtomicU32,
    stuck: AtomicBool,
    /// Pages that it frees in a call.
    gives: AtomicU64,
}

impl OomHook for Watch {
    fn out_of_memory(&self, report: &OomReport<'_>) -> Relief {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.stuck.fetch_or(report.stuck, Ordering::Relaxed);
        assert!(report.free < report.total / 8, "{} of {} pages are free", report.free, report.total);
        let given = HELD.free(self.gives.load(Ordering::Relaxed));
        if given == 0 { Relief::GiveUp } else { Relief::Retry }
    }
}

static WATCH: Watch = Watch { calls: AtomicU32::new(0), stuck: AtomicBool::new(false), gives: AtomicU64::new(0) };

/// Runs `body` with everything taken that ordinary requests get, and the hook in place.
fn with_nothing_left(body: impl FnOnce()) {
    let before = free_pages_now();
    let place = global::reclaim().oom_hooks().register(global::context(), &WATCH).expect("a free place");
    WATCH.calls.store(0, Ordering::Relaxed);
    WATCH.stuck.store(false, Ordering::Relaxed);
    WATCH.gives.store(0, Ordering::Relaxed);
    loop {
        let held = HELD.len();
        HELD.fill(Gfp::NOWAIT);
        if HELD.len() == held {
            break;
        }
        // Marks that were raised on the way fall back.
        global::idle();
    }
    body();
    global::reclaim().oom_hooks().unregister(global::context(), place).expect("registered");
    HELD.free(u64::MAX);
    all_is_back(before);
}

ktest!(
    exhaustion_is_an_error_and_the_hook_is_asked_first,
    report = "out of memory: order:0",
    report = "Mem-Info:",
    report = "page allocation failure: order:0, mode:",
    report = "Mem-Info:",
    report = "exhaustion_is_an_error_and_the_hook_is_asked_first",
    report = "exhaustion was an error",
);
fn exhaustion_is_an_error_and_the_hook_is_asked_first() {
    with_nothing_left(|| {
        assert_eq!(global::alloc_page(Gfp::KERNEL), Err(AllocError::OutOfMemory));
        assert_eq!(WATCH.calls.load(Ordering::Relaxed), 1);
        assert_eq!(global::alloc_page(Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN), Err(AllocError::OutOfMemory));
        assert_eq!(WATCH.calls.load(Ordering::Relaxed), 1, "not for those who have another way");
        WATCH.gives.store(64, Ordering::Relaxed);
        HELD.push(global::alloc_page(Gfp::KERNEL).expect("the hook has freed some"));
        assert_eq!(WATCH.calls.load(Ordering::Relaxed), 2);
    });
    quarry::kprintln!("exhaustion was an error");
}

ktest!(every_kind_of_allocation_fails_cleanly_when_nothing_is_left);
fn every_kind_of_allocation_fails_cleanly_when_nothing_is_left() {
    with_nothing_left(|| {
        let none = Err(AllocError::OutOfMemory);
        HELD.fill(Gfp::NOWAIT | Gfp::MEMALLOC);
        assert_eq!(global::nr_free_pages(), 0);
        for order in (0..=10).filter_map(Order::new) {
            for gfp in [Gfp::KERNEL, Gfp::ATOMIC, Gfp::NOFS, Gfp::KERNEL | Gfp::ZERO, Gfp::NOWAIT | Gfp::MEMALLOC] {
                assert_eq!(global::alloc_pages(gfp | Gfp::NOWARN, order), none);
            }
        }
        assert!(global::alloc_pages_exact(Gfp::KERNEL | Gfp::NOWARN, 5 << 12).is_err());
        assert!(global::get_zeroed_page(Gfp::KERNEL | Gfp::NOWARN).is_err());
    });
}

ktest!(nofail_with_nobody_to_wait_for_asks_the_hook_and_fails);
fn nofail_with_nobody_to_wait_for_asks_the_hook_and_fails() {
    with_nothing_left(|| {
        HELD.fill(Gfp::NOWAIT | Gfp::MEMALLOC);
        let nofail = Gfp::KERNEL | Gfp::NOFAIL | Gfp::NOWARN;
        assert_eq!(global::alloc_page(nofail), Err(AllocError::OutOfMemory));
        assert!(WATCH.stuck.load(Ordering::Relaxed), "it heard that nobody is left");
    });
}

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// Frees some pages, as the handler of a device that is done with them.
fn free_in_interrupt(_: IntId) {
    timer::stop();
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    HELD.free(2048);
}

// Behaviour 131, with an interrupt in the place of the other CPU.
ktest!(nofail_waits_until_an_interrupt_frees);
fn nofail_waits_until_an_interrupt_frees() {
    with_nothing_left(|| {
        let waits = global::reclaim().events().waits;
        HELD.fill(Gfp::NOWAIT | Gfp::MEMALLOC);
        with_timer(free_in_interrupt, || {
            INTERRUPTS.store(0, Ordering::Relaxed);
            timer::arm(timer::frequency() / 10);
            let page = global::alloc_page(Gfp::KERNEL | Gfp::NOFAIL).expect("it never fails");
            assert_eq!(INTERRUPTS.load(Ordering::Relaxed), 1, "the interrupt brought it");
            HELD.push(page);
        });
        assert!(global::reclaim().events().waits > waits);
    });
}

ktest!(
    a_sleeping_allocation_with_interrupts_masked_is_reported_with_its_caller,
    report = "sleeping allocation in atomic context (interrupts are masked): order:0, mode:",
    report = "a_sleeping_allocation_with_interrupts_masked_is_reported_with_its_caller",
    report = "it went on",
);
fn a_sleeping_allocation_with_interrupts_masked_is_reported_with_its_caller() {
    let guard = irq::local_irq_save();
    let page = global::alloc_page(Gfp::KERNEL).expect("memory is plenty");
    drop(guard);
    raw!(global::try_free_page(page)).expect("just allocated");
    quarry::kprintln!("it went on");
}

ktest!(
    a_sleeping_allocation_with_a_lock_held_is_reported,
    report = "sleeping allocation in atomic context (a lock is held): order:2, mode:",
    report = "it went on",
);
fn a_sleeping_allocation_with_a_lock_held_is_reported() {
    static LOCK: SpinLock<u32> = global::spin_lock(0);
    let order = Order::new(2).expect("an order");
    let guard = LOCK.lock();
    let page = global::alloc_pages(Gfp::NOFS, order).expect("memory is plenty");
    drop(guard);
    raw!(global::try_free_pages(page, order)).expect("just allocated");
    quarry::kprintln!("it went on");
}

fn allocate_in_interrupt(_: IntId) {
    timer::stop();
    irq::local_irq_enable();
    let page = global::alloc_page(Gfp::KERNEL).expect("memory is plenty");
    irq::local_irq_disable();
    raw!(global::try_free_page(page)).expect("just allocated");
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
}

ktest!(
    a_sleeping_allocation_in_a_handler_that_has_unmasked_interrupts_is_reported,
    report = "sleeping allocation in atomic context (in an interrupt handler): order:0, mode:",
    report = "allocate_in_interrupt",
    report = "it went on",
);
fn a_sleeping_allocation_in_a_handler_that_has_unmasked_interrupts_is_reported() {
    INTERRUPTS.store(0, Ordering::Relaxed);
    with_timer(allocate_in_interrupt, || {
        timer::arm(timer::frequency() / 1000);
        wait_for(|| INTERRUPTS.load(Ordering::Relaxed) == 1);
    });
    quarry::kprintln!("it went on");
}

ktest!(flags_that_do_not_wait_are_never_reported);
fn flags_that_do_not_wait_are_never_reported() {
    let scope = sync::enter(global::context(), Scope::Interrupt);
    let guard = irq::local_irq_save();
    for gfp in [Gfp::ATOMIC, Gfp::NOWAIT, Gfp::ATOMIC | Gfp::ZERO] {
        let page = global::alloc_page(gfp).expect("memory is plenty");
        raw!(global::try_free_page(page)).expect("just allocated");
    }
    drop(guard);
    drop(scope);
    assert_eq!(global::context().atomic(), None);
}

/// Work that was put off, which ends itself when it is done: it would have to wait for itself.
struct Ending;

static ENDING: SpinLock<Option<Registration>> = global::spin_lock(None);
static REFUSALS: AtomicU32 = AtomicU32::new(0);

impl Deferred for Ending {
    fn run(&self) -> bool {
        assert!(global::context().is_inside(Scope::Deferred));
        let Some(place) = ENDING.lock().take() else { return false };
        let refused = global::defer_no_more(place) == Err(RegistryError::AtWork);
        REFUSALS.fetch_add(u32::from(refused), Ordering::Relaxed);
        true
    }
}

ktest!(work_that_was_put_off_does_not_end_itself);
fn work_that_was_put_off_does_not_end_itself() {
    let place = global::defer_to(&Ending).expect("a free place");
    *ENDING.lock() = Some(place);
    while global::idle() {}
    assert_eq!(REFUSALS.load(Ordering::Relaxed), 1);
    global::defer_no_more(place).expect("elsewhere it can");
    *ENDING.lock() = Some(place);
    while global::idle() {}
    assert!(ENDING.lock().take().is_some(), "it is done no more");
}
