//! Work for a CPU to do outside of interrupt handlers: on its own stack, interrupts unmasked, so that it may wait.

use super::{CpuState, Record, no_answer, patience};
use crate::addr::CpuId;
use crate::arch::aarch64::cpu;
use crate::driver::timer;
use crate::global;
use crate::kernel::interrupts;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Job of several CPUs.
///
/// # Invariants
///
/// - `JOB-1`: `body` is the argument that `run` expects, and exists until `left` is zero.
pub(super) struct Job {
    run: unsafe fn(*const (), CpuId),
    body: *const (),
    /// CPUs that have not finished yet.
    left: AtomicU32,
}

/// Whether a CPU has no job waiting.
pub(super) fn is_free(record: &Record) -> bool {
    record.job.load(Ordering::SeqCst).is_null()
}

/// Marks a CPU's job place while the CPU runs a job.
const BUSY: *mut Job = core::ptr::without_provenance_mut(1);

/// Runs the job that waits for this CPU. Returns whether there was one.
pub(super) fn run_here(record: &Record) -> bool {
    let job = record.job.load(Ordering::Relaxed);
    // The sender may take it back, until it is taken here. Acquire pairs with the exchange in `send`.
    if job.is_null() || record.job.compare_exchange(job, BUSY, Ordering::SeqCst, Ordering::Relaxed).is_err() {
        return false;
    }
    // SAFETY: the sender that put it there waits until it is done.
    let job = unsafe { &*job };
    // SAFETY: JOB-1.
    unsafe { (job.run)(job.body, cpu::current()) };
    record.job.store(core::ptr::null_mut(), Ordering::Release);
    // The last access to the job: its owner may free it afterwards.
    job.left.fetch_sub(1, Ordering::Release);
    true
}

/// Runs `body` on every CPU that is online at once, on this one too, and returns when all have finished. Returns their number.
/// Where sleeping is allowed; elsewhere that is reported, nothing runs, and the result is zero. While it waits, this CPU does
/// the work of an idle one. A CPU that runs another job finishes it first; one that takes more than a second for the rest is
/// reported each second.
pub fn run_everywhere<F: Fn(CpuId) + Sync>(body: &F) -> u32 {
    unsafe fn call<F: Fn(CpuId) + Sync>(body: *const (), cpu: CpuId) {
        // SAFETY: the function below made it from this type.
        let body = unsafe { &*body.cast::<F>() };
        body(cpu);
    }
    if global::might_sleep("run_everywhere").is_err() {
        return 0;
    }
    let job = Job { run: call::<F>, body: (&raw const *body).cast(), left: AtomicU32::new(0) };
    let here = cpu::current();
    let mut count = 1;
    for cpu in global::online_cpus().filter(|cpu| *cpu != here) {
        let Some(record) = Record::of(cpu) else { continue };
        job.left.fetch_add(1, Ordering::Relaxed);
        if !send(&job, cpu, record) {
            job.left.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        count += 1;
    }
    body(here);
    let mut waiting = patience();
    // Acquire pairs with the release in `run_here`: the other CPUs' work is visible.
    while job.left.load(Ordering::Acquire) != 0 {
        if !waiting.is_left(timer::ticks()) {
            waiting = patience();
            let late = global::online_cpus().filter(|cpu| Record::of(*cpu).is_some_and(|record| !is_free(record)));
            late.for_each(no_answer);
        }
        global::idle();
        cpu::relax();
    }
    count
}

/// Gives the job to a CPU, after the one that it may have. Returns whether the CPU will run it.
fn send(job: &Job, cpu: CpuId, record: &Record) -> bool {
    let place: &AtomicPtr<Job> = &record.job;
    let pointer = (&raw const *job).cast_mut();
    while place.compare_exchange(core::ptr::null_mut(), pointer, Ordering::SeqCst, Ordering::Relaxed).is_err() {
        if record.state() != CpuState::Online {
            return false;
        }
        global::idle();
        cpu::relax();
    }
    // A CPU that leaves looks for work once more after its state has changed. So one that is seen to stay finds this; one that
    // is seen to go may find it too, unless it is taken back here first.
    let stays = matches!(record.state(), CpuState::Online | CpuState::Leaving);
    if !stays && place.compare_exchange(pointer, core::ptr::null_mut(), Ordering::SeqCst, Ordering::Relaxed).is_ok() {
        return false;
    }
    interrupts::kick(cpu);
    true
}
