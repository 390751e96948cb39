//! A typed line: which bytes are text, which edit it, and which lines are not run.
#![forbid(unsafe_code)]

use core::fmt;

/// Maximum number of characters of a line.
pub const LINE: usize = 128;

/// Output for the terminal after a byte, or the finished line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// This character, at the end of the line.
    Echo(u8),
    /// This number of characters is deleted.
    Erase(usize),
    /// The byte was not taken.
    Bell,
    /// The line was cancelled (Ctrl-C): an empty one begins.
    Cancelled,
    /// The line is complete: [`LineReader::text`] returns it.
    Complete,
    /// The line is complete, and must not be run.
    Refused(Refusal),
}

/// Reason why a line is not run: its text may not be the intended command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It was this number of characters longer than a line can be.
    TooLong(usize),
    /// It held bytes that are not ASCII.
    NotAscii,
    /// This number of bytes was lost on the way here.
    Lost(u64),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(more) => {
                write!(f, "not run: the line is {more} characters longer than the {LINE} that a line can have")
            }
            Self::NotAscii => f.write_str("not run: commands are ASCII, and the line has other characters"),
            Self::Lost(bytes) => write!(f, "not run: {bytes} characters came faster than they were read, and are lost"),
        }
    }
}

/// Place of the next byte in the sequence of a special key (ECMA-48).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Escape {
    /// In no sequence.
    Outside,
    /// Behind ESC.
    Begun,
    /// Behind ESC and `[`: parameters, then one final byte.
    Csi,
    /// Behind ESC and `O`: one byte.
    Ss3,
}

/// Reads lines, byte by byte.
#[derive(Debug)]
pub struct LineReader {
    bytes: [u8; LINE],
    length: usize,
    /// Characters behind the last that had room.
    excess: usize,
    /// Number of bytes that are not ASCII.
    foreign: usize,
    escape: Escape,
    /// The last byte was a carriage return, so a line feed belongs to it.
    after_return: bool,
}

impl LineReader {
    /// At the start of a line.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; LINE], length: 0, excess: 0, foreign: 0, escape: Escape::Outside, after_return: false }
    }

    /// The line so far.
    #[must_use]
    pub fn text(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Begins the next line.
    pub fn clear(&mut self) {
        (self.length, self.excess, self.foreign) = (0, 0, 0);
    }

    /// Takes the next byte.
    pub fn feed(&mut self, byte: u8) -> Step {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        if byte == b'\n' && after_return {
            return Step::Nothing;
        }
        if self.is_of_a_key(byte) {
            return Step::Nothing;
        }
        match byte {
            b'\r' | b'\n' => self.end(),
            // ETX, Ctrl-C.
            0x03 => {
                self.clear();
                Step::Cancelled
            }
            // BS and DEL.
            0x08 | 0x7f => self.erase(1),
            // NAK, Ctrl-U.
            0x15 => self.erase(self.length + self.excess),
            // ETB, Ctrl-W.
            0x17 => self.erase(self.last_word()),
            b'\t' => self.put(b' '),
            b' '..=b'~' => self.put(byte),
            0x80.. => {
                self.foreign += 1;
                Step::Bell
            }
            _ => Step::Bell,
        }
    }

    /// Whether a byte belongs to an arrow or another special key, none of which does anything here.
    fn is_of_a_key(&mut self, byte: u8) -> bool {
        let (next, swallowed) = match (self.escape, byte) {
            // ESC, wherever it is, begins anew; a control byte ends a sequence and counts.
            (_, 0x1b) => (Escape::Begun, true),
            (_, 0..=0x1f) => (Escape::Outside, false),
            (Escape::Outside, _) => (Escape::Outside, false),
            (Escape::Begun, b'[') => (Escape::Csi, true),
            (Escape::Begun, b'O') => (Escape::Ss3, true),
            (Escape::Csi, b' '..=b'?') => (Escape::Csi, true),
            _ => (Escape::Outside, true),
        };
        self.escape = next;
        swallowed
    }

    fn put(&mut self, byte: u8) -> Step {
        match self.bytes.get_mut(self.length) {
            Some(place) if self.excess == 0 => {
                *place = byte;
                self.length += 1;
                Step::Echo(byte)
            }
            _ => {
                self.excess += 1;
                Step::Bell
            }
        }
    }

    /// Deletes `count` characters: first those that were not shown. The places of the non-ASCII ones in the line are unknown,
    /// so they count until all of it is deleted.
    fn erase(&mut self, count: usize) -> Step {
        let unseen = count.min(self.excess);
        self.excess -= unseen;
        let shown = (count - unseen).min(self.length);
        self.length -= shown;
        if self.length == 0 {
            self.clear();
        }
        if shown == 0 { Step::Nothing } else { Step::Erase(shown) }
    }

    /// Number of characters from the start of the last word on, with the part that was not shown.
    fn last_word(&self) -> usize {
        let text = self.text();
        let kept = text.trim_end().rfind(' ').map_or(0, |blank| blank + 1);
        text.len() - kept + self.excess
    }

    fn end(&self) -> Step {
        match (self.excess, self.foreign) {
            (0, 0) => Step::Complete,
            (0, _) => Step::Refused(Refusal::NotAscii),
            (more, _) => Step::Refused(Refusal::TooLong(more)),
        }
    }
}

impl Default for LineReader {
    fn default() -> Self {
        Self::new()
    }
}
