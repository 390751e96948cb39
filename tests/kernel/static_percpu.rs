//! Variables that every CPU has a copy of from the start: their initial values, and numbers that stay right under every
//! interrupt.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::sync::atomic::{AtomicI8, AtomicI32, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use quarry::addr::{CpuId, PAGE_SIZE, VirtAddr};
use quarry::arch::aarch64::{cpu, irq};
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global::{
    self, CPU_NUMBER, PerCpuCounter, StaticPerCpu, get_cpu, get_cpu_var, this_cpu_add, this_cpu_cmpxchg, this_cpu_inc,
    this_cpu_read, this_cpu_write, this_cpu_xchg,
};
use quarry::hal::wait::Context;
use quarry::kernel::{cpus, tick};
use quarry::ktest;

/// A value in a cache line of its own.
#[repr(align(64))]
struct Line(AtomicU32);

quarry::define_per_cpu! {
    static BYTE: AtomicU8 = AtomicU8::new(250);
    static SIGNED: AtomicI8 = AtomicI8::new(-1);
    static SHORT: AtomicU16 = AtomicU16::new(0xfffe);
    static WORD: AtomicU32 = AtomicU32::new(0xdead_beef);
    static NEGATIVE: AtomicI32 = AtomicI32::new(-5);
    static LONG: AtomicU64 = AtomicU64::new(1 << 40);
    static NEIGHBOUR: AtomicU64 = AtomicU64::new(0x0123_4567_89ab_cdef);
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    static OWN_LINE: Line = Line(AtomicU32::new(7));
    static TALLY: AtomicU64 = AtomicU64::new(0);
    static HANDLED: AtomicU64 = AtomicU64::new(0);
    static EXCHANGED: AtomicU64 = AtomicU64::new(0);
    static LAST: AtomicU64 = AtomicU64::new(1);
}

fn total(variable: &'static StaticPerCpu<AtomicU64>) -> u64 {
    global::per_cpu_sum(variable)
}

// Behaviour 340: each CPU begins with the initial value, and writes to its own copy alone.
ktest!(each_cpu_has_its_own_copy_of_the_initial_value, machine one = "", machine four = "smp=4");
fn each_cpu_has_its_own_copy_of_the_initial_value() {
    for (cpu, copy) in OWN_LINE.iter() {
        assert_eq!(copy.0.load(Ordering::Relaxed), 7, "{cpu:?}");
        assert!(VirtAddr::of(copy).is_aligned(64));
        assert_ne!(VirtAddr::of(copy), VirtAddr::of(&raw const OWN_LINE), "the template is nobody's");
        assert!(global::cpu_locals().any(|data| data.contains(VirtAddr::of(copy))), "part of the CPU's data");
    }
    assert_eq!(OWN_LINE.iter().count(), global::possible_cpus().count());
    assert!(OWN_LINE.get(CpuId::new(63)).is_none());
    for (_, copy) in WORD.iter() {
        assert_eq!(copy.load(Ordering::Relaxed), 0xdead_beef);
    }
    cpus::run_everywhere(&|cpu| {
        this_cpu_write(&WORD, cpu.get());
        OWN_LINE.with_this_cpu(|copy| copy.0.store(100 + cpu.get(), Ordering::Relaxed)).expect("it has data");
        assert!(global::finds_its_own_copy());
    });
    for cpu in global::possible_cpus() {
        let (word, line) = (WORD.get(cpu).expect("possible"), OWN_LINE.get(cpu).expect("possible"));
        let expected = if global::is_online(cpu) { (cpu.get(), 100 + cpu.get()) } else { (0xdead_beef, 7) };
        assert_eq!((word.load(Ordering::Relaxed), line.0.load(Ordering::Relaxed)), expected);
        // This test may run again in the same boot.
        word.store(0xdead_beef, Ordering::Relaxed);
        line.0.store(7, Ordering::Relaxed);
    }
    // Promise 8: what the copies take is counted with the data of CPUs.
    let bytes: u64 = global::cpu_locals().map(|data| data.size()).sum();
    assert_eq!(bytes, global::cpu_local_size() * global::possible_cpus().count() as u64);
    assert!(global::cpu_local_used() <= global::cpu_local_size() && global::cpu_local_size().is_multiple_of(PAGE_SIZE));
}

