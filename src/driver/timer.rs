//! The generic timer (Arm ARM D12): the counter that every time stamp comes from, and its interrupt.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0};
use tock_registers::interfaces::{Readable, Writeable};

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

/// Makes the virtual timer's interrupt pending `after` ticks from now, on this CPU, until [`stop`]. The virtual timer
/// works whatever level the kernel was entered at: a hypervisor may keep the physical one.
pub fn arm(after: u64) {
    CNTV_CVAL_EL0.set(ticks().saturating_add(after));
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR);
    barrier::isb(barrier::SY);
}

/// Stops this CPU's virtual timer; its line is quiet afterwards. For the interrupt handler too.
pub fn stop() {
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
    barrier::isb(barrier::SY);
}
