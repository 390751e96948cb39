//! Boots machines for tests and judges what they print.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::boot;
use crate::console::{Event, Running};
use crate::qemu::{self, Console, Program};
use crate::registry::Test;

/// How long the kernel may take to its first test.
const BOOT: Duration = Duration::from_secs(40);
/// How long it may take to leave after its last.
const LEAVE: Duration = Duration::from_secs(5);

/// How a test went; `Err` says why it failed.
pub(crate) type Verdict = Result<(), String>;

/// A judged test.
pub(crate) struct Outcome<'a> {
    pub(crate) test: &'a Test,
    pub(crate) verdict: Verdict,
    /// What the console showed meanwhile.
    pub(crate) log: String,
    /// The machine's command line.
    pub(crate) command: String,
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
                    done(Outcome { test, verdict: Err(why.clone()), log, command });
                }
            }
        }
    }
}

/// A boot of its own for a test that the console and the status decide.
fn watched<'a>(test: &'a Test, program: &Program<'_>, done: &mut dyn FnMut(Outcome<'a>)) -> Result<Vec<usize>, String> {
    let words = if test.has_body { format!("ktest={}", test.number) } else { boot::BATCH.to_owned() };
    let mut machine = Running::start(qemu::machine(&test.machine, program, &words, Console::Script)?)?;
    let deadline = Instant::now() + test.timeout;
    let mut reports = Reports::new(test);
    let verdict = loop {
        let event = machine.wait(deadline)?;
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
                    (None, _) => Ok(()),
                };
            }
        }
    };
    done(Outcome { test, verdict, log: std::mem::take(&mut machine.text), command: machine.command.clone() });
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
    let mut progress = Progress { tests, running: None, passed: Vec::new(), ended: false };
    // Up to where the console has been read, and from where it belongs to no test yet.
    let (mut read, mut since) = (0, 0);
    let mut logs = Vec::new();
    let mut deadline = Instant::now() + BOOT;
    let end = loop {
        match machine.wait(deadline)? {
            Event::Text => {
                while let Some(length) = machine.text[read..].find('\n') {
                    let step = progress.take(&machine.text[read..read + length]);
                    read += length + 1;
                    match step {
                        Step::Begun(test) => deadline = Instant::now() + test.timeout,
                        Step::Passed => {
                            logs.push(machine.text[since..read].to_owned());
                            since = read;
                            deadline = Instant::now() + LEAVE;
                        }
                        Step::Ended => deadline = Instant::now() + LEAVE,
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
        let mut log = logs.next().unwrap_or_default();
        if verdict.is_err() {
            log.push_str(&machine.text[since..]);
        }
        done(Outcome { test, verdict, log, command: machine.command.clone() });
    }
    Ok(judged)
}

/// How a boot ended.
enum End {
    /// With status 0.
    Clean,
    /// With another one, or a signal.
    Bad(String),
    /// Not by itself.
    Hung,
}

/// What a line of the console meant.
enum Step<'a> {
    None,
    Begun(&'a Test),
    Passed,
    Ended,
}

/// How far a boot has come.
struct Progress<'a, 'b> {
    tests: &'b [&'a Test],
    running: Option<&'a Test>,
    passed: Vec<&'a Test>,
    ended: bool,
}

impl<'a> Progress<'a, '_> {
    fn take(&mut self, line: &str) -> Step<'a> {
        // Another CPU may have left the line half written.
        let Some(at) = line.find("ktest: ") else { return Step::None };
        let mut words = line[at..].split(' ').skip(1);
        let (verb, number) = (words.next(), words.next().and_then(|word| word.parse::<usize>().ok()));
        let named = self.tests.iter().copied().find(|test| Some(test.number) == number);
        match (verb, named) {
            (Some("begin"), Some(test)) => {
                self.running = Some(test);
                Step::Begun(test)
            }
            (Some("ok"), Some(test)) if self.running.is_some_and(|running| running.number == test.number) => {
                self.running = None;
                self.passed.push(test);
                Step::Passed
            }
            (Some("end"), _) => {
                self.ended = true;
                Step::Ended
            }
            _ => Step::None,
        }
    }

    /// A verdict on every test that needs no further boot.
    fn judge(self, end: &End) -> Vec<(&'a Test, Verdict)> {
        let mut verdicts: Vec<(&Test, Verdict)> = self.passed.iter().map(|&test| (test, Ok(()))).collect();
        if let Some(test) = self.running {
            let why = match end {
                End::Clean => "the machine left in the middle of it".to_owned(),
                End::Bad(how) => how.clone(),
                End::Hung => format!("did not end within {} s; killed", test.timeout.as_secs()),
            };
            verdicts.push((test, Err(why)));
            return verdicts;
        }
        let how = match end {
            End::Bad(how) => how,
            End::Hung => "it hung and was killed",
            // After an announced fault the machine leaves early: the rest go on in the next boot.
            End::Clean if !self.ended && !self.passed.is_empty() => return verdicts,
            End::Clean => "the machine left without running it",
        };
        if let (End::Bad(_) | End::Hung, Some(last)) = (end, verdicts.last_mut()) {
            last.1 = Err(format!("it passed, but then: {how}"));
            return verdicts;
        }
        for test in self.tests {
            if !self.passed.iter().any(|passed| passed.number == test.number) {
                verdicts.push((test, Err(format!("the kernel did not come to it: {how}"))));
            }
        }
        verdicts
    }
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

    fn tests(count: usize) -> Vec<Test> {
        (0..count).map(|number| Test::parse(number, &format!("k::t{number}"), true).unwrap()).collect()
    }

    /// Verdicts after these lines and this end, as `(number, failed because)`.
    fn judge(count: usize, lines: &[&str], end: &End) -> Vec<(usize, Option<String>)> {
        let tests = tests(count);
        let tests: Vec<&Test> = tests.iter().collect();
        let mut progress = Progress { tests: &tests, running: None, passed: Vec::new(), ended: false };
        for line in lines {
            progress.take(line);
        }
        progress.judge(end).into_iter().map(|(test, verdict)| (test.number, verdict.err())).collect()
    }

    const BOTH: [&str; 5] = ["ktest: begin 0 t0", "ktest: ok 0", "ktest: begin 1 t1", "ktest: ok 1", "ktest: end"];

    #[test]
    fn passes_are_believed_after_a_clean_end() {
        assert_eq!(judge(2, &BOTH, &End::Clean), [(0, None), (1, None)]);
    }

    #[test]
    fn the_running_test_is_blamed_and_the_rest_left_for_another_boot() {
        let verdicts = judge(3, &BOTH[..3], &End::Bad("status 1".into()));
        assert_eq!(verdicts, [(0, None), (1, Some("status 1".into()))]);
        assert!(judge(3, &BOTH[..3], &End::Hung)[1].1.as_ref().unwrap().contains("within 20 s"));
    }

    #[test]
    fn a_test_that_leaves_cleanly_has_not_passed() {
        assert!(judge(2, &BOTH[..3], &End::Clean)[1].1.is_some());
    }

    #[test]
    fn a_bad_end_after_the_last_test_fails_it() {
        assert!(judge(2, &BOTH, &End::Bad("status 1".into()))[1].1.is_some());
        assert!(judge(2, &BOTH, &End::Hung)[1].1.is_some());
    }

    #[test]
    fn an_announced_fault_leaves_the_rest_open() {
        assert_eq!(judge(2, &BOTH[..2], &End::Clean), [(0, None)]);
    }

    #[test]
    fn a_boot_that_reaches_no_test_fails_all() {
        for end in [End::Clean, End::Bad("x".into()), End::Hung] {
            let verdicts = judge(2, &["panic"], &end);
            assert!(verdicts.len() == 2 && verdicts.iter().all(|(_, why)| why.is_some()));
        }
    }

    #[test]
    fn a_skipped_test_fails() {
        assert!(judge(2, &["ktest: begin 0 t0", "ktest: ok 0", "ktest: end"], &End::Clean)[1].1.is_some());
    }

    #[test]
    fn an_ok_for_another_test_is_not_believed() {
        assert!(judge(2, &["ktest: begin 0 t0", "ktest: ok 1", "ktest: end"], &End::Clean)[0].1.is_some());
    }

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
