//! Instructions that the operations execute, one by one: a boot under the emulator's log of executed translation blocks, each
//! one instruction long.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::row::Executed;
use crate::elf::Kernel;
use crate::machine::Spec;
use crate::qemu::{self, Console, Program};

/// How long the boot may take.
const LIMIT: Duration = Duration::from_secs(900);

/// Counts of the image besides an operation: once a stretch, and each round of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overhead {
    pub(crate) stretch: u64,
    pub(crate) round: u64,
}

/// Runs the rows that `words` chooses a few times each, and returns what the last time executed, by number.
pub(crate) fn run(
    spec: &Spec,
    kernel: &Kernel,
    overhead: Overhead,
    words: &str,
) -> Result<BTreeMap<usize, Executed>, String> {
    let mut machine = qemu::machine(spec, &Program { kernel }, words, Console::Script)?;
    // The log goes to the standard error, where there is no file to fill a disk.
    machine.command.args(["-accel", "tcg,one-insn-per-tb=on", "-d", "exec,nochain"]);
    let started = machine.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|e| format!("{}: {e}", machine.command.get_program().to_string_lossy()))?;
    let (Some(mut console), Some(log)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("the emulator has no output".to_owned());
    };
    let child = Arc::new(Mutex::new(child));
    let (over, watched) = channel::<()>();
    let watchdog = thread::spawn({
        let child = Arc::clone(&child);
        move || {
            let in_time = watched.recv_timeout(LIMIT).is_ok();
            let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
            // Fails only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
            in_time
        }
    });
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        console.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).replace('\r', ""))
    });
    let regions = regions(kernel, overhead, BufReader::with_capacity(1 << 20, log));
    let text = reader.join().map_err(|_| "reading the console failed")?.map_err(|e| e.to_string())?;
    // The watchdog may have given up waiting.
    let _ = over.send(());
    let regions = regions?;
    if !watchdog.join().unwrap_or(false) {
        return Err(format!("tracing took longer than {} s", LIMIT.as_secs()));
    }
    let traced: Vec<Traced> = text.lines().filter_map(traced).collect();
    if traced.len() != regions.len() {
        let why = format!("{} operations left {} traces", traced.len(), regions.len());
        return Err(format!("{why}; the console:\n{text}"));
    }
    let mut executed = BTreeMap::new();
    for (Traced { number, count, left_out }, mut region) in traced.into_iter().zip(regions) {
        region.instructions = region.instructions.saturating_sub(left_out);
        // A process's load or store that faulted is logged, and did not count.
        if region.instructions.checked_sub(count).is_some_and(|faulted| faulted <= region.left) {
            region.instructions = count;
        }
        if region.instructions != count {
            let logged = region.instructions;
            return Err(format!("row {number}: the log has {logged} instructions, the counter {count}: one is wrong"));
        }
        executed.insert(number, region);
    }
    Ok(executed)
}

/// What the image says of an operation that was traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Traced {
    /// The row's number.
    number: usize,
    /// What the counter said.
    count: u64,
    /// Instructions that the counter saw and the row leaves out.
    left_out: u64,
}

fn traced(line: &str) -> Option<Traced> {
    let mut fields = line.strip_prefix("bench: traced\t")?.split('\t');
    let number = fields.next()?.parse().ok()?;
    let mut next = || fields.next()?.parse().ok();
    Some(Traced { number, count: next()?, left_out: next()? })
}

/// `MRS Xt, PMEVCNTR0_EL0`: a reading of the counter, with t in the low five bits.
const READING: u32 = 0xd53b_e800;

/// How the log takes a block back: something else comes first, and the block is logged again.
const STOPPED: &[u8] = b"Stopped execution of TB chain";

/// Instructions between two readings of the counter, for each pair before a mark, in the order of the log.
fn regions(kernel: &Kernel, overhead: Overhead, mut log: impl BufRead) -> Result<Vec<Executed>, String> {
    let mark = kernel.symbol("bench_trace_mark")?;
    let code = kernel.code()?;
    let (mut regions, mut last, mut now) = (Vec::new(), Executed::default(), Executed::default());
    let (mut line, mut in_process) = (Vec::new(), false);
    // Logged, and not yet known to have been executed.
    let mut next = None;
    loop {
        line.clear();
        let is_over = log.read_until(b'\n', &mut line).map_err(|e| e.to_string())? == 0;
        if line.starts_with(STOPPED) {
            next = None;
            continue;
        }
        let logged = program_counter(&line);
        if logged.is_none() && !is_over {
            continue;
        }
        let Some(pc) = std::mem::replace(&mut next, logged) else {
            if is_over {
                return Ok(regions);
            }
            continue;
        };
        let Some(word) = code.word(pc) else {
            // A process's, or the kernel's own before the MMU is on, which no reading of the counter stands before.
            now.instructions += 1;
            in_process = true;
            continue;
        };
        now.left += u64::from(std::mem::take(&mut in_process));
        now.count(word);
        *now.by_function.entry(code.function(pc)).or_default() += 1;
        if pc == mark {
            // The reading and its ISB are not the operation's, as the loop around it is not.
            let instructions = last.instructions.checked_sub(overhead.stretch + overhead.round);
            let isb = last.isb.checked_sub(1);
            let (Some(instructions), Some(isb)) = (instructions, isb) else {
                return Err("a mark without a measured stretch before it".to_owned());
            };
            regions.push(Executed { instructions, isb, ..std::mem::take(&mut last) });
        } else if word & !0x1f == READING {
            last = std::mem::take(&mut now);
        }
    }
}

/// The address in a line such as `Trace 0: 0x7f… [00000000/ffff800080001234/00000009/ff020001] name`.
fn program_counter(line: &[u8]) -> Option<u64> {
    let line = line.strip_prefix(b"Trace ")?;
    let fields = line.get(line.iter().position(|&byte| byte == b'[')?..)?;
    let field = fields.split(|&byte| byte == b'/').nth(1)?;
    u64::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_are_read() {
        let line = b"Trace 0: 0x7f0a34000100 [00000000/ffff800080001234/00000009/ff020001] memcpy\n";
        assert_eq!(program_counter(line), Some(0xffff_8000_8000_1234));
        assert_eq!(traced("bench: traced\t7\t140\t9"), Some(Traced { number: 7, count: 140, left_out: 9 }));
        assert_eq!(traced("bench: traced\t7\t140"), None);
        assert_eq!(program_counter(b"Stopped execution of TB chain before 0x7f [ffff800080001234]\n"), None);
    }
}
