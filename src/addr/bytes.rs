//! Numbers of bytes as people read them.
#![forbid(unsafe_code)]

use core::fmt;

/// A number of bytes, printed in the largest unit that leaves no remainder (`64 KiB`, `948 MiB`, `13 bytes`), or from
/// 1 MiB on with one decimal.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |shift: u32| self.0 >> shift != 0;
        let whole = |shift: u32| self.0.trailing_zeros() >= shift;
        if let Some((shift, unit)) = UNITS.iter().find(|(shift, _)| fits(*shift) && whole(*shift)) {
            // 5120 MiB reads worse than 5 GiB, but 1,046,784 KiB reads worse than 1022.2 MiB.
            if self.0 >> shift < 1 << 14 {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        match UNITS.iter().find(|(shift, _)| *shift >= 20 && fits(*shift)) {
            Some((shift, unit)) => {
                let tenths = (u128::from(self.0) * 10) >> shift;
                write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}
