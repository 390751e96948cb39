//! The kernel's tests on a Raspberry Pi 4: the Image that runs them without a host, and the reader of what it says on its serial
//! port, be that a device, a log, or QEMU's (`src/kernel/resume.rs` has the other side).

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::elf::Kernel;
use crate::machine::{Board, Spec};
use crate::qemu::{self, Console, Program};
use crate::registry::Test;
use crate::scratch;
use crate::session::ranges;

/// RAM that the tests are written for at most; all boards have more.
const MEMORY: u64 = 512 << 20;
/// The device tree of the board, for QEMU.
const TREE: &str = "tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz";
/// How long a board may say nothing: a restart through its firmware takes some ten seconds.
const PATIENCE: Duration = Duration::from_secs(180);
/// Tests that take longer than this are no tests for a board that the watchdog looks after.
const LONGEST: Duration = Duration::from_secs(60);

/// Tests that need QEMU, or its `virt`, though their machine has the parts of a Pi: the start of the name, and why.
const NEED_QEMU: &[(&str, &str)] = &[
    ("cpus::every_cpu_ticks::one", "runs on every CPU that there is, and wants one"),
    ("dma::a_real_device_writes_to_coherent_streaming_and_bounced_memory", "the device is fw_cfg"),
    ("dma::devices_of_the_tree_are_described", "the devices are virt's"),
    ("families::a_driver_passes_on_what_any_family_says", "claims the clock of virt"),
    ("families::each_example_does_what_it_shows", "claims the clock of virt"),
    ("io::every_width_reaches_the_same_register", "the registers are those of virt's GPIO"),
    ("io::gpio_registers_keep_what_is_written", "the GPIO is a PL061"),
    ("io::registers_have_types_of_tock_registers", "the registers are those of virt's GPIO"),
    ("io::the_clock_and_the_gpio_identify_themselves", "a PL031 and a PL061"),
    ("io::the_firmware_configuration_signs", "the device is fw_cfg"),
    ("io::the_flash_answers_a_query_in_command_mode", "the flash is virt's"),
    ("io::what_is_dropped_is_unmapped", "maps the clock of virt"),
    ("ioremap::a_mapping_takes_as_few_entries_as_it_can", "maps the flash of virt"),
    ("ioremap::an_unmapped_register_faults", "maps the clock of virt"),
    ("ioremap::every_memory_type_is_in_the_descriptor_and_in_the_cpu", "maps the clock of virt"),
    ("ioremap::one_range_has_one_memory_type", "maps the flash of virt"),
    ("ioremap::only_what_ioremap_returned_is_unmapped", "maps the flash of virt"),
    ("ioremap::what_is_no_device_memory_is_refused", "maps the flash of virt"),
    ("pages::no_ram_and_no_linear_address_are_named", "names addresses of virt"),
    ("resource::a_device_has_one_driver", "claims the clock of virt"),
    ("resource::a_driver_gives_back_in_reverse", "claims the clock of virt"),
    ("user_devices::", "the driver is that of virt's clock"),
    (
        "vmalloc_api::whoever_is_idle_does_what_atomic_frees_have_left",
        "fills the share of one CPU, and wants it to be all",
    ),
];

/// Whether a test can run on a board: it passes by returning, or by a fault that it announces, and its machine has nothing that a
/// Pi 4 lacks, nor anything that only a loader can bring about.
fn fits(test: &Test) -> bool {
    let plain = Spec::default();
    let wanted = &test.machine;
    let board = Spec {
        board: plain.board,
        smp: plain.smp,
        mem: plain.mem,
        dtb: None,
        serial: plain.serial,
        semihosting: plain.semihosting,
        alone: plain.alone,
        ..wanted.clone()
    };
    // A tree of another name describes a board that there is not.
    let is_pi = wanted.board == Board::Raspi4b && wanted.dtb.as_deref() == Some(Path::new(TREE));
    test.has_body
        && !test.is_watched()
        && test.ignored.is_none()
        && test.timeout <= LONGEST
        && board == plain
        && (is_pi || wanted.dtb.is_none() && wanted.smp <= 4 && wanted.mem <= MEMORY)
        && !NEED_QEMU.iter().any(|(name, _)| test.name.starts_with(name))
}

