//! Kernel tests: the registry that [`ktest!`](crate::ktest!) fills and the loop that runs what the boot arguments name.
//!
//! The runner on the host (`tools/run`) reads the registry from the ELF file, decides which machine each test boots on
//! and passes the tests' numbers as `ktest=0-3,7`. The lines that start with `ktest: ` on the console tell it how each
//! went. A test that panics, hangs or leaves the machine is seen from there; nothing here has to survive it.
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::addr::VirtAddr;

/// One registered test, as it lies in the section `.ktests`. Made by [`ktest!`](crate::ktest!) only.
///
/// # Invariants
///
/// - `KTEST-1`: `text` points to `len` bytes of UTF-8 that live as long as the image.
///
/// The runner reads this layout from the file: three little-endian 64-bit words.
#[derive(Debug)]
#[repr(C)]
pub struct Ktest {
    text: *const u8,
    len: usize,
    run: Option<fn()>,
}

const _: () = assert!(size_of::<Ktest>() == 24 || cfg!(not(target_pointer_width = "64")));

// SAFETY: every field is read-only; `text` points to an immutable literal (KTEST-1).
unsafe impl Sync for Ktest {}

impl Ktest {
    /// Registers `text`, the tab-separated fields that the runner reads, the name first. `None` for `run` is a test of
    /// the boot alone: the machine is started and its console read, and nothing runs in the kernel.
    #[must_use]
    pub const fn new(text: &'static str, run: Option<fn()>) -> Self {
        // INVARIANT: KTEST-1: both parts come from one `&'static str`.
        Self { text: text.as_ptr(), len: text.len(), run }
    }

    /// The test's name: its module's path without the crate, its function, its machine's label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        // SAFETY: KTEST-1.
        let bytes: &'static [u8] = unsafe { core::slice::from_raw_parts(self.text, self.len) };
        let text = core::str::from_utf8(bytes).unwrap_or("not UTF-8");
        let path = text.split('\t').next().unwrap_or(text);
        path.split_once("::").map_or(path, |(_crate, name)| name)
    }
}

/// Registers a test of the kernel for the runner.
///
/// The function is an ordinary one beside it; without this line it is dead code, which the lints refuse. The clauses
/// stand in this order, each may be left out:
///
/// ```ignore
/// ktest!(counts_every_page);
/// ktest!(wakes_all_cpus, machine = "smp=4 mem=512M", timeout = 30);
/// ktest!(drops_to_el1, machine el2 = "virtualization", machine el3 = "secure loader=elf"); // two tests, ::el2, ::el3
/// ktest!(names_the_guard_page, report = "guard page after vmalloc area");
/// ktest!(walks_sixteen_gigabytes, machine = "mem=16G", ignored = "needs 16 GiB of RAM");
/// ktest!(boot: refuses_a_corrupt_tree, machine = "loader=raw x0=0x40000003", report = "misaligned", exit = 1);
/// ```
///
/// `machine` is described in `docs/testing.md`; `timeout` is in seconds of the host's clock. With `report` the test
/// passes when the console has shown each of the texts, in this order, whatever becomes of the machine; with `exit`
/// the machine must also leave with that status. `boot:` has no function: the machine is booted without tests.
#[macro_export]
macro_rules! ktest {
    (boot: $name:ident $(, machine = $machine:literal)? $(, timeout = $timeout:literal)? $(, report = $report:literal)*
     $(, exit = $exit:literal)? $(, ignored = $why:literal)? $(,)?) => {
        $crate::ktest!(@register None, concat!(module_path!(), "::", stringify!($name)), [$($machine)?],
            [$($timeout)?], [$($report)*], [$($exit)?], [$($why)?]);
    };
    ($name:ident $(, machine $label:ident = $machine:literal)+ $(, timeout = $timeout:literal)?
     $(, report = $report:literal)* $(, exit = $exit:literal)? $(, ignored = $why:literal)? $(,)?) => {
        $crate::ktest!(@each $name, [$($label $machine)+], [$($timeout)?], [$($report)*], [$($exit)?], [$($why)?]);
    };
    ($name:ident $(, machine = $machine:literal)? $(, timeout = $timeout:literal)? $(, report = $report:literal)*
     $(, exit = $exit:literal)? $(, ignored = $why:literal)? $(,)?) => {
        $crate::ktest!(@register Some($name), concat!(module_path!(), "::", stringify!($name)), [$($machine)?],
            [$($timeout)?], [$($report)*], [$($exit)?], [$($why)?]);
    };
    (@each $name:ident, [$($label:ident $machine:literal)+], $timeout:tt, $reports:tt, $exit:tt, $why:tt) => {
        $($crate::ktest!(@register Some($name),
            concat!(module_path!(), "::", stringify!($name), "::", stringify!($label)), [$machine],
            $timeout, $reports, $exit, $why);)+
    };
    (@register $run:expr, $path:expr, [$($machine:literal)?], [$($timeout:literal)?], [$($report:literal)*],
     [$($exit:literal)?], [$($why:literal)?]) => {
        const _: () = {
            #[used]
            #[unsafe(link_section = ".ktests")]
            static TEST: $crate::kernel::ktest::Ktest = $crate::kernel::ktest::Ktest::new(
                concat!($path $(, "\tmachine=", $machine)? $(, "\ttimeout=", $timeout)? $(, "\treport=", $report)*
                    $(, "\texit=", $exit)? $(, "\tignored=", $why)?),
                $run,
            );
        };
    };
}

