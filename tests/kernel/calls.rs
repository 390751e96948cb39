//! Calls of functions on other CPUs: each is made once, or refused.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use crate::cpus::{others, while_the_other_cpu_is_deaf};
use crate::interrupts::wait_for;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use quarry::addr::{CpuId, VirtAddr};
use quarry::arch::aarch64::stack::{self, StackOwner, StackUse};
use quarry::arch::aarch64::step::{Step, Then, step_through};
use quarry::arch::aarch64::{cpu, irq};
use quarry::global::{self, Deferred};
use quarry::kernel::cpus::{self, CpuError};
use quarry::kernel::interrupts::InterruptError;
use quarry::kernel::smp_call::{ASYNC_CALLS, CallError, smp_call, smp_call_async};
use quarry::kernel::tick;
use quarry::ktest;
use quarry::mm::zone::RegistryError;

ktest!(a_call_runs_on_its_cpu_in_an_interrupt, machine gicv2 = "smp=4", machine gicv3 = "smp=4 gic=3");
fn a_call_runs_on_its_cpu_in_an_interrupt() {
    for cpu in others() {
        let answer = AtomicU32::new(0);
        let call = |answer: &AtomicU32| {
            let here = 0_u64;
            let on = stack::containing(VirtAddr::of(&raw const here)).map(|stack| stack.owner);
            let right = on == Some(StackOwner::Cpu(cpu::current(), StackUse::Interrupt)) && !irq::local_irqs_enabled();
            answer.store(if right { cpu::current().get() } else { u32::MAX }, Ordering::Relaxed);
        };
        smp_call(cpu, call, &answer).expect("it is online");
        assert_eq!(answer.into_inner(), cpu.get());
    }
    let here = AtomicBool::new(false);
    smp_call(CpuId::BOOT, |here: &AtomicBool| here.store(!irq::local_irqs_enabled(), Ordering::Relaxed), &here)
        .expect("this CPU");
    assert!(here.into_inner(), "on this CPU at once, masked");
}

ktest!(calls_are_made_in_the_order_in_which_they_came, machine = "smp=2");
fn calls_are_made_in_the_order_in_which_they_came() {
    static DIGITS: AtomicU64 = AtomicU64::new(0);
    fn note(digit: usize) {
        DIGITS.store(DIGITS.load(Ordering::Relaxed) * 10 + digit as u64, Ordering::Relaxed);
    }
    let other = CpuId::new(1);
    // The other CPU takes no interrupt before all of them are there.
    let (held, go) = (AtomicBool::new(false), AtomicBool::new(false));
    let refused = AtomicBool::new(false);
    cpus::run_everywhere(&|cpu: CpuId| {
        if cpu == other {
            let masked = irq::local_irq_save();
            held.store(true, Ordering::Release);
            wait_for(|| go.load(Ordering::Acquire));
            drop(masked);
        } else if cpu == CpuId::BOOT {
            wait_for(|| held.load(Ordering::Acquire));
            for digit in 1..=ASYNC_CALLS {
                smp_call_async(other, note, digit).expect("room");
            }
            refused.store(smp_call_async(other, note, 9) == Err(CallError::Busy), Ordering::Relaxed);
            go.store(true, Ordering::Release);
        }
    });
    wait_for(|| DIGITS.load(Ordering::Relaxed) >= 1000);
    assert_eq!(DIGITS.load(Ordering::Relaxed), 1234);
    assert!(refused.into_inner(), "one more than there is room for");
}

ktest!(all_cpus_call_each_other, machine four = "smp=4", machine eight_gicv3 = "smp=8 gic=3", timeout = 60);
fn all_cpus_call_each_other() {
    const ROUNDS: u64 = 20;
    let counts = [const { AtomicU64::new(0) }; 8];
    cpus::run_everywhere(&|_| {
        for _ in 0..ROUNDS {
            for cpu in global::online_cpus() {
                let count = counts.get(cpu.get() as usize).expect("eight at most");
                smp_call(
                    cpu,
                    |count: &AtomicU64| {
                        count.fetch_add(1, Ordering::Relaxed);
                    },
                    count,
                )
                .expect("online");
            }
        }
    });
    let cpus = global::online_cpus().count();
    for count in counts.iter().take(cpus) {
        assert_eq!(count.load(Ordering::Relaxed), ROUNDS * cpus as u64);
    }
}

/// Nothing is ever to do.
struct Idle;

impl Deferred for Idle {
    fn run(&self) -> bool {
        false
    }
}

