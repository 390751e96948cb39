//! The UART that a board has where no device tree says so.
#![forbid(unsafe_code)]

use crate::addr::PhysAddr;

/// A UART by model and address, where the device tree cannot be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FallbackUart {
    /// The `compatible` string of its driver.
    pub compatible: &'static str,
    /// Physical address of its registers.
    pub registers: PhysAddr,
    /// Where the page of its registers says whether it is switched on: offset of a word, and a mask of which one bit is
    /// set then. Without it, it can always be used.
    pub enabled: Option<(u64, u32)>,
}
