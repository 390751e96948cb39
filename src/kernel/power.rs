//! Leaving: how the machine is switched off when the kernel has ended, with a status where somebody reads it.

use crate::arch::aarch64::cpu;
use crate::fdt::Conduit;
use crate::kernel::console;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use qemu_exit::QEMUExit;
use smccc::{Hvc, Smc, psci};

/// The status of an end without error.
pub const SUCCESS: u32 = 0;
/// The status of every other end.
pub const FAILURE: u32 = 1;

const NO_PSCI: u8 = 0;
const PSCI_BY_HVC: u8 = 1;
const PSCI_BY_SMC: u8 = 2;

static SEMIHOSTING: AtomicBool = AtomicBool::new(false);
static PSCI: AtomicU8 = AtomicU8::new(NO_PSCI);

/// Tells how this machine can be left. `semihosting` only if whoever started the kernel said in the boot arguments that
/// somebody listens: elsewhere the instruction is an undefined one. `psci` is the
/// conduit of the device tree's PSCI node, if that has the standard function numbers.
pub fn init(semihosting: bool, psci: Option<Conduit>) {
    SEMIHOSTING.store(semihosting, Ordering::Relaxed);
    let conduit = match psci {
        None => NO_PSCI,
        Some(Conduit::Hvc) => PSCI_BY_HVC,
        Some(Conduit::Smc) => PSCI_BY_SMC,
    };
    PSCI.store(conduit, Ordering::Relaxed);
}

/// Ends the kernel: by semihosting with `status`, by PSCI SYSTEM_OFF, or, where there is neither, by stopping this CPU.
/// Any context. What was printed has left the console first.
pub fn leave(status: u32) -> ! {
    console::flush();
    if SEMIHOSTING.load(Ordering::Relaxed) {
        qemu_exit::AArch64::new().exit(status);
    }
    // An answer means that the firmware refused; then there is nothing left but to stop.
    let _refused = match PSCI.load(Ordering::Relaxed) {
        PSCI_BY_HVC => psci::system_off::<Hvc>(),
        PSCI_BY_SMC => psci::system_off::<Smc>(),
        _ => Ok(()),
    };
    cpu::park()
}
