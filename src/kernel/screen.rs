//! The person's screen: whether it shows colours, how many lines it has, pages of long listings, and pictures that are drawn
//! anew each second.
#![forbid(unsafe_code)]

use super::input;
use super::machine::Machine;
use super::picture::Style;
use crate::driver::timer;
use crate::kprint;
use alloc::string::String;
use core::fmt::{self, Write};

/// Whether the boot argument `term=` names a terminal that understands control sequences. Without one nobody knows.
pub(super) fn knows_escapes(machine: &Machine) -> bool {
    machine.args.value("term").is_some_and(|name| !["dumb", "unknown"].contains(&name))
}

/// Way of drawing on this terminal: colours if it has them, unless the boot argument `no_color` or the command says otherwise.
pub(super) fn style(machine: &Machine, plain: bool) -> Style {
    let args = machine.args;
    if plain || args.flag("no_color") || !knows_escapes(machine) { Style::Plain } else { Style::Colour }
}

/// Lines and columns of the terminal, by the boot arguments `lines=` and `columns=`. Without the first nobody is known to read
/// along, and nothing is paged.
fn size(machine: &Machine) -> Option<(usize, usize)> {
    let args = machine.args;
    let lines = args.number("lines").and_then(|lines| usize::try_from(lines).ok()).filter(|lines| *lines > 2)?;
    let columns =
        args.number("columns").and_then(|columns| usize::try_from(columns).ok()).filter(|columns| *columns > 0);
    Some((lines, columns.unwrap_or(COLUMNS)))
}

/// Columns of a terminal that has not said how many it has.
const COLUMNS: usize = 80;

/// Lines of the terminal that a line of text takes: one of more characters than there are columns goes on in the next.
fn rows(line: &str, columns: usize) -> usize {
    let mut letters = line.chars();
    let mut width = 0_usize;
    while let Some(letter) = letters.next() {
        match letter {
            // A control sequence ends with a letter, and takes no column.
            '\x1b' => drop(letters.by_ref().find(char::is_ascii_alphabetic)),
            '\n' => {}
            _ => width += 1,
        }
    }
    width.div_ceil(columns).max(1)
}

/// Prints `text`, however long, in pages of the terminal: each waits for a key. Blank shows the next page, Return the next
/// line, `q` or Ctrl-C ends the listing. Nothing waits if more is typed already: the keys are for the next command.
///
/// The text is made first, so that no lock is held while a person reads. Without memory for it, it is printed as it is made.
pub(super) fn page(machine: &Machine, text: &dyn fmt::Display) {
    let Some((lines, columns)) = size(machine) else { return kprint!("{text}") };
    let Some(made) = made(text) else { return kprint!("{text}") };
    let page = lines - 1;
    let mut left = page;
    for line in made.split_inclusive('\n') {
        let rows = rows(line, columns).min(page);
        if left < rows && !input::is_waiting() {
            kprint!("-- more --");
            let key = input::read();
            // Over the question, which no control sequence takes away on a dumb terminal.
            kprint!("\r          \r");
            match key {
                b'q' | 3 => return,
                b'\r' | b'\n' => left = rows,
                _ => left = page,
            }
        }
        kprint!("{line}");
        left = left.saturating_sub(rows);
    }
}

/// As [`page`], of the lines that `write` writes. They are made twice, the first time to be measured.
pub(super) fn list(machine: &Machine, write: impl Fn(&mut fmt::Formatter<'_>) -> fmt::Result) {
    page(machine, &fmt::from_fn(write));
}

/// A row of a list: its head, and behind it, from `column` on, words in as many lines of 80 columns as they take.
pub(super) fn row(head: fmt::Arguments<'_>, column: usize, parts: &[&str], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut length = Length(0);
    write!(length, "{head}")?;
    f.write_fmt(head)?;
    // Two blanks at least are between them.
    let mut at = length.0;
    if at + 2 > column {
        writeln!(f)?;
        at = 0;
    }
    write!(f, "{:gap$}", "", gap = column - at)?;
    at = column;
    for word in parts.iter().flat_map(|part| part.split(' ')) {
        let blank = usize::from(at > column);
        if blank != 0 && at + blank + word.len() >= COLUMNS {
            write!(f, "\n{:column$}{word}", "")?;
            at = column + word.len();
        } else {
            write!(f, "{:blank$}{word}", "")?;
            at += blank + word.len();
        }
    }
    writeln!(f)
}

/// `text` as a string, or `None` without memory for it. It is measured first and made into memory that is there, as it may take
/// locks under which nothing may be allocated.
fn made(text: &dyn fmt::Display) -> Option<String> {
    let mut length = Length(0);
    write!(length, "{text}").ok()?;
    for more in [length.0 / 4, length.0] {
        let mut made = Room(String::new());
        made.0.try_reserve(length.0 + more + MORE).ok()?;
        if write!(made, "{text}").is_ok() {
            return Some(made.0);
        }
    }
    None
}

/// Bytes by which a text may grow at least from the time when it is measured.
const MORE: usize = 1024;

/// A writer that counts bytes.
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// A writer that takes no more memory than it has.
struct Room(String);

impl Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.capacity() - self.0.len() < text.len() {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// A picture that is drawn again and again, in its place where the terminal understands that.
pub(super) struct Live {
    begun: u64,
    /// When the next is due.
    next: u64,
    in_place: bool,
    /// The thing that a key ends.
    ends: &'static str,
}

impl Live {
    /// Clears the screen. A key will end `ends`.
    pub(super) fn begin(machine: &Machine, ends: &'static str) -> Self {
        let in_place = knows_escapes(machine);
        if in_place {
            kprint!("\x1b[2J\x1b[?25l");
        }
        let begun = timer::ticks();
        Self { begun, next: begun, in_place, ends }
    }

    /// Draws if a second has passed since the last time: the whole picture is made before the first byte is sent.
    pub(super) fn show_if_due(&mut self, picture: &dyn fmt::Display) {
        let now = timer::ticks();
        if now < self.next {
            return;
        }
        self.next = now + timer::frequency();
        let made = made(picture);
        let text = made.as_deref().unwrap_or("no memory for the picture\n");
        if self.in_place {
            kprint!("\x1b[H");
            text.lines().for_each(|line| kprint!("{line}\x1b[K\n"));
            kprint!("\x1b[J");
        } else {
            if now != self.begun {
                kprint!("\n");
            }
            text.lines().for_each(|line| kprint!("{line}\n"));
        }
        kprint!("second {}; a key ends {} ", (now - self.begun) / timer::frequency(), self.ends);
    }

    /// Whether a key has come, which is for nobody else.
    pub(super) fn has_ended(&self) -> bool {
        input::is_waiting() && {
            input::read();
            true
        }
    }

    /// Draws each second until a key comes, which is for nobody else.
    pub(super) fn until_a_key(mut self, picture: &dyn fmt::Display) {
        loop {
            self.show_if_due(picture);
            if input::read_before(self.next).is_some() {
                return;
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        kprint!("{}\n", if self.in_place { "\x1b[?25h" } else { "" });
    }
}
