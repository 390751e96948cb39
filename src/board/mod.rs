//! L4: the boards that the reference kernel knows by name. One image serves all; the device tree says which it is on.

mod fallback_uart;
mod qemu_virt;
mod rpi4;

pub use fallback_uart::FallbackUart;

use crate::addr::PhysAddr;

/// A machine that the kernel treats by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Board {
    /// QEMU's `virt` machine.
    QemuVirt,
    /// Raspberry Pi 4 Model B, Pi 400 and Compute Module 4 (BCM2711).
    RaspberryPi4,
    /// Any other board: only the device tree describes it.
    Other,
}

impl Board {
    /// The board that a root node's `compatible` list names.
    pub fn from_compatible<'a>(list: impl IntoIterator<Item = &'a str>) -> Self {
        for name in list {
            if name == qemu_virt::COMPATIBLE {
                return Self::QemuVirt;
            }
            if name == rpi4::COMPATIBLE {
                return Self::RaspberryPi4;
            }
        }
        Self::Other
    }

    /// The board to assume before any device tree has been read, by where the loader put the image: RAM below 1 GiB
    /// means a Pi, as `virt` has its devices there.
    #[must_use]
    pub fn guess(image: PhysAddr) -> Self {
        if image < qemu_virt::RAM_START { Self::RaspberryPi4 } else { Self::QemuVirt }
    }

    /// The UARTs to use for last words when the device tree names none.
    #[must_use]
    pub fn fallback_uarts(self) -> &'static [FallbackUart] {
        match self {
            Self::QemuVirt => &qemu_virt::UARTS,
            Self::RaspberryPi4 => &rpi4::UARTS,
            Self::Other => &[],
        }
    }
}
