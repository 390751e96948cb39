//! Boots whose console is read: the image of benchmarks, and the kernel itself for the cost of booting.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Options;
use super::row::{Figures, Row};
use crate::boot;
use crate::console::{Event, Running};
use crate::elf::Kernel;
use crate::machine::Spec;
use crate::qemu::{self, Console, Program};

/// How long a boot may say nothing.
const LIMIT: Duration = Duration::from_secs(300);
/// RAM of the boots that are compared, in GiB.
const SIZES: [u64; 3] = [1, 2, 4];

/// How a machine ended.
pub(crate) enum End {
    /// It left with status 0. Its output.
    Well(String),
    /// It did not. In a few words, and what it has written.
    Badly(String, String),
}

/// Boots, and shows `each` what follows `bench: ` on the console, line by line.
pub(crate) fn lines(
    spec: &Spec,
    kernel: &Kernel,
    words: &str,
    each: &mut dyn FnMut(&str) -> Result<(), String>,
) -> Result<End, String> {
    console(spec, kernel, words, &mut |line| line.strip_prefix("bench: ").map_or(Ok(()), &mut *each))
}

/// Boots, and shows `each` every line.
fn console(
    spec: &Spec,
    kernel: &Kernel,
    words: &str,
    each: &mut dyn FnMut(&str) -> Result<(), String>,
) -> Result<End, String> {
    let mut machine = Running::start(qemu::machine(spec, &Program { kernel }, words, Console::Script)?)?;
    let mut deadline = machine.deadline(LIMIT);
    let mut read = 0;
    loop {
        let event = machine.wait(&deadline)?;
        while let Some((line, _)) = machine.text.get(read..).and_then(|rest| rest.split_once('\n')) {
            each(line)?;
            read += line.len() + 1;
            deadline = machine.deadline(LIMIT);
        }
        let why = match event {
            Event::Text => continue,
            Event::Ended(status) if status.success() => return Ok(End::Well(std::mem::take(&mut machine.text))),
            Event::Ended(status) => reported(&machine.text).unwrap_or(format!("the machine left with {status}")),
            Event::TimedOut => format!("nothing for {} s", LIMIT.as_secs()),
        };
        return Ok(End::Badly(why, format!("{}\n{}", machine.command, machine.text)));
    }
}

/// The reason for the end that the kernel prints.
fn reported(text: &str) -> Option<String> {
    text.lines().find(|line| line.starts_with("panic") || line.starts_with("fault")).map(str::to_owned)
}

impl End {
    /// The text of a machine that left with status 0.
    fn text(self) -> Result<String, String> {
        match self {
            Self::Well(text) => Ok(text),
            Self::Badly(why, text) => Err(format!("{why}; {text}")),
        }
    }
}

/// The rows that take boots with different amounts of RAM: what booting costs, by the kernel's own word, and how the
/// memory in use grows.
pub(crate) fn rows(image: &Path, benches: &Kernel, entry: usize, options: &Options) -> Result<Vec<Row>, String> {
    build_kernel()?;
    let path = image.ancestors().nth(2).unwrap_or(image).join("quarry");
    let kernel = Kernel::read(&path)?;
    let (mut costs, mut used) = (Vec::new(), Vec::new());
    for size in SIZES {
        let spec = options.spec(&format!("mem={size}G"))?;
        let text = console(&spec, &kernel, boot::BATCH, &mut |_| Ok(()))?.text()?;
        let cost = text.lines().find_map(|line| line.split_once("boot cost: ")?.1.split(' ').next()?.parse().ok());
        costs.push((size, cost.ok_or_else(|| format!("the kernel did not tell its boot cost:\n{text}"))?));
        let mut free = None;
        lines(&spec, benches, &format!("ktest={entry} bench=memory"), &mut |line| {
            free = line.strip_prefix("memory\t").and_then(|bytes| bytes.parse::<f64>().ok());
            Ok(())
        })?
        .text()?;
        let free = free.ok_or("the image did not tell how much memory is free")?;
        used.push((size, (size << 30) as f64 - free));
    }
    let first = costs.first().map_or(0.0, |&(_, cost)| cost);
    let percent = slopes(&used).into_iter().map(|bytes| bytes / (1_u64 << 30) as f64 * 100.0).collect();
    Ok(vec![
        row("boot/1GiB", "instructions", Figures::of(vec![first], 0)),
        row("boot/each_further_GiB", "instructions", Figures::of(slopes(&costs), 0)),
        row("metadata/slope", "percent of RAM", Figures::of(percent, 3)),
    ])
}

/// Builds the kernel, in the profile of its benchmarks: they are a package of their own, so that building them leaves the kernel's
/// image as it was.
fn build_kernel() -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--quiet", "--release", "--package", "quarry-kernel", "--bin", "quarry"];
    let status =
        Command::new(cargo).args(build).status().map_err(|error| format!("cargo cannot be started: {error}"))?;
    if status.success() { Ok(()) } else { Err("the kernel does not build".to_owned()) }
}

/// How much each further GiB adds, between one size and the next.
fn slopes(values: &[(u64, f64)]) -> Vec<f64> {
    values.array_windows().map(|[below, above]| (above.1 - below.1) / (above.0 - below.0) as f64).collect()
}

fn row(name: &str, unit: &str, figures: Figures) -> Row {
    println!("{name:<28} {:<24} {:>10} {unit}", "quarry", figures.headline());
    Row {
        number: None,
        name: name.to_owned(),
        by: super::OURS.to_owned(),
        version: super::own_version(),
        unit: unit.to_owned(),
        figures,
        executed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_by_gib() {
        assert_eq!(slopes(&[(1, 10.0), (2, 13.0), (4, 21.0)]), [3.0, 4.0]);
    }
}