ktest!(words_of_every_size_are_added_exchanged_and_compared);
fn words_of_every_size_are_added_exchanged_and_compared() {
    assert_eq!((this_cpu_read(&BYTE), this_cpu_add(&BYTE, 10), this_cpu_read(&BYTE)), (250, 4, 4));
    this_cpu_inc(&BYTE);
    assert_eq!((this_cpu_xchg(&BYTE, 255), this_cpu_cmpxchg(&BYTE, 254, 0), this_cpu_read(&BYTE)), (5, 255, 255));
    assert_eq!((this_cpu_cmpxchg(&BYTE, 255, 9), this_cpu_read(&BYTE)), (255, 9));
    assert_eq!((this_cpu_read(&SIGNED), this_cpu_cmpxchg(&SIGNED, -1, -128), this_cpu_add(&SIGNED, -1)), (-1, -1, 127));
    this_cpu_inc(&SHORT);
    assert_eq!((this_cpu_read(&SHORT), this_cpu_add(&SHORT, 1), this_cpu_xchg(&SHORT, 77)), (0xffff, 0, 0));
    assert_eq!(
        (this_cpu_add(&NEGATIVE, -7), this_cpu_xchg(&NEGATIVE, 3), this_cpu_cmpxchg(&NEGATIVE, 3, -3)),
        (-12, -12, 3)
    );
    assert_eq!(this_cpu_read(&NEGATIVE), -3);
    assert_eq!((this_cpu_add(&LONG, u64::MAX), this_cpu_xchg(&LONG, 5)), ((1 << 40) - 1, (1 << 40) - 1));
    assert_eq!((this_cpu_cmpxchg(&LONG, 5, 6), this_cpu_cmpxchg(&LONG, 5, 7), this_cpu_read(&LONG)), (5, 6, 6));
    this_cpu_write(&SIZE, usize::MAX);
    this_cpu_inc(&SIZE);
    assert_eq!(this_cpu_read(&SIZE), 0);
    // The neighbours have not changed.
    assert_eq!(this_cpu_read(&NEIGHBOUR), 0x0123_4567_89ab_cdef);
}

/// A handler that adds to what it interrupts.
fn each() {
    assert!(global::finds_its_own_copy(), "the register leads to this CPU's data");
    this_cpu_add(&TALLY, 3);
    this_cpu_inc(&HANDLED);
    // A number that goes from hand to hand: the CPU that subtracts one sees the last CPU's writes.
    let took = this_cpu_xchg(&LAST, 1_000_000);
    this_cpu_add(&EXCHANGED, took);
    loop {
        let seen = this_cpu_read(&LAST);
        if this_cpu_cmpxchg(&LAST, seen, seen + 1) == seen {
            break;
        }
    }
    this_cpu_add(&EXCHANGED, (1_u64).wrapping_neg());
    this_cpu_add(&EXCHANGED, 1_000_000_u64.wrapping_neg());
}

/// Additions of each CPU.
const ADDS: u64 = 2_500_000;

// Behaviours 350 and 351: ten million additions on four CPUs, in a storm of interrupts that add to the same number.
ktest!(
    additions_in_a_storm_of_interrupts_are_all_there,
    machine one_counted = "icount",
    machine four = "smp=4",
    machine four_counted = "smp=4 icount gic=3",
    timeout = 300,
);
fn additions_in_a_storm_of_interrupts_are_all_there() {
    tick::start(timer::frequency() / 50_000, each).expect("the timer is free");
    let adds = AtomicU64::new(0);
    cpus::run_everywhere(&|cpu| {
        let mut own = 0;
        while own < ADDS || tick::count(cpu) < 200 {
            for _ in 0..1000 {
                this_cpu_inc(&TALLY);
                this_cpu_add(&TALLY, 1);
                // Not lost and not doubled, at any interruption.
                let took = this_cpu_xchg(&LAST, 2);
                this_cpu_add(&EXCHANGED, took.wrapping_sub(2));
            }
            own += 2000;
        }
        adds.fetch_add(own, Ordering::Relaxed);
    });
    tick::stop().expect("it runs");
    let handled = total(&HANDLED);
    assert!(handled >= 200 * global::online_cpus().count() as u64, "{handled} interrupts");
    assert_eq!(total(&TALLY), adds.load(Ordering::Relaxed) + 3 * handled, "an addition is lost, or counted twice");
    // Sum of the values taken out and put in: each CPU began with 1.
    let cpus = global::possible_cpus().count() as u64;
    assert_eq!(total(&EXCHANGED).wrapping_add(total(&LAST)), cpus, "an exchange is lost");
}