/// The boot arguments of an image for these tests: those that want one CPU first, of each kind those that want a boot of their own
/// last, behind which the machine restarts. A name behind a minus leaves out what contains it.
fn arguments(tests: &[Test], names: &[&str]) -> Result<String, String> {
    let (without, names): (Vec<&str>, Vec<&str>) = names.iter().copied().partition(|name| name.starts_with('-'));
    let is_in = |test: &Test, names: &[&str]| names.iter().any(|name| test.name.contains(name.trim_start_matches('-')));
    let named = |test: &&Test| (names.is_empty() || is_in(test, &names)) && !is_in(test, &without);
    let mut chosen: Vec<&Test> = tests.iter().filter(named).filter(|test| fits(test)).collect();
    if chosen.is_empty() {
        return Err("no test of these names runs on a board".to_owned());
    }
    chosen.sort_by_key(|test| (test.machine.alone, test.number));
    let restarts = ranges(chosen.iter().filter(|test| test.machine.alone).map(|test| test.number));
    let list = |smp: bool| ranges(chosen.iter().filter(|test| (test.machine.smp > 1) == smp).map(|test| test.number));
    let (one, all) = (list(false), list(true));
    Ok(format!(
        "ktest.resume maxcpus=1 mem={}M cma=0 ktest={one} ktest.smp={all} ktest.restart={restarts}",
        MEMORY >> 20
    ))
}

/// The kernel with the boot arguments for tests whose names contain one of `names`, or all.
pub(crate) fn with_tests(elf: &str, names: &[&str]) -> Result<Kernel, String> {
    let mut kernel = Kernel::read(Path::new(elf))?;
    let tests = kernel.tests()?.ok_or("the image has no tests")?;
    kernel.set_arguments(&arguments(&tests, names)?)?;
    kernel.set_act_led()?;
    Ok(kernel)
}

/// Writes the Image.
pub(crate) fn image(elf: &str, out: &str, names: &[&str]) -> Result<(), String> {
    scratch::write(Path::new(out), &with_tests(elf, names)?.image()?.bytes)?;
    Ok(())
}

/// The benchmarks of rows whose names contain `name`, in cycles and nanoseconds.
fn with_benchmarks(elf: &str, name: &str) -> Result<Kernel, String> {
    let mut kernel = Kernel::read(Path::new(elf))?;
    let entry = kernel.tests()?.into_iter().flatten().find(|test| test.name == "benchmarks");
    let entry = entry.ok_or("the image has no benchmarks")?.number;
    let filter = if name.is_empty() { String::new() } else { format!(" bench.filter={name}") };
    kernel.set_arguments(&format!("nosmp bench=clock{filter} ktest={entry}"))?;
    kernel.set_act_led()?;
    Ok(kernel)
}

/// Writes the Image of the benchmarks.
pub(crate) fn bench_image(elf: &str, out: &str, name: &str) -> Result<(), String> {
    scratch::write(Path::new(out), &with_benchmarks(elf, name)?.image()?.bytes)?;
    Ok(())
}

/// Runs the Image of the benchmarks in QEMU's Pi 4, where the figures mean nothing; whether every row that can be measured there had two.
pub(crate) fn bench_in_qemu(elf: &str, name: &str) -> Result<bool, String> {
    emulate(&with_benchmarks(elf, name)?)
}

/// Runs the Image in QEMU's Pi 4, without semihosting and boot arguments, and reads its serial port; whether all passed.
pub(crate) fn in_qemu(elf: &str, names: &[&str]) -> Result<bool, String> {
    emulate(&with_tests(elf, names)?)
}

fn emulate(kernel: &Kernel) -> Result<bool, String> {
    let spec = Spec::parse(&format!("board=raspi4b serial=1 dtb={TREE} bootargs=off semihosting=off"))?;
    let mut machine = qemu::machine(&spec, &Program { kernel }, "", Console::Script)?;
    qemu::allow_restart(&mut machine.command);
    let child = machine.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut child = Killed(child.map_err(|e| format!("{}: {e}", machine.command.get_program().to_string_lossy()))?);
    let port = child.0.stdout.take().ok_or("the emulator has no output")?;
    read(port, false)
}

/// An emulator that ends with this.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if the process is already gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads a log, or a serial device, which is set to the board's speed first; whether all passed.
pub(crate) fn read_log(path: &str) -> Result<bool, String> {
    let kind = std::fs::metadata(path).map_err(|e| format!("{path}: {e}"))?.file_type();
    if kind.is_char_device() {
        let set = Command::new("stty").args(["-F", path, "115200", "raw", "-echo", "-crtscts"]).status();
        if !set.is_ok_and(|status| status.success()) {
            return Err(format!("stty cannot set {path} to 115200 baud"));
        }
        eprintln!("quarry-run: waiting for the board on {path}");
    }
    let port = File::open(path).map_err(|e| format!("{path}: {e}"))?;
    read(port, !kind.is_char_device())
}

