//! Commands of the prompt: `exec`, `ps`, `maps`, `kill`.
#![forbid(unsafe_code)]

use super::start::{default_limits, kill, reap, start};
use super::{Ended, Pid, load, processes, programs, schedule, show};
use crate::addr::CpuId;
use crate::arch::aarch64::cpu::{self, Relax};
use crate::kernel::machine::Machine;
use crate::kernel::{bootargs, input, screen};
use crate::kprintln;
use crate::sync::Once;

/// `exec NAME ARGUMENTS…`: runs a program to its end, or, with `&` as the last word, while the prompt waits for keys. Ctrl-C
/// kills it.
pub(crate) fn exec(machine: &Machine, text: &str) {
    let (text, waits) = match text.strip_suffix('&') {
        Some(text) => (text, false),
        None => (text, true),
    };
    let mut words = text.split_ascii_whitespace();
    let Some(name) = words.next() else {
        return screen::list(machine, |f| {
            writeln!(f, "programs of this image:")?;
            let mut programs = programs().iter();
            programs.try_for_each(|program| writeln!(f, "  {:<10} {:>6} bytes", program.name, program.file.len()))
        });
    };
    // The first word is the name.
    let mut arguments = [""; load::MAX_ARGUMENTS - 1];
    let mut count = 0;
    for word in words {
        let Some(place) = arguments.get_mut(count) else {
            return kprintln!("at most {} words behind the program's name", load::MAX_ARGUMENTS - 1);
        };
        *place = word;
        count += 1;
    }
    let parent = if waits { Pid::KERNEL } else { Pid::NOBODY };
    match start(name, arguments.get(..count).unwrap_or_default(), parent, default_limits()) {
        Err(error) => kprintln!("{name}: {error}"),
        Ok(pid) if waits => kprintln!("{name}: {}", wait_for(pid)),
        Ok(pid) => kprintln!("{name} is process {pid}"),
    }
}

/// Runs all processes until this one has ended. Ctrl-C kills it.
fn wait_for(pid: Pid) -> Ended {
    let end: Once<Ended, Relax> = Once::new();
    schedule::run(&|| {
        if cpu::current() == CpuId::BOOT && input::is_cancelled() {
            kill(pid);
        }
        // One CPU takes its end, and tells the others.
        end.is_completed() || reap(pid).map(|ended| end.call_once(|| ended)).is_some()
    });
    end.get().copied().unwrap_or(Ended::Killed(super::Signal::Kill))
}

fn number(text: &str) -> Option<Pid> {
    let number = bootargs::parse_number(text).and_then(|number| u32::try_from(number).ok());
    if number.is_none() {
        kprintln!("the number of a process, such as `ps` shows it");
    }
    number.map(Pid)
}

/// `maps PID`: the areas of a process in the format of Linux's `/proc/PID/maps`.
pub(crate) fn maps(machine: &Machine, text: &str) {
    if let Some(pid) = number(text) {
        screen::list(machine, |f| match show::maps(pid, f) {
            Some(written) => written,
            None => writeln!(f, "no process has the number {text}"),
        });
    }
}

/// `kill PID`: ends a process. Its memory is back when the prompt is: until then all processes have their turns, as a thread
/// ends at its next one. Ctrl-C gives up waiting.
pub(crate) fn kill_command(text: &str) {
    let Some(pid) = number(text) else { return };
    if !kill(pid) {
        return kprintln!("no process has the number {text}");
    }
    schedule::run(&|| cpu::current() == CpuId::BOOT && input::is_cancelled() || !processes().is_alive(pid));
}
