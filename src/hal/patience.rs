//! Time as the CPUs' counters tell it, which need not agree: firmware may leave one CPU's counter behind another's, or stopped.
//! A time measured across CPUs is never negative, and a wait ends all the same.
#![forbid(unsafe_code)]

/// A counter that is behind by less than this is another CPU's; the other half of the numbers are the future.
const BEHIND: u64 = 1 << 63;
/// Looks that a tick is good for at most: a counter that stands still ends a wait after so many looks for each tick of its limit.
/// No CPU looks that often in one tick of a counter that runs, since a look reads the counter behind a barrier.
const LOOKS_PER_TICK: u64 = 64;

/// Ticks from `since` to `now`; 0 if `now` is earlier, as on a CPU whose counter is behind. Any context.
#[must_use]
#[inline]
pub const fn elapsed(since: u64, now: u64) -> u64 {
    let passed = now.wrapping_sub(since);
    if passed < BEHIND { passed } else { 0 }
}

/// The time that a wait may take, on counters that may go backwards between two looks or stand still.
#[derive(Clone, Debug)]
pub struct Patience {
    start: u64,
    limit: u64,
    /// The longest time since the start that any look has found.
    passed: u64,
    looks: u64,
}

impl Patience {
    /// For `limit` ticks from `now` on.
    #[must_use]
    pub const fn new(now: u64, limit: u64) -> Self {
        Self { start: now, limit, passed: 0, looks: 0 }
    }

    /// Whether some is left at `now`. Once it is over it stays so, even if a counter goes backwards. Any context.
    pub const fn is_left(&mut self, now: u64) -> bool {
        let passed = elapsed(self.start, now);
        if passed > self.passed {
            self.passed = passed;
        }
        self.looks = self.looks.saturating_add(1);
        self.passed < self.limit && self.looks < self.limit.saturating_mul(LOOKS_PER_TICK)
    }
}

/// Polls `ready` until it holds, or `limit` ticks of `clock` have passed. Returns whether it held. `relax` is called between
/// two looks. Any context that may spend the time.
pub fn wait_until(
    limit: u64,
    mut clock: impl FnMut() -> u64,
    mut ready: impl FnMut() -> bool,
    mut relax: impl FnMut(),
) -> bool {
    if ready() {
        return true;
    }
    let mut patience = Patience::new(clock(), limit);
    while patience.is_left(clock()) {
        if ready() {
            return true;
        }
        relax();
    }
    false
}
