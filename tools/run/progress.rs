//! The kernel's lines about its tests (`src/kernel/ktest.rs`), and the state that follows from them.

use crate::registry::Test;

/// How a test went; `Err` says why it failed.
pub(crate) type Verdict = Result<(), String>;

/// How a boot ended.
pub(crate) enum End {
    /// With status 0.
    Clean,
    /// With another one, or a signal.
    Bad(String),
    /// Not by itself.
    Hung,
}

/// Meaning of a line of the console.
pub(crate) enum Step<'a> {
    None,
    Begun(&'a Test),
    Passed,
    Ended,
}

/// How far a boot has come.
pub(crate) struct Progress<'a, 'b> {
    tests: &'b [&'a Test],
    running: Option<&'a Test>,
    passed: Vec<&'a Test>,
    ended: bool,
}

impl<'a, 'b> Progress<'a, 'b> {
    pub(crate) fn new(tests: &'b [&'a Test]) -> Self {
        Self { tests, running: None, passed: Vec::new(), ended: false }
    }

    /// Reads a line of the console.
    pub(crate) fn take(&mut self, line: &str) -> Step<'a> {
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
    pub(crate) fn judge(self, end: &End) -> Vec<(&'a Test, Verdict)> {
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
        let mut progress = Progress::new(&tests);
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
}
