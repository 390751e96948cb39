//! Per-CPU memory on CPUs that are there, with interrupts.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use crate::smp::Random;
use core::sync::atomic::{AtomicU64, Ordering};
use quarry::addr::{Address, CpuId, PAGE_BYTES, VirtAddr, to_usize};
use quarry::arch::aarch64::cpu;
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global::{self, PerCpu, ThisKernel};
use quarry::kernel::{cpus, tick};
use quarry::ktest;
use quarry::mm::fault_inject::{MayRecover, fail_every};
use quarry::mm::percpu::{PerCpuError, PerCpuPtr, UNIT_SIZE};

ktest!(each_cpu_counts_for_itself, machine one = "", machine four = "smp=4", machine eight = "smp=8 gic=3");
fn each_cpu_counts_for_itself() {
    global::percpu_trim();
    let before = global::percpu_stats();
    let counters = PerCpu::new(Gfp::KERNEL, |cpu| AtomicU64::new(u64::from(cpu.get()) << 32)).expect("memory");
    cpus::run_everywhere(&|_| {
        for _ in 0..10_000 {
            // Not atomic on purpose: nobody else counts here.
            counters.with_this_cpu(|count| count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed));
        }
    });
    for (cpu, count) in counters.iter() {
        let counted = if global::is_online(cpu) { 10_000 } else { 0 };
        assert_eq!(count.load(Ordering::Relaxed), (u64::from(cpu.get()) << 32) + counted);
    }
    assert_eq!(counters.iter().count(), global::possible_cpus().count());
    assert!(counters.get(CpuId::new(64)).is_none());
    drop(counters);
    global::percpu_trim();
    assert_eq!(global::percpu_stats(), before);
}

/// Says that it was dropped.
struct Noted<'c>(&'c AtomicU64);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

ktest!(each_value_is_dropped_once, machine = "smp=4");
fn each_value_is_dropped_once() {
    let dropped = AtomicU64::new(0);
    drop(PerCpu::new(Gfp::KERNEL, |_| Noted(&dropped)).expect("memory"));
    assert_eq!(dropped.load(Ordering::Relaxed), 4);
    let huge = global::alloc_percpu(to_usize(UNIT_SIZE + 1), 8);
    assert_eq!(huge, Err(PerCpuError::TooLarge(UNIT_SIZE + 1)));
}

// Misuse is named and changes nothing.
ktest!(what_is_not_allocated_is_not_freed, report = "free_percpu(");
fn what_is_not_allocated_is_not_freed() {
    let ptr = global::alloc_percpu(100, 8).expect("memory");
    let inside = PerCpuPtr::new(VirtAddr::new(ptr.addr().get() + 8));
    assert_eq!(raw!(global::try_free_percpu(inside)), Err(PerCpuError::NotAllocated(inside.addr())));
    let area = global::vmalloc(PAGE_BYTES).expect("memory").at();
    assert!(
        raw!(global::try_free_percpu(PerCpuPtr::new(area))).is_err() && raw!(global::try_vfree(ptr.addr())).is_err()
    );
    raw!(global::try_vfree(area)).expect("an area");
    raw!(global::try_free_percpu(ptr)).expect("allocated");
    assert!(raw!(global::try_free_percpu(ptr)).is_err(), "twice");
    raw!(global::free_percpu(ptr));
    global::check_percpu().expect("sound");
}

// Behaviour 497: each of its allocations fails once.
ktest!(no_failed_allocation_loses_anything, machine = "smp=2", timeout = 60);
fn no_failed_allocation_loses_anything() {
    // Tables and records are there and stay.
    let warm = global::alloc_percpu(to_usize(UNIT_SIZE), 8).expect("memory");
    raw!(global::try_free_percpu(warm)).expect("allocated");
    global::percpu_trim();
    let make = || {
        global::percpu_trim();
        global::alloc_percpu_gfp(2 * PAGE_BYTES, 8, Gfp::KERNEL | Gfp::NOWARN)
    };
    let free = |ptr| {
        raw!(global::try_free_percpu(ptr)).expect("allocated");
        global::percpu_trim();
    };
    let make = || make().inspect_err(|_| _ = global::percpu_trim());
    let rounds = fail_every(&ThisKernel, MayRecover::No, make, free).expect("sound");
    assert!(rounds.points >= 4, "two pages of two CPUs: {}", rounds.points);
}

/// Memory of handlers for each CPU, if any.
static HELD: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// Of an allocation every CPU's copy holds its own address.
fn take(size: u64, gfp: Gfp) -> Option<PerCpuPtr> {
    let ptr = global::alloc_percpu_gfp(to_usize(size.max(8)), 8, gfp | Gfp::NOWARN).ok()?;
    for cpu in global::possible_cpus() {
        let at = ptr.of(cpu);
        // SAFETY: eight bytes at least, aligned, just allocated.
        unsafe { at.as_ptr::<u64>().write(at.get()) };
    }
    Some(ptr)
}

fn give(ptr: PerCpuPtr) {
    for cpu in global::possible_cpus() {
        let at = ptr.of(cpu);
        // SAFETY: as in `take`, and not freed yet.
        assert_eq!(unsafe { at.as_ptr::<u64>().read() }, at.get(), "nobody else has written there");
    }
    raw!(global::try_free_percpu(ptr)).expect("allocated");
}

fn each() {
    let held = HELD.get(cpu::current().get() as usize).expect("eight CPUs at most");
    match held.swap(0, Ordering::Relaxed) {
        0 => held.store(take(200, Gfp::ATOMIC).map_or(0, |ptr| ptr.addr().get()), Ordering::Relaxed),
        addr => give(PerCpuPtr::new(VirtAddr::new(addr))),
    }
}

// Behaviour 345: in handlers.
ktest!(
    cpus_and_handlers_allocate_and_free,
    machine one = "icount",
    machine four = "smp=4",
    machine four_counted = "smp=4 icount gic=3",
    timeout = 120,
);
fn cpus_and_handlers_allocate_and_free() {
    global::percpu_trim();
    let before = global::percpu_stats();
    tick::start(timer::frequency() / 100_000, each).expect("the timer is free");
    cpus::run_everywhere(&|cpu| {
        let mut random = Random(0x9e37 + u64::from(cpu.get()));
        let mut live = [const { None }; 24];
        while tick::count(cpu) < 100 {
            for _ in 0..200 {
                let place = live.get_mut(random.index(24)).expect("in the row");
                let size = if random.below(16) == 0 { random.below(UNIT_SIZE) } else { random.below(300) };
                match place.take() {
                    Some(ptr) => give(ptr),
                    None => *place = take(size, Gfp::KERNEL),
                }
            }
            if random.below(8) == 0 {
                global::percpu_trim();
            }
        }
        live.into_iter().flatten().for_each(give);
    });
    tick::stop().expect("it runs");
    for held in &HELD {
        match held.swap(0, Ordering::Relaxed) {
            0 => {}
            addr => give(PerCpuPtr::new(VirtAddr::new(addr))),
        }
    }
    global::percpu_trim();
    global::check_percpu().expect("sound");
    assert_eq!(global::percpu_stats(), before);
}
