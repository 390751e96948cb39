//! Kernel tests: the registry that [`ktest!`](crate::ktest!) fills and the loop that runs the tests that the boot arguments
//! name.
//!
//! The runner on the host (`tools/run`) reads the registry from the ELF file, decides which machine each test boots on
//! and passes the tests' numbers as `ktest=0-3,7`. The lines that start with `ktest: ` on the console tell it how each
//! went. A test that panics, hangs or leaves the machine is seen from there; nothing here has to survive it.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{console, panic, power};
use crate::addr::VirtAddr;
use crate::arch::aarch64::cpu;
use crate::arch::aarch64::esr::{Abort, Access, Esr, ExceptionClass, FaultStatus};
use crate::arch::aarch64::irq;
use crate::sync::{OrderedLock, class};

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
/// `machine` is described in `docs/testing.md`; `timeout` is in seconds of the host's clock. With `report` the test passes when
/// the console has shown each of the texts, in this order, even if the machine dies; with `exit` the machine must also leave
/// with that status. `boot:` has no function: the machine is booted without tests.
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

/// Runs the tests of `list`, the value of `ktest=` in the boot arguments, one after the other, and leaves the machine: with
/// [`power::SUCCESS`] if each returned. To be called once, on the boot CPU, when everything that the tests use is up. Each test
/// starts with interrupts unmasked.
pub(crate) fn run_list(list: &str) -> ! {
    expect_faults();
    numbers(list).for_each(run);
    console::print(format_args!("ktest: end\n"));
    power::leave(power::SUCCESS)
}

/// The numbers that a list such as `0-3,7` names. A piece that is none ends the machine.
pub(super) fn numbers(list: &str) -> impl Iterator<Item = usize> {
    list.split(',').filter(|range| !range.is_empty()).flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            fail(format_args!("cannot read the list of tests at {range:?}"))
        };
        first..=last
    })
}

/// The name of a test.
pub(super) fn name(number: usize) -> Option<&'static str> {
    registry().get(number).map(Ktest::name)
}

/// From now on a fault that a test has announced is what it waits for.
pub(super) fn expect_faults() {
    panic::set_expected(on_fault);
}

/// Runs a test. It returns if the test has passed; otherwise the machine is left.
pub(super) fn run(number: usize) {
    let Some((test, body)) = registry().get(number).and_then(|test| Some((test, test.run?))) else {
        fail(format_args!("there is no test number {number} to run"))
    };
    RUNNING.store(number, Ordering::Relaxed);
    console::print(format_args!("ktest: begin {number} {}\n", test.name()));
    irq::local_irq_enable();
    body();
    if let Some(expected) = *EXPECTED.lock() {
        fail(format_args!("the test returned without its {expected}"))
    }
    console::print(format_args!("ktest: ok {number}\n"));
}

fn fail(why: fmt::Arguments<'_>) -> ! {
    console::print(format_args!("ktest: {why}\n"));
    power::leave(power::FAILURE)
}

/// Every registered test, in the order in which the linker laid them down.
fn registry() -> &'static [Ktest] {
    unsafe extern "C" {
        static __ktests_start: [u64; 0];
        static __ktests_end: [u64; 0];
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
pub enum FaultKind {
    /// An access to an address that has no valid entry, at any level.
    Translation(Access),
    /// An access that the entry forbids.
    Permission(Access),
    /// An access, a program counter or a stack pointer that is not aligned as it must be.
    Alignment,
    /// A memory tag that does not match its pointer's.
    TagCheck,
    /// An undefined instruction on this CPU, or at this level.
    Undefined,
}

impl FaultKind {
    /// The kind of an exception, if a test can announce it.
    #[must_use]
    pub const fn of(esr: Esr) -> Option<Self> {
        match esr.abort() {
            Some(Abort { status: FaultStatus::Translation(_), access, .. }) => Some(Self::Translation(access)),
            Some(Abort { status: FaultStatus::Permission(_), access, .. }) => Some(Self::Permission(access)),
            Some(Abort { status: FaultStatus::Alignment, .. }) => Some(Self::Alignment),
            Some(Abort { status: FaultStatus::TagCheck, .. }) => Some(Self::TagCheck),
            Some(_) => None,
            None => match esr.class() {
                ExceptionClass::PC_ALIGNMENT | ExceptionClass::SP_ALIGNMENT => Some(Self::Alignment),
                ExceptionClass::UNKNOWN => Some(Self::Undefined),
                _ => None,
            },
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Translation(access) => write!(f, "translation fault ({access})"),
            Self::Permission(access) => write!(f, "permission fault ({access})"),
            Self::Alignment => f.write_str("alignment fault"),
            Self::TagCheck => f.write_str("tag check fault"),
            Self::Undefined => f.write_str("undefined instruction"),
        }
    }
}

/// A fault that the running test has announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Expected {
    kind: FaultKind,
    addr: VirtAddr,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind, self.addr)
    }
}

/// A fault on any CPU may meet it.
static EXPECTED: OrderedLock<Option<Expected>, class::ExpectedFault, cpu::Relax> = OrderedLock::new(None);
/// The number of the running test.
static RUNNING: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Announces that the running test will cause exactly this fault: from here on it passes only by it, and the machine
/// ends there; the runner boots again for the rest. `addr` is the address accessed or fetched, for an undefined
/// instruction its own.
pub fn expect_fault(kind: FaultKind, addr: VirtAddr) {
    *EXPECTED.lock() = Some(Expected { kind, addr });
}

/// Ends the test if this is the fault that it announced, and otherwise returns, so that the fault is reported.
fn on_fault(esr: Esr, addr: VirtAddr) {
    // A fault inside `expect_fault` itself finds the lock taken: then nothing is announced yet.
    let Some(expected) = EXPECTED.try_lock().and_then(|expected| *expected) else { return };
    // The highest four bits of the address of a wrong tag are undefined.
    let same = |addr: VirtAddr| match expected.kind {
        FaultKind::TagCheck => addr.same_byte(expected.addr) && addr.tag() == expected.addr.tag(),
        _ => addr == expected.addr,
    };
    if FaultKind::of(esr) == Some(expected.kind) && same(addr) {
        console::print_urgent(format_args!("ktest: ok {}\n", RUNNING.load(Ordering::Relaxed)));
        power::leave(power::SUCCESS)
    }
    console::print_urgent(format_args!("ktest: the test announced another: {expected}\n"));
}
