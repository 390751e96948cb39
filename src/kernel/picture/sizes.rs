//! Amounts that add up: never rounded.
#![forbid(unsafe_code)]

use core::fmt;

/// A number of bytes in KiB, or in bytes where it is no whole number of KiB. Columns of it add up to the sum below them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exact(pub u64);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (amount, unit) = if self.0.is_multiple_of(1 << 10) { (self.0 >> 10, "KiB") } else { (self.0, "bytes") };
        // A width is that of number and unit together.
        match f.width() {
            Some(width) => write!(f, "{amount:>number$} {unit}", number = width.saturating_sub(unit.len() + 1)),
            None => write!(f, "{amount} {unit}"),
        }
    }
}
