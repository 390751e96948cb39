//! `quarry-run`: boots what cargo built for the bare machine. Cargo calls it through `tools/runner.sh`; a person calls
//!
//! - `quarry-run boot [MACHINE…] ELF`: boot a kernel, with a prompt if there is a person;
//! - `quarry-run image ELF OUT`: write the flat Image;
//! - `quarry-run size ELF`: say what the image is made of;
//! - `quarry-run rpi4-image ELF OUT [NAME…]`: write the Image that runs the tests on a Raspberry Pi 4 (docs/rpi4.md);
//! - `quarry-run rpi4-bench-image ELF OUT [NAME]`: write the Image that measures cycles and nanoseconds there;
//! - `quarry-run rpi4-test ELF [NAME…]`: run that Image in QEMU, by its serial port alone;
//! - `quarry-run rpi4-log LOG`: read what it says from a serial device, or from a file;
//! - `quarry-run a53 ELF`: say which sequences of instructions that Cortex-A53 gets wrong were in it;
//! - `quarry-run watch SECONDS COMMAND…`: run a command, and end it if it prints nothing for so long;
//! - `quarry-run cache-model PLUGIN ELF`: boot under the model of the caches, and with maintenance left out;
//! - `quarry-run planted ELF`: see the tests that fail on purpose fail for their stated reasons;
//! - `quarry-run public-names [--write] DOCS LIST`: hold the documentation's names against a list;
//! - `quarry-run bench-readme TABLE SHORT WHOLE`: put the table of the last benchmarks into two Markdown files;
//! - `quarry-run ELF […]`: what cargo does: a kernel with tests in it answers to libtest's command line, one without is
//!   booted; with `--bench` the image's benchmarks are run.

mod a53;
mod bench;
mod boot;
mod cache_model;
mod console;
mod cpu_time;
mod early_stop;
mod elf;
mod fault_json;
mod kallsyms;
mod libtest;
mod machine;
mod names;
mod pictures;
mod progress;
mod qemu;
mod registry;
mod rpi4;
mod runner;
mod scratch;
mod session;
mod tour;
mod trampoline;
mod tree;
mod typing;
mod uboot;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use elf::Kernel;
use libtest::Options;
use machine::Spec;

/// As libtest: something failed.
const FAILED: u8 = 101;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["boot", machine @ .., elf] => boot_on(machine, elf),
        ["image", elf, out] => image(elf, out),
        ["size", elf] => size(elf),
        ["a53", elf] => {
            Kernel::read(Path::new(elf)).and_then(|kernel| kernel.a53()).map(|line| println!("{line}"))
                .map(|()| ExitCode::SUCCESS)
        }
        ["rpi4-image", elf, out, names @ ..] => rpi4::image(elf, out, names).map(|()| ExitCode::SUCCESS),
        ["rpi4-bench-image", elf, out] => rpi4::bench_image(elf, out, "").map(|()| ExitCode::SUCCESS),
        ["rpi4-bench-image", elf, out, name] => rpi4::bench_image(elf, out, name).map(|()| ExitCode::SUCCESS),
        ["rpi4-bench-test", elf, name] => rpi4::bench_in_qemu(elf, name).map(status),
        ["rpi4-test", elf, names @ ..] => rpi4::in_qemu(elf, names).map(status),
        ["early-stop", elf] => early_stop::check(elf).map(status),
        ["rpi4-log", log] => rpi4::read_log(log).map(status),
        ["planted", elf] => planted(elf),
        ["cache-model", plugin, elf] => cache_model::check(plugin, Path::new(elf)).map(status),
        ["watch", seconds, command @ ..] if let Ok(seconds) = seconds.parse() => {
            watch::run(Duration::from_secs(seconds), command).map(ExitCode::from)
        }
        ["public-names", docs, list] => names::run(Path::new(docs), Path::new(list), false).map(|()| ExitCode::SUCCESS),
        ["public-names", "--write", docs, list] => {
            names::run(Path::new(docs), Path::new(list), true).map(|()| ExitCode::SUCCESS)
        }
        ["bench-readme", table, short, whole] => bench::refresh(table, short, whole).map(|()| ExitCode::SUCCESS),
        [elf, rest @ ..] if elf.contains('/') => cargo(elf, rest),
        _ => Err(
            "usage: quarry-run boot [MACHINE…] ELF | image ELF OUT | size ELF | a53 ELF | rpi4-image ELF OUT [NAME…] | rpi4-test ELF [NAME…] | \
             rpi4-log LOG | early-stop ELF | planted ELF | cache-model PLUGIN ELF | bench-readme TABLE SHORT WHOLE \
             | public-names [--write] DOCS LIST | PATH/ELF [TEST OPTIONS…] | PATH/ELF --bench [NAME] [--machine=…]"
                .to_owned(),
        ),
    };
    result.unwrap_or_else(|why| {
        eprintln!("quarry-run: {why}");
        ExitCode::FAILURE
    })
}

fn boot_on(machine: &[&str], elf: &str) -> Result<ExitCode, String> {
    // The shell has taken the quotes off.
    let quoted = |word: &&str| word.replacen('=', "='", 1) + if word.contains('=') { "'" } else { "" };
    let words: Vec<String> = machine.iter().map(quoted).collect();
    boot::boot(Path::new(elf), &Spec::parse(&format!("{} {}", boot::MACHINE, words.join(" ")))?)
}

fn image(elf: &str, out: &str) -> Result<ExitCode, String> {
    scratch::write(Path::new(out), &Kernel::read(Path::new(elf))?.image()?.bytes)?;
    Ok(ExitCode::SUCCESS)
}

fn size(elf: &str) -> Result<ExitCode, String> {
    println!("{}", Kernel::read(Path::new(elf))?.sizes()?);
    Ok(ExitCode::SUCCESS)
}

fn planted(elf: &str) -> Result<ExitCode, String> {
    let path = Path::new(elf);
    let kernel = Kernel::read(path)?;
    Ok(status(runner::planted(&kernel, &kernel.tests()?.unwrap_or_default())))
}

fn cargo(elf: &str, rest: &[&str]) -> Result<ExitCode, String> {
    let path = Path::new(elf);
    let kernel = Kernel::read(path)?;
    if rest.contains(&"--bench") {
        return bench::run(path, &kernel, rest).map(|()| ExitCode::SUCCESS);
    }
    let tests = match kernel.tests()? {
        Some(tests) => tests,
        // Cargo puts test targets there; one without a registry holds no tests.
        None if path.parent().is_some_and(|dir| dir.ends_with("deps")) => Vec::new(),
        None => return boot_on(rest, elf),
    };
    let options = Options::parse(rest.iter().map(|&arg| arg.to_owned()))?;
    Ok(status(runner::run(&kernel, &tests, &options)))
}

fn status(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}
