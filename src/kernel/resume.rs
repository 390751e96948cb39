//! Tests on a board, one after the other without a host that boots it again: where a test ends the machine, the watchdog restarts
//! it, and a record in memory that nobody clears says where to go on. The lines on the console are libtest's.
//!
//! The image holds its own boot arguments (`boot::built_in_arguments`): `ktest=LIST` are tests for one CPU, `ktest.smp=LIST` those
//! that want all, which are brought up before the first of them, `ktest.restart=LIST` those of both that want a boot of their own:
//! the machine restarts behind them.

use super::cpus;
use super::init::Machine;
use super::{console, ktest, power, workarounds};
use crate::addr::{VirtAddr, VirtRange};
use crate::arch::aarch64::{boot, cache, cpu};
use crate::driver::timer;
use crate::driver::watchdog::Watchdog;
use crate::global;
use crate::kprintln;
use crate::sync::Once;
use ::log::error;
use core::sync::atomic::{AtomicU32, Ordering};

/// The crystal of a Pi 4, in Hz. The emulator's counter has another frequency, and its watchdog does not count.
const CRYSTAL: u64 = 54_000_000;
const MAGIC: u32 = 0x5175_7272;

static WATCHDOG: Once<Watchdog, cpu::Relax> = Once::new();

/// Room for the image's own boot arguments. Nothing reads it by this name: `boot::built_in_arguments` does.
#[used]
#[unsafe(link_section = ".bootargs")]
static ROOM: [u8; 3072] = [0; 3072];

/// Records the machine's watchdog. Boot CPU, once.
pub(super) fn set_watchdog(watchdog: Watchdog) {
    WATCHDOG.call_once(|| watchdog);
}

/// Words of the record, in this order.
#[derive(Clone, Copy)]
enum Word {
    Magic,
    /// Stands for the lists of tests.
    Plan,
    /// Place in the lists of the next test.
    Next,
    /// Number of the running test plus one, or zero.
    Running,
    Passed,
    Failed,
    /// Of all the others.
    Sum,
}

const WORDS: usize = Word::Sum as usize + 1;

/// The record. Its memory is cleared by nobody, so that it survives a restart in which the memory does; after a cold start it
/// holds anything.
///
/// # Invariants
///
/// - `RES-1`: the words lie at the start of the page that `linker.ld` keeps for them, and nobody else uses it.
struct Record(&'static [AtomicU32; WORDS]);

impl Record {
    fn find() -> Self {
        // SAFETY: RES-1: the page is the image's, mapped writable, aligned, and any bits are a value of an atomic.
        Self(unsafe { &*boot::not_cleared().as_ptr() })
    }

    fn get(&self, word: Word) -> u32 {
        self.0.get(word as usize).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn sum(&self) -> u32 {
        self.0
            .iter()
            .take(Word::Sum as usize)
            .fold(0x811c_9dc5, |sum, word| (sum ^ word.load(Ordering::Relaxed)).wrapping_mul(0x0100_0193))
    }

    /// Changes words, and lets them reach memory, where they stay.
    fn set(&self, changes: &[(Word, u32)]) {
        let store = |word: Word, value| {
            if let Some(place) = self.0.get(word as usize) {
                place.store(value, Ordering::Relaxed);
            }
        };
        changes.iter().for_each(|(word, value)| store(*word, *value));
        store(Word::Sum, self.sum());
        if let Some(range) = VirtRange::from_size(VirtAddr::of(self.0), size_of::<[AtomicU32; WORDS]>() as u64) {
            cache::clean_and_invalidate_to_poc(range);
        }
    }

    fn is_of(&self, plan: u32) -> bool {
        self.get(Word::Magic) == MAGIC && self.get(Word::Plan) == plan && self.get(Word::Sum) == self.sum()
    }

    /// Counts the running test, and says so.
    fn judge(&self, why: Option<&str>) {
        let Some(number) = self.get(Word::Running).checked_sub(1) else { return };
        let name = ktest::name(number as usize).unwrap_or("?");
        let word = if why.is_none() { Word::Passed } else { Word::Failed };
        self.set(&[(Word::Running, 0), (word, self.get(word).saturating_add(1))]);
        match why {
            None => console::print_urgent(format_args!("test {name} ... ok\n")),
            Some(why) => console::print_urgent(format_args!("test {name} ... FAILED ({why})\n")),
        }
    }
}

/// Runs the tests of both lists from where the record says, restarts the machine behind those of `restarts`, and prints how many
/// passed. Boot CPU, when booting is over.
pub(super) fn run(machine: &Machine, alone: &str, together: &str, restarts: &str) -> ! {
    let tests = || ktest::numbers(alone).map(|n| (n, false)).chain(ktest::numbers(together).map(|n| (n, true)));
    let plan = alone
        .bytes()
        .chain(*b"/")
        .chain(together.bytes())
        .fold(MAGIC, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let record = Record::find();
    if record.is_of(plan) {
        record.judge(Some("the machine was reset"));
    } else {
        record.set(&[
            (Word::Magic, MAGIC),
            (Word::Plan, plan),
            (Word::Next, 0),
            (Word::Running, 0),
            (Word::Passed, 0),
            (Word::Failed, 0),
        ]);
        kprintln!("\nrunning {} tests", tests().count());
    }
    ktest::expect_faults();
    power::set_last_words(last_words);
    let watched = WATCHDOG.get().filter(|_| timer::frequency() == CRYSTAL);
    let mut is_alone = true;
    let count = tests().count();
    for (place, (number, all)) in (0_u32..).zip(tests()).skip(record.get(Word::Next) as usize) {
        if all && is_alone {
            is_alone = false;
            bring_up_all();
            workarounds::settle(&machine.boot);
        }
        #[expect(clippy::cast_possible_truncation, reason = "tests are a few thousand")]
        record.set(&[(Word::Next, place + 1), (Word::Running, number as u32 + 1)]);
        if let Some(watchdog) = watched {
            watchdog.watch();
        }
        ktest::run(number);
        record.judge(None);
        // No other test meets what it has left behind.
        if place as usize + 1 < count && ktest::numbers(restarts).any(|other| other == number) {
            restart();
            cpu::park();
        }
    }
    let (passed, failed) = (record.get(Word::Passed), record.get(Word::Failed));
    record.set(&[(Word::Magic, 0)]);
    let result = if failed == 0 { "ok" } else { "FAILED" };
    kprintln!("\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out");
    kprintln!("{passed} passed, {failed} failed");
    console::flush();
    if let Some(watchdog) = watched {
        watchdog.rest();
    }
    cpu::park()
}

fn bring_up_all() {
    for cpu in global::possible_cpus().filter(|cpu| !global::is_online(*cpu)) {
        if let Err(why) = cpus::cpu_up(cpu) {
            error!("{why}");
        }
    }
}

/// The end of the machine by a test: the test is counted, and the machine restarts. Any context; everything may be broken.
fn last_words(status: u32) {
    let record = Record::find();
    record.judge((status != power::SUCCESS).then_some("it ended the machine"));
    restart();
}

/// Restarts the machine, if it has what that takes.
fn restart() {
    match WATCHDOG.get() {
        Some(watchdog) => {
            console::print_urgent(format_args!("restarting for the next test\n"));
            console::flush();
            watchdog.restart();
        }
        None => console::print_urgent(format_args!("no watchdog: the other tests are not run\n")),
    }
    console::flush();
}
