//! The generic timer's counter (Arm ARM D12), which every time stamp comes from.
#![forbid(unsafe_code)]

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0};
use tock_registers::interfaces::Readable;

/// The virtual counter: ticks since an unspecified moment before boot. Not reordered with earlier accesses.
#[must_use]
pub fn ticks() -> u64 {
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}

/// Ticks per second as the firmware states it; 1 if it states none, so that it can be divided by.
#[must_use]
pub fn frequency() -> u64 {
    CNTFRQ_EL0.get().max(1)
}

/// Microseconds on the virtual counter.
#[must_use]
pub fn microseconds() -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "2^64 microseconds are half a million years")]
    let micros = (u128::from(ticks()) * 1_000_000 / u128::from(frequency())) as u64;
    micros
}