static HANDLERS: AtomicU64 = AtomicU64::new(0);

fn look() {
    HANDLERS.fetch_add(1, Ordering::Relaxed);
    let number = this_cpu_read(&CPU_NUMBER);
    assert!(number == cpu::current().get() && global::finds_its_own_copy(), "another CPU's data");
}

// Behaviour 350, its number: a million interrupts on four CPUs, each of which looks where the register leads, and so does
// what they interrupt. By instructions, so that there are as many on a busy host.
ktest!(a_million_interrupts_leave_each_cpu_its_own_data, machine = "smp=4 icount gic=3", timeout = 300);
fn a_million_interrupts_leave_each_cpu_its_own_data() {
    tick::start(timer::frequency() / 200_000, look).expect("the timer is free");
    cpus::run_everywhere(&|cpu| {
        while HANDLERS.load(Ordering::Relaxed) < 1_000_000 {
            for _ in 0..1000 {
                assert_eq!(this_cpu_read(&CPU_NUMBER), cpu.get());
            }
        }
    });
    tick::stop().expect("it runs");
}

ktest!(a_guard_keeps_the_context_on_its_cpu_and_awake, machine = "smp=2", report = "between get_cpu and put_cpu");
fn a_guard_keeps_the_context_on_its_cpu_and_awake() {
    cpus::run_everywhere(&|cpu| {
        let guard = get_cpu();
        assert_eq!((guard.cpu(), cpu::current()), (cpu, cpu));
        assert!(global::context().atomic().is_some());
        drop(guard);
        let copy = get_cpu_var(&OWN_LINE).expect("it has data");
        assert!(copy.cpu() == cpu && core::ptr::eq(&raw const *copy, OWN_LINE.get(cpu).expect("possible")));
        copy.0.fetch_add(1, Ordering::Relaxed);
        drop(copy);
        assert!(global::context().atomic().is_none());
    });
    let guard = get_cpu();
    // Reported, with the caller: it may not wait.
    let block = global::kmalloc(64, Gfp::KERNEL).expect("memory");
    drop(guard);
    raw!(global::kfree(block.as_ptr()));
}

// Behaviour 352.
ktest!(a_counter_of_all_cpus_is_exact_on_demand, machine one = "icount", machine four = "smp=4", timeout = 120);
fn a_counter_of_all_cpus_is_exact_on_demand() {
    let counter = PerCpuCounter::new(10, Gfp::KERNEL).expect("memory");
    cpus::run_everywhere(&|cpu| {
        for round in 0..50_000_i64 {
            counter.add(3);
            counter.dec();
            if round % 1000 == 0 && cpu == CpuId::BOOT {
                // Never less than nothing: what is taken off was added before on the same CPU.
                assert!(counter.sum_positive() >= 10, "{counter:?}");
            }
        }
    });
    let wanted = 10 + 100_000 * i64::try_from(global::online_cpus().count()).expect("few");
    assert_eq!(counter.sum(), wanted);
    let off = counter.read().abs_diff(wanted);
    assert!(off <= counter.batch().unsigned_abs() * global::possible_cpus().count() as u64, "off by {off}");
    assert!(
        counter.compare(wanted).is_eq() && counter.compare(wanted - 1).is_gt() && counter.compare(i64::MAX).is_lt()
    );
    let below = PerCpuCounter::with_batch(0, 1000, Gfp::KERNEL).expect("memory");
    below.add(-5);
    assert_eq!((below.sum(), below.sum_positive(), below.read_positive()), (-5, 0, 0));
    let masked = irq::local_irq_save();
    below.inc();
    drop(masked);
    assert_eq!(below.sum(), -4);
}
