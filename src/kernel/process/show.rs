//! Processes and their areas as text, as Linux's `ps` and `/proc/PID/maps` show them.
#![forbid(unsafe_code)]

use super::table::ProcessState;
use super::{Pid, processes, spaces};
use crate::addr::PAGE_SHIFT;
use crate::global::AddressSpace;
use crate::kernel::picture::{Bar, Exact, Largest, Style};
use crate::kernel::top;
use crate::kprint;
use crate::kprintln;
use core::fmt;

/// Address spaces that `top` shows.
const SPACES: usize = 5;

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

/// Prints the processes: sizes in KiB.
pub(crate) fn ps() {
    kprintln!("  PID  PPID THREADS STAT    VSZ    RSS TABLES COMMAND");
    // Copied, so that nothing is printed with the lock held.
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
        kprintln!(
            "{:>5} {:>5} {:>7} {state:<4} {size:>6} {resident:>6} {tables:>6} {}",
            process.pid,
            process.parent,
            process.threads,
            process.name
        );
    }
}

/// Prints the areas of a process. Whether there is one of that number.
pub(crate) fn maps(pid: Pid) -> bool {
    let place = processes().find(pid);
    place.and_then(|place| spaces::with(place, |space| kprint!("{}", Maps(space)))).is_some()
}

/// Prints the address spaces of processes with the most memory, tables included.
pub(crate) fn spaces_by_memory(style: Style, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rows: Largest<_, SPACES> = Largest::default();
    let found: [Option<_>; super::MAX_PROCESSES] = {
        let table = processes();
        let mut all = table.all().map(|(place, process)| (place, process.pid, process.name));
        core::array::from_fn(|_| all.next())
    };
    for (place, pid, name) in found.into_iter().flatten() {
        if let Some(usage) = spaces::with(place, |space| space.usage()) {
            rows.add(usage.total(), (pid, name));
        }
    }
    top::heading(f, "ADDRESS SPACES", rows.count(), rows.sum(), "PROCESS")?;
    for (bytes, (pid, name)) in rows.iter() {
        let bar = Bar { part: bytes, whole: rows.sum(), width: 20, style };
        writeln!(f, "{:20} {:>14} {bar} {pid} {name}", "", Exact(bytes))?;
    }
    Ok(())
}
