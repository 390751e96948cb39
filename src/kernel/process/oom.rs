//! The process that is killed when memory is used up: the one whose end gives most back.
#![forbid(unsafe_code)]

use super::table::{MAX_PROCESSES, Name, Pid, Place};
use super::{Ended, Signal, processes, spaces};
use core::fmt;

/// A process that was killed because memory was used up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    pid: Pid,
    name: Name,
    /// Bytes that it had.
    bytes: u64,
    /// Whether its memory is back already.
    pub(crate) is_reaped: bool,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({}), which had {} KiB", self.pid, self.name, self.bytes >> 10)
    }
}

/// Kills the process with the most memory and takes its memory at once (Linux: `oom_kill_process`, `oom_reap_task_mm`); `None` if
/// all are being killed already. For an OOM hook: with no lock held; takes no memory.
pub(crate) fn kill_largest() -> Option<Victim> {
    let sizes = (0..MAX_PROCESSES).map(Place).filter_map(|place| {
        let bytes = spaces::with(place, |space| (!space.is_killed()).then(|| space.usage().total())).flatten()?;
        Some((place, bytes))
    });
    let (place, bytes) = sizes.max_by_key(|(_, bytes)| *bytes)?;
    let (pid, name) = {
        let mut table = processes();
        table.condemn(place, Ended::Killed(Signal::Kill));
        let process = table.at(place)?;
        (process.pid, process.name)
    };
    let is_reaped = spaces::with(place, |space| space.kill()).unwrap_or(false);
    super::wake_somebody();
    Some(Victim { pid, name, bytes, is_reaped })
}
