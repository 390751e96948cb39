//! Waiting for hardware that does not answer, by counters that do not agree: a serial port that never drains, and CPUs whose
//! counters are behind each other's, or stand still.

use quarry::hal::patience::{Patience, elapsed, wait_until};
use std::cell::Cell;

/// A serial port's transmitter: room for so many bytes, and one byte leaves it every so many looks; never, if that is `None`.
struct FakeUart {
    queued: Cell<u32>,
    room: u32,
    drains_every: Option<u32>,
    looks: Cell<u32>,
    sent: Cell<u32>,
}

impl FakeUart {
    fn new(room: u32, drains_every: Option<u32>) -> Self {
        Self { queued: Cell::new(0), room, drains_every, looks: Cell::new(0), sent: Cell::new(0) }
    }

    /// `TXFF` clear, then `UARTDR`.
    fn try_put(&self) -> bool {
        self.looks.set(self.looks.get() + 1);
        if self.drains_every.is_some_and(|every| self.looks.get().is_multiple_of(every)) {
            self.queued.set(self.queued.get().saturating_sub(1));
        }
        let has_room = self.queued.get() < self.room;
        if has_room {
            self.queued.set(self.queued.get() + 1);
            self.sent.set(self.sent.get() + 1);
        }
        has_room
    }
}

/// A counter that goes on by `step` with each look.
fn clock(step: u64) -> impl FnMut() -> u64 {
    let mut now = u64::MAX - 50;
    move || {
        now = now.wrapping_add(step);
        now
    }
}

#[test]
fn a_port_that_never_drains_costs_its_limit_for_each_byte_and_no_more() {
    let port = FakeUart::new(16, None);
    let sent = (0..20).filter(|_| wait_until(1000, clock(10), || port.try_put(), || {})).count();
    assert_eq!((sent, port.sent.get()), (16, 16), "what has room is sent");
    // Each of the four others was dropped after its limit: 100 ticks of 10, and the look before.
    assert_eq!(port.looks.get(), 16 + 4 * 100);
}

#[test]
fn a_port_that_drains_slowly_loses_nothing() {
    let port = FakeUart::new(1, Some(50));
    let sent = (0..20).filter(|_| wait_until(1000, clock(10), || port.try_put(), || {})).count();
    assert_eq!((sent, port.sent.get()), (20, 20));
}

#[test]
fn a_counter_that_stands_still_ends_a_wait() {
    let port = FakeUart::new(0, None);
    assert!(!wait_until(1000, || 77, || port.try_put(), || {}));
    assert!(port.looks.get() >= 1000, "it was given its time");
    assert!(!wait_until(1, || 0, || false, || {}));
    assert!(!wait_until(0, || 0, || false, || {}));
    assert!(wait_until(0, || 0, || true, || {}), "what is ready needs no patience");
}

// The counters of two CPUs, one of them behind: what runs on both sees time go backwards.
#[test]
fn no_wait_ends_early_because_another_cpu_is_behind() {
    let mut patience = Patience::new(5000, 1000);
    // Now on the CPU that is behind by 3,000.
    for now in [2000, 2500, 2999] {
        assert!(patience.is_left(now), "at {now}, which is not 2^64 ticks later");
    }
    assert!(patience.is_left(5999));
    assert!(!patience.is_left(6000));
    // Over is over.
    assert!(!patience.is_left(3000));
    let mut wrapping = Patience::new(u64::MAX - 10, 100);
    assert!(wrapping.is_left(5) && wrapping.is_left(88) && !wrapping.is_left(89));
}

#[test]
fn two_counters_by_turns_shorten_a_wait_by_what_they_differ_at_most() {
    let mut patience = Patience::new(10_000, 1000);
    let skew = 300;
    let turns = (0_u64..2000).find(|&tick| {
        let now = 10_000 + tick + if tick.is_multiple_of(2) { skew } else { 0 };
        !patience.is_left(now)
    });
    assert_eq!(turns, Some(1000 - skew));
}

#[test]
fn what_happened_later_by_another_counter_happened_just_now() {
    assert_eq!(elapsed(100, 130), 30);
    assert_eq!(elapsed(130, 100), 0);
    assert_eq!(elapsed(u64::MAX - 1, 3), 5);
    assert_eq!(elapsed(7, 7), 0);
}
