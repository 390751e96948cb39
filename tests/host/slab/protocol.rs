//! How CPUs ask each other for their free objects, under every schedule. This is a model of the protocol, step by step that
//! of `CpuSlabs` and of `drain_all`, `answer_requests` and `settle_array`: one CPU that has an array; one that destroys
//! the cache, switching arrays off, asking, waiting, and taking the array's memory and the record; one that asks as well,
//! without waiting. The node's lock and what is behind it are left out: nothing of it crosses CPUs but under the lock.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

/// What the CPU alone touches, until it has given it up.
struct Array {
    on: bool,
    count: u32,
}

struct Machine {
    planted: Planted,
    requested: AtomicU64,
    answered: AtomicU64,
    /// Whether the cache wants arrays.
    arrays_on: AtomicBool,
    array: UnsafeCell<Array>,
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
            array: UnsafeCell::new(Array { on: true, count: 1 }),
            listed: AtomicBool::new(true),
            record: UnsafeCell::new(1),
            destroyed: AtomicBool::new(false),
        }
    }

    fn request(&self) {
        if self.planted == Planted::Flag {
            self.requested.store(1, Ordering::Release);
        } else {
            self.requested.fetch_add(1, Ordering::Release);
        }
    }

    fn owes(&self, requests: u64) -> bool {
        match self.planted {
            Planted::Flag => self.requested.load(Ordering::Acquire) != 0,
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
            Planted::Flag => self.requested.store(0, Ordering::Release),
            _ => self.answered.store(requests, Ordering::Release),
        }
    }

    /// As `answer_requests` does.
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
            // SAFETY: loom reports an access that is not ordered with this one.
            self.array.with_mut(|array| unsafe { *array = Array { on, count: 0 } });
        }
        if self.planted != Planted::AnswerEarly {
            self.answer(requests);
        }
    }

    /// A free on the CPU.
    fn free(&self) {
        self.array.with_mut(|array| {
            // SAFETY: as above.
            let array = unsafe { &mut *array };
            array.count += u32::from(array.on);
        });
    }

    /// As `destroy` does.
    fn destroy(&self) {
        self.arrays_on.store(false, Ordering::Relaxed);
        self.request();
        self.wait();
        self.array.with(|array| {
            // SAFETY: as above.
            let array = unsafe { &*array };
            assert!(!array.on && array.count == 0, "an array of {} objects, in use: {}", array.count, array.on);
        });
        self.listed.store(false, Ordering::Release);
        if self.planted != Planted::NoGrace {
            self.request();
            self.wait();
        }
        // SAFETY: as above.
        self.record.with_mut(|record| unsafe { *record = 2 });
        self.destroyed.store(true, Ordering::Release);
    }
}

fn explore(planted: Planted) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
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
        // The users of the cache have ended before it is destroyed, but for what the array still takes.
        if machine.listed.load(Ordering::Acquire) && machine.arrays_on.load(Ordering::Relaxed) {
            machine.free();
        }
        // An idle CPU.
        while !machine.destroyed.load(Ordering::Acquire) {
            machine.answer_requests();
            loom::thread::yield_now();
        }
        other.join().unwrap();
        destroyer.join().unwrap();
    });
}

#[test]
fn a_request_is_answered_by_what_comes_after_it() {
    explore(Planted::Nothing);
}

#[test]
#[should_panic(expected = "an array of")]
fn a_flag_loses_the_second_request() {
    explore(Planted::Flag);
}

#[test]
#[should_panic]
fn a_record_that_somebody_still_reads_is_given_up() {
    explore(Planted::NoGrace);
}

#[test]
#[should_panic]
fn an_early_answer_gives_the_array_away() {
    explore(Planted::AnswerEarly);
}
