//! Running one operation: warm-up, single samples, a batch; or a few times for the tracing emulator.

use crate::counter::{self, READING};
use crate::figures::{Headline, Hundredths};
use crate::trace;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use quarry::arch::aarch64::features::IdRegisters;
use quarry::driver::timer;
use quarry::kprintln;
use spin::mutex::{SpinMutex, SpinMutexGuard};

pub(crate) use crate::figures::Figures;
pub(crate) use crate::heap::Unable;

/// Instructions that the samples of one row may cost, and its batch again.
const BUDGET: u32 = 8_000_000;
/// The most and the fewest single samples.
const SAMPLES: (u32, u32) = (2_000, 11);
/// The most and the fewest rounds of a batch.
const ROUNDS: (u32, u32) = (10_000, 11);
/// The most and the fewest rounds before anything is counted.
const WARM_UP: (u32, u32) = (64, 3);

static STORE: SpinMutex<[u32; SAMPLES.0 as usize]> = SpinMutex::new([0; SAMPLES.0 as usize]);

/// How often something fits the budget.
const fn rounds(budget: u32, cost: u32, (most, fewest): (u32, u32)) -> u32 {
    let fits = budget / if cost == 0 { 1 } else { cost };
    if fits > most {
        most
    } else if fits < fewest {
        fewest
    } else {
        fits
    }
}

/// Measures operations, or lets them be traced.
pub(crate) struct Meter {
    tracing: bool,
    overhead: Overhead,
    /// The counter when the row began.
    begun: u32,
    /// Instructions of the operation that was traced last, and those that it left out.
    traced: (u32, u32),
    /// Instructions of the next operation that are not its own.
    left_out: u32,
}

/// Overhead of a measured stretch besides its operations: the second reading, and this much each round for counting down and
/// going back. Other instructions that the compiler puts between the readings stay in the figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overhead {
    reading: u32,
    round: u32,
}

impl Overhead {
    /// The part of `count` that belongs to the operations of `rounds` rounds.
    const fn subtract(self, count: u32, rounds: u32) -> u32 {
        count.saturating_sub(self.reading).saturating_sub(self.round.saturating_mul(rounds))
    }

    /// Counts stretches of empty rounds; all lengths must agree. Returns also how much is left of each.
    fn measure() -> (Self, u32) {
        let overhead = Self { reading: READING, round: empty_stretch(2) - empty_stretch(1) };
        let rest = overhead.subtract(empty_stretch(1), 1);
        for rounds in [2, 3, 1_002] {
            let left = overhead.subtract(empty_stretch(rounds), rounds);
            assert_eq!(left, rest, "instructions left of {rounds} empty rounds, and of one, with {overhead:?}");
        }
        (overhead, rest)
    }
}

/// A stretch without an operation; out of line, so that the compiler makes one copy of it.
#[inline(never)]
fn empty_stretch(rounds: u32) -> u32 {
    // SAFETY: no instruction at all; it is there so that the loop around it is not seen to be empty.
    stretch(rounds, &mut || unsafe { asm!("", options(nomem, nostack, preserves_flags)) })
}

/// Instructions that `rounds` rounds of `op` cost together, at least one, the overhead included. The loop counts down
/// by an instruction that the compiler does not look into, so that it is the same for every operation.
#[inline(always)]
fn stretch(rounds: u32, op: &mut impl FnMut()) -> u32 {
    let mut left = u64::from(rounds);
    // SAFETY: no instruction at all; it hides the number from the compiler, without a way through memory.
    unsafe { asm!("/* {0} */", inout(reg) left, options(nomem, nostack, preserves_flags)) };
    let before = counter::read();
    loop {
        op();
        // SAFETY: one register.
        unsafe { asm!("sub {0}, {0}, #1", inout(reg) left, options(nomem, nostack, preserves_flags)) };
        if left == 0 {
            break;
        }
    }
    counter::read().wrapping_sub(before)
}

/// Treatment of the next count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first rounds; the last of them tells how many more the budget allows.
    Estimate,
    /// Counted, and thrown away.
    WarmUp,
    /// Kept: one operation.
    Sample,
    /// Kept: the batch.
    Batch,
}

