//! One site: its settings as atomics, its chances, its statistics.

use super::attr::{FaultAttr, Probability, Verbosity};
use super::{FaultContext, FaultSite};
use crate::gfp::Gfp;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// `times` without a limit, and the context that stands for all.
const NONE: u32 = u32::MAX;

/// A call that may be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultRequest {
    /// The calling context.
    pub context: FaultContext,
    /// The caller's flags.
    pub gfp: Gfp,
    /// How much it wants, in the unit of the site.
    pub size: u64,
}

/// Statistics of a site since it was configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultStatistics {
    /// Calls that asked.
    pub calls: u64,
    /// Those that the filters let through.
    pub eligible: u64,
    /// Failures that the settings forced.
    pub forced: u64,
    /// Failures that a context's n-th call was.
    pub nth: u64,
}

/// A site. Every field is an atomic, accessed relaxed: settings that change while others ask take effect one by one.
#[derive(Debug)]
pub(super) struct FaultPoint {
    interval: AtomicU32,
    probability: AtomicU32,
    space: AtomicU64,
    times: AtomicU32,
    verbose: AtomicU8,
    seed: AtomicU64,
    min_size: AtomicU64,
    ignore: AtomicU32,
    only: AtomicU32,
    context: AtomicU32,
    /// Calls since the interval began.
    count: AtomicU32,
    /// The state of the generator.
    random: AtomicU64,
    calls: AtomicU64,
    eligible: AtomicU64,
    forced: AtomicU64,
    nth: AtomicU64,
    on: AtomicBool,
}

impl FaultPoint {
    pub(super) const fn new(site: FaultSite) -> Self {
        let attr = FaultAttr::off(site);
        Self {
            interval: AtomicU32::new(attr.interval),
            probability: AtomicU32::new(0),
            space: AtomicU64::new(attr.space),
            times: AtomicU32::new(NONE),
            verbose: AtomicU8::new(attr.verbose as u8),
            seed: AtomicU64::new(attr.seed),
            min_size: AtomicU64::new(attr.min_size),
            ignore: AtomicU32::new(attr.ignore.bits()),
            only: AtomicU32::new(attr.only.bits()),
            context: AtomicU32::new(NONE),
            count: AtomicU32::new(0),
            random: AtomicU64::new(attr.seed),
            calls: AtomicU64::new(0),
            eligible: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            nth: AtomicU64::new(0),
            on: AtomicBool::new(false),
        }
    }

    /// Replaces the settings and resets all counts. Returns whether the site was on before.
    pub(super) fn configure(&self, attr: &FaultAttr) -> bool {
        let on = attr.probability != Probability::NEVER;
        // Off while the settings change, so that nobody mixes them more than it must.
        let before = self.on.swap(false, Relaxed);
        self.interval.store(attr.interval, Relaxed);
        self.probability.store(attr.probability.get(), Relaxed);
        self.space.store(attr.space, Relaxed);
        self.times.store(attr.times.unwrap_or(NONE), Relaxed);
        self.verbose.store(attr.verbose as u8, Relaxed);
        self.seed.store(attr.seed, Relaxed);
        self.min_size.store(attr.min_size, Relaxed);
        self.ignore.store(attr.ignore.bits(), Relaxed);
        self.only.store(attr.only.bits(), Relaxed);
        self.context.store(attr.context.map_or(NONE, FaultContext::get), Relaxed);
        self.count.store(0, Relaxed);
        self.random.store(attr.seed, Relaxed);
        for counter in [&self.calls, &self.eligible, &self.forced, &self.nth] {
            counter.store(0, Relaxed);
        }
        self.on.store(on, Relaxed);
        before
    }

    /// The settings, with the remaining `space` and `times`.
    pub(super) fn attr(&self) -> FaultAttr {
        FaultAttr {
            interval: self.interval.load(Relaxed),
            probability: Probability::per_mille(self.probability.load(Relaxed)).unwrap_or(Probability::NEVER),
            space: self.space.load(Relaxed),
            times: Some(self.times.load(Relaxed)).filter(|times| *times != NONE),
            verbose: self.verbosity(),
            seed: self.seed.load(Relaxed),
            min_size: self.min_size.load(Relaxed),
            ignore: Gfp::from_bits_retain(self.ignore.load(Relaxed)),
            only: Gfp::from_bits_retain(self.only.load(Relaxed)),
            context: Some(self.context.load(Relaxed)).filter(|context| *context != NONE).map(FaultContext::new),
        }
    }

    pub(super) fn statistics(&self) -> FaultStatistics {
        FaultStatistics {
            calls: self.calls.load(Relaxed),
            eligible: self.eligible.load(Relaxed),
            forced: self.forced.load(Relaxed),
            nth: self.nth.load(Relaxed),
        }
    }

    pub(super) fn verbosity(&self) -> Verbosity {
        Verbosity::from_number(self.verbose.load(Relaxed).into()).unwrap_or(Verbosity::Silent)
    }

    /// Whether the settings can make it fail.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    pub(super) fn count_call(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    pub(super) fn count_nth(&self) {
        self.nth.fetch_add(1, Relaxed);
    }

    /// Whether the settings want this call to fail.
    pub(super) fn should_fail(&self, request: FaultRequest) -> bool {
        if !self.is_on() || !self.admits(request) {
            return false;
        }
        self.eligible.fetch_add(1, Relaxed);
        // The order is Linux's (`should_fail_ex`): times, space, interval, chance.
        let fails = self.times.load(Relaxed) != 0
            && self.is_space_used_up(request.size)
            && self.is_at_interval()
            && self.takes_its_chance()
            && self.take_one_time();
        if fails {
            self.forced.fetch_add(1, Relaxed);
        }
        fails
    }

    /// The filters.
    fn admits(&self, FaultRequest { context, gfp, size }: FaultRequest) -> bool {
        let only = self.only.load(Relaxed);
        let wanted = self.context.load(Relaxed);
        size >= self.min_size.load(Relaxed)
            && gfp.bits() & self.ignore.load(Relaxed) == 0
            && gfp.bits() & only == only
            && (wanted == NONE || wanted == context.get())
    }

    /// Subtracts `size` from the remaining space. Returns whether less than that was left.
    fn is_space_used_up(&self, size: u64) -> bool {
        let less = |space: u64| if space > size { Some(space - size) } else { None };
        self.space.fetch_update(Relaxed, Relaxed, less).is_err()
    }

    fn is_at_interval(&self) -> bool {
        let interval = self.interval.load(Relaxed);
        interval <= 1 || self.count.fetch_add(1, Relaxed).wrapping_add(1).is_multiple_of(interval)
    }

    fn takes_its_chance(&self) -> bool {
        let probability = u64::from(self.probability.load(Relaxed));
        // The bias of a remainder of 2^64 is nothing to a thousandth.
        probability >= 1000 || self.random() % 1000 < probability
    }

    /// The next number: SplitMix64 (Steele, Lea, Flood 2014), whose state is a counter, so that CPUs share it without a
    /// lock.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.random.fetch_add(STEP, Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Takes one of the remaining times. Returns whether there was one.
    fn take_one_time(&self) -> bool {
        let less = |times| if times == NONE { Some(NONE) } else { u32::checked_sub(times, 1) };
        self.times.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}
