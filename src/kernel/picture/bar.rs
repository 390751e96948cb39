//! A bar in proportion to an amount.
#![forbid(unsafe_code)]

use super::Style;
use core::fmt::{self, Write};

/// `part` of `whole` as a bar of up to `width` characters. An amount that is not zero has at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// The amount.
    pub part: u64,
    /// The amount of a full bar.
    pub whole: u64,
    /// Characters of a full bar.
    pub width: u64,
    /// Way of drawing.
    pub style: Style,
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = u128::from(self.part.min(self.whole)) * u128::from(self.width);
        let length = part.checked_div(u128::from(self.whole)).unwrap_or(0).max(u128::from(self.part != 0));
        let letter = if self.style == Style::Plain { '#' } else { '█' };
        (0..u128::from(self.width)).try_for_each(|at| f.write_char(if at < length { letter } else { ' ' }))
    }
}