impl Meter {
    /// Counts, once the counter has been seen to be exact.
    pub(crate) fn counting(cpu: &IdRegisters) -> Self {
        let (meter, rest) = Self::calibrated(cpu, false);
        kprintln!("bench: overhead\t{READING}\t{}\t{rest}", meter.overhead.round);
        meter
    }

    /// Counts cycles instead, and takes the time of each batch: for a CPU that is no emulator's. Figures vary.
    pub(crate) fn clocking(cpu: &IdRegisters) -> Self {
        counter::count_cycles(cpu);
        CLOCKING.store(true, Ordering::Relaxed);
        let least = |rounds| (0..32).map(|_| empty_stretch(rounds)).min().unwrap_or_default();
        let round = least(1_001).saturating_sub(least(1)) / 1_000;
        let overhead = Overhead { reading: least(1).saturating_sub(round), round };
        Self { tracing: false, overhead, begun: 0, traced: (0, 0), left_out: 0 }
    }

    /// Has the fourth round of each operation traced, and counts it too.
    pub(crate) fn tracing(cpu: &IdRegisters) -> Self {
        Self::calibrated(cpu, true).0
    }

    fn calibrated(cpu: &IdRegisters, tracing: bool) -> (Self, u32) {
        counter::calibrate(cpu);
        let (overhead, rest) = Overhead::measure();
        (Self { tracing, overhead, begun: 0, traced: (0, 0), left_out: 0 }, rest)
    }

    /// Whether operations are traced and not counted.
    pub(crate) const fn is_tracing(&self) -> bool {
        self.tracing
    }

    /// Instructions of the operation that was traced last, and those that it left out.
    pub(crate) const fn traced(&self) -> (u32, u32) {
        self.traced
    }

    /// From here on a row prepares what it measures, in a trace as well.
    pub(crate) fn begin(&mut self) {
        self.begun = counter::read();
    }

    /// The next operation to be measured is `op` and what it is measured for: that much is subtracted from each. A fault is a store
    /// less the same store to a page that is there.
    #[inline(always)]
    pub(crate) fn leave_out(&mut self, mut op: impl FnMut()) {
        for _ in 0..ESTIMATES {
            self.left_out = self.overhead.subtract(stretch(1, &mut op), 1);
        }
    }

    /// The overhead of the next operation, what is left out included.
    fn overhead(&mut self) -> Overhead {
        let left_out = core::mem::take(&mut self.left_out);
        self.traced.1 = left_out;
        Overhead { round: self.overhead.round + left_out, ..self.overhead }
    }

    /// Measures an operation.
    #[inline(always)]
    pub(crate) fn measure(&mut self, op: impl FnMut()) -> Figures {
        self.measure_units(1, op)
    }

    /// Measures an operation before each of which something is made ready, which does not count. The batch is single operations
    /// too, one after the other.
    #[inline(always)]
    pub(crate) fn measure_each(&mut self, mut prepare: impl FnMut(), mut op: impl FnMut()) -> Figures {
        let setup = counter::read().wrapping_sub(self.begun);
        let mut row = Accumulator::new(self.tracing, self.overhead());
        while let Some(rounds) = row.next_rounds() {
            let mut count: u32 = 0;
            for round in 0..rounds {
                let before = counter::read();
                prepare();
                row.prepared = counter::read().wrapping_sub(before);
                // Each round has a second reading of its own.
                let beyond = if round == 0 { 0 } else { READING };
                count = count.wrapping_add(stretch(1, &mut op).wrapping_sub(beyond));
            }
            row.take(count);
        }
        if self.tracing {
            self.traced.0 = row.batch_count;
        }
        Figures { setup, ..row.figures(1) }
    }

    /// Measures an operation that does `units` of what the row counts.
    #[inline(always)]
    pub(crate) fn measure_units(&mut self, units: u32, mut op: impl FnMut()) -> Figures {
        let setup = counter::read().wrapping_sub(self.begun);
        let mut row = Accumulator::new(self.tracing, self.overhead());
        // One place where the operation is called, so that the compiler makes one copy of it: what is sampled, batched
        // and traced is the same code.
        while let Some(rounds) = row.next_rounds() {
            let count = stretch(rounds, &mut op);
            row.take(count);
        }
        if self.tracing {
            self.traced.0 = row.batch_count;
        }
        Figures { setup, ..row.figures(units) }
    }
}

