//! Way of drawing for a terminal: colours and half-blocks, or ASCII.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

/// Way of drawing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Colours, and two cells a character: the upper and the lower half (`▀`).
    Colour,
    /// A letter a cell; no byte but printable ASCII and line ends.
    Plain,
}

impl Style {
    /// Cells in a character, one above the other.
    #[must_use]
    pub const fn halves(self) -> u64 {
        match self {
            Self::Colour => 2,
            Self::Plain => 1,
        }
    }
}

/// Writes coloured characters, with the control sequences (ECMA-48, SGR) that change something.
pub(super) struct Colours<'o, W: Write + ?Sized> {
    out: &'o mut W,
    front: Option<u8>,
    back: Option<u8>,
}

impl<'o, W: Write + ?Sized> Colours<'o, W> {
    pub(super) const fn new(out: &'o mut W) -> Self {
        Self { out, front: None, back: None }
    }

    /// Writes a character in two colours; `None` leaves the terminal's own.
    pub(super) fn put(&mut self, letter: char, front: Option<u8>, back: Option<u8>) -> fmt::Result {
        let lost = (self.front.is_some() && front.is_none()) || (self.back.is_some() && back.is_none());
        if lost {
            self.reset()?;
        }
        if let Some(colour) = front.filter(|_| front != self.front) {
            write!(self.out, "\x1b[38;5;{colour}m")?;
        }
        if let Some(colour) = back.filter(|_| back != self.back) {
            write!(self.out, "\x1b[48;5;{colour}m")?;
        }
        (self.front, self.back) = (front, back);
        self.out.write_char(letter)
    }

    /// Back to the terminal's own colours.
    pub(super) fn reset(&mut self) -> fmt::Result {
        if self.front.is_some() || self.back.is_some() {
            (self.front, self.back) = (None, None);
            self.out.write_str("\x1b[0m")?;
        }
        Ok(())
    }
}
