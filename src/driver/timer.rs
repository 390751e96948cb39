//! The generic timer's interrupt (Arm ARM D12).

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTV_CTL_EL0, CNTV_CVAL_EL0};
use tock_registers::interfaces::Writeable;

pub use crate::arch::aarch64::counter::{frequency, lacks_frequency, microseconds, set_frequency, ticks};

/// Makes the virtual timer's interrupt pending `after` ticks from now, on this CPU, until [`stop`]. The virtual timer works at
/// every level at which the kernel may be entered: a hypervisor may keep the physical one.
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
