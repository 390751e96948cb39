//! Serial ports: which driver fits a device-tree node, and one handle for all of them.
//!
//! A port is a handle to registers and holds no state in memory, so that a report can use it while a log line on another
//! CPU is half out: the worst outcome is mixed text.

mod line;
mod mini;
mod pl011;

use super::timer;
use crate::addr::VirtAddr;
use crate::arch::aarch64::cpu;
use crate::hal::patience;
use core::fmt;

pub use line::{Line, Received};
use mini::MiniUart;
use pl011::Pl011;

/// Limit on the time that a port may block its writer. A reader that stops for longer loses text.
const PATIENCE_SECONDS: u64 = 1;

/// A kind of serial port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UartKind {
    /// Arm PrimeCell PL011.
    Pl011,
    /// The mini-UART of the BCM2835 family.
    Mini,
}

impl UartKind {
    /// The driver for one string of a node's `compatible` property.
    #[must_use]
    pub fn for_compatible(compatible: &str) -> Option<Self> {
        match compatible {
            "arm,pl011" | "arm,pl011-axi" | "brcm,bcm2835-pl011" => Some(Self::Pl011),
            "brcm,bcm2835-aux-uart" => Some(Self::Mini),
            _ => None,
        }
    }
}

impl fmt::Display for UartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pl011 => "PL011",
            Self::Mini => "mini-UART",
        })
    }
}

/// An open serial port.
#[derive(Clone, Copy, Debug)]
pub struct Uart(Port);

#[derive(Clone, Copy, Debug)]
enum Port {
    Pl011(Pl011),
    Mini(MiniUart),
}

impl Uart {
    /// Opens the port whose registers are mapped at `base`, and switches it on with `line` if the loader has not. Each
    /// byte is polled out; interrupts stay off until [`Uart::interrupt_on_input`].
    ///
    /// # Safety
    ///
    /// The registers of a port of this kind are mapped at `base` as Device memory, for ever: 4 KiB for a PL011, 64 bytes
    /// for a mini-UART. `base` is a multiple of 4 and not zero. No other driver uses them.
    #[must_use]
    pub unsafe fn open(kind: UartKind, base: VirtAddr, line: Line) -> Self {
        Self(match kind {
            // SAFETY: by this function's `# Safety`, a PL011's registers are mapped at `base` for good and no other driver's.
            UartKind::Pl011 => Port::Pl011(unsafe { Pl011::open(base, line) }),
            // SAFETY: by this function's `# Safety`, a mini-UART's registers are mapped at `base` for good and no other driver's.
            UartKind::Mini => Port::Mini(unsafe { MiniUart::open(base) }),
        })
    }

    /// Which kind of port this is.
    #[must_use]
    pub const fn kind(self) -> UartKind {
        match self.0 {
            Port::Pl011(_) => UartKind::Pl011,
            Port::Mini(_) => UartKind::Mini,
        }
    }

    /// Sends one byte, waiting for room for at most a second; then the byte is dropped. Returns whether it was sent. Any
    /// context.
    pub fn put(self, byte: u8) -> bool {
        wait_until(|| self.try_put(byte))
    }

    /// Sends one byte if there is room for it now. Returns whether there was. Any context.
    pub fn try_put(self, byte: u8) -> bool {
        match self.0 {
            Port::Pl011(port) if port.can_send() => port.send(byte),
            Port::Mini(port) if port.can_send() => port.send(byte),
            _ => return false,
        }
        true
    }

    /// Takes the next byte that has arrived. Does not wait. One caller at a time.
    #[must_use]
    pub fn receive(self) -> Received {
        match self.0 {
            Port::Pl011(port) => port.receive(),
            Port::Mini(port) => port.receive(),
        }
    }

    /// From here on the port raises its interrupt while something has arrived and was not taken by [`Uart::receive`].
    pub fn interrupt_on_input(self) {
        match self.0 {
            Port::Pl011(port) => port.interrupt_on_input(),
            Port::Mini(port) => port.interrupt_on_input(),
        }
    }

    /// Waits until the last byte has left the port, for at most a second.
    pub fn flush(self) {
        wait_until(|| match self.0 {
            Port::Pl011(port) => port.is_idle(),
            Port::Mini(port) => port.is_idle(),
        });
    }
}

/// Polls `ready` until it holds or the time limit is reached. Returns whether it held.
fn wait_until(ready: impl Fn() -> bool) -> bool {
    let limit = timer::frequency().saturating_mul(PATIENCE_SECONDS);
    patience::wait_until(limit, timer::ticks, ready, cpu::relax)
}
