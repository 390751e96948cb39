//! The test runner: selects, groups tests by machine, boots, reports.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::elf::Kernel;
use crate::libtest::{Options, Report};
use crate::qemu::Program;
use crate::registry::Test;
use crate::session::{self, Outcome};

/// How many tests one boot is asked to run at most: their numbers must fit the boot arguments.
const GROUP: usize = 100;
/// How long the tests of one boot may take together, by their limits: boots run side by side, tests of one boot do not.
const GROUP_TIME: Duration = Duration::from_secs(600);

/// Answers libtest's command line for the tests in `kernel`; whether all selected tests passed.
pub(crate) fn run(kernel: &Kernel, tests: &[Test], options: &Options) -> bool {
    let selected = options.select(tests);
    if options.list {
        print!("{}", options.listing(&selected));
        return true;
    }
    let mut report = Report::begin(options, selected.len(), tests.len() - selected.len());
    let (ignored, wanted): (Vec<&Test>, Vec<&Test>) = selected.into_iter().partition(|test| options.leaves_out(test));
    for test in ignored {
        report.ignore(test);
    }
    // The longest first, so that the last to end is a short one.
    let mut groups = groups(&wanted);
    groups.sort_by_key(|group| Reverse(limit(group)));
    let groups = Mutex::new(VecDeque::from(groups));
    let next = || groups.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let program = Program { kernel };
    let jobs = options.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    thread::scope(|scope| {
        let (sender, outcomes) = channel::<Outcome<'_>>();
        for _ in 0..jobs {
            let (sender, program, next) = (sender.clone(), &program, &next);
            scope.spawn(move || {
                while let Some(group) = next() {
                    // The receiver outlives every sender.
                    session::run(&group, program, &mut |outcome| drop(sender.send(outcome)));
                }
            });
        }
        drop(sender);
        for outcome in outcomes {
            if options.nocapture {
                print!("{}", outcome.log);
            }
            report.add(&outcome);
        }
    });
    report.end()
}

/// Start of the ignore reason of a test that fails on purpose; the expected failure follows.
const PLANTED: &str = "planted: ";

/// Runs the tests that fail on purpose. One passes here if it failed for the reason that it states.
pub(crate) fn planted(kernel: &Kernel, tests: &[Test]) -> bool {
    let reason = |test: &Test| test.ignored.as_ref()?.strip_prefix(PLANTED).map(str::to_owned);
    let planted: Vec<&Test> = tests.iter().filter(|test| reason(test).is_some()).collect();
    let mut report = Report::begin(&Options::default(), planted.len(), tests.len() - planted.len());
    let program = Program { kernel };
    for group in groups(&planted) {
        session::run(&group, &program, &mut |mut outcome| {
            let wanted = reason(outcome.test).unwrap_or_default();
            outcome.verdict = match outcome.verdict {
                Ok(()) => Err(format!("it passed, but should have failed with {wanted:?}")),
                Err(why) if why.contains(&wanted) || outcome.log.contains(&wanted) => Ok(()),
                Err(why) => Err(format!("it should have failed with {wanted:?}, but: {why}")),
            };
            report.add(&outcome);
        });
    }
    report.end() && !planted.is_empty()
}

/// Tests that share a boot: those with the same machine, unless they want one for themselves.
fn groups<'a>(tests: &[&'a Test]) -> Vec<Vec<&'a Test>> {
    let mut groups: Vec<Vec<&Test>> = Vec::new();
    for &test in tests {
        let shares = |group: &&mut Vec<&Test>| {
            group.len() < GROUP
                && limit(group) + test.timeout <= GROUP_TIME
                && group.iter().all(|other| !other.is_alone() && other.machine == test.machine)
        };
        match groups.iter_mut().find(shares).filter(|_| !test.is_alone()) {
            Some(group) => group.push(test),
            None => groups.push(vec![test]),
        }
    }
    groups
}

/// How long a group may take.
fn limit(group: &[&Test]) -> Duration {
    group.iter().map(|test| test.timeout).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_machines_share_a_boot() {
        let texts =
            ["k::a", "k::b\tmachine=smp=2", "k::c", "k::d\treport=x", "k::e\tmachine=alone", "k::f\tmachine=smp=1"];
        let tests: Vec<_> =
            texts.iter().enumerate().map(|(number, text)| Test::parse(number, text, true).unwrap()).collect();
        let numbers: Vec<Vec<usize>> = groups(&tests.iter().collect::<Vec<_>>())
            .iter()
            .map(|group| group.iter().map(|test| test.number).collect())
            .collect();
        assert_eq!(numbers, [vec![0, 2, 5], vec![1], vec![3], vec![4]]);
    }

    #[test]
    fn long_tests_do_not_wait_for_each_other_in_one_boot() {
        let texts = ["k::a\ttimeout=300", "k::b\ttimeout=300", "k::c\ttimeout=300", "k::d\ttimeout=700"];
        let tests: Vec<_> =
            texts.iter().enumerate().map(|(number, text)| Test::parse(number, text, true).unwrap()).collect();
        let lengths: Vec<usize> = groups(&tests.iter().collect::<Vec<_>>()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1]);
    }
}
