//! The command line and the output of Rust's own test harness, so that `cargo test` and `cargo nextest` feel at home.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::registry::Test;
use crate::session::Outcome;

/// Arguments of `cargo test … -- …`.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of libtest's command line")]
pub(crate) struct Options {
    pub(crate) list: bool,
    terse: bool,
    ignored_only: bool,
    include_ignored: bool,
    exact: bool,
    pub(crate) nocapture: bool,
    pub(crate) threads: Option<usize>,
    filters: Vec<String>,
    skips: Vec<String>,
}

impl Options {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.flat_map(|arg| match arg.split_once('=') {
            Some((key, value)) if key.starts_with("--") => vec![key.to_owned(), value.to_owned()],
            _ => vec![arg],
        });
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} lacks its value"));
            match arg.as_str() {
                "--list" => options.list = true,
                "--ignored" => options.ignored_only = true,
                "--include-ignored" => options.include_ignored = true,
                "--exact" => options.exact = true,
                "--nocapture" | "--no-capture" => options.nocapture = true,
                "-q" | "--quiet" => options.terse = true,
                "--test" | "--show-output" => {}
                "--test-threads" => {
                    let count = value()?;
                    let count = count.parse().ok().filter(|&count: &usize| count > 0);
                    options.threads = Some(count.ok_or("--test-threads takes a number from 1")?);
                }
                "--skip" => options.skips.push(value()?),
                "--color" => drop(value()?),
                "--format" => match value()?.as_str() {
                    "terse" => options.terse = true,
                    "pretty" => options.terse = false,
                    other => return Err(format!("no output format {other:?}; there are pretty and terse")),
                },
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }

    /// The tests that the filters leave.
    pub(crate) fn select<'a>(&self, tests: &'a [Test]) -> Vec<&'a Test> {
        let named = |test: &Test, names: &[String]| {
            names.iter().any(|name| if self.exact { test.name == *name } else { test.name.contains(name.as_str()) })
        };
        tests
            .iter()
            .filter(|test| self.filters.is_empty() || named(test, &self.filters))
            .filter(|test| !named(test, &self.skips))
            .filter(|test| !self.ignored_only || test.ignored.is_some())
            .collect()
    }

    /// Whether a selected test is only mentioned.
    pub(crate) fn leaves_out(&self, test: &Test) -> bool {
        test.ignored.is_some() && !self.ignored_only && !self.include_ignored
    }

    /// The answer to `--list`.
    pub(crate) fn listing(&self, tests: &[&Test]) -> String {
        let mut text: String = tests.iter().map(|test| format!("{}: test\n", test.name)).collect();
        if !self.terse {
            let _ = write!(text, "\n{}, 0 benchmarks\n", counted(tests.len()));
        }
        text
    }
}

fn counted(tests: usize) -> String {
    format!("{tests} test{}", if tests == 1 { "" } else { "s" })
}

/// Tests whose time is shown at the end.
const SLOWEST: usize = 15;

/// The report, printed as it grows.
pub(crate) struct Report {
    terse: bool,
    started: Instant,
    passed: usize,
    ignored: usize,
    filtered_out: usize,
    failures: Vec<(String, String)>,
    took: Vec<(Duration, String)>,
}

impl Report {
    pub(crate) fn begin(options: &Options, selected: usize, filtered_out: usize) -> Self {
        println!("\nrunning {}", counted(selected));
        let terse = options.terse;
        Self {
            terse,
            started: Instant::now(),
            passed: 0,
            ignored: 0,
            filtered_out,
            failures: Vec::new(),
            took: Vec::new(),
        }
    }

    pub(crate) fn ignore(&mut self, test: &Test) {
        self.ignored += 1;
        let why = test.ignored.as_deref().filter(|why| !why.is_empty()).map(|why| format!(", {why}"));
        self.line(&test.name, &format!("ignored{}", why.unwrap_or_default()), 'i');
    }

