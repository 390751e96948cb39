//! Flags of a range.
#![forbid(unsafe_code)]

use bitflags::bitflags;

bitflags! {
    /// Flags of a resource. The values are Linux's (`include/linux/ioport.h`).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct ResourceFlags: u32 {
        /// I/O ports.
        const IO = 0x0000_0100;
        /// Addresses of memory and of registers in it.
        const MEM = 0x0000_0200;
        /// The range is RAM.
        const SYSRAM = 0x0100_0000;
        /// The range has an owner: a region cannot be requested inside.
        const BUSY = 0x8000_0000;
    }
}
