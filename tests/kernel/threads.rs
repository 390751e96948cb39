//! Threads of a kernel that has some, played by one CPU: what each switch takes along.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use quarry::addr::CpuId;
use quarry::arch::aarch64::{cpu, irq};
use quarry::gfp::Gfp;
use quarry::global::{self, SwitchError, ThisKernel, ThreadContext, switch_thread};
use quarry::hal::wait::{Context, Scope};
use quarry::kernel::cpus;
use quarry::ktest;
use quarry::mm::fault_inject::FaultTarget;
use quarry::sync::Sleeper;

static FIRST: ThreadContext = ThreadContext::new();
static SECOND: ThreadContext = ThreadContext::new();

/// Whether a page can be had, without waiting.
fn is_served() -> bool {
    let page = global::alloc_page(Gfp::ATOMIC | Gfp::NOWARN);
    page.is_ok_and(|page| raw!(global::try_free_page(page)).is_ok())
}

// The machine is not used for other tests: its CPU runs a thread from now on.
ktest!(a_thread_takes_its_scopes_and_its_failures_along, machine = "smp=2 alone");
fn a_thread_takes_its_scopes_and_its_failures_along() {
    let switch = |from, to| raw!(switch_thread(from, to));
    let context = global::context();
    assert_eq!(switch(&FIRST, &SECOND), Err(SwitchError::NotMasked));
    assert_eq!((FIRST.runs_on(), SECOND.runs_on()), (None, None));
    let _masked = irq::local_irq_save();
    // The code that has run up to here is the first thread.
    let cpu = ThisKernel.context();
    assert_eq!(switch(&FIRST, &SECOND), Ok(()));
    assert_eq!((FIRST.runs_on(), SECOND.runs_on()), (None, Some(global::this_cpu())));
    context.enter(Scope::NoFs);
    let failures = global::fault_injector().fail_nth(ThisKernel.context(), 2);
    let failures = failures.expect("nobody else has any");
    ThisKernel.set_careful(true);
    assert!(is_served(), "the first call");
    assert_eq!(switch(&SECOND, &FIRST), Ok(()));
    assert!(!context.is_inside(Scope::NoFs), "of the other thread");
    assert!((0..5).all(|_| is_served()), "calls of the other thread fail");
    assert_ne!(ThisKernel.context(), cpu, "it was a CPU, and is a thread");
    assert_eq!(switch(&FIRST, &SECOND), Ok(()));
    assert!(context.is_inside(Scope::NoFs) && !is_served(), "the second call");
    drop(failures);
    ThisKernel.set_careful(false);
    context.leave(Scope::NoFs);
    assert_eq!(switch(&SECOND, &FIRST), Ok(()));
    assert!(!SECOND.is_inside(Scope::NoFs));
}

// A thread that was about to sleep for memory is preempted and goes on elsewhere: its CPU runs the next one meanwhile.
ktest!(a_cpu_that_switches_threads_is_awake, machine = "smp=2 alone");
fn a_cpu_that_switches_threads_is_awake() {
    let (step, awake) = (AtomicU32::new(0), [AtomicBool::new(true), AtomicBool::new(false)]);
    let asleep = AtomicU32::new(0);
    let wait_for = |wanted| {
        while step.load(Ordering::Acquire) < wanted {
            cpu::relax();
        }
    };
    let sleeper = |_: CpuId| {
        let _masked = irq::local_irq_save();
        global::asleep(|| {
            step.store(1, Ordering::Release);
            wait_for(2);
            assert_eq!(raw!(switch_thread(&FIRST, &SECOND)), Ok(()));
            step.store(3, Ordering::Release);
            wait_for(4);
            assert_eq!(raw!(switch_thread(&SECOND, &FIRST)), Ok(()));
        });
    };
    cpus::run_everywhere(&|cpu: CpuId| {
        if cpu == CpuId::BOOT {
            return sleeper(cpu);
        }
        // The others sleep from before the first look to the last.
        if cpu != CpuId::new(1) {
            return global::asleep(|| {
                asleep.fetch_add(1, Ordering::Release);
                wait_for(4);
            });
        }
        let others = u32::try_from(global::online_cpus().count()).expect("few") - 2;
        while asleep.load(Ordering::Acquire) != others {
            cpu::relax();
        }
        for (seen, at) in awake.iter().zip([1, 3]) {
            wait_for(at);
            seen.store(global::context().others_are_awake(), Ordering::Relaxed);
            step.store(at + 1, Ordering::Release);
        }
    });
    let [before, after] = awake.map(AtomicBool::into_inner);
    assert!(!before && after, "asleep before the switch, awake after it");
}
