//! The generic timer's counter (Arm ARM D12), which every time stamp comes from.
#![forbid(unsafe_code)]

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0};
use core::sync::atomic::{AtomicU64, Ordering};
use tock_registers::interfaces::Readable;

/// The virtual counter: ticks since an unspecified moment before boot. Not reordered with earlier accesses.
#[must_use]
pub fn ticks() -> u64 {
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}

/// Ticks per second where `CNTFRQ_EL0` is zero: 1, so that it can be divided by, until [`set_frequency`].
static FREQUENCY: AtomicU64 = AtomicU64::new(1);

/// Ticks per second as the firmware states it in `CNTFRQ_EL0`; where it states none, as [`set_frequency`] was told, or 1.
#[must_use]
pub fn frequency() -> u64 {
    match CNTFRQ_EL0.get() {
        0 => FREQUENCY.load(Ordering::Relaxed),
        stated => stated,
    }
}

/// Whether the firmware has left `CNTFRQ_EL0` zero, which only the highest exception level can mend.
#[must_use]
pub fn lacks_frequency() -> bool {
    CNTFRQ_EL0.get() == 0
}

/// Ticks per second by another source than the firmware: the device tree. Zero is ignored.
pub fn set_frequency(frequency: u64) {
    FREQUENCY.store(frequency.max(1), Ordering::Relaxed);
}

/// Microseconds on the virtual counter.
#[must_use]
pub fn microseconds() -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "2^64 microseconds are half a million years")]
    let micros = (u128::from(ticks()) * 1_000_000 / u128::from(frequency())) as u64;
    micros
}
