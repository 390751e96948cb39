//! A command whose output must go on: one that says nothing for too long is ended, and what hangs is named.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// libtest's note on a test that takes long, behind its name.
const LONG: &str = " has been running for over";

/// Runs `command` and passes on what it prints; ends it, with all that it has started, if it prints nothing for `limit`.
/// Its status; an error names the tests that were running then, as far as they have said so.
pub(crate) fn run(limit: Duration, command: &[&str]) -> Result<u8, String> {
    let [program, arguments @ ..] = command else { return Err("watch: no command".to_owned()) };
    // A group of its own, so that all of it can be ended.
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = child.map_err(|e| format!("{program}: {e}"))?;
    let (sender, output) = channel();
    let pipes: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|pipe| Box::new(pipe) as _), child.stderr.take().map(|pipe| Box::new(pipe) as _)];
    for mut pipe in pipes.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer.iter().take(read).copied().collect::<Vec<u8>>()).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let mut running = Running::default();
    loop {
        match output.recv_timeout(limit) {
            Ok(bytes) => {
                // A reader that has gone is no reason to end the command.
                let _ = io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush());
                running.read(&bytes);
            }
            Err(RecvTimeoutError::Timeout) => {
                end(&mut child);
                return Err(format!("no progress for {} s{}", limit.as_secs(), running.named()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().map_err(|e| e.to_string())?;
                return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
            }
        }
    }
}

/// Ends a command and what it has started.
fn end(child: &mut Child) {
    // Both fail only if it is gone.
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
    let _ = child.wait();
}

/// The tests that libtest has said to take long, and that have not ended.
#[derive(Default)]
struct Running {
    line: Vec<u8>,
    tests: BTreeSet<String>,
}

impl Running {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            let Some(line) = line.strip_prefix("test ") else { continue };
            if let Some((name, _)) = line.split_once(LONG) {
                self.tests.insert(name.to_owned());
            } else if let Some((name, _)) = line.split_once(" ... ") {
                self.tests.remove(name);
            }
        }
    }

    fn named(&self) -> String {
        match self.tests.is_empty() {
            true => String::new(),
            false => format!("; what hangs: {}", self.tests.iter().cloned().collect::<Vec<_>>().join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_command_that_says_nothing_is_ended_with_its_children() {
        let start = Instant::now();
        let script = "echo 'test a::b has been running for over 60 seconds'; echo 'test c has been running for over 60 \
            seconds'; echo 'test c ... ok'; (sleep 100; echo late) & sleep 100";
        let why = run(Duration::from_secs(1), &["sh", "-c", script]).unwrap_err();
        assert_eq!(why, "no progress for 1 s; what hangs: a::b");
        assert!(start.elapsed() < Duration::from_secs(50), "the children hold the pipes");
    }

    #[test]
    fn a_command_that_goes_on_has_its_own_status() {
        let slow = "for i in 1 2 3 4; do sleep 0.5; echo $i; done; exit 7";
        assert_eq!(run(Duration::from_secs(20), &["sh", "-c", slow]), Ok(7));
        assert!(run(Duration::from_secs(20), &["/does/not/exist"]).is_err());
        assert!(run(Duration::from_secs(20), &[]).is_err());
    }
}
