//! Waiting for an element under every schedule, and that a free sees what the allocation of its element did to the reserve.
//! The steps are those of `RawMempool`, on the words of the model checker.

use crate::wait::Word;
use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use quarry::hal::wait::{WaitQueue, Waited};

/// Where the protocol is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// A freed element goes to the reserve after the waiters were woken.
    WakeBeforePut,
    /// A free does not look at the reserve after the element: an element may come back before what it left missing is seen.
    NoFence,
    /// A free gives to the backing what the reserve lacks.
    BackingFirst,
}

/// A pool of one element, whose backing has none.
struct Pool {
    queue: WaitQueue<Word>,
    reserve: Mutex<u32>,
    lacking: AtomicU32,
    /// Elements that went to the backing.
    gone: AtomicU32,
    sleepers: Mutex<()>,
    event: Condvar,
    /// An element on its way to another CPU, without an order: the CPU that sees it owns it.
    mail: AtomicUsize,
}

impl Pool {
    /// One that is never dropped: a lost wake-up ends the model in the middle of it.
    fn leak(reserve: u32) -> &'static Self {
        let word = Word::zero;
        Box::leak(Box::new(Self {
            queue: WaitQueue::from_words(word(), word()),
            reserve: Mutex::new(reserve),
            lacking: AtomicU32::new(1 - reserve),
            gone: AtomicU32::new(0),
            sleepers: Mutex::new(()),
            event: Condvar::new(),
            mail: AtomicUsize::new(0),
        }))
    }

    fn take_reserved(&self, planted: Planted) -> bool {
        let mut reserve = self.reserve.lock().unwrap();
        let taken = *reserve > 0;
        *reserve -= u32::from(taken);
        self.lacking.store(1 - *reserve, Ordering::Relaxed);
        drop(reserve);
        if planted != Planted::NoFence {
            fence(Ordering::Release);
        }
        taken
    }

    fn alloc(&self, planted: Planted) {
        if self.take_reserved(planted) {
            return;
        }
        let waited = self.queue.wait_with(&mut || self.take_reserved(planted), |seen| {
            let mut guard = self.sleepers.lock().unwrap();
            while self.queue.generation() == seen {
                guard = self.event.wait(guard).unwrap();
            }
            true
        });
        assert_eq!(waited, Waited::Woken);
    }

    fn free(&self, planted: Planted) {
        if planted != Planted::NoFence {
            fence(Ordering::Acquire);
        }
        if self.lacking.load(Ordering::Relaxed) == 0 || planted == Planted::BackingFirst {
            self.gone.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let put = || {
            let mut reserve = self.reserve.lock().unwrap();
            *reserve += 1;
            self.lacking.store(1 - *reserve, Ordering::Relaxed);
        };
        let wake = || {
            self.queue.wake_with(|| {
                drop(self.sleepers.lock().unwrap());
                self.event.notify_all();
            });
        };
        if planted == Planted::WakeBeforePut {
            wake();
            put();
        } else {
            put();
            wake();
        }
    }
}

/// One CPU waits for the element that another one has and frees.
fn wait_for_the_last(planted: Planted) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let pool = Pool::leak(0);
        let waiter = loom::thread::spawn(move || pool.alloc(planted));
        pool.free(planted);
        waiter.join().unwrap();
    });
}

/// One CPU takes the element and sends it, by a plain store, to another one, which frees it.
fn pass_without_order(planted: Planted) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let pool = Pool::leak(1);
        let sender = loom::thread::spawn(move || {
            assert!(pool.take_reserved(planted));
            pool.mail.store(1, Ordering::Relaxed);
        });
        if pool.mail.load(Ordering::Relaxed) == 1 {
            pool.free(planted);
            assert_eq!(pool.gone.load(Ordering::Relaxed), 0, "the reserve lacks it");
        }
        sender.join().unwrap();
    });
}

// Behaviour 329, and 492 for pools.
#[test]
fn no_wakeup_of_a_pool_is_lost() {
    wait_for_the_last(Planted::Nothing);
}

#[test]
#[should_panic(expected = "deadlock")]
fn waking_before_the_element_is_there_loses_a_wakeup() {
    wait_for_the_last(Planted::WakeBeforePut);
}

#[test]
#[should_panic(expected = "deadlock")]
fn an_element_for_the_backing_leaves_a_waiter_asleep() {
    wait_for_the_last(Planted::BackingFirst);
}

#[test]
fn a_free_sees_what_the_allocation_left_missing() {
    pass_without_order(Planted::Nothing);
}

#[test]
#[should_panic(expected = "the reserve lacks it")]
fn without_the_fences_it_may_not() {
    pass_without_order(Planted::NoFence);
}
