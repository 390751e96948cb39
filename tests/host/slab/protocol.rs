//! How CPUs ask each other for their free objects, under every schedule. This is a model of the protocol, step by step that
//! of `CpuSlabs` and of `drain_all`, `answer_for` and `settle_array`: one CPU that has an array; one that destroys
//! the cache, switching arrays off, asking, waiting, and taking the array's memory and the record; one that asks as well,
//! without waiting. The node's lock and what is behind it are left out: nothing of it crosses CPUs but under the lock.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Where the protocol is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// The request is a flag, which the answer to any request clears.
    Flag,
    /// The record is given up without asking once more after it has left the table.
    NoGrace,
    /// The CPU answers before it has emptied its array.
    AnswerEarly,
}

/// State that the CPU alone changes, until it has released it: with an object that was freed before the cache is destroyed.
struct Array {
    on: AtomicBool,
    count: AtomicU64,
    /// The addresses.
    memory: UnsafeCell<u32>,
}

struct Machine {
    planted: Planted,
    requested: AtomicU64,
    answered: AtomicU64,
    /// Whether the cache wants arrays.
    arrays_on: AtomicBool,
    array: Array,
    /// Whether the record is in the table, and the record.
    listed: AtomicBool,
    record: UnsafeCell<u32>,
    destroyed: AtomicBool,
}

impl Machine {
    fn new(planted: Planted) -> Self {
        Self {
            planted,
            requested: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            arrays_on: AtomicBool::new(true),
            array: Array { on: AtomicBool::new(true), count: AtomicU64::new(1), memory: UnsafeCell::new(0) },
            listed: AtomicBool::new(true),
            record: UnsafeCell::new(1),
            destroyed: AtomicBool::new(false),
        }
    }

    fn request(&self) {
        if self.planted == Planted::Flag {
            self.requested.swap(1, Ordering::AcqRel);
        } else {
            self.requested.fetch_add(1, Ordering::Release);
        }
    }

    fn owes(&self, requests: u64) -> bool {
        match self.planted {
            // As an exchange sees it, which is never out of date: what is planted is the flag, not a slow memory.
            Planted::Flag => self.requested.fetch_or(0, Ordering::AcqRel) != 0,
            _ => self.answered.load(Ordering::Acquire) < requests,
        }
    }

    fn wait(&self) {
        let requests = self.requested.load(Ordering::Acquire);
        while self.owes(requests) {
            loom::thread::yield_now();
        }
    }

    fn answer(&self, requests: u64) {
        match self.planted {
            Planted::Flag => drop(self.requested.swap(0, Ordering::AcqRel)),
            _ => self.answered.store(requests, Ordering::Release),
        }
    }

    /// As `answer_for` does until nothing is left.
    fn answer_requests(&self) {
        let requests = self.requested.load(Ordering::Acquire);
        if !self.owes(requests) {
            return;
        }
        if self.planted == Planted::AnswerEarly {
            self.answer(requests);
        }
        if self.listed.load(Ordering::Acquire) {
            // SAFETY: loom reports a record that is given up meanwhile.
            let slot = self.record.with(|record| unsafe { *record });
            assert_eq!(slot, 1, "a record that is somebody else's");
            let on = self.arrays_on.load(Ordering::Relaxed);
            if self.array.count.load(Ordering::Relaxed) != 0 {
                // SAFETY: loom reports an access that is not ordered with this one.
                self.array.memory.with_mut(|memory| unsafe { *memory = 0 });
                self.array.count.store(0, Ordering::Relaxed);
            }
            if self.array.on.load(Ordering::Relaxed) != on {
                self.array.on.store(on, Ordering::Relaxed);
            }
        }
        if self.planted != Planted::AnswerEarly {
            self.answer(requests);
        }
    }

    /// As `destroy` does.
    fn destroy(&self) {
        self.arrays_on.store(false, Ordering::Relaxed);
        self.request();
        self.wait();
        let (on, count) = (self.array.on.load(Ordering::Relaxed), self.array.count.load(Ordering::Relaxed));
        assert!(!on && count == 0, "an array of {count} objects, in use: {on}");
        // SAFETY: loom reports an access that is not ordered with this one.
        self.array.memory.with_mut(|memory| unsafe { *memory = 1 });
        self.listed.store(false, Ordering::Release);
        if self.planted != Planted::NoGrace {
            self.request();
            self.wait();
        }
        // SAFETY: loom reports an access that is not ordered with this one.
        self.record.with_mut(|record| unsafe { *record = 2 });
        self.destroyed.store(true, Ordering::Release);
    }
}

fn explore(planted: Planted, preemptions: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 10_000;
    model.check(move || {
        let machine = Arc::new(Machine::new(planted));
        let destroyer = {
            let machine = Arc::clone(&machine);
            loom::thread::spawn(move || machine.destroy())
        };
        let other = {
            let machine = Arc::clone(&machine);
            loom::thread::spawn(move || machine.request())
        };
        machine.answer_requests();
        // An idle CPU.
        while !machine.destroyed.load(Ordering::Acquire) {
            machine.answer_requests();
            loom::thread::yield_now();
        }
        other.join().unwrap();
        destroyer.join().unwrap();
    });
}

// Behaviour 492
#[test]
fn a_request_is_answered_by_what_comes_after_it() {
    explore(Planted::Nothing, 3);
}

#[test]
#[should_panic(expected = "an array of")]
fn a_flag_loses_the_second_request() {
    explore(Planted::Flag, 2);
}

#[test]
#[should_panic]
fn a_record_that_somebody_still_reads_is_given_up() {
    explore(Planted::NoGrace, 2);
}

#[test]
#[should_panic]
fn an_early_answer_gives_the_array_away() {
    explore(Planted::AnswerEarly, 2);
}

/// A CPU that is answering one request when another comes: whether it is interrupted once more. As `request`, `ask` and
/// `answer_for` do.
fn explore_kick(fenced: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let order = move || {
            if fenced {
                fence(Ordering::SeqCst);
            }
        };
        let counts = Arc::new((AtomicU64::new(1), AtomicU64::new(0)));
        let asker = {
            let counts = Arc::clone(&counts);
            loom::thread::spawn(move || {
                let (requested, answered) = &*counts;
                let before = requested.fetch_add(1, Ordering::Release);
                order();
                // It owes an answer already: it is at it.
                answered.load(Ordering::Acquire) >= before
            })
        };
        let (requested, answered) = &*counts;
        let mut done = 0;
        loop {
            let requests = requested.load(Ordering::Acquire);
            if done >= requests {
                break;
            }
            answered.store(requests, Ordering::Release);
            order();
            done = requests;
        }
        let kicked = asker.join().unwrap();
        assert!(kicked || done == 2, "a request that nobody answers");
    });
}

#[test]
fn a_cpu_that_is_not_interrupted_again_sees_the_request() {
    explore_kick(true);
}

#[test]
#[should_panic(expected = "a request that nobody answers")]
fn without_an_order_a_request_is_left_to_a_cpu_that_has_just_answered() {
    explore_kick(false);
}
