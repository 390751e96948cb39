//! Everything at once: all allocators, mixed at random, on all CPUs and in their timers' handlers, with allocations that
//! fail on purpose; every byte that is handed out is written and read back, and every invariant tested again and again.
//!
//! Memory that one context allocates is freed by another one: all take from and put into one table.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod block;
mod operation;
mod processes;

use crate::smp::{Random, make_use_and_destroy_a_cache};
use crate::storm::{balance, note_frames};
use block::Block;
use core::fmt::Display;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use operation::{KINDS, NAMES};
use quarry::addr::CpuId;
use quarry::arch::aarch64::cpu;
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global::{self, configure_faults, fault_injector};
use quarry::kernel::bootargs::parse_number;
use quarry::kernel::{cpus, init, machine_account, tick};
use quarry::ktest;
use quarry::mm::fault_inject::{FaultAttr, FaultSite, Verbosity};
use spin::mutex::SpinMutex;

/// Blocks that are allocated at a time, at most; half of them are on average.
const SLOTS: usize = 768;
/// Operations that a CPU does between two looks at how much is left.
const BATCH: u64 = 32;
/// Rounds, each followed by a check of everything, unless there are too few or too many operations for that.
const ROUNDS: u64 = 20;
/// One of so many calls fails in every second round. A prime.
const FAILING: u32 = 61;

/// The context that locks a place owns it until it is done, and nobody waits for one: so a handler may come at any time.
static TABLE: [SpinMutex<Option<Block>>; SLOTS] = [const { SpinMutex::new(None) }; SLOTS];
/// Random numbers of each CPU's handler.
static DRAWS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
/// Operations of each kind, and those that were refused for lack of memory.
static DONE: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// How long, and what numbers.
#[derive(Clone, Copy)]
struct Plan {
    operations: u64,
    seed: u64,
    /// Seconds after which it ends; 0 for as long as it takes.
    seconds: u64,
}

fn of(cpu: CpuId) -> &'static AtomicU64 {
    DRAWS.get(cpu.get() as usize).expect("eight CPUs at most")
}

fn done() -> u64 {
    DONE.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

/// One operation: looks at a block and frees or resizes it, or allocates one.
fn operate(random: &mut Random, gfp: Gfp) {
    let place = TABLE.get(random.index(SLOTS)).expect("in the table");
    // Somebody is at it, perhaps what this handler interrupted.
    let Some(mut place) = place.try_lock() else { return };
    let kind = match place.take() {
        Some(block) => {
            let kind = block.kind();
            *place = operation::give(block, random, gfp);
            kind
        }
        None => {
            let kind = random.index(KINDS);
            *place = operation::take(kind, random, gfp);
            if place.is_none() {
                REFUSED.fetch_add(1, Ordering::Relaxed);
            }
            kind
        }
    };
    DONE.get(kind).expect("a kind").fetch_add(1, Ordering::Relaxed);
}

/// Work of the timer's handler.
fn each() {
    let draw = of(cpu::current());
    let mut random = Random(draw.load(Ordering::Relaxed) | 1);
    operate(&mut random, Gfp::ATOMIC);
    draw.store(random.0, Ordering::Relaxed);
}

fn fail(attr: impl Fn(FaultSite) -> FaultAttr) {
    for site in FaultSite::ALL {
        configure_faults(site, &attr(site));
    }
}

/// Failures that were forced, ever or since the settings last changed.
fn forced_failures() -> u64 {
    FaultSite::ALL.into_iter().map(|site| fault_injector().statistics(site).forced).sum()
}

/// Whether there is a cache that comes and goes.
static NAMED: AtomicBool = AtomicBool::new(false);

/// Until `goal` operations are done, or it is late.
fn round(seed: u64, goal: u64, late: &(impl Fn() -> bool + Sync)) -> u64 {
    for (cpu, draw) in (0..).zip(&DRAWS) {
        draw.store(seed.wrapping_add(cpu).wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
    }
    tick::start(timer::frequency() / 2_000, each).expect("the timer is free");
    let over = AtomicBool::new(false);
    cpus::run_everywhere(&|cpu: CpuId| {
        let mut random = Random((seed << 8 | u64::from(cpu.get())).wrapping_mul(0xd1b5_4a32_d192_ed03) | 1);
        while !over.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                let gfp = if random.below(8) == 0 { Gfp::NOWAIT } else { Gfp::KERNEL };
                operate(&mut random, gfp);
            }
            match random.below(2_048) {
                0..8 => global::drain_all_pages(),
                8..16 => global::vmap_space().purge_all(),
                16 => _ = global::slab_allocator().shrink_all(),
                17..20 => _ = global::percpu_trim(),
                20..24 => _ = global::dma().trim_reserves(),
                24..28 => drop(global::KernelStack::new("passing")),
                32..96 => processes::fork_and_fault(&mut random),
                // By one CPU at a time, as they all give it the same name.
                28..30 if !fault_injector().is_armed() && !NAMED.swap(true, Ordering::Acquire) => {
                    make_use_and_destroy_a_cache(24 + 8 * u32::try_from(random.below(100)).expect("small"));
                    NAMED.store(false, Ordering::Release);
                }
                _ => {}
            }
            if done() >= goal || late() {
                over.store(true, Ordering::Relaxed);
            }
        }
    });
    let interrupts = global::online_cpus().map(tick::count).sum();
    tick::stop().expect("it runs");
    interrupts
}

