//! CPUs without threads that wait for memory: none wakes itself, and one of them notices that nobody is left.
#![expect(
    clippy::indexing_slicing,
    reason = "a test's own helpers panic as the test does; clippy knows only #[test] for one"
)]

use loom::sync::atomic::{AtomicBool, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use quarry::sync::{Sleeper, rest, sleep_for_memory};
use std::cell::Cell;

/// A CPU that counts.
#[derive(Default)]
struct Counting {
    asleep: Cell<bool>,
    others_awake: Cell<bool>,
    events: Cell<u32>,
    sleeps: Cell<u32>,
}

impl Sleeper for Counting {
    fn set_asleep(&self, asleep: bool) {
        self.asleep.set(asleep);
    }

    fn others_are_awake(&self) -> bool {
        assert!(self.asleep.get(), "looks at the others before they can see that it sleeps");
        self.others_awake.get()
    }

    fn send_event(&self) {
        self.events.set(self.events.get() + 1);
    }

    fn wait_for_event(&self) {
        assert!(self.asleep.get());
        self.sleeps.set(self.sleeps.get() + 1);
    }
}

// An event would end its own sleep: SEV sets the event register of all CPUs.
#[test]
fn a_cpu_that_waits_for_memory_does_not_wake_itself() {
    let cpu = Counting::default();
    for (may_be_woken, others_awake) in [(true, false), (false, true), (true, true)] {
        cpu.others_awake.set(others_awake);
        assert!(sleep_for_memory(&cpu, may_be_woken));
        assert!(!cpu.asleep.get());
    }
    assert_eq!((cpu.sleeps.get(), cpu.events.get()), (3, 0));
    cpu.others_awake.set(false);
    assert!(!sleep_for_memory(&cpu, false), "nobody would ever wake it");
    assert!(!cpu.asleep.get());
    assert_eq!((cpu.sleeps.get(), cpu.events.get()), (3, 0));
    rest(&cpu, || assert!(cpu.asleep.get()));
    assert_eq!((cpu.sleeps.get(), cpu.events.get()), (3, 1), "who waits for memory has to look again");
    assert!(!cpu.asleep.get());
}

const CPUS: usize = 3;

/// Where the machine is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// A CPU looks at the others before it says that it sleeps.
    LookFirst,
    /// A CPU that goes to rest tells nobody.
    RestSilently,
}

/// Event registers and who sleeps, as the model checker sees them.
struct Machine {
    asleep: [AtomicBool; CPUS],
    events: Mutex<[bool; CPUS]>,
    event: Condvar,
    planted: Planted,
}

struct Cpu {
    machine: &'static Machine,
    index: usize,
    /// It rests for good.
    gone: Cell<bool>,
}

impl Sleeper for Cpu {
    fn set_asleep(&self, asleep: bool) {
        if self.gone.get() || (asleep && self.machine.planted == Planted::LookFirst) {
            return;
        }
        self.machine.asleep[self.index].store(asleep, Ordering::SeqCst);
        // The model checker knows of one order of fences alone.
        fence(Ordering::SeqCst);
    }

    fn others_are_awake(&self) -> bool {
        let others = self.machine.asleep.iter().enumerate().filter(|(index, _)| *index != self.index);
        others.into_iter().any(|(_, asleep)| !asleep.load(Ordering::SeqCst))
    }

    fn send_event(&self) {
        if self.machine.planted != Planted::RestSilently {
            *self.machine.events.lock().unwrap() = [true; CPUS];
            self.machine.event.notify_all();
        }
    }

    fn wait_for_event(&self) {
        if self.machine.planted == Planted::LookFirst {
            self.machine.asleep[self.index].store(true, Ordering::SeqCst);
        }
        let mut events = self.machine.events.lock().unwrap();
        while !events[self.index] {
            events = self.machine.event.wait(events).unwrap();
        }
        events[self.index] = false;
    }
}

impl Cpu {
    /// Rests for good.
    fn rest(&self) {
        rest(self, || {
            self.machine.asleep[self.index].store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            self.gone.set(true);
        });
    }
}

/// Two CPUs wait for memory that never comes, and rest when they are told so; another one does something and rests.
fn explore(planted: Planted) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let machine: &'static Machine = Box::leak(Box::new(Machine {
            asleep: std::array::from_fn(|_| AtomicBool::new(false)),
            events: Mutex::new([false; CPUS]),
            event: Condvar::new(),
            planted,
        }));
        let cpu = move |index| Cpu { machine, index, gone: Cell::new(false) };
        let waiting = |index| {
            loom::thread::spawn(move || {
                let cpu = cpu(index);
                while sleep_for_memory(&cpu, false) {}
                cpu.rest();
            })
        };
        let threads = [waiting(0), waiting(1)];
        cpu(2).rest();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn of_cpus_that_fall_asleep_one_notices_that_nobody_is_left() {
    explore(Planted::Nothing);
}

#[test]
#[should_panic(expected = "deadlock")]
fn looking_at_the_others_first_leaves_all_asleep() {
    explore(Planted::LookFirst);
}

#[test]
#[should_panic(expected = "deadlock")]
fn resting_without_a_word_leaves_the_waiters_asleep() {
    explore(Planted::RestSilently);
}
