//! A running machine: its console as it comes, its end, and its life cut short.

use std::cell::Cell;
use std::io::Read;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::cpu_time::cpu_time;
use crate::qemu::{self, Machine};
use crate::typing::Typing;

/// How long a machine may take to go after its console has closed.
const CLOSING: Duration = Duration::from_secs(5);
/// A machine that has not had the host's CPUs for as long as its limit is waited for so many times as long.
const PATIENCE: u32 = 5;

/// When a machine has hung: its limit has passed by the host's clock, and it has had the host's CPUs for as long. On a busy
/// host the second comes later, so that a test which makes progress is not ended; a machine that sleeps is.
pub(crate) struct Deadline {
    begun: Instant,
    used: Duration,
    limit: Duration,
}

/// Result of waiting for the console.
pub(crate) enum Event {
    /// Something was written; it is in [`Running::text`].
    Text,
    /// The machine is gone.
    Ended(ExitStatus),
    /// The deadline passed first.
    TimedOut,
}

/// Where output comes from.
#[derive(Clone, Copy)]
enum Pipe {
    Console,
    Emulator,
}

/// A machine under way. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Receiver<(Pipe, Vec<u8>)>,
    typing: Option<Typing>,
    /// The beginning of a character whose end has not come yet.
    unfinished: Vec<u8>,
    /// Everything that the console has written, without carriage returns.
    pub(crate) text: String,
    /// Output of the emulator itself.
    pub(crate) remarks: String,
    /// The command line, for reports.
    pub(crate) command: String,
    /// CPU time of the host that the process had when it was last looked at: nothing says so once it is gone.
    used: Cell<Duration>,
    _machine: Machine,
}

impl Running {
    pub(crate) fn start(mut machine: Machine) -> Result<Self, String> {
        let command = qemu::shown(&machine.command);
        let typing = machine.typing.take();
        let stdin = if typing.is_none() { Stdio::null() } else { Stdio::piped() };
        let program = machine.command.get_program().to_string_lossy().into_owned();
        let mut child = machine
            .command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{program}: {e}"))?;
        let (sender, output) = channel();
        if let Some(stdout) = child.stdout.take() {
            pump(Pipe::Console, stdout, sender.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            pump(Pipe::Emulator, stderr, sender);
        }
        let stdin = child.stdin.take();
        let (unfinished, text, remarks) = (Vec::new(), String::new(), String::new());
        let used = Cell::default();
        Ok(Self { child, stdin, output, typing, unfinished, text, remarks, command, used, _machine: machine })
    }

    /// The deadline of what begins now.
    pub(crate) fn deadline(&self, limit: Duration) -> Deadline {
        Deadline { begun: Instant::now(), used: cpu_time(self.child.id()).unwrap_or_default(), limit }
    }

    /// CPU time of the host that the machine has had since `deadline` was made, as far as it was last seen running.
    pub(crate) fn used_since(&self, deadline: &Deadline) -> Duration {
        let used = cpu_time(self.child.id()).unwrap_or_default().max(self.used.get());
        self.used.set(used);
        used.saturating_sub(deadline.used)
    }

    /// How long to wait at least before it is clear that the machine has hung.
    fn left(&self, deadline: &Deadline) -> Duration {
        let passed = deadline.begun.elapsed();
        // A process that is gone uses nothing more, and its pipes are closed.
        let used = cpu_time(self.child.id()).map_or(deadline.limit, |_| self.used_since(deadline));
        wait_for(deadline.limit, passed, used)
    }

    /// Waits until something is written, the machine ends, or `deadline` passes.
    pub(crate) fn wait(&mut self, deadline: &Deadline) -> Result<Event, String> {
        loop {
            let left = self.left(deadline);
            if left.is_zero() {
                // Even if there is more to read: a machine that writes without end has hung as well.
                return Ok(Event::TimedOut);
            }
            if let Some(event) = self.read_for(left)? {
                return Ok(event);
            }
        }
    }

    /// Waits so long at most.
    fn read_for(&mut self, left: Duration) -> Result<Option<Event>, String> {
        match self.output.recv_timeout(left) {
            Ok((Pipe::Console, bytes)) => {
                self.unfinished.extend(bytes);
                self.text.push_str(&take_text(&mut self.unfinished));
                self.type_when_asked()?;
                Ok(Some(Event::Text))
            }
            Ok((Pipe::Emulator, bytes)) => {
                self.remarks.push_str(&String::from_utf8_lossy(&bytes));
                Ok(Some(Event::Text))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => self.ended().map(Some),
        }
    }

    /// Both pipes are closed, so the process is about to end.
    fn ended(&mut self) -> Result<Event, String> {
        let deadline = Instant::now() + CLOSING;
        loop {
            match self.child.try_wait().map_err(|e| e.to_string())? {
                Some(status) => return Ok(Event::Ended(status)),
                None if Instant::now() >= deadline => return Ok(Event::TimedOut),
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn type_when_asked(&mut self) -> Result<(), String> {
        let (Some(stdin), Some(typing)) = (&mut self.stdin, &mut self.typing) else { return Ok(()) };
        typing.answer(&self.text, self.child.id(), stdin)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the process is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How much longer a machine is waited for that has a limit, after so much of the host's clock and so much use of its CPUs.
fn wait_for(limit: Duration, passed: Duration, used: Duration) -> Duration {
    let longer = limit.saturating_sub(passed).max(limit.saturating_sub(used));
    longer.min((limit * PATIENCE).saturating_sub(passed))
}

/// The text that `bytes` holds, without carriage returns; a character that is not complete yet stays.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let complete = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    let taken: Vec<u8> = bytes.drain(..complete).collect();
    String::from_utf8_lossy(&taken).replace('\r', "")
}

/// Sends what comes from `pipe` until it closes.
fn pump(name: Pipe, mut pipe: impl Read + Send + 'static, to: Sender<(Pipe, Vec<u8>)>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            if to.send((name, buffer.iter().take(read).copied().collect())).is_err() {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_host_ends_no_machine_that_works() {
        let wait = |passed, used| {
            let [limit, passed, used] = [20, passed, used].map(Duration::from_secs);
            wait_for(limit, passed, used).as_secs()
        };
        assert_eq!((wait(0, 0), wait(5, 5), wait(20, 20)), (20, 15, 0));
        assert_eq!((wait(10, 20), wait(20, 40)), (10, 0), "of two CPUs at once: the clock counts");
        assert_eq!((wait(20, 7), wait(60, 19)), (13, 1), "it had less than its limit");
        assert_eq!((wait(99, 0), wait(100, 0), wait(200, 3)), (1, 0, 0), "a machine that sleeps has hung in the end");
    }

    #[test]
    fn a_character_may_come_in_two_pieces() {
        let mut bytes = "a\r\nπ".as_bytes().to_vec();
        let last = bytes.pop().unwrap();
        assert_eq!(take_text(&mut bytes), "a\n");
        bytes.push(last);
        assert_eq!(take_text(&mut bytes), "π");
        assert_eq!(take_text(&mut vec![b'a', 0xff, b'b']), "a\u{fffd}b");
    }
}
