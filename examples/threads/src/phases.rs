//! The kernel's demonstrations, one phase after the other. Each asserts its result.

use crate::sched::{blocked_for_memory, counts, reap, spawn, yield_now};
use crate::{board, cache, say, soak};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use quarry::hal::wait::{Context, Scope};
use quarry::mm::zone::{OomHook, OomReport, Relief};
use quarry::prelude::*;
use quarry::sync::{ScopeGuard, enter};

/// The first thread.
pub fn run(_: u64) {
    overflow();
    scopes();
    nofail();
    nobody_left();
    cache::run();
    soak::run();
    let counts = counts();
    assert!(counts.preemptions > 500 && counts.migrations > 500);
    say!("{} switches, {} by the timer, {} migrations", counts.switches, counts.preemptions, counts.migrations);
    board::leave(0)
}

/// Waits until all threads have ended but this one and the reclaimer, and frees their stacks.
pub fn wait_for_others() {
    while reap() > 2 {
        yield_now();
    }
}

/// A stack that overflows ends its thread, and nothing else.
fn overflow() {
    #[inline(never)]
    #[expect(unconditional_recursion, reason = "the guard below the stack ends it")]
    fn descend(depth: u64) -> u64 {
        let frame = core::hint::black_box([depth; 16]);
        descend(depth + 1) + frame[3]
    }
    spawn("bottomless", |_| _ = descend(0), 0);
    wait_for_others();
    assert_eq!(counts().overflows, 1);
}

static MOVED: AtomicU32 = AtomicU32::new(0);

