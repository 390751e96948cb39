//! The firmware that starts and stops CPUs and the machine (Arm DEN 0022), by whichever instruction reaches it.

use crate::addr::PhysAddr;
use crate::fdt::Conduit;
use core::sync::atomic::{AtomicU8, Ordering};
use smccc::psci::{self, AffinityState, LowestAffinityLevel};
use smccc::{Hvc, Smc};

pub use smccc::psci::Error;

const NONE: u8 = 0;
const HVC: u8 = 1;
const SMC: u8 = 2;

static CONDUIT: AtomicU8 = AtomicU8::new(NONE);

/// Tells how firmware is reached, if there is any with the standard function numbers. Once, by the boot CPU.
pub fn init(conduit: Option<Conduit>) {
    let conduit = match conduit {
        None => NONE,
        Some(Conduit::Hvc) => HVC,
        Some(Conduit::Smc) => SMC,
    };
    CONDUIT.store(conduit, Ordering::Relaxed);
}

/// Whether there is firmware to call.
#[must_use]
pub fn is_present() -> bool {
    CONDUIT.load(Ordering::Relaxed) != NONE
}

macro_rules! call {
    ($function:ident($($argument:expr),*)) => {
        match CONDUIT.load(Ordering::Relaxed) {
            HVC => psci::$function::<Hvc>($($argument),*),
            SMC => psci::$function::<Smc>($($argument),*),
            _ => Err(Error::NotSupported),
        }
    };
}

/// Starts the CPU with `affinity` at `entry`, MMU off, at the level that the kernel was entered at (`CPU_ON`). It returns
/// before the CPU is there. Any context.
///
/// # Errors
///
/// What firmware answers; [`Error::NotSupported`] without any.
pub fn cpu_on(affinity: u64, entry: PhysAddr) -> Result<(), Error> {
    call!(cpu_on(affinity, entry.get(), 0))
}

/// Switches this CPU off (`CPU_OFF`); it returns only if firmware refuses. Everything masked, nothing of this CPU's left to
/// do.
///
/// # Errors
///
/// What firmware answers.
pub fn cpu_off() -> Result<(), Error> {
    call!(cpu_off())
}

/// Whether the CPU with `affinity` is off (`AFFINITY_INFO`). Any context.
///
/// # Errors
///
/// What firmware answers.
pub fn is_off(affinity: u64) -> Result<bool, Error> {
    let state = call!(affinity_info(affinity, LowestAffinityLevel::All))?;
    Ok(state == AffinityState::Off)
}

/// Switches the machine off (`SYSTEM_OFF`); it returns only if firmware refuses. Any context.
///
/// # Errors
///
/// What firmware answers.
pub fn system_off() -> Result<(), Error> {
    call!(system_off())
}
