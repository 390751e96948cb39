//! The settings of a site, and how they are written: Linux's `<interval>,<probability>,<space>,<times>`, then
//! `name=value` for the rest.

use super::{FaultContext, FaultSite};
use crate::addr::MAX_ORDER;
use crate::gfp::Gfp;
use core::fmt;

/// Probability, in thousandths.
///
/// # Invariants
///
/// - `PROB-1`: at most 1000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Probability(u32);

impl Probability {
    /// Never: the site is off.
    pub const NEVER: Self = Self(0);
    /// Always.
    pub const ALWAYS: Self = Self(1000);

    /// The probability in thousandths; `None` above 1000.
    #[must_use]
    pub const fn per_mille(thousandths: u32) -> Option<Self> {
        // INVARIANT: PROB-1 by the comparison.
        if thousandths <= Self::ALWAYS.0 { Some(Self(thousandths)) } else { None }
    }

    /// The thousandths.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Probability {
    /// Per cent, as Linux counts, with a tenth where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, tenth) => write!(f, "{whole}.{tenth}"),
        }
    }
}

/// Amount of logging when a failure is forced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Verbosity {
    /// Nothing.
    Silent = 0,
    /// A line with the settings.
    Line = 1,
    /// The line, and the caller's stack.
    Stack = 2,
}

impl Verbosity {
    pub(super) const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Silent),
            1 => Some(Self::Line),
            2 => Some(Self::Stack),
            _ => None,
        }
    }
}

/// When a site fails (Linux: `struct fault_attr`).
///
/// A call that the filters let through uses up `space`, then is one of `interval`, then takes its chance; as long as
/// `times` are left it fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultAttr {
    /// One call in this number may fail; 0 and 1: every call.
    pub interval: u32,
    /// Probability that one fails.
    pub probability: Probability,
    /// Calls pass until they have asked for this much in sum, in the unit of the site ([`FaultSite::unit`]).
    pub space: u64,
    /// Maximum number of failures; `None`: no limit.
    pub times: Option<u32>,
    /// Amount of logging.
    pub verbose: Verbosity,
    /// Seed of the chances: the same seed and the same calls make the same failures.
    pub seed: u64,
    /// Calls for less, in the unit of the site, pass.
    pub min_size: u64,
    /// Calls with one of these flags pass. [`Gfp::NOFAIL`] always does.
    pub ignore: Gfp,
    /// Calls without one of these flags pass.
    pub only: Gfp,
    /// Calls from any other context pass.
    pub context: Option<FaultContext>,
}

impl FaultAttr {
    /// Never fails; when switched on by `probability` alone, fails for ever, with Linux's filters for page allocation
    /// ([`FaultSite::PageAlloc`]: at least order 1, from callers that may not wait), for `failslab` (callers that may not
    /// wait), and with none for the others.
    #[must_use]
    pub const fn off(site: FaultSite) -> Self {
        let (min_size, ignore) = match site {
            FaultSite::PageAlloc => (2, Gfp::DIRECT_RECLAIM.union(Gfp::HIGHMEM)),
            FaultSite::Slab => (1, Gfp::DIRECT_RECLAIM),
            _ => (1, Gfp::empty()),
        };
        Self {
            interval: 1,
            probability: Probability::NEVER,
            space: 0,
            times: None,
            verbose: Verbosity::Line,
            seed: 0x5eed,
            min_size,
            ignore,
            only: Gfp::empty(),
            context: None,
        }
    }

    /// Every call of every caller fails, silently. Tests start from here.
    #[must_use]
    pub const fn always() -> Self {
        Self {
            probability: Probability::ALWAYS,
            verbose: Verbosity::Silent,
            min_size: 1,
            ignore: Gfp::empty(),
            ..Self::off(FaultSite::PageTable)
        }
    }

