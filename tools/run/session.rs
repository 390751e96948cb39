//! Boots machines for tests and judges what they print.

use std::process::ExitStatus;
use std::time::Duration;

use crate::boot;
use crate::console::{Event, Running};
use crate::fault_json;
use crate::pictures;
use crate::progress::{End, Progress, Step, Verdict};
use crate::qemu::{self, Console, Program};
use crate::registry::Test;
use crate::tour;

/// How long the kernel may take to its first test.
const BOOT: Duration = Duration::from_secs(40);
/// How long it may take to leave after its last.
const LEAVE: Duration = Duration::from_secs(20);

/// A judged test.
pub(crate) struct Outcome<'a> {
    pub(crate) test: &'a Test,
    pub(crate) verdict: Verdict,
    /// Output of the console meanwhile.
    pub(crate) log: String,
    /// The machine's command line.
    pub(crate) command: String,
    /// CPU time of the host that it took, with the boot if it had one for itself.
    pub(crate) took: Duration,
}

/// Runs tests that share a machine's specification, in as few boots as their failures allow. `done` hears of each as
/// soon as it is judged.
pub(crate) fn run<'a>(tests: &[&'a Test], program: &Program<'_>, done: &mut dyn FnMut(Outcome<'a>)) {
    let mut left: Vec<&Test> = tests.to_vec();
    while !left.is_empty() {
        let result = match left.as_slice() {
            [test] if test.is_watched() => watched(test, program, done),
            _ => shared(&left, program, done),
        };
        match result {
            Ok(judged) => left.retain(|test| !judged.contains(&test.number)),
            Err(why) => {
                for test in left.drain(..) {
                    let (log, command) = (String::new(), String::new());
                    done(Outcome { test, verdict: Err(why.clone()), log, command, took: Duration::ZERO });
                }
            }
        }
    }
}

/// A boot of its own for a test that the console and the status decide.
fn watched<'a>(test: &'a Test, program: &Program<'_>, done: &mut dyn FnMut(Outcome<'a>)) -> Result<Vec<usize>, String> {
    let words = match test.has_body {
        true => format!("ktest={}", test.number),
        false if test.machine.typed.is_empty() => boot::BATCH.to_owned(),
        // Somebody is there.
        false => String::new(),
    };
    let mut machine = Running::start(qemu::machine(&test.machine, program, &words, Console::Script)?)?;
    let deadline = machine.deadline(test.timeout);
    let mut reports = Reports::new(test);
    let verdict = loop {
        let event = machine.wait(&deadline)?;
        let missing = reports.missing(&machine.text);
        match event {
            Event::Text if missing.is_none() && test.exit.is_none() => break Ok(()),
            Event::Text => {}
            Event::TimedOut => {
                let what = missing.map_or("end".to_owned(), |text| format!("show {text:?}"));
                break Err(format!("did not {what} within {} s; killed", test.timeout.as_secs()));
            }
            Event::Ended(status) => {
                break match (missing, test.exit) {
                    (Some(text), _) => Err(format!("the console never showed {text:?}; {}", left_with(status))),
                    (None, Some(wanted)) if status.code() != Some(wanted) => {
                        Err(format!("{}, not {wanted}", left_with(status)))
                    }
                    (None, _) if test.machine.silent && !machine.text.is_empty() => {
                        Err("the console is not silent".to_owned())
                    }
                    (None, _) if test.machine.append.contains("report=json") => fault_json::check(&machine.text),
                    (None, _) if test.machine.append.contains(boot::TOUR) => tour::check(&machine.text),
                    (None, _) => pictures::check(&machine.text),
                };
            }
        }
    };
    let (log, command) = (machine.text.clone() + &machine.remarks, machine.command.clone());
    done(Outcome { test, verdict, log, command, took: machine.used_since(&deadline) });
    Ok(vec![test.number])
}

