//! The protocol of wait queues under every schedule: every waiter is woken.

use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use quarry::hal::wait::{WaitQueue, WaitWord, Waited};
use std::sync::atomic::AtomicU64;

/// A word that the model checker sees.
pub(crate) struct Word(AtomicU32);

impl Word {
    pub(crate) fn zero() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl WaitWord for Word {
    fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    fn add(&self, value: u32) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }

    fn barrier() {
        fence(Ordering::SeqCst);
    }
}

/// A machine: pages behind a zone's lock, and a sleep.
struct Machine {
    queue: WaitQueue<Word>,
    zone: Mutex<u32>,
    /// Whether the machine has been told that somebody waits for frees (`PageAllocator::await_frees`).
    awaited: AtomicU32,
    sleepers: Mutex<()>,
    event: Condvar,
}

/// Where the protocol is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// The freeing CPU looks whether anybody waits, and only then gives the page back.
    WakeBeforePublish,
    /// The waiting CPU reads the generation after it has found no page.
    CheckOutside,
    /// The waiting CPU says that it waits after it has found no page.
    CountLate,
    /// The freeing CPU ends the sleep without having changed the generation under the sleepers' lock.
    RouseWithoutLock,
}

impl Machine {
    /// One that is never dropped: a lost wake-up ends the model in the middle of it.
    fn leak() -> &'static Self {
        let word = Word::zero;
        Box::leak(Box::new(Self {
            queue: WaitQueue::from_words(word(), word()),
            zone: Mutex::new(0),
            awaited: AtomicU32::new(0),
            sleepers: Mutex::new(()),
            event: Condvar::new(),
        }))
    }

    fn take(&self) -> bool {
        let mut free = self.zone.lock().unwrap();
        let taken = *free > 0;
        *free -= u32::from(taken);
        taken
    }

    fn sleep(&self, seen: u32) {
        let mut guard = self.sleepers.lock().unwrap();
        while self.queue.generation() == seen {
            guard = self.event.wait(guard).unwrap();
        }
    }

    fn rouse(&self, planted: Planted) {
        if planted != Planted::RouseWithoutLock {
            drop(self.sleepers.lock().unwrap());
        }
        self.event.notify_all();
    }

    /// Takes a page, and waits for one if there is none: as `Reclaim::relieve` does for `NOFAIL`.
    fn alloc(&self, planted: Planted) {
        while !self.take() {
            match planted {
                Planted::CountLate => {
                    if self.available() {
                        continue;
                    }
                    self.awaited.fetch_add(1, Ordering::Relaxed);
                    self.sleep(self.queue.generation());
                }
                Planted::CheckOutside => {
                    self.awaited.fetch_add(1, Ordering::Relaxed);
                    let waiting = self.queue.wait_with(&mut || false, |_| {
                        if !self.available() {
                            self.sleep(self.queue.generation());
                        }
                        false
                    });
                    assert_eq!(waiting, Waited::WouldNeverWake);
                }
                _ => {
                    self.awaited.fetch_add(1, Ordering::Relaxed);
                    let waited = self.queue.wait_with(&mut || self.available(), |seen| {
                        self.sleep(seen);
                        true
                    });
                    assert_eq!(waited, Waited::Woken);
                }
            }
            self.awaited.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn available(&self) -> bool {
        *self.zone.lock().unwrap() > 0
    }

    /// Gives a page back, as the slow path of `PageAllocator::free_pages` does: no wake-up if nobody waits.
    fn free(&self, planted: Planted) {
        let publish = || *self.zone.lock().unwrap() += 1;
        let announce = || {
            if self.awaited.load(Ordering::Relaxed) != 0 {
                self.queue.wake_with(|| self.rouse(planted));
            }
        };
        if planted == Planted::WakeBeforePublish {
            announce();
            publish();
        } else {
            publish();
            announce();
        }
    }
}

/// Two CPUs want a page each, or one does, and another gives them back, with as many preemptions as `bound`: how many
/// schedules there are.
fn explore(waiters: u32, bound: Option<usize>, planted: Planted) -> u64 {
    let schedules = std::sync::Arc::new(AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&schedules);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = bound;
    model.max_branches = 10_000;
    model.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let machine = Machine::leak();
        let threads: Vec<_> = (0..waiters).map(|_| loom::thread::spawn(move || machine.alloc(planted))).collect();
        for _ in 0..waiters {
            machine.free(planted);
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
    schedules.load(Ordering::Relaxed)
}

#[test]
fn no_wakeup_is_lost_by_one_waiter() {
    let schedules = explore(1, None, Planted::Nothing);
    assert!(schedules > 100);
}

// Behaviour 139.
#[test]
fn no_wakeup_is_lost_by_two_waiters() {
    let schedules = explore(2, Some(4), Planted::Nothing);
    assert!(schedules > 10_000);
}

#[test]
#[should_panic(expected = "deadlock")]
fn waking_before_the_page_is_there_loses_a_wakeup() {
    explore(1, Some(3), Planted::WakeBeforePublish);
}

#[test]
#[should_panic(expected = "deadlock")]
fn looking_at_the_generation_too_late_loses_a_wakeup() {
    explore(1, Some(3), Planted::CheckOutside);
}

#[test]
#[should_panic(expected = "deadlock")]
fn counting_the_waiter_too_late_loses_a_wakeup() {
    explore(1, Some(3), Planted::CountLate);
}

#[test]
#[should_panic(expected = "deadlock")]
fn ending_a_sleep_that_has_not_begun_loses_a_wakeup() {
    explore(1, Some(3), Planted::RouseWithoutLock);
}

// Behaviour 492: without a lock between the two sides the barriers of the protocol alone must do.
#[test]
fn the_protocol_needs_no_lock_around_the_condition() {
    let model = loom::model::Builder::new();
    model.check(|| {
        let machine = Machine::leak();
        let waiter = loom::thread::spawn(move || {
            let waited = machine.queue.wait_with(&mut || machine.awaited.load(Ordering::Relaxed) != 0, |seen| {
                machine.sleep(seen);
                true
            });
            assert_eq!(waited, Waited::Woken);
        });
        machine.awaited.store(1, Ordering::Relaxed);
        machine.queue.wake_with(|| machine.rouse(Planted::Nothing));
        waiter.join().unwrap();
    });
}
