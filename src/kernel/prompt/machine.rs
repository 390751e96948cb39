//! Commands about the machine itself.
#![forbid(unsafe_code)]

use crate::kernel::command::{Command, no_words};
use crate::kernel::{errata, power};
use crate::kprintln;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "cpu",
        arguments: "",
        help: "the features of this CPU",
        example: "cpu",
        words: no_words,
        run: |machine, _| kprintln!("{}", machine.cpu),
    },
    Command {
        name: "errata",
        arguments: "",
        help: "the errata of the CPUs, and how each is handled",
        example: "errata",
        words: no_words,
        run: |_, _| errata::list(),
    },
    Command {
        name: "quit",
        arguments: "",
        help: "switches the machine off",
        example: "quit",
        words: no_words,
        run: |_, _| power::leave(power::SUCCESS),
    },
];
