//! The part of a line that the terminal shows, and the least output that makes it show another.
//!
//! The cursor moves by backspace and by printing again: no escape sequence, so that every terminal will do. A line stays in one row
//! of 80 columns, as backspace does not go back to the row above: of a longer line a window is shown.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

/// Characters of a line that are shown at a time: a row less the prompt and the last column.
pub const WIDTH: usize = 80 - 9;

/// The terminal's row behind the prompt.
#[derive(Debug)]
pub(super) struct Screen {
    shown: [u8; WIDTH],
    length: usize,
    column: usize,
    /// The first character of the line that is shown.
    first: usize,
}

impl Screen {
    pub(super) const fn new() -> Self {
        Self { shown: [0; WIDTH], length: 0, column: 0, first: 0 }
    }

    /// The row is empty from here on, and the cursor behind the prompt.
    pub(super) const fn clear(&mut self) {
        (self.length, self.column, self.first) = (0, 0, 0);
    }

    /// Shows `text` with the cursor at its character `cursor`. A window that begins behind the text's start begins with `<`.
    pub(super) fn show(&mut self, text: &[u8], cursor: usize, out: &mut dyn Write) -> fmt::Result {
        let fits = text.len() < WIDTH;
        if fits {
            self.first = 0;
        } else if cursor <= self.first || cursor >= self.first + WIDTH {
            self.first = cursor.saturating_sub(WIDTH / 2);
        }
        let mut window = [0; WIDTH];
        let mut length = 0;
        for (place, byte) in window.iter_mut().zip(text.iter().skip(self.first)) {
            *place = *byte;
            length += 1;
        }
        if self.first > 0
            && let Some(place) = window.first_mut()
        {
            *place = b'<';
        }
        self.change(&window, length, cursor - self.first, out)
    }

    fn change(&mut self, window: &[u8; WIDTH], length: usize, column: usize, out: &mut dyn Write) -> fmt::Result {
        let both = self.shown.iter().take(self.length).zip(window.iter().take(length));
        let same = both.take_while(|(old, new)| old == new).count();
        if same < self.length || same < length {
            self.go_to(same, out)?;
            for &byte in window.iter().take(length).skip(same) {
                out.write_char(char::from(byte))?;
            }
            let blanks = self.length.saturating_sub(length);
            (0..blanks).try_for_each(|_| out.write_char(' '))?;
            self.column = length + blanks;
            (self.shown, self.length) = (*window, length);
        }
        self.go_to(column, out)
    }

    /// Moves the cursor: to the left by backspace, to the right by printing what is shown.
    fn go_to(&mut self, column: usize, out: &mut dyn Write) -> fmt::Result {
        (column..self.column).try_for_each(|_| out.write_char('\x08'))?;
        for &byte in self.shown.iter().take(column).skip(self.column) {
            out.write_char(char::from(byte))?;
        }
        self.column = column;
        Ok(())
    }
}
