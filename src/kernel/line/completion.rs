//! Completion: the words that begin as the cursor's does, and the text that they share.
#![forbid(unsafe_code)]

use super::LINE;
use core::fmt::{self, Write as _};

/// Words that were offered for the beginning of one.
#[derive(Debug)]
pub struct Completion {
    begun: [u8; LINE],
    length: usize,
    common: [u8; LINE],
    /// Bytes of `common` that all words share.
    shared: usize,
    count: usize,
}

impl Completion {
    /// For a word that begins with `begun`.
    #[must_use]
    pub fn new(begun: &str) -> Self {
        let mut bytes = [0; LINE];
        let length = copy(&mut bytes, begun);
        Self { begun: bytes, length, common: [0; LINE], shared: 0, count: 0 }
    }

    /// Takes a word into account if it begins so, and is no longer than a line. Returns whether it does.
    pub fn offer(&mut self, word: &str) -> bool {
        let begun = self.begun.get(..self.length).unwrap_or_default();
        if word.len() > LINE || !word.as_bytes().starts_with(begun) {
            return false;
        }
        self.shared = match self.count {
            0 => copy(&mut self.common, word),
            _ => {
                self.common.iter().take(self.shared).zip(word.bytes()).take_while(|(one, other)| *one == other).count()
            }
        };
        self.count += 1;
        true
    }

    /// How many words begin so.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The text behind the beginning that all of them share.
    #[must_use]
    pub fn rest(&self) -> &str {
        let shared = self.common.get(..self.shared).and_then(|text| text.get(self.length..));
        core::str::from_utf8(shared.unwrap_or_default()).unwrap_or_default()
    }

    /// Whether one word alone begins so, and a blank belongs behind it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let last = self.shared.checked_sub(1).and_then(|last| self.common.get(last));
        self.count == 1 && last != Some(&b':')
    }
}

/// Offers a word that is not written out yet, unless it is longer than a line.
pub fn offer_shown(word: impl fmt::Display, offer: &mut dyn FnMut(&str)) {
    let mut text = Text { bytes: [0; LINE], used: 0 };
    if write!(text, "{word}").is_ok() {
        offer(text.bytes.get(..text.used).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or_default());
    }
}

/// A word, written out. One that has no room is an error.
struct Text {
    bytes: [u8; LINE],
    used: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.used + text.len();
        self.bytes.get_mut(self.used..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

fn copy(to: &mut [u8; LINE], from: &str) -> usize {
    to.iter_mut().zip(from.bytes()).map(|(place, byte)| *place = byte).count()
}
