//! `cargo run` and `make run`: one boot of the kernel itself.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use crate::console::{Event, Running};
use crate::elf::Kernel;
use crate::machine::Spec;
use crate::qemu::{self, Console, Program};

/// How long a boot with nobody there may take.
const UNATTENDED: Duration = Duration::from_secs(60);

/// Argument that lets the kernel show each of its subsystems, and leave then.
pub(crate) const TOUR: &str = "quarry.tour";

/// Argument that tells the kernel that nobody is there: it leaves when it has booted.
pub(crate) const BATCH: &str = "quarry.batch";

/// Default machine, for a person who names none.
pub(crate) const MACHINE: &str = "mem=1G smp=4";

/// Boots `elf` on the machine `spec`. At a terminal, a person talks to it; otherwise the kernel shows its subsystems and
/// leaves by itself. Returns the machine's status.
pub(crate) fn boot(elf: &Path, spec: &Spec) -> Result<ExitCode, String> {
    let kernel = Kernel::read(elf)?;
    let program = Program { kernel: &kernel };
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        let mut machine = qemu::machine(spec, &program, &terminal(), Console::Person)?;
        if machine.typing.is_some() {
            return Err(
                "this machine is typed to by script: boot it without a terminal, as in `… </dev/null`".to_owned()
            );
        }
        eprintln!("Ctrl-A X leaves the emulator.");
        let status = machine.command.stdin(Stdio::inherit()).status();
        return Ok(code(
            status.map_err(|e| format!("{}: {e}", machine.command.get_program().to_string_lossy()))?.code(),
        ));
    }
    // A script at the prompt leaves by itself.
    let words = if spec.typed.is_empty() { TOUR } else { "" };
    let mut machine = Running::start(qemu::machine(spec, &program, words, Console::Script)?)?;
    let deadline = machine.deadline(UNATTENDED);
    let mut shown = 0;
    loop {
        let event = machine.wait(&deadline)?;
        // Lost output is the reader's wish, as with `| head`.
        let _ = io::stdout()
            .write_all(machine.text.as_bytes().get(shown..).unwrap_or_default())
            .and_then(|()| io::stdout().flush());
        shown = machine.text.len();
        match event {
            Event::Text => {}
            Event::Ended(status) => {
                eprint!("{}", machine.remarks);
                return Ok(code(status.code()));
            }
            Event::TimedOut => {
                return Err(format!("the kernel did not leave within {} s; killed", UNATTENDED.as_secs()));
            }
        }
    }
}

/// The boot arguments that tell the kernel of the person's terminal: its name, whether colours are not wanted
/// (<https://no-color.org>), its lines and columns.
fn terminal() -> String {
    let name = std::env::var("TERM").unwrap_or_default();
    let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-+._".contains(letter));
    let mut words = if name.is_empty() || !is_plain { String::new() } else { format!("term={name}") };
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        words.push_str(" no_color");
    }
    // It prints the lines and the columns of the terminal that is its input.
    let size = Command::new("stty").arg("size").stdin(Stdio::inherit()).output();
    let size = size.ok().and_then(|size| String::from_utf8(size.stdout).ok()).unwrap_or_default();
    for (name, number) in ["lines", "columns"].iter().zip(size.split_whitespace()) {
        // Serial lines without a size have none of either.
        if number.parse::<u32>().is_ok_and(|number| number > 0) {
            words.push_str(&format!(" {name}={number}"));
        }
    }
    words
}

fn code(code: Option<i32>) -> ExitCode {
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
