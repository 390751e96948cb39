//! The prompt: a person at the serial line explores the memory of the machine. `keyboard.rs` reads lines, `table.rs` lists the
//! commands; each other file here is a family of them.

mod allocations;
mod bench;
mod counts;
mod cpus;
mod devices;
mod failing;
mod keyboard;
mod machine;
mod memory;
mod misuse;
mod processes;
mod progress;
mod stress;
mod table;
mod terminal;
mod word;

use super::input;
use super::line::SEPARATOR;
use super::machine::Machine;
use crate::kprintln;
use keyboard::{Keyboard, Typed};

/// Reads and runs commands for ever.
pub(super) fn run(machine: &Machine) -> ! {
    kprintln!("\nType help for a list of commands.");
    // Drops bytes that came while nobody read, at other speeds, or before the line was plugged in.
    input::take_lost();
    let mut keyboard = Keyboard::new(machine);
    loop {
        match keyboard.read() {
            Typed::Line(text) => execute(machine, text),
            Typed::Refused(refusal) => kprintln!("{refusal}"),
            Typed::End => execute(machine, "quit"),
        }
    }
}

/// Runs one line, as it is typed. Boot CPU, at the prompt or from a test that imitates it.
pub fn execute(machine: &Machine, line: &str) {
    for text in line.split(SEPARATOR).map(str::trim).filter(|text| !text.is_empty()) {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        match table::find(name) {
            Some(command) if command.arguments.is_empty() && !rest.trim().is_empty() => {
                kprintln!("{name} takes no arguments; try help {name}");
            }
            Some(command) => (command.run)(machine, rest.trim()),
            None => {
                kprintln!("no command {name:?}; try help");
                table::suggest(name);
            }
        }
    }
}
