//! `cargo bench` and `make bench`: boots the image of benchmarks on machines that count, and the kernel itself, and
//! writes what they print as JSON lines and as a table. `docs/measuring.md` says what the figures mean.

mod boots;
mod budget;
mod decode;
mod figures;
mod readme;
mod row;
mod table;
mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::elf::Kernel;
use crate::machine::Spec;
use crate::scratch;
use crate::session;
use crate::tree::in_package;
use boots::End;
pub(crate) use readme::refresh;
use row::{Figures, Row};
use trace::Overhead;

/// The name under which the image registers its entry.
const ENTRY: &str = "benchmarks";
/// The name of this kernel's own rows.
const OURS: &str = "quarry";
/// The machine that counts: virt with a cortex-a72 unless told otherwise.
const MACHINE: &str = "icount mem=1G";
/// The budget of each row.
const BUDGET: &str = "benches/budget.tsv";
/// An operation dearer than this, in instructions, is not traced one by one.
const TRACED: f64 = 400_000.0;
/// Nor is one that takes more to prepare: the log has that too.
const PREPARED: u64 = 2_000_000;

/// Options of the command line.
struct Options {
    /// Rows whose names contain this, or one of its parts between commas.
    filter: String,
    /// More words of the machine's specification.
    machine: String,
    /// Action on `benches/budget.tsv`.
    budget: Option<Purpose>,
}

/// Purpose of a run, other than the table.
#[derive(Clone)]
enum Purpose {
    /// Every row is held against its budget.
    Check,
    /// The budgets are written anew; the text is the reason of those that rise.
    Write(String),
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Self { filter: String::new(), machine: String::new(), budget: None };
        for &arg in args {
            match arg.split_once('=') {
                _ if arg == "--bench" => {}
                Some(("--machine", words)) => words.clone_into(&mut options.machine),
                Some(("--new-budget", reason)) => options.budget = Some(Purpose::Write(reason.to_owned())),
                _ if arg == "--budget" => options.budget = Some(Purpose::Check),
                _ if arg.starts_with('-') => return Err(format!("unknown option {arg}")),
                _ if arg.contains([' ', '\t']) => return Err(format!("no row has a space in its name: {arg:?}")),
                _ => arg.clone_into(&mut options.filter),
            }
        }
        Ok(options)
    }

    fn spec(&self, more: &str) -> Result<Spec, String> {
        Spec::parse(&format!("{MACHINE} {} {more}", self.machine))
    }
}

/// Runs the benchmarks of the image at `path`.
pub(crate) fn run(path: &Path, kernel: &Kernel, args: &[&str]) -> Result<(), String> {
    let options = Options::parse(args)?;
    let tests = kernel.tests()?.unwrap_or_default();
    let Some(entry) = tests.iter().find(|test| test.name == ENTRY) else {
        return Err(format!("{} holds no benchmarks", path.display()));
    };
    let words = format!("ktest={} bench.filter={}", entry.number, options.filter);
    let spec = options.spec("")?;
    let versions = versions()?;
    let mut results = Results {
        cpu: spec.cpu.clone(),
        rows: Vec::new(),
        unable: Vec::new(),
        conditions: Vec::new(),
        overhead: Overhead::default(),
        begun: None,
    };

    results.count(kernel, &words, &spec, &versions)?;
    let is_check = matches!(options.budget, Some(Purpose::Check));
    if !is_check {
        results.trace(kernel, &words, &spec, &|_| true)?;
    }
    if options.filter.split(',').any(|part| "boot/1GiB boot/each_further_GiB metadata/slope".contains(part)) {
        results.rows.extend(boots::rows(path, kernel, entry.number, &options)?);
    }
    results.rows.retain(|row| options.filter.split(',').any(|part| row.name.contains(part)));
    if results.rows.is_empty() {
        return Err(format!("no row is called {:?}", options.filter));
    }
    if is_check {
        return results.check_budget(kernel, &words, &spec, &options);
    }

    if let Some(Purpose::Write(reason)) = &options.budget {
        let path = in_package(Path::new(BUDGET));
        let renewed = budget::renewed(&budget::read(&path)?, &results, &kernel.code()?.functions, reason)?;
        return scratch::write(&path, budget::written(&renewed).as_bytes());
    }
    let recorded = figures::read(&in_package(Path::new("benches/figures.tsv")))?;
    let dir = output_dir(path)?;
    let json: String = results.rows.iter().map(|row| row.json(&results.cpu) + "\n").collect();
    scratch::write(&dir.join("results.jsonl"), json.as_bytes())?;
    let whole = options.filter.is_empty();
    let overview = table::overview(&results, &recorded, whole);
    let text = format!("{overview}\n{}", table::details(&results));
    scratch::write(&dir.join("table.md"), text.as_bytes())?;
    scratch::write(&dir.join("overview.md"), overview.as_bytes())?;
    let profile = table::profile(&results, &kernel.code()?.functions);
    scratch::write(&dir.join("profile.txt"), profile.as_bytes())?;
    println!("\n{text}\nresults: {0}/results.jsonl, {0}/table.md, {0}/profile.txt", dir.display());
    Ok(())
}

