//! Keys: the bytes of a terminal, put together (ECMA-48; xterm's sequences for special keys and for pasted text).
#![forbid(unsafe_code)]

/// A key, or the effect that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// A printable ASCII character.
    Text(u8),
    /// A byte that is not ASCII.
    Foreign,
    Enter,
    Tab,
    /// Ctrl-C.
    Cancel,
    /// Ctrl-D: deletes under the cursor; the end of input where the line is empty.
    DeleteOrEnd,
    /// Ctrl-L.
    ClearScreen,
    Backspace,
    Delete,
    Left,
    Right,
    Home,
    End,
    Up,
    Down,
    /// Ctrl-U: deletes to the start of the line.
    KillStart,
    /// Ctrl-K: deletes to the end of the line.
    KillEnd,
    /// Ctrl-W: deletes the word before the cursor.
    KillWord,
    /// Text from here on is pasted.
    PasteBegins,
    /// It ends.
    PasteEnds,
    /// A control byte that does nothing here.
    Unknown,
}

/// Place of the next byte in the sequence of a special key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Escape {
    /// In no sequence.
    Outside,
    /// Behind ESC.
    Begun,
    /// Behind ESC and `[`: the first parameter so far, whether it has ended, then one final byte.
    Csi(u16, bool),
    /// Behind ESC and `O`: one byte.
    Ss3,
}

/// Puts keys together, byte by byte.
#[derive(Debug)]
pub(super) struct Keys {
    escape: Escape,
    /// The last byte was a carriage return, so a line feed belongs to it.
    after_return: bool,
}

impl Keys {
    pub(super) const fn new() -> Self {
        Self { escape: Escape::Outside, after_return: false }
    }

    /// Takes the next byte; returns a key that is complete.
    pub(super) fn feed(&mut self, byte: u8) -> Option<Key> {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        if byte == b'\n' && after_return {
            return None;
        }
        let escape = core::mem::replace(&mut self.escape, Escape::Outside);
        match (escape, byte) {
            // ESC, wherever it is, begins anew; a control byte ends a sequence and counts.
            (_, 0x1b) => self.go_on(Escape::Begun),
            (_, 0..=0x1f) | (Escape::Outside, _) => Some(plain(byte)),
            (Escape::Begun, b'[') => self.go_on(Escape::Csi(0, false)),
            (Escape::Begun, b'O') => self.go_on(Escape::Ss3),
            (Escape::Csi(number, false), b'0'..=b'9') => {
                let number = number.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                self.go_on(Escape::Csi(number, false))
            }
            (Escape::Csi(number, _), b' '..=b'?') => self.go_on(Escape::Csi(number, true)),
            (Escape::Csi(number, _), b'~') => numbered(number),
            (Escape::Csi(..) | Escape::Ss3, _) => lettered(byte),
            (Escape::Begun, _) => None,
        }
    }

    const fn go_on(&mut self, escape: Escape) -> Option<Key> {
        self.escape = escape;
        None
    }
}

/// A byte outside of sequences.
const fn plain(byte: u8) -> Key {
    match byte {
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x01 => Key::Home,
        0x02 => Key::Left,
        0x03 => Key::Cancel,
        0x04 => Key::DeleteOrEnd,
        0x05 => Key::End,
        0x06 => Key::Right,
        0x08 | 0x7f => Key::Backspace,
        0x0b => Key::KillEnd,
        0x0c => Key::ClearScreen,
        0x0e => Key::Down,
        0x10 => Key::Up,
        0x15 => Key::KillStart,
        0x17 => Key::KillWord,
        b' '..=b'~' => Key::Text(byte),
        0x80.. => Key::Foreign,
        _ => Key::Unknown,
    }
}

/// ESC `[` and a letter, or ESC `O` and a letter.
const fn lettered(letter: u8) -> Option<Key> {
    Some(match letter {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'F' => Key::End,
        b'H' => Key::Home,
        _ => return None,
    })
}

/// ESC `[`, a number and `~`.
const fn numbered(number: u16) -> Option<Key> {
    Some(match number {
        1 | 7 => Key::Home,
        3 => Key::Delete,
        4 | 8 => Key::End,
        200 => Key::PasteBegins,
        201 => Key::PasteEnds,
        _ => return None,
    })
}