/// The status with which a machine leaves when a test failed in a way that the kernel itself noticed.
const FAILED: u32 = 101;

/// What the test loop needs of the kernel around it.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Writes to the console, completely, before it returns.
    pub print: fn(fmt::Arguments<'_>),
    /// Leaves the machine with a status: 0 is success.
    pub leave: fn(status: u32) -> !,
}

/// Runs the tests that `ktest=` in the boot arguments names, one after the other, and leaves the machine: with status 0
/// if each returned. Without `ktest=` it leaves with 0 at once. To be called once, on the boot CPU, when everything
/// that the tests use is up; a test inherits the context of the caller.
pub fn run_from_bootargs(bootargs: &str, host: Host) -> ! {
    let Some(list) = bootargs.split_ascii_whitespace().find_map(|word| word.strip_prefix("ktest=")) else {
        (host.leave)(0)
    };
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            (host.print)(format_args!("ktest: cannot read the list of tests at {range:?}\n"));
            (host.leave)(FAILED)
        };
        for number in first..=last {
            run(number, host);
        }
    }
    (host.print)(format_args!("ktest: end\n"));
    (host.leave)(0)
}

fn run(number: usize, host: Host) {
    let Some((test, body)) = registry().get(number).and_then(|test| Some((test, test.run?))) else {
        (host.print)(format_args!("ktest: there is no test number {number} to run\n"));
        (host.leave)(FAILED)
    };
    RUNNING.store(number, Ordering::Relaxed);
    (host.print)(format_args!("ktest: begin {number} {}\n", test.name()));
    body();
    if let Some((kind, addr)) = expected() {
        (host.print)(format_args!("ktest: expected {kind} at {addr:?}, the test returned without it\n"));
        (host.leave)(FAILED)
    }
    (host.print)(format_args!("ktest: ok {number}\n"));
}

/// Every registered test, in the order in which the linker laid them down.
fn registry() -> &'static [Ktest] {
    unsafe extern "C" {
        static __ktests_start: [Ktest; 0];
        static __ktests_end: [Ktest; 0];
    }
    let start = (&raw const __ktests_start).cast::<Ktest>();
    let bytes = (&raw const __ktests_end).addr().saturating_sub(start.addr());
    // SAFETY: the linker script puts the two symbols around the section `.ktests`, which only `ktest!` fills, with
    // whole `Ktest` values.
    unsafe { core::slice::from_raw_parts(start, bytes / size_of::<Ktest>()) }
}

/// The faults that a test can announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum FaultKind {
    /// A load or store that the tables forbid or do not know.
    DataAbort = 1,
    /// An instruction fetch that the tables forbid or do not know.
    InstructionAbort = 2,
    /// A load, store, program counter or stack pointer that is not aligned as it must be.
    Alignment = 3,
    /// A memory tag that does not match its pointer's.
    TagCheck = 4,
    /// An undefined instruction.
    Undefined = 5,
}

impl FaultKind {
    const ALL: [Self; 5] = [Self::DataAbort, Self::InstructionAbort, Self::Alignment, Self::TagCheck, Self::Undefined];
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DataAbort => "data abort",
            Self::InstructionAbort => "instruction abort",
            Self::Alignment => "alignment fault",
            Self::TagCheck => "tag check fault",
            Self::Undefined => "undefined instruction",
        })
    }
}

/// The announced fault: its kind (0 is none) and address. A fault on any CPU may meet it.
static EXPECTED_KIND: AtomicU8 = AtomicU8::new(0);
static EXPECTED_ADDR: AtomicU64 = AtomicU64::new(0);
static RUNNING: AtomicUsize = AtomicUsize::new(usize::MAX);

fn expected() -> Option<(FaultKind, VirtAddr)> {
    // Pairs with the release in `expect_fault`.
    let raw = EXPECTED_KIND.load(Ordering::Acquire);
    let kind = FaultKind::ALL.into_iter().find(|kind| *kind as u8 == raw)?;
    Some((kind, VirtAddr::new(EXPECTED_ADDR.load(Ordering::Relaxed))))
}

/// Announces that the running test will cause exactly this fault: from here on it passes only by it, and the machine
/// ends there. `addr` is what FAR holds: the address accessed or fetched, for an undefined instruction its own.
pub fn expect_fault(kind: FaultKind, addr: VirtAddr) {
    EXPECTED_ADDR.store(addr.get(), Ordering::Relaxed);
    // Pairs with the acquire in `expected`.
    EXPECTED_KIND.store(kind as u8, Ordering::Release);
}

/// Whether the running test has announced this fault. For the trap handler, which then calls [`pass_by_fault`] and
/// otherwise reports the fault as it always does.
#[must_use]
pub fn fault_expected(kind: FaultKind, addr: VirtAddr) -> bool {
    expected() == Some((kind, addr))
}

/// Ends the machine after the announced fault; the running test has passed. The runner boots again for the rest.
pub fn pass_by_fault(host: Host) -> ! {
    (host.print)(format_args!("ktest: ok {}\n", RUNNING.load(Ordering::Relaxed)));
    (host.leave)(0)
}
