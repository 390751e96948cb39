//! The families of commands, and `help`. A new command is a row of its family; a new family is a line here.
#![forbid(unsafe_code)]

use super::{counts, devices, failing, machine, memory, processes};
use crate::kernel::command::Command;
use crate::kernel::{map, top};
use crate::kprintln;

/// Every family, in the order in which `help` lists them.
const FAMILIES: &[&[Command]] = &[
    &[HELP],
    memory::COMMANDS,
    counts::COMMANDS,
    map::COMMANDS,
    top::COMMANDS,
    devices::COMMANDS,
    failing::COMMANDS,
    processes::COMMANDS,
    machine::COMMANDS,
];

const HELP: Command = Command {
    name: "help",
    arguments: "[NAME]",
    help: "this list, or all about one command",
    example: "help page",
    words: |before, offer| {
        if before.is_empty() {
            commands().for_each(|command| offer(command.name));
        }
    },
    run: |_, name| help(name),
};

/// Every command.
pub(super) fn commands() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().copied().flatten()
}

/// The command of a name.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    commands().find(|command| command.name == name)
}

fn help(name: &str) {
    if name.is_empty() {
        for command in commands() {
            kprintln!("  {:<12} {:<8} {}", command.name, command.arguments, command.help);
        }
        return;
    }
    match find(name) {
        Some(Command { name, arguments, help, example, .. }) => {
            let gap = if arguments.is_empty() { "" } else { " " };
            kprintln!("{name}{gap}{arguments}: {help}\nfor example: {example}");
        }
        None => kprintln!("no command {name:?}; help alone lists all"),
    }
}
