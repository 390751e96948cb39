//! Threads that play CPUs: which one, whether its interrupts are masked, when it migrates, and what another does meanwhile.

use super::Pages;
use quarry::arch::host;
use quarry::sync::{HeldLocks, LockContext, LockHal};
use std::cell::Cell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

/// So many more points, and then what another CPU does.
type Between = (u32, Box<dyn FnOnce()>);

std::thread_local! {
    /// The CPU that this thread plays, and whether its interrupts are masked.
    pub(super) static CPU: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    /// Whether this thread migrates to the next CPU at every point where its interrupts are open.
    pub(super) static MIGRATES: Cell<bool> = const { Cell::new(false) };
    /// What another CPU does in the middle of what this thread does.
    static BETWEEN: Cell<Option<Between>> = const { Cell::new(None) };
}

/// Lets another CPU do `f` in the middle of what this thread does next: when it has come to its `point`-th look at a
/// descriptor with no lock held, or has loaded a state that it may change.
pub(in crate::pages) fn between(point: u32, cpu: u32, f: impl FnOnce() + 'static) {
    let other = move || {
        let before = CPU.replace((cpu, false));
        f();
        CPU.set(before);
    };
    BETWEEN.set(Some((point, Box::new(other))));
}

/// Whether the other CPU has come. If not, it does not come any more.
pub(in crate::pages) fn was_between() -> bool {
    BETWEEN.take().is_none()
}

/// A point at which another CPU may come in between.
pub(super) fn point() {
    let mut is_free = true;
    host::with_held(&mut |held, _| is_free = held.iter().next().is_none());
    match BETWEEN.take() {
        Some((0, other)) if is_free => other(),
        Some((left, other)) => BETWEEN.set(Some((left - u32::from(is_free), other))),
        None => {}
    }
}

/// Runs `f` in a thread that migrates to the next CPU that is online at every point where interrupts are open: before they
/// are masked, after they are opened again, and after each look at the CPU or at what it has. It stays where it is at the end.
pub(super) fn migrating<R>(f: impl FnOnce() -> R) -> R {
    MIGRATES.set(true);
    let answer = f();
    MIGRATES.set(false);
    assert!(!CPU.get().1);
    answer
}

/// Lets this thread play another CPU.
pub(in crate::pages) fn run_on(cpu: u32) {
    CPU.set((cpu, false));
}

/// Runs `f` with interrupts masked, as a handler does.
pub(in crate::pages) fn in_interrupt<R>(f: impl FnOnce() -> R) -> R {
    let (cpu, before) = CPU.get();
    CPU.set((cpu, true));
    let result = f();
    CPU.set((cpu, before));
    result
}

/// Counts a CPU that is done, or whose test has failed.
struct Leaving<'a>(&'a AtomicU32);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Lets `cpus` threads play a CPU each, all of them online. Who is done answers the others until all are.
pub(in crate::pages) fn on_cpus<R: Send>(pages: &Pages<'_>, cpus: u32, run: impl Fn(u32) -> R + Sync) -> Vec<R> {
    let (start, done) = (Barrier::new(cpus as usize), AtomicU32::new(0));
    (0..cpus).for_each(|cpu| pages.hal().set_online(cpu, true));
    let one = |cpu| {
        run_on(cpu);
        start.wait();
        let leaving = Leaving(&done);
        let result = run(cpu);
        drop(leaving);
        while done.load(Ordering::Acquire) < cpus {
            pages.answer_requests();
            std::thread::yield_now();
        }
        result
    };
    let one = &one;
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || one(cpu))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    (1..cpus).for_each(|cpu| pages.hal().set_online(cpu, false));
    run_on(0);
    results
}

/// How threads wait that play CPUs.
pub(in crate::pages) struct Yield;

impl spin::RelaxStrategy for Yield {
    fn relax() {
        std::thread::yield_now();
    }
}

impl LockHal for Yield {
    fn with_held(f: &mut dyn FnMut(&HeldLocks, LockContext)) {
        host::with_held(f);
    }
}
