//! The prompt: a person at the serial line explores the memory of the machine. Each file here holds a family of commands;
//! `table.rs` lists them.

mod counts;
mod devices;
mod failing;
mod machine;
mod memory;
mod processes;
mod table;

use super::input;
use super::line::{LineReader, Refusal, Step};
use super::machine::Machine;
use crate::{kprint, kprintln};

/// Reads and runs commands for ever.
pub(super) fn run(machine: &Machine) -> ! {
    kprintln!("\nType help for a list of commands.");
    let mut line = LineReader::new();
    // Drops bytes that came while nobody read, at other speeds, or before the line was plugged in.
    input::take_lost();
    loop {
        kprint!("quarry> ");
        match read_line(&mut line) {
            Ok(text) => execute(machine, text),
            Err(refusal) => kprintln!("{refusal}"),
        }
        line.clear();
    }
}

/// Runs one line, as it is typed. Boot CPU, at the prompt or from a test that imitates it.
pub fn execute(machine: &Machine, line: &str) {
    let text = line.trim();
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    match table::find(name) {
        Some(command) => (command.run)(machine, rest.trim()),
        None if name.is_empty() => {}
        None => kprintln!("no command {name:?}; try help"),
    }
}

/// Reads a line with echo.
fn read_line(line: &mut LineReader) -> Result<&str, Refusal> {
    loop {
        match line.feed(input::read()) {
            Step::Nothing => {}
            Step::Echo(byte) => kprint!("{}", char::from(byte)),
            Step::Erase(count) => (0..count).for_each(|_| kprint!("\x08 \x08")),
            Step::Bell => kprint!("\x07"),
            Step::Cancelled => {
                kprint!("^C\nquarry> ");
                input::take_lost();
            }
            Step::Complete => {
                kprintln!();
                return match input::take_lost() {
                    0 => Ok(line.text()),
                    lost => Err(Refusal::Lost(lost)),
                };
            }
            Step::Refused(refusal) => {
                kprintln!();
                return Err(refusal);
            }
        }
    }
}