/// Passes on what comes from `port` until the image has said how many tests passed. In a log that ends before that (`whole`), or
/// when nothing comes for too long, the test that was running is named.
fn read(mut port: impl Read + Send + 'static, whole: bool) -> Result<bool, String> {
    let (sender, bytes) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = port.read(&mut buffer) {
            if sender.send(buffer.iter().take(read).copied().collect::<Vec<u8>>()).is_err() {
                break;
            }
        }
    });
    let mut log = Log::default();
    loop {
        match bytes.recv_timeout(PATIENCE) {
            Ok(bytes) => {
                // A reader that has gone is no reason to stop.
                let _ = std::io::stdout().write_all(&bytes).and_then(|()| std::io::stdout().flush());
                if let Some(ended) = log.take(&bytes)? {
                    return Ok(ended);
                }
            }
            Err(RecvTimeoutError::Timeout) => return Err(log.stuck(&format!("nothing for {} s", PATIENCE.as_secs()))),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(log.stuck(if whole { "the log ends" } else { "the port is gone" }));
            }
        }
    }
}

/// Lines of the image, as they come.
#[derive(Default)]
struct Log {
    line: Vec<u8>,
    begun: bool,
    running: String,
    passed: usize,
    failed: usize,
    /// Rows of the benchmarks that have begun and not ended yet, and those that have both figures.
    rows: [usize; 2],
}

impl Log {
    /// Reads further bytes. Once the last line has come: whether all passed.
    ///
    /// # Errors
    ///
    /// The run has begun a second time, or its own count is not that of its lines.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<bool>, String> {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                    if let Some(ended) = self.read_line(line.trim_end_matches('\r'))? {
                        return Ok(Some(ended));
                    }
                }
                other => self.line.push(*other),
            }
        }
        Ok(None)
    }

    fn read_line(&mut self, line: &str) -> Result<Option<bool>, String> {
        if line == "bench: end" {
            let [open, whole] = self.rows;
            return Ok(Some(open == 0 && whole > 0));
        }
        if let Some(row) = line.strip_prefix("bench: begin\t") {
            let name = row.split('\t').nth(1).unwrap_or_default();
            name.clone_into(&mut self.running);
            self.rows[0] += 1;
            return Ok(None);
        }
        // Some rows have a unit of their own, and one figure; some need what only virt has.
        let is_whole = has_both_figures(line, &self.running) || line.starts_with("bench: row\t");
        if is_whole || line.starts_with("bench: unable\t") {
            self.running.clear();
            self.rows = [self.rows[0].saturating_sub(1), self.rows[1] + usize::from(is_whole)];
            return Ok(None);
        }
        if line.starts_with("running ") && line.ends_with(" tests") {
            if std::mem::replace(&mut self.begun, true) {
                return Err(
                    "the run has begun again: memory does not survive the board's restart, or it lost power".to_owned()
                );
            }
        } else if let Some(name) = line.split_once("ktest: begin ").and_then(|(_, rest)| rest.split_once(' ')) {
            name.1.clone_into(&mut self.running);
        } else if let Some((_, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            self.running.clear();
            match result == "ok" {
                true => self.passed += 1,
                false => self.failed += 1,
            }
        } else if let Some((passed, failed)) =
            line.strip_suffix(" failed").and_then(|rest| rest.split_once(" passed, "))
        {
            let (Ok(passed), Ok(failed)) = (passed.parse::<usize>(), failed.parse::<usize>()) else { return Ok(None) };
            if (passed, failed) != (self.passed, self.failed) {
                return Err(format!("the image counts {line:?}, but {} and {} lines came", self.passed, self.failed));
            }
            return Ok(Some(failed == 0));
        }
        Ok(None)
    }

    fn stuck(&self, why: &str) -> String {
        match self.running.is_empty() {
            true => format!("{why}; {} passed, {} failed, and no test was running", self.passed, self.failed),
            false => format!("{why}; {} passed, {} failed, running: {}", self.passed, self.failed, self.running),
        }
    }
}

