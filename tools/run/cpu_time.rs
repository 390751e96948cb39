//! How much of the host's CPUs a process had.

use std::fs;
use std::time::Duration;

/// CPU time of a process on the host (Linux: proc_pid_stat(5), in hundredths of a second).
pub(crate) fn cpu_time(process: u32) -> Result<Duration, String> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    // The name of the program, in parentheses, may hold blanks; the times are the 12th and 13th field behind it.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().skip(11).take(2));
    let ticks = fields.map(|fields| fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>());
    ticks.map(|ticks| Duration::from_millis(ticks * 10)).ok_or_else(|| format!("{path} cannot be read: {stat}"))
}