    /// Reads the settings of a site as a boot argument or a person at the prompt writes them:
    /// `<interval>,<probability>,<space>,<times>` and then, in any order, `name=value` of
    ///
    /// | name | value |
    /// |---|---|
    /// | `verbose` | 0, 1 or 2 |
    /// | `seed` | a number |
    /// | `min-order` | calls for less than 2^value units pass |
    /// | `ignore-gfp-wait`, `ignore-gfp-highmem` | 1: calls that may wait, or take high memory, pass; 0: they do not |
    /// | `ignore`, `only` | names of [`Gfp`], joined by `\|` |
    /// | `context` | the number of a CPU |
    ///
    /// `probability` is in per cent and may have one digit behind a point, `times` is -1 for no limit. Settings that are not
    /// named are as in [`FaultAttr::off`].
    ///
    /// # Errors
    ///
    /// [`FaultArgError`], which names the part that is wrong.
    pub fn parse(site: FaultSite, text: &str) -> Result<Self, FaultArgError<'_>> {
        let mut parts = text.split(',').map(str::trim);
        let mut attr = Self::off(site);
        let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(FaultArgError::TooFew);
        attr.interval = number(next()?)?;
        attr.probability = probability(next()?)?;
        attr.space = number(next()?)?;
        attr.times = match next()? {
            "-1" => None,
            limit => Some(number(limit)?),
        };
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(FaultArgError::Unknown(part))?;
            match name {
                "verbose" => {
                    attr.verbose = Verbosity::from_number(number(value)?).ok_or(FaultArgError::Value(value))?;
                }
                "seed" => attr.seed = number(value)?,
                "min-order" => {
                    let order: u8 = number(value)?;
                    attr.min_size =
                        if order <= MAX_ORDER { 1 << order } else { return Err(FaultArgError::Value(value)) };
                }
                "ignore-gfp-wait" => attr.ignore.set(Gfp::DIRECT_RECLAIM, switch(value)?),
                "ignore-gfp-highmem" => attr.ignore.set(Gfp::HIGHMEM, switch(value)?),
                "ignore" => attr.ignore = flags(value)?,
                "only" => attr.only = flags(value)?,
                "context" => {
                    let context = Some(FaultContext::new(number(value)?));
                    attr.context = context.filter(|context| *context != FaultContext::INTERRUPT);
                    attr.context.ok_or(FaultArgError::Value(value))?;
                }
                _ => return Err(FaultArgError::Unknown(part)),
            }
        }
        Ok(attr)
    }
}

/// Error in written settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FaultArgError<'a> {
    /// Fewer than the four numbers.
    TooFew,
    /// Not a value that this setting can have.
    Value(&'a str),
    /// No setting has this name.
    Unknown(&'a str),
}

impl fmt::Display for FaultArgError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew => f.write_str("wanted: interval,probability,space,times"),
            Self::Value(text) => write!(f, "{text:?} is no value for this"),
            Self::Unknown(text) => write!(f, "no setting {text:?}"),
        }
    }
}

impl core::error::Error for FaultArgError<'_> {}

fn number<T: core::str::FromStr>(text: &str) -> Result<T, FaultArgError<'_>> {
    text.parse().map_err(|_| FaultArgError::Value(text))
}

/// Per cent with at most one digit behind the point.
fn probability(text: &str) -> Result<Probability, FaultArgError<'_>> {
    let (whole, tenth) = match text.split_once('.') {
        Some((whole, tenth)) if tenth.len() == 1 => (whole, number(tenth)?),
        Some(_) => return Err(FaultArgError::Value(text)),
        None => (text, 0),
    };
    let thousandths = number::<u32>(whole)?.checked_mul(10).and_then(|tens| tens.checked_add(tenth));
    thousandths.and_then(Probability::per_mille).ok_or(FaultArgError::Value(text))
}

fn switch(text: &str) -> Result<bool, FaultArgError<'_>> {
    match text {
        "0" | "N" => Ok(false),
        "1" | "Y" => Ok(true),
        _ => Err(FaultArgError::Value(text)),
    }
}

/// Names joined by `|`; nothing at all is no flags.
fn flags(text: &str) -> Result<Gfp, FaultArgError<'_>> {
    let mut names = text.split('|').filter(|_| !text.is_empty());
    names.try_fold(Gfp::empty(), |flags, name| {
        Gfp::from_name(name).map(|flag| flags | flag).ok_or(FaultArgError::Value(name))
    })
}

/// Flags as [`flags`] reads them.
struct Names(Gfp);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter_names().enumerate().try_for_each(|(index, (name, _))| {
            let between = if index == 0 { "" } else { "|" };
            write!(f, "{between}{name}")
        })
    }
}

impl fmt::Display for FaultAttr {
    /// As [`FaultAttr::parse`] reads it; sizes below which calls pass are rounded down to a power of two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},", self.interval, self.probability, self.space)?;
        match self.times {
            Some(times) => write!(f, "{times}")?,
            None => f.write_str("-1")?,
        }
        write!(f, ",seed={},verbose={},ignore={}", self.seed, self.verbose as u8, Names(self.ignore))?;
        if !self.only.is_empty() {
            write!(f, ",only={}", Names(self.only))?;
        }
        if let Some(order) = self.min_size.checked_ilog2() {
            write!(f, ",min-order={order}")?;
        } else {
            f.write_str(",min-order=0")?;
        }
        self.context.map_or(Ok(()), |context| write!(f, ",context={}", context.get()))
    }
}
