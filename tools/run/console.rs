//! A running machine: its console as it comes, its end, and its life cut short.

use std::io::Read;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::qemu::{self, Machine};
use crate::typing::Typing;

/// How long a machine may take to go after its console has closed.
const CLOSING: Duration = Duration::from_secs(5);

/// What waiting for the console brought.
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
    /// What the emulator itself has to say.
    pub(crate) remarks: String,
    /// The command line, for reports.
    pub(crate) command: String,
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
        Ok(Self { child, stdin, output, typing, unfinished, text, remarks, command, _machine: machine })
    }

    /// Waits until something is written, the machine ends, or `deadline` passes.
    pub(crate) fn wait(&mut self, deadline: Instant) -> Result<Event, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Even if there is more to read: a machine that writes without end has hung as well.
            return Ok(Event::TimedOut);
        }
        match self.output.recv_timeout(left) {
            Ok((Pipe::Console, bytes)) => {
                self.unfinished.extend(bytes);
                self.text.push_str(&take_text(&mut self.unfinished));
                self.type_when_asked()?;
                Ok(Event::Text)
            }
            Ok((Pipe::Emulator, bytes)) => {
                self.remarks.push_str(&String::from_utf8_lossy(&bytes));
                Ok(Event::Text)
            }
            Err(RecvTimeoutError::Timeout) => Ok(Event::TimedOut),
            Err(RecvTimeoutError::Disconnected) => self.ended(),
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
    fn a_character_may_come_in_two_pieces() {
        let mut bytes = "a\r\nπ".as_bytes().to_vec();
        let last = bytes.pop().unwrap();
        assert_eq!(take_text(&mut bytes), "a\n");
        bytes.push(last);
        assert_eq!(take_text(&mut bytes), "π");
        assert_eq!(take_text(&mut vec![b'a', 0xff, b'b']), "a\u{fffd}b");
    }
}
