//! Result of a row, and its output for the runner.

use core::fmt;

/// A figure in hundredths, printed without trailing zeros.
#[derive(Clone, Copy, Default)]
pub(crate) struct Hundredths(u64);

impl Hundredths {
    /// `total` in `parts` equal parts.
    pub(crate) fn of(total: u64, parts: u64) -> Self {
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

/// Which of its figures a row is judged by.
#[derive(Clone, Copy, Default)]
pub(crate) enum Headline {
    /// The mean of the batch.
    #[default]
    Batch,
    /// The median of the samples.
    Median,
    /// The 99th percentile of the samples.
    P99,
    /// The dearest sample.
    Max,
}

impl fmt::Display for Headline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Batch => "batch",
            Self::Median => "median",
            Self::P99 => "p99",
            Self::Max => "max",
        })
    }
}

/// Result of one row, per unit.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Of what the figures are.
    pub(crate) of: Quantity,
    pub(crate) headline: Headline,
    /// Single samples taken.
    pub(crate) n: u32,
    /// Units of the row in one operation.
    pub(crate) units: u32,
    pub(crate) min: Hundredths,
    pub(crate) median: Hundredths,
    pub(crate) mean: Hundredths,
    pub(crate) p99: Hundredths,
    pub(crate) max: Hundredths,
    /// Rounds of the batch, and its mean.
    pub(crate) batch: u32,
    pub(crate) batch_mean: Hundredths,
    pub(crate) warm_up: u32,
    /// Mean of the batch in real time, where that means something.
    pub(crate) nanoseconds: Option<Hundredths>,
    /// Instructions before the first operation.
    pub(crate) setup: u32,
}

/// Unit of the figures.
#[derive(Clone, Copy, Default)]
pub(crate) enum Quantity {
    #[default]
    Instructions,
    Percent,
    Bytes,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instructions => "instructions",
            Self::Percent => "percent",
            Self::Bytes => "bytes",
        })
    }
}

impl Figures {
    /// Figures of samples that are `units` of what the row counts, which it sorts; without a batch.
    pub(crate) fn of(samples: &mut [u32], units: u32, headline: Headline) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100).max(1);
            Hundredths::of(u64::from(samples.get(rank - 1).copied().unwrap_or_default()), u64::from(units))
        };
        let n = u32::try_from(samples.len()).unwrap_or(u32::MAX);
        let total = samples.iter().copied().map(u64::from).sum();
        let mean = Hundredths::of(total, (u64::from(n) * u64::from(units)).max(1));
        let [min, median, p99, max] = [0, 50, 99, 100].map(at);
        Self { headline, n, units, min, median, mean, p99, max, ..Self::default() }
    }

    /// The same, judged by the median of the samples: for a row that Linux's median stands beside, where a mean has the refills of
    /// per-CPU lists in it.
    pub(crate) fn by_median(self) -> Self {
        Self { headline: Headline::Median, ..self }
    }

    /// A part of a whole, in percent.
    pub(crate) fn percent(part: u64, whole: u64) -> Self {
        Self::one(Quantity::Percent, Hundredths::of(part * 100, whole.max(1)))
    }

    /// Bytes of memory, for each of so many.
    pub(crate) fn bytes(total: u64, count: u64) -> Self {
        Self::one(Quantity::Bytes, Hundredths::of(total, count.max(1)))
    }

    fn one(of: Quantity, figure: Hundredths) -> Self {
        let [min, median, mean, p99, max] = [figure; 5];
        Self { of, headline: Headline::Max, n: 1, units: 1, min, median, mean, p99, max, ..Self::default() }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            of,
            headline,
            n,
            units,
            min,
            median,
            mean,
            p99,
            max,
            batch,
            batch_mean,
            warm_up,
            setup,
            nanoseconds: _,
        } = self;
        write!(f, "{of}\t{headline}\t{n}\t{units}\t{min}\t{median}\t{mean}\t{p99}\t{max}\t")?;
        write!(f, "{batch}\t{batch_mean}\t{warm_up}\t{setup}")
    }
}