/// `bench` in cargo's target directory: the image lies in `TARGET/TRIPLE/PROFILE/deps`.
fn output_dir(image: &Path) -> Result<PathBuf, String> {
    let target = image.ancestors().nth(4).ok_or_else(|| format!("{}: not where cargo builds", image.display()))?;
    let dir = target.join("bench");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

/// The versions of all crates in `Cargo.lock`, by name; the newest where there are several.
fn versions() -> Result<BTreeMap<String, String>, String> {
    let path = in_package(Path::new("Cargo.lock"));
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut versions = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        let value = |key| line.strip_prefix(key).and_then(|rest: &str| rest.strip_prefix(" = \"")?.strip_suffix('"'));
        if let Some(found) = value("name") {
            name = found;
        } else if let Some(version) = value("version") {
            versions.insert(name.to_owned(), version.to_owned());
        }
    }
    Ok(versions)
}

/// This package's own version, which the runner shares.
fn own_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Result of a run.
struct Results {
    cpu: String,
    rows: Vec<Row>,
    /// `(operation, implementation, why)` of rows without figures.
    unable: Vec<(String, String, String)>,
    /// The image's report on its own counting.
    conditions: Vec<String>,
    overhead: Overhead,
    /// The row that has begun and not ended, as `(number, operation, implementation)`.
    begun: Option<(usize, String, String)>,
}

impl Results {
    /// Has every row counted. One that ends the machine is not the end of the others: the next boot goes on behind it.
    fn count(
        &mut self,
        kernel: &Kernel,
        words: &str,
        spec: &Spec,
        versions: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let mut rest = words.to_owned();
        loop {
            let (why, text) = match boots::lines(spec, kernel, &rest, &mut |line| self.take(line, versions))? {
                End::Well(text) if text.contains("\nbench: end") => return Ok(()),
                End::Well(text) => return Err(format!("the benchmarks did not end; the console:\n{text}")),
                End::Badly(why, text) => (why, text),
            };
            match self.begun.take() {
                Some((number, name, by)) if by != OURS => {
                    println!("{name:<28} {by:<24} {why}");
                    self.unable.push((name, by, why));
                    rest = format!("{words} bench.rows={}-{}", number + 1, u32::MAX);
                }
                _ => return Err(format!("{why}; {text}")),
            }
        }
    }

