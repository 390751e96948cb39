//! The families of commands, and `help`. A new command is a row of its family; a new family is a line here.
#![forbid(unsafe_code)]

use super::{allocations, bench, counts, cpus, devices, failing, machine, memory, misuse, processes, stress, word};
use crate::kernel::command::Command;
use crate::kernel::machine::Machine;
use crate::kernel::{map, record, screen, top};
use crate::kprintln;

/// Every family, in the order in which `help` lists them.
const FAMILIES: &[&[Command]] = &[
    &[HELP],
    memory::COMMANDS,
    word::COMMANDS,
    allocations::COMMANDS,
    counts::COMMANDS,
    map::COMMANDS,
    top::COMMANDS,
    cpus::COMMANDS,
    devices::COMMANDS,
    failing::COMMANDS,
    misuse::COMMANDS,
    stress::COMMANDS,
    record::COMMANDS,
    bench::COMMANDS,
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
    run: help,
};

/// Every command.
pub(super) fn commands() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().copied().flatten()
}

/// The command of a name.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    commands().find(|command| command.name == name)
}

/// Offers every word that may stand behind the text `before` of a command.
pub(super) fn offer_words(before: &str, offer: &mut dyn FnMut(&str)) {
    match before.trim_start().split_once(' ') {
        None => commands().for_each(|command| offer(command.name)),
        Some((name, before)) => {
            if let Some(command) = find(name) {
                (command.words)(before.trim_start(), offer);
            }
        }
    }
}

/// Prints the commands whose names begin as a wrong one does.
pub(super) fn suggest(wrong: &str) {
    let begins = wrong.get(..2).unwrap_or(wrong);
    for command in commands().filter(|command| command.name.starts_with(begins)) {
        kprintln!("  there is {}: {}", command.name, command.help);
    }
}

/// Column of the commands' effects in the list.
const EFFECT: usize = 31;

fn help(machine: &Machine, name: &str) {
    if name.is_empty() {
        return screen::list(machine, |f| {
            commands().try_for_each(|command| {
                screen::row(format_args!("  {} {}", command.name, command.arguments), EFFECT, &[command.help], f)
            })
        });
    }
    match find(name) {
        Some(Command { name, arguments, help, example, .. }) => {
            let gap = if arguments.is_empty() { "" } else { " " };
            kprintln!("{name}{gap}{arguments}: {help}\nfor example: {example}");
        }
        None => kprintln!("no command {name:?}; help alone lists all"),
    }
}
