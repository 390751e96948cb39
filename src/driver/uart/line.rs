//! The settings of a port, and the results of receiving.
#![forbid(unsafe_code)]

/// Settings for a port that the loader left switched off. A running port is left unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// Bits per second; 8 data bits, no parity, 1 stop bit.
    pub baud: u32,
    /// The clock that feeds the port, in Hz.
    pub clock: u32,
}

impl Default for Line {
    /// 115,200 baud from the 24 MHz of Arm's reference boards and QEMU virt.
    fn default() -> Self {
        Self { baud: 115_200, clock: 24_000_000 }
    }
}

/// Result of receiving from a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// Nothing more.
    Nothing,
    /// A byte.
    Byte(u8),
    /// A byte with a line error, or a break.
    Damaged,
    /// Bytes were lost since the last one, as nobody took them in time. The byte behind them, where the port still has it.
    Overrun(Option<u8>),
}
