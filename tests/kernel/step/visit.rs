//! The visitors of each instruction: they note a call's path, or let the interrupt come at one place of it.
#![expect(clippy::indexing_slicing, reason = "a test that runs out of its own places has failed")]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use quarry::addr::VirtAddr;
use quarry::arch::aarch64::step::{Step, Then};
use quarry::driver::gic::IntId;
use quarry::driver::timer;
use spin::mutex::SpinMutex;

/// The number of no instruction.
const NEVER: u64 = u64::MAX;
/// Task of [`visit`]: the next interrupt comes at or after this instruction, and then again after this number of further ones.
pub(super) static NEXT: AtomicU64 = AtomicU64::new(0);
pub(super) static AGAIN: AtomicU64 = AtomicU64::new(0);
pub(super) static BY_TIMER: AtomicBool = AtomicBool::new(false);
pub(super) static DEED: SpinMutex<Option<fn()>> = SpinMutex::new(None);
/// Task of [`meet`]: the interrupt comes when its place has been met so many times.
pub(super) static PASSES: AtomicU64 = AtomicU64::new(0);
/// Instructions so far; where the last interrupt came; how many came, and how many of them in a sequence.
pub(super) static STEPS: AtomicU64 = AtomicU64::new(0);
pub(super) static LAST: AtomicU64 = AtomicU64::new(0);
pub(super) static CAME: AtomicU32 = AtomicU32::new(0);
pub(super) static IN_SEQUENCE: AtomicU32 = AtomicU32::new(0);
/// How many times a place of the noted path was not come to.
pub(super) static MISSED: AtomicU32 = AtomicU32::new(0);

pub(super) fn visit(step: &Step) -> Then {
    let steps = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
    let next = NEXT.load(Ordering::Relaxed);
    if next == NEVER {
        return Then::Run;
    }
    if steps < next || !step.interruptible {
        return Then::Step;
    }
    if let Then::Run = come(step, steps) {
        return Then::Run;
    }
    match AGAIN.swap(0, Ordering::Relaxed) {
        0 => NEXT.store(NEVER, Ordering::Relaxed),
        further => NEXT.store(steps + further, Ordering::Relaxed),
    }
    Then::Restart
}

/// The visitor of one place.
pub(super) fn meet(step: &Step) -> Then {
    if LAST.load(Ordering::Relaxed) != 0 {
        return Then::Run;
    }
    if !step.interruptible || PASSES.fetch_sub(1, Ordering::Relaxed) != 1 {
        return Then::Step;
    }
    come(step, NEXT.load(Ordering::Relaxed))
}

/// The visitor that notes the instructions before which an interrupt is taken.
pub(super) fn note(step: &Step) -> Then {
    let steps = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
    if step.interruptible {
        let mut path = PATH.lock();
        let len = path.len;
        path.places[len] = (steps, step.pc);
        path.len += 1;
    }
    Then::Step
}

/// The interrupt comes before this instruction, which is the call's `number`-th.
fn come(step: &Step, number: u64) -> Then {
    CAME.fetch_add(1, Ordering::Relaxed);
    IN_SEQUENCE.fetch_add(u32::from(step.in_sequence), Ordering::Relaxed);
    LAST.store(number, Ordering::Relaxed);
    if BY_TIMER.load(Ordering::Relaxed) {
        timer::arm(0);
        return Then::Run;
    }
    interrupt();
    Then::Restart
}

/// Instructions of a call before which an interrupt is taken: the number and the place of each.
pub(super) struct Path {
    pub(super) places: [(u64, VirtAddr); 4096],
    pub(super) len: usize,
}

pub(super) static PATH: SpinMutex<Path> = SpinMutex::new(Path { places: [(0, VirtAddr::ZERO); 4096], len: 0 });

impl Path {
    /// The instruction at `index`: its number, its place, and how many times the path has come there then.
    pub(super) fn at(&self, index: usize) -> Option<(u64, VirtAddr, u64)> {
        let places = &self.places[..self.len];
        let (number, place) = *places.get(index)?;
        let passes = places[..=index].iter().filter(|(_, other)| *other == place).count();
        Some((number, place, passes as u64))
    }
}

fn interrupt() {
    let deed = *DEED.lock();
    deed.expect("something to do")();
}

pub(super) fn timer_interrupt(_: IntId) {
    timer::stop();
    interrupt();
}
