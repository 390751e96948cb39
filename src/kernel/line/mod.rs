//! A typed line: keys edit it, earlier lines come back, and some lines are not run.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the line: text, cursor, and the effect of each key |
//! | `keys.rs` | the bytes of a terminal as keys |
//! | `screen.rs` | the least output that shows a changed line |
//! | `history.rs` | lines that were run |
//! | `completion.rs` | words that complete the cursor's |
#![forbid(unsafe_code)]

mod completion;
mod history;
mod keys;
mod screen;

pub use completion::{Completion, offer_shown};
pub use screen::WIDTH;

use core::fmt::{self, Write};
use history::History;
use keys::{Key, Keys};
use screen::Screen;

/// Maximum number of characters of a line.
pub const LINE: usize = 128;

/// Ends a command where another follows in the line.
pub const SEPARATOR: char = ';';

/// A byte's effect beyond the line that the terminal shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// None.
    Nothing,
    /// The byte was not taken, and the terminal has got a bell.
    Bell,
    /// The line was cancelled (Ctrl-C): an empty one begins.
    Cancelled,
    /// The word at the cursor is to be completed: [`LineReader::word`], [`LineReader::insert`].
    Complete,
    /// The screen is to be cleared, and the line shown again: [`LineReader::show_again`].
    ClearScreen,
    /// The input ends (Ctrl-D in an empty line).
    End,
    /// The line is finished: [`LineReader::text`] returns it.
    Finished,
    /// The line is finished, and must not be run.
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

/// Reads lines, byte by byte, and shows them on a terminal. The terminal may be any: it gets printable characters, blanks, backspaces
/// and bells alone.
#[derive(Debug)]
pub struct LineReader {
    bytes: [u8; LINE],
    length: usize,
    cursor: usize,
    /// Characters that had no room.
    excess: usize,
    /// Number of bytes that are not ASCII.
    foreign: usize,
    keys: Keys,
    /// Text comes that was pasted: no key in it does anything.
    pasting: bool,
    screen: Screen,
    history: History,
    /// Which line of the history is shown, by its age; `None` is the new one.
    recalled: Option<usize>,
    /// The new line, while an earlier one is shown.
    draft: [u8; LINE],
    draft_length: usize,
}