    /// Reads a line that the image printed.
    fn take(&mut self, line: &str, versions: &BTreeMap<String, String>) -> Result<(), String> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["calibrated", sequences] => {
                // Each boot calibrates; one says it.
                self.conditions.clear();
                self.conditions.push(format!("the counter agreed with {sequences} sequences of known length"));
            }
            ["overhead", stretch, round, rest] => {
                let number = |text: &str| text.parse().map_err(|_| format!("cannot read {line:?}"));
                self.overhead = Overhead { stretch: number(stretch)?, round: number(round)? };
                self.conditions.push(format!(
                    "{stretch} instructions a sample or batch and {round} a round are subtracted; {rest} more remain where \
                     nothing is measured"
                ));
            }
            ["begin", number, name, by] => {
                let number = number.parse().map_err(|_| format!("cannot read {line:?}"))?;
                self.begun = Some((number, (*name).to_owned(), (*by).to_owned()));
            }
            ["row", number, name, by, unit, figures @ ..] => {
                let number = number.parse().map_err(|_| format!("cannot read {line:?}"))?;
                self.begun = None;
                let figures = Figures::parse(figures).ok_or_else(|| format!("cannot read {line:?}"))?;
                println!("{name:<28} {by:<24} {:>10} {unit}", figures.headline());
                self.rows.push(Row {
                    number: Some(number),
                    name: (*name).to_owned(),
                    by: (*by).to_owned(),
                    version: versions.get(*by).cloned().unwrap_or_default(),
                    unit: (*unit).to_owned(),
                    figures,
                    executed: None,
                });
            }
            ["unable", _, name, by, why] => {
                self.begun = None;
                println!("{name:<28} {by:<24} {why}");
                self.unable.push(((*name).to_owned(), (*by).to_owned(), (*why).to_owned()));
            }
            ["end"] => {}
            _ => return Err(format!("the image printed {line:?}")),
        }
        Ok(())
    }

    /// Holds every row that was counted against its budget, and says which functions of those above it grew.
    fn check_budget(&mut self, kernel: &Kernel, words: &str, spec: &Spec, options: &Options) -> Result<(), String> {
        let budgets = budget::read(&in_package(Path::new(BUDGET)))?;
        let names: Vec<String> = budget::exceeded(&budgets, &self.rows).iter().map(|row| row.name.clone()).collect();
        let mut complaints: Vec<String> = Vec::new();
        if !names.is_empty() {
            self.trace(kernel, words, spec, &|row| names.contains(&row.name))?;
            let functions = kernel.code()?.functions;
            let exceeded = budget::exceeded(&budgets, &self.rows);
            complaints.extend(exceeded.into_iter().map(|row| budget::complaint(&budgets, row, &functions)));
        }
        if options.filter.is_empty() {
            let stale = budget::stale(&budgets, &self.rows);
            complaints.extend(stale.iter().map(|name| format!("{name} has a line in {BUDGET}, and was not counted")));
        }
        // A candidate may want instructions that the CPU has not.
        let ours = self.unable.iter().filter(|(_, by, _)| by == OURS);
        complaints.extend(ours.map(|(name, _, why)| format!("{name}: {why}")));
        if complaints.is_empty() {
            println!("{} rows within their budget", self.rows.len());
            return Ok(());
        }
        Err(format!("{}\na higher figure needs a reason: make budget REASON='…'", complaints.join("\n")))
    }

    /// Lets the rows that are `wanted` and not too long run once more, and tells what they executed.
    fn trace(
        &mut self,
        kernel: &Kernel,
        words: &str,
        spec: &Spec,
        wanted: &dyn Fn(&Row) -> bool,
    ) -> Result<(), String> {
        let is_short =
            |figures: &Figures| figures.setup <= PREPARED && figures.whole().is_some_and(|whole| whole <= TRACED);
        let traced = || self.rows.iter().filter(|row| is_short(&row.figures) && wanted(row));
        let numbers: Vec<usize> = traced().filter_map(|row| row.number).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let words = format!("{words} bench=trace bench.rows={}", session::ranges(numbers.iter().copied()));
        let executed = trace::run(spec, kernel, self.overhead, &words)?;
        for row in &mut self.rows {
            row.executed = row.number.and_then(|number| executed.get(&number).cloned());
        }
        for row in self.rows.iter().filter(|row| row.number.is_some_and(|number| numbers.contains(&number))) {
            if row.executed.is_none() {
                return Err(format!("{} by {} left no trace", row.name, row.by));
            }
        }
        Ok(())
    }
}
