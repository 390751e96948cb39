//! Switching the machine off when the kernel has ended, with a status where a host reads it.

use crate::arch::aarch64::{cpu, psci};
use crate::fdt::Conduit;
use crate::kernel::console;
use crate::sync::Once;
use core::sync::atomic::{AtomicBool, Ordering};
use qemu_exit::QEMUExit;

/// The status of an end without error.
pub const SUCCESS: u32 = 0;
/// The status of every other end.
pub const FAILURE: u32 = 1;

static SEMIHOSTING: AtomicBool = AtomicBool::new(false);

/// Called with the status before the machine is left.
static LAST_WORDS: Once<fn(u32), cpu::Relax> = Once::new();

/// From now on `last_words` is called with the status whenever the kernel ends. The first call counts.
pub(super) fn set_last_words(last_words: fn(u32)) {
    LAST_WORDS.call_once(|| last_words);
}

/// Records the ways to leave this machine. `semihosting` only if the boot arguments say that a host listens: elsewhere the
/// instruction is undefined. `conduit` is that of the device tree's PSCI node, if that has the standard function numbers.
pub fn init(semihosting: bool, conduit: Option<Conduit>) {
    SEMIHOSTING.store(semihosting, Ordering::Relaxed);
    psci::init(conduit);
}

/// Ends the kernel: by semihosting with `status`, by PSCI SYSTEM_OFF, or, where there is neither, by stopping this CPU. Any
/// context. All printed text has left the console first.
pub fn leave(status: u32) -> ! {
    console::flush();
    if let Some(last_words) = LAST_WORDS.get() {
        last_words(status);
        // A restart takes a moment.
        cpu::park();
    }
    if SEMIHOSTING.load(Ordering::Relaxed) {
        qemu_exit::AArch64::new().exit(status);
    }
    let Err(refused) = psci::system_off() else { cpu::park() };
    console::print_urgent(format_args!("not switched off ({refused}); the CPU stops here\n"));
    console::flush();
    cpu::park()
}
