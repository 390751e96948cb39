//! Text that a script types on a machine's console, a piece at each prompt.

use std::io::Write;
use std::process::ChildStdin;
use std::thread;
use std::time::{Duration, Instant};

use crate::cpu_time::cpu_time;

/// The kernel's prompt, and what else it shows when it waits for a key.
const PROMPTS: &[&str] = &["quarry> ", "-- more --", "a key ends it "];
/// The piece that types nothing and asks whether the machine sleeps.
const IDLE: &str = "{idle}";
/// How long the machine is watched for that, and how much of a host's CPU it may use meanwhile.
const WATCHED: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_millis(200);

/// Pieces of text, typed one after the other.
#[derive(Debug)]
pub(crate) struct Typing {
    /// Each piece is typed when the console ends with one of these.
    pub(crate) prompts: &'static [&'static str],
    /// A key that is pressed once, where the console shows this and then a number: a boot loader's countdown.
    pub(crate) countdown: Option<&'static str>,
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Bytes that the console had written when the last piece was typed: the same question is answered once.
    pub(crate) answered: usize,
}

impl Typing {
    /// At the kernel's own prompt.
    pub(crate) fn at_the_prompt(pieces: Vec<Vec<u8>>) -> Self {
        Self { prompts: PROMPTS, countdown: None, pieces, answered: 0 }
    }

    /// Types the next piece if the console asks for it. `process` is the machine's.
    pub(crate) fn answer(&mut self, console: &str, process: u32, to: &mut ChildStdin) -> Result<(), String> {
        loop {
            let asked = console.len() > self.answered
                && self.prompts.iter().any(|prompt| console.ends_with(prompt))
                && !self.pieces.is_empty();
            let piece = if asked {
                self.pieces.remove(0)
            } else if let Some(text) = self.countdown
                && console.contains(text)
                && !self.prompts.iter().any(|prompt| console.contains(prompt))
                && console.trim_end().ends_with(char::is_numeric)
            {
                b"\n".to_vec()
            } else {
                return Ok(());
            };
            if piece == IDLE.as_bytes() {
                sleeps(process)?;
                continue;
            }
            self.answered = console.len();
            return to.write_all(&piece).and_then(|()| to.flush()).map_err(|e| format!("typing: {e}"));
        }
    }
}

/// Whether a process leaves the host's CPUs alone for a second. A busy host only makes it use less.
fn sleeps(process: u32) -> Result<(), String> {
    let (start, before) = (Instant::now(), cpu_time(process)?);
    thread::sleep(WATCHED);
    let used = cpu_time(process)?.saturating_sub(before);
    if used > BUSY {
        return Err(format!("the idle machine used {used:?} of a host's CPU in {:?}", start.elapsed()));
    }
    Ok(())
}

/// Keys that `\m` stands for: more than wait for the kernel's reader. In an empty line Ctrl-U does nothing.
const MANY: [u8; 2000] = [0x15; 2000];

/// Reads pieces with `|` between them; `\r`, `\n`, `\t`, `\\` and `\xNN` are bytes, `\m` is many keys.
pub(crate) fn pieces(text: &str) -> Result<Vec<Vec<u8>>, String> {
    text.split('|').map(unescape).collect()
}

fn unescape(piece: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut letters = piece.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        if let Some(rest) = letters.as_str().strip_prefix('m') {
            bytes.extend(MANY);
            letters = rest.chars();
            continue;
        }
        let byte = match letters.next() {
            Some('r') => Some(b'\r'),
            Some('n') => Some(b'\n'),
            Some('t') => Some(b'\t'),
            Some('\\') => Some(b'\\'),
            Some('x') => {
                let digits: String = letters.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2)
            }
            _ => None,
        };
        bytes.push(byte.ok_or_else(|| format!("{piece:?} has an escape that means nothing"))?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_any_byte() {
        let read = pieces("help\\r|a\\x1b[A\\t\\\\|{idle}").unwrap();
        assert_eq!(read, [b"help\r".to_vec(), b"a\x1b[A\t\\".to_vec(), b"{idle}".to_vec()]);
        assert_eq!(pieces("a\\mb").unwrap(), [[&b"a"[..], &MANY, b"b"].concat()]);
        for wrong in ["\\", "\\q", "\\x1", "\\xzz"] {
            assert!(pieces(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_question_is_answered_once() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut to = child.stdin.take().unwrap();
        let mut typing = Typing::at_the_prompt(vec![b"a".to_vec(), b"b".to_vec()]);
        for _ in 0..2 {
            typing.answer("quarry> ", 0, &mut to).unwrap();
            assert_eq!(typing.pieces, [b"b".to_vec()]);
        }
        typing.answer("quarry> a\n-- more --", 0, &mut to).unwrap();
        assert!(typing.pieces.is_empty());
        drop(to);
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_computes_is_not_idle() {
        let used = cpu_time(std::process::id()).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {}
        assert!(cpu_time(std::process::id()).unwrap() > used);
    }
}
