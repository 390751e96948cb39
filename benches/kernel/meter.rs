//! Running one operation: warm-up, single samples, a batch; or once, between marks, for the tracing emulator.

use crate::counter::{self, READING};
use crate::trace;
use core::arch::asm;
use core::fmt;
use quarry::arch::aarch64::features::IdRegisters;
use quarry::kprintln;
use spin::mutex::SpinMutex;

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

/// A figure in hundredths, printed without trailing zeros.
#[derive(Clone, Copy, Default)]
pub(crate) struct Hundredths(u64);

impl Hundredths {
    fn of(total: u64, parts: u64) -> Self {
        Self((total * 100 + parts / 2) / parts)
    }
}

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}"),
        }
    }
}

/// What one row came to, in instructions a unit.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Single samples taken.
    n: u32,
    /// What the row counts, in one operation.
    units: u32,
    min: Hundredths,
    median: Hundredths,
    mean: Hundredths,
    p99: Hundredths,
    max: Hundredths,
    /// Rounds of the batch, and its mean.
    batch: u32,
    batch_mean: Hundredths,
    warm_up: u32,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, units, min, median, mean, p99, max, batch, batch_mean, warm_up } = self;
        write!(f, "{n}\t{units}\t{min}\t{median}\t{mean}\t{p99}\t{max}\t{batch}\t{batch_mean}\t{warm_up}")
    }
}

/// Why a row has no figures.
pub(crate) type Unable = &'static str;

/// Measures operations, or lets them be traced.
pub(crate) struct Meter {
    /// What a round of a batch costs besides the operation; `None` if the operations are traced.
    round: Option<u64>,
}

impl Meter {
    /// Counts, once the counter has been seen to be exact.
    pub(crate) fn counting(cpu: &IdRegisters) -> Self {
        counter::calibrate(cpu);
        // SAFETY: no instruction at all; it is there so that the loop around it is not seen to be empty.
        let nothing = || unsafe { asm!("", options(nomem, nostack, preserves_flags)) };
        let thousand = batch(1_000, nothing) - batch(0, nothing);
        assert!(thousand.is_multiple_of(1_000), "{thousand} instructions for a thousand empty rounds");
        kprintln!("bench: round\t{}", thousand / 1_000);
        Self { round: Some(u64::from(thousand / 1_000)) }
    }

    /// Runs each operation once between marks.
    pub(crate) const fn tracing() -> Self {
        Self { round: None }
    }

    /// Whether operations are traced and not counted.
    pub(crate) const fn is_tracing(&self) -> bool {
        self.round.is_none()
    }

    /// Measures an operation that is as costly each time, or nearly.
    #[inline(always)]
    pub(crate) fn measure(&mut self, op: impl FnMut()) -> Figures {
        self.measure_units(1, op)
    }

    /// Measures an operation that does `units` of what the row counts.
    #[inline(always)]
    pub(crate) fn measure_units(&mut self, units: u32, mut op: impl FnMut()) -> Figures {
        op();
        let before = counter::read();
        op();
        let cost = counter::read().wrapping_sub(before);
        let Some(round) = self.round else {
            op();
            trace::begin();
            op();
            trace::end();
            return Figures::default();
        };
        let warm_up = rounds(BUDGET / 8, cost, WARM_UP);
        for _ in 0..warm_up {
            op();
        }

        let mut store = STORE.lock();
        let n = rounds(BUDGET, cost, SAMPLES);
        let mut total = 0;
        for sample in store.iter_mut().take(n as usize) {
            let before = counter::read();
            op();
            *sample = counter::read().wrapping_sub(before).wrapping_sub(READING);
            total += u64::from(*sample);
        }
        let Some(samples) = store.get_mut(..n as usize) else { return Figures::default() };
        samples.sort_unstable();
        let at = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100).max(1);
            Hundredths::of(u64::from(samples.get(rank - 1).copied().unwrap_or_default()), u64::from(units))
        };

        let size = rounds(BUDGET, cost, ROUNDS);
        let spent = u64::from(batch(size, &mut op)) - u64::from(batch(0, &mut op)) - round * u64::from(size);
        Figures {
            n,
            units,
            min: at(0),
            median: at(50),
            mean: Hundredths::of(total, u64::from(n) * u64::from(units)),
            p99: at(99),
            max: at(100),
            batch: size,
            batch_mean: Hundredths::of(spent, u64::from(size) * u64::from(units)),
            warm_up: warm_up + 2,
        }
    }
}

/// Instructions that `rounds` rounds of `op` cost together, the loop included. The loop counts down by an instruction
/// that the compiler does not look into, so that it is the same for every operation: two instructions a round.
#[inline(always)]
fn batch(rounds: u32, mut op: impl FnMut()) -> u32 {
    let mut left = u64::from(rounds);
    let before = counter::read();
    while left != 0 {
        op();
        // SAFETY: one register.
        unsafe { asm!("sub {0}, {0}, #1", inout(reg) left, options(nomem, nostack, preserves_flags)) };
    }
    counter::read().wrapping_sub(before)
}
