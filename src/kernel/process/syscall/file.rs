//! The console, and `/proc/self/maps`, which can be read.
#![forbid(unsafe_code)]

use super::call::{Answer, Call, Result};
use crate::addr::{UserAddr, to_usize};
use crate::global;
use crate::hal::user::USER_END;
use crate::kernel::process::errno::Errno;
use crate::kernel::process::{processes, show};
use crate::kprint;
use crate::mm::user::access::UserAccessError;
use core::fmt::{self, Write as _};

/// The first file that is not the console.
const FIRST: u64 = 3;
/// Bytes of the console's text that are copied at a time: a piece is printed whole.
const PIECE: usize = 256;
/// The most bytes of one call (Linux: `MAX_RW_COUNT`).
const MOST: u64 = 0x7fff_f000;

/// `openat(directory, path, flags, mode)`: `/proc/self/maps`, to read.
pub(super) fn openat(call: &mut Call<'_>) -> Result {
    const ACCESS: u64 = 3;
    let [_, path, flags, ..] = call.arguments;
    let mut name = [0; 64];
    let length = global::strncpy_from_user(&mut name, UserAddr::new(path))?;
    if name.get(..length) != Some(b"/proc/self/maps") {
        return Err(Errno::NOENT);
    }
    if flags & ACCESS != 0 {
        return Err(Errno(13));
    }
    let mut table = processes();
    let process = table.at(call.turn.place).ok_or(Errno::BADF)?;
    let (number, file) = (FIRST..).zip(&mut process.files).find(|(_, file)| file.is_none()).ok_or(Errno::MFILE)?;
    *file = Some(0);
    Ok(Answer::Value(number))
}

/// `close(file)`.
pub(super) fn close(call: &mut Call<'_>) -> Result {
    let [file, ..] = call.arguments;
    let number = file.checked_sub(FIRST).ok_or(Errno::BADF)?;
    let mut table = processes();
    let process = table.at(call.turn.place).ok_or(Errno::BADF)?;
    let place = process.files.get_mut(to_usize(number)).ok_or(Errno::BADF)?;
    place.take().map(|_| Answer::Value(0)).ok_or(Errno::BADF)
}

/// The part of a text from some byte on.
struct Window {
    skip: u64,
    bytes: [u8; PIECE],
    used: usize,
}

impl fmt::Write for Window {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let skipped = self.skip.min(text.len() as u64);
        self.skip -= skipped;
        let rest = text.as_bytes().get(to_usize(skipped)..).unwrap_or_default();
        let room = self.bytes.get_mut(self.used..).unwrap_or_default();
        for (place, byte) in room.iter_mut().zip(rest) {
            *place = *byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// `read(file, buffer, count)`: the next bytes of the text, as it is now. At most 256 at a time.
pub(super) fn read(call: &mut Call<'_>) -> Result {
    let [file, at, size, ..] = call.arguments;
    if file < FIRST {
        return Ok(Answer::Value(0));
    }
    let number = to_usize(file - FIRST);
    let position = {
        let mut table = processes();
        let process = table.at(call.turn.place).ok_or(Errno::BADF)?;
        process.files.get(number).copied().flatten().ok_or(Errno::BADF)?
    };
    let mut window = Window { skip: position, bytes: [0; PIECE], used: 0 };
    write!(window, "{}", show::Maps(call.space)).map_err(|_| Errno::AGAIN)?;
    let bytes = window.bytes.get(..window.used.min(to_usize(size))).unwrap_or_default();
    // With the areas let go: this may fault.
    global::copy_to_user(UserAddr::new(at), bytes)?;
    let mut table = processes();
    if let Some(Some(place)) = table.at(call.turn.place).and_then(|process| process.files.get_mut(number)) {
        *place = position.saturating_add(bytes.len() as u64);
    }
    Ok(Answer::Value(bytes.len() as u64))
}

/// `write(file, buffer, count)`: to the console.
pub(super) fn write(call: &Call<'_>) -> Result {
    let [file, at, size, ..] = call.arguments;
    if !matches!(file, 1 | 2) {
        return Err(Errno::BADF);
    }
    let size = size.min(MOST);
    if at.checked_add(size).is_none_or(|end| end > USER_END.get()) && size != 0 {
        return Err(Errno::FAULT);
    }
    let mut done = 0;
    while done < size {
        let mut bytes = [0; PIECE];
        let wanted = to_usize((size - done).min(PIECE as u64));
        let room = bytes.get_mut(..wanted).unwrap_or_default();
        let copied = match global::copy_from_user(room, UserAddr::new(at + done)) {
            Ok(()) => wanted,
            Err(UserAccessError::Fault { left }) => wanted.saturating_sub(left),
            Err(error) => return Err(error.into()),
        };
        print(bytes.get(..copied).unwrap_or_default());
        done += copied as u64;
        if copied < wanted {
            break;
        }
    }
    if done == 0 && size != 0 { Err(Errno::FAULT) } else { Ok(Answer::Value(done)) }
}

/// Bytes of a process as text.
struct Text<'t>(&'t [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.utf8_chunks() {
            f.write_str(piece.valid())?;
            if !piece.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

fn print(bytes: &[u8]) {
    kprint!("{}", Text(bytes));
}
