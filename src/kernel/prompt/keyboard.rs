//! Lines from the keyboard, with completion; the input sleeps until a key comes.
#![forbid(unsafe_code)]

use super::{table, terminal};
use crate::kernel::console::Console;
use crate::kernel::input;
use crate::kernel::line::{Completion, LineReader, Refusal, Step};
use crate::kernel::machine::Machine;
use crate::kernel::screen::knows_escapes;
use crate::kprint;

const PROMPT: &str = "quarry> ";
/// A terminal's columns, for lists of words.
const COLUMNS: usize = 80;
/// More words than this are not listed, but counted.
const LISTED: usize = 100;

/// The result of a line.
pub(super) enum Typed<'a> {
    /// To be run.
    Line(&'a str),
    /// Not to be run.
    Refused(Refusal),
    /// The input ends: Ctrl-D.
    End,
}

/// The person's keyboard and screen.
pub(super) struct Keyboard {
    line: LineReader,
    knows_escapes: bool,
}

impl Keyboard {
    /// Called once: the terminal is told to mark pasted text.
    pub(super) fn new(machine: &Machine) -> Self {
        terminal::mark_pastes(machine, true);
        Self { line: LineReader::new(), knows_escapes: knows_escapes(machine) }
    }

    /// The next line that a person types.
    pub(super) fn read(&mut self) -> Typed<'_> {
        self.line.clear();
        kprint!("{PROMPT}");
        loop {
            match self.line.feed(input::read(), &mut Console) {
                Step::Nothing | Step::Bell => {}
                Step::Cancelled => {
                    kprint!("^C\n{PROMPT}");
                    input::take_lost();
                }
                Step::Complete => self.complete(),
                Step::ClearScreen => {
                    kprint!("{}{PROMPT}", if self.knows_escapes { "\x1b[H\x1b[2J" } else { "\n" });
                    self.line.show_again(&mut Console);
                }
                Step::End => {
                    kprint!("quit\n");
                    return Typed::End;
                }
                Step::Finished => {
                    kprint!("\n");
                    return match input::take_lost() {
                        0 => Typed::Line(self.line.text()),
                        lost => Typed::Refused(Refusal::Lost(lost)),
                    };
                }
                Step::Refused(refusal) => {
                    kprint!("\n");
                    return Typed::Refused(refusal);
                }
            }
        }
    }

    /// Completes the cursor's word as far as it is clear; if it is not clear any further, lists the words that it can be.
    fn complete(&mut self) {
        let (before, begun) = self.line.word();
        let mut found = Completion::new(begun);
        table::offer_words(before, &mut |word| {
            found.offer(word);
        });
        if !found.rest().is_empty() || found.is_whole() {
            self.line.insert(found.rest(), &mut Console);
            if found.is_whole() {
                self.line.insert(" ", &mut Console);
            }
            return;
        }
        match found.count() {
            0 => kprint!("\x07"),
            1..=LISTED => {
                kprint!("\n");
                let mut column = 0;
                table::offer_words(before, &mut |word| {
                    if word.starts_with(begun) {
                        let gap = if column == 0 { 0 } else { 2 };
                        if column + gap + word.len() < COLUMNS {
                            kprint!("{:gap$}{word}", "");
                            column += gap + word.len();
                        } else {
                            kprint!("\n{word}");
                            column = word.len();
                        }
                    }
                });
                kprint!("\n{PROMPT}");
                self.line.show_again(&mut Console);
            }
            count => {
                kprint!("\n{count} words\n{PROMPT}");
                self.line.show_again(&mut Console);
            }
        }
    }
}