    pub(crate) fn add(&mut self, outcome: &Outcome<'_>) {
        let name = &outcome.test.name;
        self.took.push((outcome.took, name.clone()));
        match &outcome.verdict {
            Ok(()) => {
                self.passed += 1;
                self.line(name, "ok", '.');
            }
            Err(why) => {
                self.line(name, "FAILED", 'F');
                let mut text = outcome.log.trim_end().to_owned();
                let _ = write!(text, "\n\nfailed: {why}\nmachine: {}\n", outcome.command);
                self.failures.push((name.clone(), text));
            }
        }
    }

    fn line(&self, name: &str, result: &str, letter: char) {
        if self.terse {
            print!("{letter}");
        } else {
            println!("test {name} ... {result}");
        }
    }

    /// Prints the tests that took longest, as the host's CPUs saw it.
    fn slowest(&mut self) {
        if self.terse || self.took.len() <= SLOWEST {
            return;
        }
        self.took.sort_by(|one, other| other.cmp(one));
        let all: Duration = self.took.iter().map(|(took, _)| *took).sum();
        println!("\nslowest of {:.0} s of the host's CPUs:", all.as_secs_f64());
        for (took, name) in self.took.iter().take(SLOWEST) {
            println!("{:8.1} s  {name}", took.as_secs_f64());
        }
    }

    /// Prints the failures and the result; whether all is well.
    pub(crate) fn end(&mut self) -> bool {
        if self.terse {
            println!();
        }
        if !self.failures.is_empty() {
            println!("\nfailures:");
            for (name, text) in &self.failures {
                println!("\n---- {name} stdout ----\n{text}");
            }
            println!("\nfailures:");
            for (name, _) in &self.failures {
                println!("    {name}");
            }
        }
        self.slowest();
        let ok = self.failures.is_empty();
        println!(
            "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
            if ok { "ok" } else { "FAILED" },
            self.passed,
            self.failures.len(),
            self.ignored,
            self.filtered_out,
            self.started.elapsed().as_secs_f64(),
        );
        ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &str) -> Options {
        Options::parse(args.split_ascii_whitespace().map(str::to_owned)).unwrap()
    }

    fn selected(args: &str) -> Vec<String> {
        let tests = ["k::a::one", "k::a::two\tignored=slow", "k::b::one"];
        let tests: Vec<_> =
            tests.iter().enumerate().map(|(number, text)| Test::parse(number, text, true).unwrap()).collect();
        options(args).select(&tests).iter().map(|test| test.name.clone()).collect()
    }

    #[test]
    fn filters_are_substrings_unless_exact() {
        assert_eq!(selected("one"), ["a::one", "b::one"]);
        assert_eq!(selected("--exact one"), Vec::<String>::new());
        assert_eq!(selected("--exact a::one"), ["a::one"]);
        assert_eq!(selected("one --skip b::"), ["a::one"]);
    }

    #[test]
    fn ignored_tests_are_listed_apart() {
        assert_eq!(selected("--ignored"), ["a::two"]);
        assert_eq!(selected("").len(), 3);
        let two = Test::parse(0, "k::a::two\tignored=slow", true).unwrap();
        assert!(options("").leaves_out(&two));
        assert!(!options("--ignored").leaves_out(&two) && !options("--include-ignored").leaves_out(&two));
    }

    #[test]
    fn nextest_is_understood() {
        let list = options("--list --format terse --ignored");
        assert!(list.list && list.ignored_only);
        assert_eq!(list.listing(&[&Test::parse(0, "k::a", true).unwrap()]), "a: test\n");
        assert!(options("a::one --nocapture --exact").nocapture);
    }

    #[test]
    fn an_unknown_option_is_refused() {
        for wrong in ["--format=json", "--shuffle", "--test-threads=0", "--skip"] {
            assert!(Options::parse([wrong.to_owned()].into_iter()).is_err(), "{wrong} was taken");
        }
    }
}