/// The texts that a console must show, in order: that the test has begun, if it has a function, then its reports.
struct Reports {
    texts: Vec<String>,
    found: usize,
    /// Where to go on searching.
    from: usize,
}

impl Reports {
    fn new(test: &Test) -> Self {
        let begin = test.has_body.then(|| format!("ktest: begin {} {}\n", test.number, test.name));
        Self { texts: begin.into_iter().chain(test.reports.iter().cloned()).collect(), found: 0, from: 0 }
    }

    /// The first text that `console` has not shown yet.
    fn missing(&mut self, console: &str) -> Option<&str> {
        while let Some(text) = self.texts.get(self.found) {
            let Some(at) = console[self.from..].find(text.as_str()) else { break };
            self.from += at + text.len();
            self.found += 1;
        }
        self.texts.get(self.found).map(String::as_str)
    }
}

/// One boot for all of `tests`, until one of them ends it. Returns the numbers of those that it judged: at least one.
fn shared<'a>(
    tests: &[&'a Test],
    program: &Program<'_>,
    done: &mut dyn FnMut(Outcome<'a>),
) -> Result<Vec<usize>, String> {
    let Some(first) = tests.first() else { return Ok(Vec::new()) };
    let words = format!("ktest={}", ranges(tests.iter().map(|test| test.number)));
    let mut machine = Running::start(qemu::machine(&first.machine, program, &words, Console::Script)?)?;
    let mut progress = Progress::new(tests);
    // Up to where the console has been read, and from where it belongs to no test yet.
    let (mut read, mut since) = (0, 0);
    let mut logs = Vec::new();
    let mut deadline = machine.deadline(BOOT);
    let end = loop {
        match machine.wait(&deadline)? {
            Event::Text => {
                while let Some(length) = machine.text[read..].find('\n') {
                    let step = progress.take(&machine.text[read..read + length]);
                    read += length + 1;
                    match step {
                        Step::Begun(test) => deadline = machine.deadline(test.timeout),
                        Step::Passed => {
                            logs.push((machine.text[since..read].to_owned(), machine.used_since(&deadline)));
                            since = read;
                            deadline = machine.deadline(LEAVE);
                        }
                        Step::Ended => deadline = machine.deadline(LEAVE),
                        Step::None => {}
                    }
                }
            }
            Event::Ended(status) if status.success() => break End::Clean,
            Event::Ended(status) => break End::Bad(left_with(status)),
            Event::TimedOut => break End::Hung,
        }
    };
    let mut judged = Vec::new();
    let mut logs = logs.into_iter();
    for (test, verdict) in progress.judge(&end) {
        judged.push(test.number);
        let (mut log, took) = logs.next().unwrap_or_else(|| (String::new(), machine.used_since(&deadline)));
        if verdict.is_err() {
            log.push_str(&machine.text[since..]);
            log.push_str(&machine.remarks);
        }
        done(Outcome { test, verdict, log, command: machine.command.clone(), took });
    }
    Ok(judged)
}

fn left_with(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("the machine left with status {code}"),
        None => format!("the emulator died: {status}"),
    }
}

/// `0-3,7` for 0, 1, 2, 3, 7.
pub(crate) fn ranges(numbers: impl Iterator<Item = usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let shown = ranges.iter().map(|&(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_count_after_the_test_begins_and_in_order() {
        let test = Test::parse(0, "k::t\treport=one\treport=two", true).unwrap();
        assert_eq!(Reports::new(&test).missing("one two\n"), Some("ktest: begin 0 t\n"));
        assert_eq!(Reports::new(&test).missing("ktest: begin 0 t\ntwo one\n"), Some("two"));
        assert_eq!(Reports::new(&test).missing("ktest: begin 0 t\none x two"), None);
    }

    #[test]
    fn numbers_are_written_as_ranges() {
        assert_eq!(ranges([0, 1, 2, 5, 7, 8].into_iter()), "0-2,5,7-8");
    }
}