ktest!(
    whoever_may_not_wait_makes_no_waiting_call,
    machine = "smp=2 alone",
    report = "sleeping function called in atomic context (interrupts are masked): smp_call",
    report = "sleeping function called in atomic context (interrupts are masked): cpu_down",
    report = "sleeping function called in atomic context (interrupts are masked): Registry::unregister",
    report = "sleeping function called in atomic context (a lock is held): smp_call"
);
fn whoever_may_not_wait_makes_no_waiting_call() {
    let other = CpuId::new(1);
    let place = global::defer_to(&Idle).expect("a free place");
    let refused = |answer| matches!(answer, Err(CallError::Atomic(_)));
    {
        let _masked = irq::local_irq_save();
        assert!(refused(smp_call(other, |_: &()| {}, &())));
        assert!(matches!(cpus::cpu_down(other), Err(CpuError::Atomic(_))));
        assert!(matches!(cpus::cpu_up(other), Err(CpuError::Atomic(_))));
        assert_eq!(cpus::run_everywhere(&|_| panic!("it runs")), 0);
        assert_eq!(tick::start(1 << 20, || panic!("it ticks")), Err(InterruptError::Atomic));
        assert_eq!(tick::stop(), Err(InterruptError::Atomic));
        assert!(!global::idle());
        assert!(matches!(global::defer_no_more(place), Err(RegistryError::Atomic(_))));
    }
    global::defer_no_more(place).expect("it is still there");
    let lock = global::spin_lock(());
    let held = lock.lock();
    assert!(refused(smp_call(other, |_: &()| {}, &())));
    drop(held);
    let inside = AtomicBool::new(false);
    let call = |inside: &AtomicBool| {
        let answer = smp_call(CpuId::BOOT, |_: &()| {}, &());
        inside.store(matches!(answer, Err(CallError::Atomic(_))), Ordering::Relaxed);
    };
    smp_call(other, call, &inside).expect("online");
    assert!(inside.into_inner(), "in a handler");
}

ktest!(
    a_call_that_is_not_made_is_named,
    machine = "smp=2 alone stays",
    report = "CPU 0 has waited a second for CPU 1, which is Online"
);
fn a_call_that_is_not_made_is_named() {
    while_the_other_cpu_is_deaf(|| {
        let _ = smp_call(CpuId::new(1), |_: &()| {}, &());
    });
}

/// The CPU that goes in the middle of a call to it.
const GOING: CpuId = CpuId::new(1);

/// Where the CPUs are that meet in the test below: nowhere, at the chosen instruction, behind the end of the CPU that goes,
/// behind the end of the call.
static MEETING: AtomicU8 = AtomicU8::new(NOBODY);
const NOBODY: u8 = 0;
const AT_INSTRUCTION: u8 = 1;
const GONE: u8 = 2;
const CALLED: u8 = 3;
const BACK: u8 = 4;

/// Instructions of the call before the one at which the other CPU goes.
static LEFT: AtomicU32 = AtomicU32::new(0);

fn meet(_: &Step) -> Then {
    if LEFT.fetch_sub(1, Ordering::Relaxed) != 0 {
        return Then::Step;
    }
    MEETING.store(AT_INSTRUCTION, Ordering::Release);
    while MEETING.load(Ordering::Acquire) != GONE {
        cpu::relax();
    }
    Then::Run
}

// The call is put on a list of a CPU that has read it for the last time: the caller must handle that itself.
ktest!(a_cpu_goes_at_any_instruction_of_a_call_to_it, machine = "smp=3", timeout = 120);
fn a_cpu_goes_at_any_instruction_of_a_call_to_it() {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let (refused, late, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let count = |_: &()| {
        MADE.fetch_add(1, Ordering::Relaxed);
    };
    cpus::run_everywhere(&|cpu: CpuId| match cpu.get() {
        0 => {
            for first in 0..220 {
                LEFT.store(first, Ordering::Relaxed);
                let before = MADE.load(Ordering::Relaxed);
                let mut answer = Ok(());
                let _ = step_through(meet, || answer = smp_call(GOING, count, &()));
                match answer {
                    Ok(()) => assert_eq!(MADE.load(Ordering::Relaxed), before + 1, "made once"),
                    Err(CallError::Offline(_)) => {
                        assert_eq!(MADE.load(Ordering::Relaxed), before, "refused and not made");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error}"),
                }
                if MEETING.load(Ordering::Acquire) == NOBODY {
                    // The call was over before.
                    late.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                MEETING.store(CALLED, Ordering::Release);
                wait_for(|| MEETING.load(Ordering::Acquire) == BACK);
                MEETING.store(NOBODY, Ordering::Release);
            }
            done.store(true, Ordering::Release);
        }
        2 => {
            while !done.load(Ordering::Acquire) {
                match MEETING.load(Ordering::Acquire) {
                    AT_INSTRUCTION => {
                        cpus::cpu_down(GOING).expect("it has nothing to do");
                        MEETING.store(GONE, Ordering::Release);
                    }
                    CALLED => {
                        cpus::cpu_up(GOING).expect("it can come back");
                        MEETING.store(BACK, Ordering::Release);
                    }
                    _ => cpu::relax(),
                }
            }
        }
        _ => {}
    });
    assert!(refused.into_inner() >= 20 && late.into_inner() < 200, "most calls were interrupted");
}