/// A scope is in force for the thread that opened it, wherever it goes, and for nobody else.
fn scopes() {
    /// Opens nested scopes and holds them until it has been on all CPUs.
    fn holder(_: u64) {
        let context = quarry::context();
        let inside = |scope| context.is_inside(scope);
        for round in 0..20 {
            let scopes = [Scope::NoFs, Scope::Reclaim, Scope::Memalloc, Scope::NoIo];
            let guards: [ScopeGuard<'_, _>; 4] = scopes.map(|scope| enter(context, scope));
            let again = enter(context, Scope::Reclaim);
            let mut seen = 0_u32;
            while seen.count_ones() < 3 {
                seen |= 1 << quarry::this_cpu().get();
                assert!(scopes.into_iter().all(inside), "round {round}: left behind");
                assert!(context.atomic().is_some(), "waiting inside of a reclaimer");
                yield_now();
            }
            drop(again);
            assert!(inside(Scope::Reclaim), "opened twice, closed once");
            drop(guards);
            assert!(!scopes.into_iter().any(inside) && context.atomic().is_none());
            MOVED.fetch_add(1, Ordering::Relaxed);
        }
    }
    /// Is in no scope, on the CPUs where the others are in theirs.
    fn outsider(_: u64) {
        let context = quarry::context();
        while MOVED.load(Ordering::Relaxed) < 60 {
            for scope in [Scope::NoFs, Scope::Reclaim, Scope::Memalloc, Scope::NoIo, Scope::Lock] {
                assert!(!context.is_inside(scope), "in {scope:?} of another thread");
            }
            assert_eq!(context.atomic(), None);
            yield_now();
        }
    }
    (0..3).for_each(|_| spawn("holder", holder, 0));
    (0..3).for_each(|_| spawn("outsider", outsider, 0));
    wait_for_others();
    say!("{} times nested scopes were held on three CPUs or more", MOVED.load(Ordering::Relaxed));
}

/// Takes all memory there is, the reserve too, behind the pages that were taken before, the last of which is `last`. Each
/// page has the address of the one before.
fn take_all(mut last: VirtAddr) -> VirtAddr {
    while let Ok(page) = alloc_page(Gfp::ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN) {
        let at = page_address(page);
        // SAFETY: a page of ours.
        unsafe { at.as_ptr::<VirtAddr>().write(last) };
        last = at;
    }
    last
}

fn give_all_back(mut last: VirtAddr) {
    while last != VirtAddr::ZERO {
        // SAFETY: a page of `take_all`.
        let next = unsafe { last.as_ptr::<VirtAddr>().read() };
        // SAFETY: a page of `take_all` that is not used any more.
        unsafe { try_free_page(last) }.unwrap_or_else(|error| panic!("{error}"));
        last = next;
    }
}

/// Waiters that have memory, and whether they may ask for it.
static SERVED: AtomicU32 = AtomicU32::new(0);
static START: AtomicBool = AtomicBool::new(false);

/// A thread that may not fail to get memory.
fn waiter(_: u64) {
    while !START.load(Ordering::Acquire) {
        yield_now();
    }
    let page = Pages::new(Gfp::KERNEL | Gfp::NOFAIL, Order::ZERO).unwrap_or_else(|error| panic!("NOFAIL: {error}"));
    SERVED.fetch_add(1, Ordering::Relaxed);
    drop(page);
}

/// Begins `count` waiters and takes all memory: the last page of it.
fn with_waiters(count: u32) -> VirtAddr {
    START.store(false, Ordering::Relaxed);
    (0..count).for_each(|_| spawn("waiter", waiter, 0));
    quarry::drain_all_pages();
    let last = take_all(VirtAddr::ZERO);
    START.store(true, Ordering::Release);
    last
}

/// Threads that may not fail to get memory are blocked until there is some.
fn nofail() {
    const WAITERS: u32 = 8;
    let (before, mut waited) = (counts(), 0);
    for round in 0..5 {
        let mut last = with_waiters(WAITERS);
        loop {
            // The reclaimer may yet find some in the CPUs' caches, and a waiter may be first to take it.
            last = take_all(last);
            let blocked = blocked_for_memory() as u32;
            if blocked + SERVED.load(Ordering::Relaxed) == (round + 1) * WAITERS {
                waited += blocked;
                break;
            }
            yield_now();
        }
        give_all_back(last);
        wait_for_others();
        assert_eq!(SERVED.load(Ordering::Relaxed), (round + 1) * WAITERS);
    }
    let (blocked, woken) = (counts().blocked - before.blocked, counts().woken - before.woken);
    assert!(waited >= 20 && blocked == woken && blocked >= waited.into(), "{waited}: {blocked}, {woken}");
    say!("{waited} threads waited in NOFAIL: blocked {blocked} times, woken {woken} times");
}

/// Memory that the OOM hook of this kernel frees, and the number of its calls because no thread could free any.
static LAST: AtomicU64 = AtomicU64::new(0);
static STUCK: AtomicU32 = AtomicU32::new(0);

struct LastResort;

impl OomHook for LastResort {
    fn out_of_memory(&self, report: &OomReport<'_>) -> Relief {
        if !report.stuck {
            return Relief::GiveUp;
        }
        STUCK.fetch_add(1, Ordering::Relaxed);
        match LAST.swap(0, Ordering::Relaxed) {
            0 => Relief::GiveUp,
            last => {
                give_all_back(VirtAddr::new(last));
                Relief::Retry
            }
        }
    }
}

/// If all others are blocked, who waits for memory is not blocked too, but the OOM hook is called.
fn nobody_left() {
    let registered = quarry::reclaim().oom_hooks().register(quarry::context(), &LastResort);
    registered.map(drop).unwrap_or_else(|error| panic!("{error}"));
    for waiters in [0, 3] {
        let before = STUCK.load(Ordering::Relaxed);
        LAST.store(with_waiters(waiters).get(), Ordering::Relaxed);
        waiter(0);
        assert!(STUCK.load(Ordering::Relaxed) > before, "somebody else has freed memory");
        wait_for_others();
    }
    say!("nobody left to wait for: the OOM hook was called {} times", STUCK.load(Ordering::Relaxed));
}
