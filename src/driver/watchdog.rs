//! The watchdog of the BCM2835 family, which can also restart the machine (Linux: drivers/watchdog/bcm2835_wdt.c; the registers
//! are in no public manual).

use crate::addr::VirtAddr;
use tock_registers::interfaces::{ReadWriteable, Writeable};
use tock_registers::registers::ReadWrite;
use tock_registers::{register_bitfields, register_structs};

register_bitfields! {
    u32,
    /// PM_RSTC
    Control [
        PASSWORD OFFSET(24) NUMBITS(8) [ Write = 0x5a ],
        /// Action when the time is over.
        CONFIG OFFSET(4) NUMBITS(2) [ Nothing = 0, FullReset = 2 ]
    ],
    /// PM_WDOG
    Time [
        PASSWORD OFFSET(24) NUMBITS(8) [ Write = 0x5a ],
        /// Of 1/65536 s.
        TICKS OFFSET(0) NUMBITS(20) []
    ]
}

register_structs! {
    Registers {
        (0x00 => _other: [u32; 7]),
        (0x1c => control: ReadWrite<u32, Control::Register>),
        (0x20 => _status: u32),
        (0x24 => time: ReadWrite<u32, Time::Register>),
        (0x28 => @END),
    }
}

/// The most that the counter holds.
const MOST_TICKS: u32 = (1 << 20) - 1;
/// Ticks before a restart that is wanted now, as Linux has it.
const AT_ONCE: u32 = 10;

/// A watchdog.
///
/// # Invariants
///
/// - `WDT-1`: the registers of a watchdog are mapped at `base`, not zero, as Device memory, for ever.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    base: VirtAddr,
}

impl Watchdog {
    /// The string of a device-tree node's `compatible` that this driver is for.
    pub const COMPATIBLE: &str = "brcm,bcm2835-pm-wdt";
    /// Bytes of its registers.
    pub const SIZE: u64 = 0x28;

    /// The watchdog whose registers are mapped at `base`. It is left as it is.
    ///
    /// # Safety
    ///
    /// The registers of such a watchdog, [`Watchdog::SIZE`] bytes, are mapped at `base` as Device memory, for ever. `base` is a
    /// multiple of 4 and not zero. No other driver uses them.
    #[must_use]
    pub const unsafe fn new(base: VirtAddr) -> Self {
        // INVARIANT: WDT-1 by the caller's contract.
        Self { base }
    }

    /// Restarts the machine a moment from now. Any context.
    pub fn restart(self) {
        self.begin(AT_ONCE);
    }

    /// Restarts the machine when some 16 seconds, the most that it can count, have passed without another call. Any context.
    /// QEMU's restarts at once: it does not count.
    pub fn watch(self) {
        self.begin(MOST_TICKS);
    }

    /// Stops counting.
    pub fn rest(self) {
        self.registers().control.modify(Control::PASSWORD::Write + Control::CONFIG::Nothing);
    }

    fn begin(self, ticks: u32) {
        let registers = self.registers();
        registers.time.write(Time::PASSWORD::Write + Time::TICKS.val(ticks));
        registers.control.modify(Control::PASSWORD::Write + Control::CONFIG::FullReset);
    }

    fn registers(self) -> &'static Registers {
        // SAFETY: WDT-1, and the registers are cells of their own, so shared references are enough.
        unsafe { &*self.base.as_ptr::<Registers>() }
    }
}
