//! How long allocating and freeing takes at most, on all CPUs at once and interrupted all the time.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use aarch64_cpu::registers::CNTV_CVAL_EL0;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use quarry::addr::{CpuId, Order, PAGE_SIZE, to_usize};
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache};
use quarry::kernel::{cpus, tick};
use quarry::ktest;
use quarry::mm::slab::{CacheSpec, SlabFlags};
use tock_registers::interfaces::Readable;

const ROUNDS: u64 = 400;
const CACHES: usize = 100;
/// How long interrupts may be masked, in microseconds: what it takes to empty the arrays of one cache, and some more.
const MASKED: u64 = 400;

/// The longest call of all, in ticks of the counter.
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Runs `call` and notes how long it took.
fn timed<T>(call: impl FnOnce() -> T) -> T {
    let start = timer::ticks();
    let result = call();
    LONGEST.fetch_max(timer::ticks() - start, Ordering::Relaxed);
    result
}

/// The latest that the tick came, in ticks of the counter: as long as interrupts were masked.
static LATEST: AtomicU64 = AtomicU64::new(0);

fn note_lateness() {
    LATEST.fetch_max(timer::ticks().saturating_sub(CNTV_CVAL_EL0.get()), Ordering::Relaxed);
}

/// Runs `work` and says how long interrupts were masked meanwhile, at most: microseconds.
fn masked_by(what: &str, work: impl FnOnce()) -> u64 {
    LATEST.store(0, Ordering::Relaxed);
    tick::start(timer::frequency() / 50_000, note_lateness).expect("the timer is free");
    work();
    tick::stop().expect("it runs");
    let masked = LATEST.load(Ordering::Relaxed) * 1_000_000 / timer::frequency();
    quarry::kprintln!("latency: {what} masks interrupts for {masked} us at most");
    masked
}

// One CPU: the counter counts its instructions alone.
ktest!(giving_memory_back_masks_interrupts_for_one_cache_at_a_time, machine = "icount", timeout = 60);
fn giving_memory_back_masks_interrupts_for_one_cache_at_a_time() {
    const NAMES: &str =
        "aabbccddeeffgghhiijjkkllmmnnooppqqrrssttuuvvwwxxyyzzAABBCCDDEEFFGGHHIIJJKKLLMMNNOOPPQQRRSSTTUUVVWWXXYYZZ";
    let name = |number: usize| NAMES.get(number..number + 3).expect("a few letters");
    let spec = |name| CacheSpec { name, size: 64, align: 0, flags: SlabFlags::empty(), constructor: None };
    let mut number = 0;
    let caches = [(); CACHES].map(|()| {
        number += 1;
        KmemCache::create(&spec(name(number - 1))).expect("memory")
    });
    let fill_arrays = || {
        for cache in &caches {
            let mut objects = [core::ptr::NonNull::dangling(); 300];
            cache.alloc_bulk(Gfp::KERNEL, &mut objects).expect("memory");
            // SAFETY: allocated here, and not used any more.
            assert_eq!(unsafe { cache.free_bulk(&objects) }, 0);
        }
    };
    let slabs = global::slab_allocator();
    fill_arrays();
    let careful = masked_by("switching arrays off", || slabs.set_careful(true));
    slabs.set_careful(false);
    fill_arrays();
    let shrunk = masked_by("shrinking", || _ = slabs.shrink_all());
    fill_arrays();
    let some = masked_by("a shrinker", || _ = slabs.try_shrink_all(u64::MAX));
    caches.into_iter().for_each(|cache| cache.destroy().map_err(|(_, why)| why).expect("all are free"));
    assert!(careful.max(shrunk).max(some) < MASKED, "{careful}, {shrunk} and {some} us");
}

fn object(size: usize, gfp: Gfp) {
    if let Ok(object) = timed(|| global::kmalloc(size, gfp | Gfp::NOWARN)) {
        // SAFETY: allocated here, and not used any more.
        timed(|| unsafe { global::kfree(object.as_ptr()) });
    }
}

fn block(order: u8, gfp: Gfp) {
    if let Ok(page) = timed(|| global::alloc_pages(gfp | Gfp::NOWARN, Order::new(order).expect("small"))) {
        let order = Order::new(order).expect("small");
        timed(|| raw!(global::try_free_pages(page, order))).expect("allocated here");
    }
}

fn in_handler() {
    object(40, Gfp::ATOMIC);
    object(2000, Gfp::ATOMIC);
    block(0, Gfp::ATOMIC);
    block(3, Gfp::ATOMIC);
}

// Behaviour 490. The counter counts instructions here, those of all CPUs: a slow host does not make it later.
ktest!(no_call_takes_long_in_a_storm, machine one = "icount", machine four = "smp=4 icount gic=3", timeout = 60);
fn no_call_takes_long_in_a_storm() {
    let done = [const { AtomicU64::new(0) }; 4];
    let (over, least) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
    LONGEST.store(0, Ordering::Relaxed);
    tick::start(timer::frequency() / 20_000, in_handler).expect("the timer is free");
    cpus::run_everywhere(&|cpu: CpuId| {
        let own = done.get(cpu.get() as usize).expect("four CPUs");
        for round in 0..ROUNDS {
            object(16 << (round % 9), Gfp::KERNEL);
            block(u8::try_from(round % 11).expect("small"), Gfp::KERNEL);
            if round % 8 == 0 {
                let pages = 1 + round % 40;
                let area = timed(|| global::vmalloc_gfp(to_usize(pages * PAGE_SIZE), Gfp::KERNEL)).expect("memory");
                timed(|| raw!(global::try_vfree(area))).expect("allocated here");
            }
            if round % 64 == 63 {
                global::slab_allocator().shrink_all();
            }
            own.fetch_add(1, Ordering::Relaxed);
        }
        if !over.swap(true, Ordering::Relaxed) {
            let others = global::online_cpus().filter_map(|cpu| done.get(cpu.get() as usize));
            let slowest = others.map(|done| done.load(Ordering::Relaxed)).min().expect("this CPU");
            least.store(slowest, Ordering::Relaxed);
        }
    });
    tick::stop().expect("it runs");
    let longest = LONGEST.load(Ordering::Relaxed) * 1_000_000 / timer::frequency();
    quarry::kprintln!("latency: {longest} us at most");
    assert!(longest < 100_000, "a call took {longest} us");
    let least = least.into_inner();
    assert!(least >= ROUNDS / 10, "a CPU had done {least} rounds when another had done all {ROUNDS}");
}
