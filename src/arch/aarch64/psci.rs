//! The firmware that starts and stops CPUs and the machine (Arm DEN 0022), by whichever instruction reaches it.

use super::esr::ExceptionClass;
use super::frame::TrapFrame;
use super::probe;
use crate::addr::{PhysAddr, VirtAddr};
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

/// Whether the machine has PSCI firmware.
#[must_use]
pub(crate) fn is_present() -> bool {
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
/// The firmware's error; [`Error::NotSupported`] without firmware.
pub fn cpu_on(affinity: u64, entry: PhysAddr) -> Result<(), Error> {
    call!(cpu_on(affinity, entry.get(), 0))
}

/// Switches this CPU off (`CPU_OFF`); it returns only if firmware refuses. Everything masked, nothing of this CPU's left to
/// do.
///
/// # Errors
///
/// The firmware's error.
pub fn cpu_off() -> Result<(), Error> {
    call!(cpu_off())
}

/// Whether the CPU with `affinity` is off (`AFFINITY_INFO`). Any context.
///
/// # Errors
///
/// The firmware's error.
pub(crate) fn is_off(affinity: u64) -> Result<bool, Error> {
    let state = call!(affinity_info(affinity, LowestAffinityLevel::All))?;
    Ok(state == AffinityState::Off)
}

/// Switches the machine off (`SYSTEM_OFF`); it returns only if firmware refuses. Any context.
///
/// # Errors
///
/// The firmware's error.
pub(crate) fn system_off() -> Result<(), Error> {
    call!(system_off())
}

/// If `frame` is an HVC or SMC that is undefined, as there is no exception level to take it, answers as firmware without
/// the function would (Arm DEN 0028 7.1: -1 in x0). Returns whether it was one. For the handler of synchronous exceptions.
///
/// A device tree may name a conduit that this machine does not have; a boot without the other CPUs is better than none.
pub(crate) fn answer_undefined(frame: &mut TrapFrame) -> bool {
    const HVC: u32 = 0xd400_0002;
    const SMC: u32 = 0xd400_0003;
    if frame.esr.class() != ExceptionClass::UNKNOWN || !frame.elr.is_aligned(4) {
        return false;
    }
    if !probe::load_u32(frame.elr).is_some_and(|instruction| [HVC, SMC].contains(&instruction)) {
        return false;
    }
    let [answer, ..] = &mut frame.x;
    *answer = u64::MAX;
    frame.elr = VirtAddr::new(frame.elr.get().wrapping_add(4));
    true
}