/// Whether the time of each batch is taken.
static CLOCKING: AtomicBool = AtomicBool::new(false);
/// The counter of time when the batch began, and then the ticks that it took.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// Notes the time before a batch, or since then. Out of line, so that the rows are compiled as without it.
#[cold]
#[inline(never)]
fn note_time() {
    TICKS.store(timer::ticks().wrapping_sub(TICKS.load(Ordering::Relaxed)), Ordering::Relaxed);
}

/// Goes through the phases of one row.
struct Accumulator {
    tracing: bool,
    overhead: Overhead,
    phase: Phase,
    /// Stretches left in this phase.
    left: u32,
    cost: u32,
    /// Instructions of what came before the last operation and does not count.
    prepared: u32,
    warm_up: u32,
    samples: SpinMutexGuard<'static, [u32; SAMPLES.0 as usize]>,
    n: u32,
    batch: u32,
    batch_count: u32,
}

/// Rounds before the cost is believed.
const ESTIMATES: u32 = 3;

impl Accumulator {
    fn new(tracing: bool, overhead: Overhead) -> Self {
        let samples = STORE.lock();
        let (phase, left) = (Phase::Estimate, ESTIMATES);
        Self {
            tracing,
            overhead,
            phase,
            left,
            cost: 0,
            prepared: 0,
            warm_up: 0,
            samples,
            n: 0,
            batch: 0,
            batch_count: 0,
        }
    }

    /// How many rounds the next stretch has; `None` when all is done.
    fn next_rounds(&mut self) -> Option<u32> {
        while self.left == 0 {
            (self.phase, self.left) = match self.phase {
                Phase::Estimate if self.tracing => (Phase::Batch, 1),
                Phase::Estimate => {
                    self.warm_up = rounds(BUDGET / 8, self.cost, WARM_UP);
                    (Phase::WarmUp, self.warm_up)
                }
                Phase::WarmUp => (Phase::Sample, rounds(BUDGET, self.cost, SAMPLES)),
                Phase::Sample => (Phase::Batch, 1),
                Phase::Batch => return None,
            };
        }
        self.left -= 1;
        if self.phase != Phase::Batch {
            return Some(1);
        }
        self.batch = if self.tracing { 1 } else { rounds(BUDGET, self.cost, ROUNDS) };
        if CLOCKING.load(Ordering::Relaxed) {
            TICKS.store(0, Ordering::Relaxed);
            note_time();
        }
        Some(self.batch)
    }

    /// Takes the count of the stretch that `next_rounds` asked for.
    fn take(&mut self, count: u32) {
        let single = self.overhead.subtract(count, 1);
        match self.phase {
            Phase::Estimate => self.cost = single.saturating_add(self.prepared),
            Phase::WarmUp => {}
            Phase::Sample => {
                if let Some(sample) = self.samples.get_mut(self.n as usize) {
                    *sample = single;
                    self.n += 1;
                }
            }
            Phase::Batch if self.tracing => {
                trace::mark();
                self.batch_count = single;
            }
            Phase::Batch => {
                if CLOCKING.load(Ordering::Relaxed) {
                    note_time();
                }
                self.batch_count = self.overhead.subtract(count, self.batch);
            }
        }
    }

    fn figures(&mut self, units: u32) -> Figures {
        let n = self.n;
        let Some(samples) = self.samples.get_mut(..n as usize).filter(|samples| !samples.is_empty()) else {
            return Figures::default();
        };
        Figures {
            batch: self.batch,
            batch_mean: Hundredths::of(u64::from(self.batch_count), u64::from(self.batch) * u64::from(units)),
            warm_up: ESTIMATES + self.warm_up,
            nanoseconds: CLOCKING.load(Ordering::Relaxed).then(|| {
                let nanoseconds = u128::from(TICKS.load(Ordering::Relaxed)) * 1_000_000_000;
                let nanoseconds = nanoseconds / u128::from(timer::frequency());
                Hundredths::of(
                    nanoseconds.try_into().unwrap_or(u64::MAX / 200),
                    u64::from(self.batch) * u64::from(units),
                )
            }),
            ..Figures::of(samples, units, Headline::Batch)
        }
    }
}
