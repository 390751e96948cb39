//! Commands about processes.
#![forbid(unsafe_code)]

use crate::kernel::command::{Command, no_words};
use crate::kernel::{process, screen};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "exec",
        arguments: "[NAME ...]",
        help: "runs a program at EL0, behind the prompt with & at the end; without a name lists them",
        example: "exec hello one two",
        words: |before, offer| {
            if before.is_empty() {
                process::programs().iter().for_each(|program| offer(program.name));
            }
        },
        run: process::exec,
    },
    Command {
        name: "ps",
        arguments: "",
        help: "the processes; sizes in KiB",
        example: "ps",
        words: no_words,
        run: |machine, _| screen::list(machine, process::ps),
    },
    Command {
        name: "maps",
        arguments: "PID",
        help: "the areas of a process",
        example: "maps 2",
        words: no_words,
        run: process::maps,
    },
    Command {
        name: "kill",
        arguments: "PID",
        help: "ends a process",
        example: "kill 2",
        words: no_words,
        run: |_, rest| process::kill_command(rest),
    },
];
