//! The legend: every use that the picture has, with its exact amount, and their sum.
#![forbid(unsafe_code)]

use super::style::Colours;
use super::{Exact, Ink, Style};
use core::fmt::{self, Write};

/// Characters of an entry: two fit a line.
const WIDTH: usize = 38;

/// The uses with their sums, in the order of the inks. Uses without a byte are left out.
#[derive(Clone, Copy, Debug)]
pub struct Legend<'k> {
    /// The inks.
    pub inks: &'k [Ink],
    /// The bytes of each.
    pub sums: &'k [u64],
    /// Way of drawing.
    pub style: Style,
}

impl Legend<'_> {
    /// Writes it: two entries a line.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn draw(&self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        let present = self.inks.iter().zip(self.sums).filter(|(_, sum)| **sum != 0);
        let mut column = 0;
        for (ink, sum) in present {
            if column == 1 {
                out.write_str("   ")?;
            }
            self.sample(ink, out)?;
            // The amount ends where the entry ends.
            let amount = Digits::of(Exact(*sum));
            let name = WIDTH.saturating_sub(3 + amount.0).saturating_sub(1);
            write!(out, " {:<name$} {}", ink.name, Exact(*sum))?;
            if column == 1 {
                out.write_char('\n')?;
            }
            column = 1 - column;
        }
        if column == 1 { out.write_char('\n') } else { Ok(()) }
    }

    /// Two characters in an ink.
    fn sample(&self, ink: &Ink, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        if self.style == Style::Plain {
            return write!(out, "{} ", char::from(ink.letter));
        }
        let mut colours = Colours::new(out);
        colours.put('█', Some(ink.colour), None)?;
        colours.put('█', Some(ink.colour), None)?;
        colours.reset()
    }
}

/// A writer that counts characters.
struct Digits(usize);

impl Digits {
    fn of(shown: impl fmt::Display) -> Self {
        let mut counted = Self(0);
        // Counting never fails.
        let _ = write!(counted, "{shown}");
        counted
    }
}

impl Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.chars().count();
        Ok(())
    }
}
