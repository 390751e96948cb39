//! The widths of addresses and sizes on a bus.
#![forbid(unsafe_code)]

/// Widths, in cells of 32 bits, of addresses and sizes on a bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cells {
    /// Cells in an address.
    pub address: u32,
    /// Cells in a size.
    pub size: u32,
}
