//! All sites together: the injector that they ask.

use super::attr::{FaultAttr, Verbosity};
use super::nth_slot::{NthSlot, SLOTS};
use super::point::{FaultPoint, FaultRequest, FaultStatistics};
use super::site::FaultSite;
use crate::gfp::Gfp;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Decides which allocations fail. One a machine; a `static` can hold it.
#[derive(Debug)]
pub struct FaultInjector {
    /// Sites that are on, and contexts whose calls are counted.
    armed: AtomicU32,
    /// Whether everything fails.
    closed: AtomicBool,
    points: [FaultPoint; FaultSite::ALL.len()],
    pub(super) slots: [NthSlot; SLOTS],
    /// Prints the stack of the caller.
    stack: fn(),
}

impl Default for FaultInjector {
    /// Nothing fails, and no stack is printed.
    fn default() -> Self {
        Self::new(|| {})
    }
}

impl FaultInjector {
    /// Nothing fails. `stack` prints the stack of its caller, for [`Verbosity::Stack`]; it is called from wherever
    /// memory is asked for, and may allocate nothing.
    #[must_use]
    pub const fn new(stack: fn()) -> Self {
        Self {
            armed: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            points: [
                FaultPoint::new(FaultSite::PageAlloc),
                FaultPoint::new(FaultSite::Slab),
                FaultPoint::new(FaultSite::PageTable),
                FaultPoint::new(FaultSite::VmapArea),
            ],
            slots: [const { NthSlot::new() }; SLOTS],
            stack,
        }
    }

    /// Whether anything may fail: whether allocators must take the slow path, which asks.
    #[must_use]
    #[inline]
    pub fn is_armed(&self) -> bool {
        self.armed.load(Relaxed) != 0
    }

    pub(super) fn arm(&self) {
        self.armed.fetch_add(1, Relaxed);
    }

    pub(super) fn disarm(&self) {
        self.armed.fetch_sub(1, Relaxed);
    }

    /// From now on every call fails, without a word: the kernel ends, and nobody knows in which state its allocators are.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.arm();
    }

    /// Whether [`FaultInjector::close`] has been called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    fn point(&self, site: FaultSite) -> Option<&FaultPoint> {
        self.points.get(site as usize)
    }

    /// Sets when a site fails, and its statistics to zero. Any context; one caller at a time for each site. The allocators that
    /// ask have to be told to take the slow path, or no longer to: [`FaultInjector::is_armed`].
    pub fn configure(&self, site: FaultSite, attr: &FaultAttr) {
        let Some(point) = self.point(site) else { return };
        let before = point.configure(attr);
        match (before, attr.probability != super::Probability::NEVER) {
            (false, true) => self.arm(),
            (true, false) => self.disarm(),
            _ => {}
        }
    }

    /// The settings of a site, with the remaining space and times.
    #[must_use]
    pub fn attr(&self, site: FaultSite) -> FaultAttr {
        self.point(site).map_or(FaultAttr::off(site), FaultPoint::attr)
    }

    /// Statistics of a site since it was configured.
    #[must_use]
    pub fn statistics(&self, site: FaultSite) -> FaultStatistics {
        self.point(site).map_or(FaultStatistics::default(), FaultPoint::statistics)
    }

    /// Whether this call is to fail. Asked by the site before it changes anything; any context. Cost while nothing may
    /// fail: a load and a branch.
    #[must_use]
    #[inline]
    pub fn should_fail(&self, site: FaultSite, request: FaultRequest) -> bool {
        self.is_armed() && self.decide(site, request)
    }

    #[cold]
    #[inline(never)]
    fn decide(&self, site: FaultSite, request: FaultRequest) -> bool {
        if self.is_closed() {
            return true;
        }
        let Some(point) = self.point(site).filter(|_| !request.gfp.contains(Gfp::NOFAIL)) else { return false };
        point.count_call();
        let slot = self.slots.iter().find(|slot| slot.is_of(request.context));
        let fails = match slot.and_then(NthSlot::count) {
            // A context whose calls are counted fails at that one alone, as in Linux.
            Some(false) => false,
            Some(true) => {
                point.count_nth();
                true
            }
            None => point.should_fail(request),
        };
        if fails && !request.gfp.contains(Gfp::NOWARN) {
            self.announce(site, point, request);
        }
        fails
    }

    fn announce(&self, site: FaultSite, point: &FaultPoint, request: FaultRequest) {
        let verbose = point.verbosity();
        if verbose == Verbosity::Silent || !point.is_on() {
            return;
        }
        let (name, size, unit) = (site.name(), request.size, site.unit());
        log::warn!("FAULT_INJECTION: forcing a failure: {name}: {size} {unit}, mode:{}; {}", request.gfp, point.attr());
        if verbose == Verbosity::Stack {
            (self.stack)();
        }
    }

    /// Settings and statistics of every site, one a line.
    #[must_use]
    pub const fn report(&self) -> FaultReport<'_> {
        FaultReport(self)
    }
}

/// Result of [`FaultInjector::report`].
#[derive(Clone, Copy, Debug)]
pub struct FaultReport<'i>(&'i FaultInjector);

impl fmt::Display for FaultReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FaultSite::ALL.into_iter().try_for_each(|site| {
            let FaultStatistics { calls, eligible, forced, nth } = self.0.statistics(site);
            write!(f, "{:<16}{calls:>9} asked {eligible:>9} eligible {forced:>9} failed", site.name())?;
            writeln!(f, " {nth:>6} as the n-th; {}", self.0.attr(site))
        })
    }
}