/// Tests every invariant there is, and that all RAM adds up.
fn check() {
    global::check_all(&mut |part, result: Result<(), &dyn Display>| {
        result.unwrap_or_else(|error| panic!("{part}: {error}"));
    });
    let machine = init::machine().expect("booted");
    machine_account::account(machine).unwrap_or_else(|error| panic!("{error}"));
}

fn run(plan: Plan) {
    operation::prepare();
    processes::prepare();
    operation::warm_up(SLOTS);
    note_frames();
    let start = timer::ticks();
    let elapsed = || (timer::ticks() - start) / timer::frequency();
    let late = || plan.seconds != 0 && elapsed() >= plan.seconds;
    let (before, percpu) = (balance(), global::percpu_stats());
    // A long run is checked no less often than every so many operations.
    let step = (plan.operations / ROUNDS).clamp(1, 250_000);
    let (mut rounds, mut interrupts, mut forced) = (0, 0, 0);
    while done() < plan.operations && !late() {
        rounds += 1;
        if rounds % 2 == 0 {
            fail(|_| FaultAttr { interval: FAILING, verbose: Verbosity::Silent, ..FaultAttr::always() });
        }
        let earlier = forced_failures();
        interrupts += round(plan.seed.wrapping_add(rounds), done() + step, &late);
        forced += forced_failures() - earlier;
        fail(FaultAttr::off);
        check();
    }
    let mut random = Random(plan.seed | 1);
    for place in &TABLE {
        if let Some(block) = place.lock().take() {
            operation::free(block, &mut random);
        }
    }
    operation::check_pool();
    global::dma().trim_reserves();
    global::vmap_space().purge_all();
    assert_eq!((global::dma().reserved_pages().1, global::bounce_stats().used), (0, 0), "what devices have");
    assert_eq!(balance(), before, "what is in use");
    assert_eq!(global::percpu_stats(), percpu, "what is in use for each CPU");
    check();
    let (cpus, refused) = (global::online_cpus().count(), REFUSED.load(Ordering::Relaxed));
    for (name, count) in NAMES.iter().zip(&DONE) {
        assert!(count.load(Ordering::Relaxed) != 0, "{name} has not been tried");
    }
    let (forks, short) = processes::counts();
    assert!(forks != 0, "no process has forked");
    assert!(interrupts > rounds * cpus as u64, "{interrupts} interrupts");
    assert!(rounds < 2 || (forced != 0 && refused != 0), "{forced} forced failures, {refused} refused");
    quarry::kprintln!(
        "soak: seed {:#x}, {} operations on {cpus} CPUs in {} s, {interrupts} interrupts, {forced} forced failures, {} \
         refused, {forks} forks and {short} processes without memory, {rounds} checks: nothing lost, nothing overlapped",
        plan.seed,
        done(),
        elapsed(),
        refused
    );
}

// Behaviours 104, 185, 477, 484: the short form of the soak.
ktest!(
    all_allocators_at_once,
    machine four = "smp=4 mem=512M alone append='cma=32M'",
    machine four_gicv3 = "smp=4 mem=512M gic=3 cpu=max alone append='cma=32M'",
    timeout = 240,
);
fn all_allocators_at_once() {
    run(Plan { operations: 60_000, seed: 0x71_6172_7279, seconds: 60 });
}

// `make soak`.
ktest!(soak, machine = "smp=4 mem=512M alone", timeout = 1000000, ignored = "for hours: make soak");
fn soak() {
    let args = init::machine().expect("booted").args;
    let number = |name, default| {
        let text = args.value(name).filter(|text| !text.is_empty());
        text.map_or(default, |text| parse_number(text).unwrap_or_else(|| panic!("{name}={text} is no number")))
    };
    let seconds = number("soak_seconds", 0);
    // A time alone is no count.
    let operations = number("soak_ops", if seconds == 0 { 10_000_000 } else { u64::MAX });
    run(Plan { operations, seed: number("soak_seed", 1), seconds });
}