impl LineReader {
    /// At the start of a line.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; LINE],
            length: 0,
            cursor: 0,
            excess: 0,
            foreign: 0,
            keys: Keys::new(),
            pasting: false,
            screen: Screen::new(),
            history: History::new(),
            recalled: None,
            draft: [0; LINE],
            draft_length: 0,
        }
    }

    /// The line so far.
    #[must_use]
    pub fn text(&self) -> &str {
        core::str::from_utf8(self.used()).unwrap_or_default()
    }

    /// Begins the next line, behind a new prompt. A line that was finished can be recalled.
    pub fn clear(&mut self) {
        self.screen.clear();
        self.empty();
        self.recalled = None;
    }

    /// Takes the next byte, and shows its effect on `terminal`.
    pub fn feed(&mut self, byte: u8, terminal: &mut dyn Write) -> Step {
        let Some(key) = self.keys.feed(byte) else { return Step::Nothing };
        let step = if self.pasting { self.paste(key) } else { self.press(key) };
        // A terminal has no errors.
        let _ = match step {
            Step::Nothing => self.show(terminal),
            Step::Bell => self.show(terminal).and_then(|()| terminal.write_char('\x07')),
            _ => Ok(()),
        };
        step
    }

    /// The command so far up to the cursor's word, and the part of that word before the cursor.
    #[must_use]
    pub fn word(&self) -> (&str, &str) {
        let before = self.text().get(..self.cursor).unwrap_or_default();
        let command = before.rsplit(SEPARATOR).next().unwrap_or_default();
        let word = command.rfind([' ', '|', ',', '=']).map_or(0, |end| end + 1);
        command.split_at_checked(word).unwrap_or_default()
    }

    /// Inserts text at the cursor, as if it were typed.
    pub fn insert(&mut self, text: &str, terminal: &mut dyn Write) {
        for byte in text.bytes() {
            self.put(byte);
        }
        // A terminal has no errors.
        let _ = self.show(terminal);
    }

    /// Shows the line behind a prompt that has just been printed.
    pub fn show_again(&mut self, terminal: &mut dyn Write) {
        self.screen.clear();
        // A terminal has no errors.
        let _ = self.show(terminal);
    }

    fn show(&mut self, terminal: &mut dyn Write) -> fmt::Result {
        let text = self.bytes.get(..self.length).unwrap_or_default();
        self.screen.show(text, self.cursor, terminal)
    }

    fn used(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    const fn empty(&mut self) {
        (self.length, self.cursor, self.excess, self.foreign) = (0, 0, 0, 0);
    }

    fn press(&mut self, key: Key) -> Step {
        match key {
            Key::Text(byte) => self.put(byte),
            Key::Foreign => {
                self.foreign += 1;
                Step::Bell
            }
            Key::Enter => self.finish(),
            Key::Tab => Step::Complete,
            Key::Cancel => {
                self.clear();
                Step::Cancelled
            }
            Key::DeleteOrEnd if self.is_untouched() => Step::End,
            Key::DeleteOrEnd | Key::Delete => self.remove(self.cursor, self.cursor + 1),
            Key::ClearScreen => Step::ClearScreen,
            Key::Backspace => self.erase(1),
            Key::KillStart => self.erase(self.cursor + self.excess),
            Key::KillEnd => self.remove(self.cursor, self.length),
            Key::KillWord => self.erase(self.last_word()),
            Key::Left => self.move_to(self.cursor.checked_sub(1)),
            Key::Right => self.move_to(self.cursor.checked_add(1)),
            Key::Home => self.move_to(Some(0)),
            Key::End => self.move_to(Some(self.length)),
            Key::Up => self.recall(Some(self.recalled.map_or(0, |age| age + 1))),
            Key::Down => match self.recalled {
                None => Step::Bell,
                Some(age) => self.recall(age.checked_sub(1)),
            },
            Key::PasteBegins => {
                self.pasting = true;
                Step::Nothing
            }
            Key::PasteEnds => Step::Nothing,
            Key::Unknown => Step::Bell,
        }
    }

    /// A key of pasted text. A line's end separates commands: nothing is run before a person presses Enter.
    fn paste(&mut self, key: Key) -> Step {
        match key {
            Key::PasteEnds => {
                self.pasting = false;
                Step::Nothing
            }
            Key::Enter => {
                self.insert_separator();
                Step::Nothing
            }
            Key::Tab => self.put(b' '),
            // The terminal filters it out of what it pastes: the end of the paste was lost, and somebody wants out.
            Key::Cancel => {
                self.pasting = false;
                self.press(key)
            }
            Key::Text(_) | Key::Foreign => self.press(key),
            _ => Step::Bell,
        }
    }

    fn insert_separator(&mut self) {
        let before = self.used().get(..self.cursor).unwrap_or_default().trim_ascii_end();
        if !before.is_empty() && !before.ends_with(b";") {
            self.put(b';');
            self.put(b' ');
        }
    }

    const fn is_untouched(&self) -> bool {
        self.length == 0 && self.excess == 0 && self.foreign == 0
    }

    fn put(&mut self, byte: u8) -> Step {
        if self.length == LINE || self.excess > 0 {
            self.excess += 1;
            return Step::Bell;
        }
        self.bytes.copy_within(self.cursor..self.length, self.cursor + 1);
        if let Some(place) = self.bytes.get_mut(self.cursor) {
            *place = byte;
        }
        self.length += 1;
        self.cursor += 1;
        Step::Nothing
    }

    /// Deletes the characters from one to before another.
    fn remove(&mut self, from: usize, to: usize) -> Step {
        if from >= self.length {
            return Step::Bell;
        }
        let to = to.min(self.length);
        self.bytes.copy_within(to..self.length, from);
        self.length -= to - from;
        self.cursor = from;
        if self.length == 0 {
            self.empty();
        }
        Step::Nothing
    }

    /// Deletes `count` characters before the cursor: first those that had no room. The places of the non-ASCII ones in the line are
    /// unknown, so they count until all of it is deleted.
    fn erase(&mut self, count: usize) -> Step {
        let unseen = count.min(self.excess);
        self.excess -= unseen;
        let seen = (count - unseen).min(self.cursor);
        if seen > 0 {
            return self.remove(self.cursor - seen, self.cursor);
        }
        if self.length == 0 {
            self.empty();
        }
        Step::Nothing
    }

    /// Number of characters from the start of the word before the cursor on, with those that had no room.
    fn last_word(&self) -> usize {
        let text = self.text().get(..self.cursor).unwrap_or_default();
        let kept = text.trim_end().rfind(' ').map_or(0, |blank| blank + 1);
        text.len() - kept + self.excess
    }

    fn move_to(&mut self, place: Option<usize>) -> Step {
        match place {
            Some(place) if place <= self.length => {
                self.cursor = place;
                Step::Nothing
            }
            _ => Step::Bell,
        }
    }

    /// Shows the line of an age, or the new one. A line that cannot be run in full is not put aside: it would come back without
    /// the characters that had no room.
    fn recall(&mut self, age: Option<usize>) -> Step {
        if self.excess > 0 || self.foreign > 0 {
            return Step::Bell;
        }
        let line = match age {
            Some(age) => {
                let Some(line) = self.history.get(age) else { return Step::Bell };
                if self.recalled.is_none() {
                    (self.draft, self.draft_length) = (self.bytes, self.length);
                }
                line
            }
            None => self.draft.get(..self.draft_length).unwrap_or_default(),
        };
        let length = self.bytes.iter_mut().zip(line).map(|(place, byte)| *place = *byte).count();
        (self.length, self.cursor, self.recalled) = (length, length, age);
        Step::Nothing
    }

    fn finish(&mut self) -> Step {
        match (self.excess, self.foreign) {
            (0, 0) => {
                let line = self.bytes.get(..self.length).unwrap_or_default();
                self.history.add(line);
                Step::Finished
            }
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
