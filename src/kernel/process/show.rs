//! Processes and their areas as text, as Linux's `ps` and `/proc/PID/maps` show them.
#![forbid(unsafe_code)]

use super::table::ProcessState;
use super::{Name, Pid, processes, spaces};
use crate::addr::PAGE_SHIFT;
use crate::global::AddressSpace;
use core::fmt;

/// The areas of a space, a line each, in the format of Linux's `/proc/PID/maps`. Printed with no lock held.
pub(super) struct Maps<'s>(pub(super) &'s AddressSpace);

impl fmt::Display for Maps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |map: &crate::mm::user::map::AddressMap<'_>| {
            map.areas().try_for_each(|area| writeln!(f, "{}", map.maps_line(area, self.0.hal())))
        };
        self.0.with_map(lines).unwrap_or(Err(fmt::Error))
    }
}

/// Writes the processes: sizes in KiB.
pub(crate) fn ps(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "  PID  PPID THREADS STAT    VSZ    RSS TABLES COMMAND")?;
    // Copied, so that nothing is written with the lock held.
    let found: [Option<_>; super::MAX_PROCESSES] = {
        let table = processes();
        let mut all = table.all().map(|(place, process)| (place, *process));
        core::array::from_fn(|_| all.next())
    };
    for (place, process) in found.into_iter().flatten() {
        let kib = |bytes: u64| bytes >> 10;
        let sizes = spaces::with(place, |space| {
            let usage = space.usage();
            let total = space.with_map(|map| map.usage().total << PAGE_SHIFT).unwrap_or(0);
            (kib(total), kib(usage.anon + usage.mapped), kib(usage.tables))
        });
        let (size, resident, tables) = sizes.unwrap_or_default();
        let state = match process.state {
            ProcessState::Zombie(_) => "Z",
            ProcessState::Ending => "X",
            _ if process.dying.is_some() => "X",
            _ => "R",
        };
        writeln!(
            f,
            "{:>5} {:>5} {:>7} {state:<4} {size:>6} {resident:>6} {tables:>6} {}",
            process.pid, process.parent, process.threads, process.name
        )?;
    }
    Ok(())
}

/// Writes the areas of a process; `None` if there is none of that number.
pub(crate) fn maps(pid: Pid, f: &mut fmt::Formatter<'_>) -> Option<fmt::Result> {
    let place = processes().find(pid)?;
    spaces::with(place, |space| write!(f, "{}", Maps(space)))
}

/// Shows `f` the memory of each process's address space, tables included, with the process's number and name.
pub(crate) fn each_space_size(mut f: impl FnMut(u64, Pid, Name)) {
    let found: [Option<_>; super::MAX_PROCESSES] = {
        let table = processes();
        let mut all = table.all().map(|(place, process)| (place, process.pid, process.name));
        core::array::from_fn(|_| all.next())
    };
    for (place, pid, name) in found.into_iter().flatten() {
        if let Some(usage) = spaces::with(place, |space| space.usage()) {
            f(usage.total(), pid, name);
        }
    }
}
