//! `GICR_WAKER`: telling a GICv3 redistributor whether its CPU can take interrupts (Arm IHI 0069H, §12.11.42).
//!
//! On a machine with two security states the register belongs to the secure one: it reads as zero and ignores writes
//! everywhere else, under hypervisors too. Firmware keeps the redistributor awake there, and nothing is left to do.
#![forbid(unsafe_code)]

use core::fmt;

/// `ProcessorSleep`: the CPU asks not to be sent interrupts.
pub const PROCESSOR_SLEEP: u32 = 1 << 1;
/// `ChildrenAsleep`: the redistributor has stopped, or has not started yet.
pub const CHILDREN_ASLEEP: u32 = 1 << 2;

/// The register of one redistributor.
pub trait WakeRegister {
    /// Reads it.
    fn read(&self) -> u32;
    /// Writes it.
    fn write(&mut self, value: u32);
}

/// Power state requested of a redistributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// It sends interrupts to its CPU.
    Awake,
    /// It keeps them.
    Asleep,
}

/// A redistributor that did not complete its request in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unresponsive {
    /// State that was requested.
    pub wanted: Power,
    /// Last value of the register.
    pub register: u32,
}

impl fmt::Display for Unresponsive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = match self.wanted {
            Power::Awake => "wake",
            Power::Asleep => "go to sleep",
        };
        write!(f, "the redistributor does not {wanted}: GICR_WAKER is {:#x}", self.register)
    }
}

impl core::error::Error for Unresponsive {}

/// Wakes a redistributor, or puts it to sleep, and waits until it says so, for as long as `is_patient` says. Returns at once
/// where the register ignores writes. On the redistributor's own CPU, interrupts masked.
///
/// # Errors
///
/// [`Unresponsive`] if patience ran out.
pub fn set_power(
    register: &mut impl WakeRegister,
    wanted: Power,
    mut is_patient: impl FnMut() -> bool,
) -> Result<(), Unresponsive> {
    let before = register.read();
    let (asked, children) = match wanted {
        Power::Awake => (before & !PROCESSOR_SLEEP, 0),
        Power::Asleep => (before | PROCESSOR_SLEEP, CHILDREN_ASLEEP),
    };
    register.write(asked);
    let mut now = register.read();
    if (now ^ asked) & PROCESSOR_SLEEP != 0 {
        // Not ours to write, so nothing is going to change (Linux: `gic_enable_redist` reads back, too).
        return Ok(());
    }
    while now & CHILDREN_ASLEEP != children {
        if !is_patient() {
            return Err(Unresponsive { wanted, register: now });
        }
        now = register.read();
    }
    Ok(())
}