/// `ROW of CRATE: 12.34 cycles, 5.6 ns`, for the row that has begun.
fn has_both_figures(line: &str, row: &str) -> bool {
    let figures = || {
        let (name, figures) = line.strip_suffix(" ns")?.split_once(": ")?;
        let (cycles, nanoseconds) = figures.split_once(" cycles, ")?;
        let are_numbers = [cycles, nanoseconds].iter().all(|figure| figure.parse::<f64>().is_ok_and(f64::is_finite));
        (are_numbers && name.split_once(" of ")?.0 == row).then_some(())
    };
    !row.is_empty() && figures().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(number: usize, text: &str) -> Test {
        Test::parse(number, text, true).unwrap()
    }

    #[test]
    fn what_a_pi_has_is_run_and_nothing_else() {
        for (text, expected) in [
            ("k::a", true),
            ("k::a\tmachine=smp=4", true),
            ("k::a\tmachine=mem=512M", true),
            ("k::a\tmachine=board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz", true),
            ("k::a\tmachine=board=raspi4b serial=1 dtb=x.dtb", false),
            ("k::a\tmachine=alone", true),
            ("k::a\tmachine=smp=8", false),
            ("k::a\tmachine=mem=1G", false),
            ("k::a\tmachine=cpu=max", false),
            ("k::a\tmachine=gic=3", false),
            ("k::a\tmachine=icount", false),
            ("k::a\tmachine=loader=elf", false),
            ("k::a\tmachine=append='mem=64M'", false),
            ("k::a\tmachine=type='x'", false),
            ("k::a\treport=x", false),
            ("k::a\texit=1", false),
            ("k::a\tignored=slow", false),
            ("k::a\ttimeout=600", false),
        ] {
            assert_eq!(fits(&test(0, text)), expected, "{text}");
        }
        assert!(!fits(&Test::parse(0, "k::a\texit=0", false).unwrap()), "a boot alone");
    }

    #[test]
    fn tests_for_one_cpu_come_first() {
        let tests = [test(0, "k::a"), test(1, "k::b\tmachine=smp=4"), test(2, "k::c"), test(3, "k::d\tmachine=gic=3")];
        assert_eq!(
            arguments(&tests, &[]).unwrap(),
            "ktest.resume maxcpus=1 mem=512M cma=0 ktest=0,2 ktest.smp=1 ktest.restart="
        );
        assert_eq!(
            arguments(&tests, &["b"]).unwrap(),
            "ktest.resume maxcpus=1 mem=512M cma=0 ktest= ktest.smp=1 ktest.restart="
        );
        assert_eq!(
            arguments(&tests, &["-a", "-b"]).unwrap(),
            "ktest.resume maxcpus=1 mem=512M cma=0 ktest=2 ktest.smp= ktest.restart="
        );
        let tests = [test(4, "k::a\tmachine=alone"), test(5, "k::b"), test(6, "k::c\tmachine=smp=2 alone")];
        let list = "ktest=5,4 ktest.smp=6 ktest.restart=4,6";
        assert_eq!(arguments(&tests, &[]).unwrap(), format!("ktest.resume maxcpus=1 mem=512M cma=0 {list}"));
        assert!(arguments(&tests, &["d"]).is_err(), "nothing is left");
        assert!(arguments(&tests, &["a", "-a"]).is_err(), "nothing is left");
    }

    fn read_all(text: &str) -> Result<Option<bool>, String> {
        Log::default().take(text.as_bytes())
    }

    #[test]
    fn the_log_of_a_board_is_read_to_its_last_line() {
        let log = "U-Boot\r\n\r\nrunning 2 tests\r\nktest: begin 0 a\r\ntest a ... ok\r\nktest: begin 1 b\r\n";
        assert_eq!(read_all(log), Ok(None));
        assert_eq!(read_all(&format!("{log}test b ... ok\r\n2 passed, 0 failed\r\n")), Ok(Some(true)));
        assert_eq!(read_all(&format!("{log}test b ... FAILED (why)\n1 passed, 1 failed\n")), Ok(Some(false)));
        assert!(read_all(&format!("{log}2 passed, 0 failed\n")).is_err(), "a line is missing");
        let bench = "bench: begin\t0\tkmalloc/64\tquarry\r\n";
        for (rows, expected) in [
            (format!("{bench}kmalloc/64 of quarry: 12.3 cycles, 5 ns\r\n"), true),
            (format!("{bench}kmalloc/8 of quarry: 12.3 cycles, 5 ns\r\n"), false),
            (format!("{bench}kmalloc/64 of quarry: 12.3 cycles, much ns\r\n"), false),
            (format!("{bench}bench: row\t0\tmemory_lost\tquarry\tpercent\n"), true),
            (format!("{bench}bench: unable\t0\tkmalloc/64\tquarry\tno memory\r\n"), false),
            (String::new(), false),
        ] {
            assert_eq!(read_all(&format!("{rows}bench: end\r\n")), Ok(Some(expected)), "{rows}");
        }
        assert!(read_all(&format!("{log}running 2 tests\n")).is_err(), "it has begun again");
        let mut log_of_b = Log::default();
        log_of_b.take(log.as_bytes()).unwrap();
        assert_eq!(log_of_b.stuck("the log ends"), "the log ends; 1 passed, 0 failed, running: b");
    }
}
