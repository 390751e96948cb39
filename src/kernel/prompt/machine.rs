//! Commands about the machine itself.
#![forbid(unsafe_code)]

use super::{allocations, terminal};
use crate::kernel::command::{Command, no_words};
use crate::kernel::{errata, power, screen};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "cpu",
        arguments: "",
        help: "the features of this CPU",
        example: "cpu",
        words: no_words,
        run: |machine, _| screen::list(machine, |f| writeln!(f, "{}", machine.cpu)),
    },
    Command {
        name: "errata",
        arguments: "",
        help: "the errata of the CPUs, and how each is handled",
        example: "errata",
        words: no_words,
        run: |machine, _| screen::list(machine, errata::list),
    },
    Command {
        name: "quit",
        arguments: "",
        help: "frees memory that commands allocated, and switches the machine off",
        example: "quit",
        words: no_words,
        run: |machine, _| {
            terminal::mark_pastes(machine, false);
            allocations::free_all("left at quit, and freed: ");
            power::leave(power::SUCCESS)
        },
    },
];
