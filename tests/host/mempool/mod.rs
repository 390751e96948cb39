//! Memory pools: the behaviours by number, random operations against a model, several CPUs, failures, the protocol of
//! waiting under every schedule.

mod misuse;
mod model;
// The model checker switches stacks, which Miri cannot.
#[cfg(not(miri))]
mod protocol;
mod rules;
mod sizes;
mod stress;
mod typed;

use crate::slab::machine::{Sim, Slabs, Spec};
use crate::slab::thread;
use quarry::gfp::Gfp;
use quarry::hal::wait::{Wait, WaitQueue, Waited};
use quarry::mm::mempool::{Functions, PoolCreateError, PoolSpec, RawMempool};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

const KERNEL: Gfp = Gfp::KERNEL;
const NOWAIT: Gfp = Gfp::NOWAIT;

std::thread_local! {
    /// Action of another CPU as soon as this one sleeps, once; without it nobody would ever wake it, unless `OTHERS`.
    static ASLEEP: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
    /// Whether other threads may wake this one.
    static OTHERS: Cell<bool> = const { Cell::new(false) };
}

/// Longer than anything takes that a CPU sleeps for.
const FOR_EVER: Duration = Duration::from_secs(60);
/// Condition on which CPUs sleep; shared by all machines, as a wake-up too many does no harm.
static SLEEPERS: Mutex<()> = Mutex::new(());
static EVENT: Condvar = Condvar::new();
/// How often somebody has slept.
static SLEEPS: AtomicU64 = AtomicU64::new(0);

impl Wait for Sim<'_> {
    fn wait(&self, queue: &WaitQueue, condition: &mut dyn FnMut() -> bool) -> Waited {
        assert!(!thread::is_masked(), "waits where that is not legal");
        queue.wait_with(condition, |seen| {
            SLEEPS.fetch_add(1, Ordering::Relaxed);
            if let Some(deed) = ASLEEP.take() {
                deed();
                return true;
            }
            if !OTHERS.get() {
                return false;
            }
            let sleepers = SLEEPERS.lock().unwrap();
            let asleep = |_: &mut ()| queue.generation() == seen;
            let (guard, slept) = EVENT.wait_timeout_while(sleepers, FOR_EVER, asleep).unwrap();
            drop(guard);
            assert!(!slept.timed_out(), "nobody wakes CPU {}", thread::here());
            true
        })
    }

    fn wake(&self, queue: &WaitQueue) {
        queue.wake_with(|| {
            drop(SLEEPERS.lock().unwrap());
            EVENT.notify_all();
        });
    }
}

/// A source of numbered elements, which is as full as a test says.
#[derive(Debug, Default)]
struct Source {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many more it gives.
    left: u64,
    next: usize,
    /// Elements that it has given out.
    out: BTreeSet<usize>,
    /// With which flags it was asked.
    asked: Vec<Gfp>,
    /// In which order elements came back.
    freed: Vec<usize>,
}

impl Source {
    fn of(left: u64) -> Self {
        let source = Self::default();
        source.set(left);
        source
    }

    fn set(&self, left: u64) {
        self.state.lock().unwrap().left = left;
    }

    fn out(&self) -> usize {
        self.state.lock().unwrap().out.len()
    }

    fn freed(&self) -> Vec<usize> {
        std::mem::take(&mut self.state.lock().unwrap().freed)
    }

    fn asked(&self) -> Vec<Gfp> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

fn give(gfp: Gfp, source: &&Source) -> Option<NonNull<u8>> {
    let mut state = source.state.lock().unwrap();
    state.asked.push(gfp);
    state.left = state.left.checked_sub(1)?;
    state.next += 1;
    let number = state.next;
    assert!(state.out.insert(number));
    Some(pointer(number))
}

fn take_back(element: NonNull<u8>, source: &&Source) {
    let mut state = source.state.lock().unwrap();
    assert!(state.out.remove(&number(element)), "{element:?} was given once");
    state.freed.push(number(element));
    state.left += 1;
}

/// No memory is behind it.
fn pointer(number: usize) -> NonNull<u8> {
    NonNull::new(std::ptr::without_provenance_mut(number * 16)).unwrap()
}

fn number(element: NonNull<u8>) -> usize {
    element.addr().get() / 16
}

type Numbers<'s, 'm, 'd> = RawMempool<'s, Sim<'m>, Functions<&'d Source>>;

/// A pool of numbers.
fn numbers<'s, 'm, 'd>(
    slabs: &'s Slabs<'s, 'm>,
    min: u32,
    source: &'d Source,
) -> Result<Numbers<'s, 'm, 'd>, PoolCreateError> {
    // SAFETY: a number is given to one caller at a time, and taken back once.
    let functions = unsafe { Functions::new(give, take_back, source) };
    RawMempool::create(slabs, &PoolSpec::new("numbers", min), functions).map_err(|refused| refused.error)
}

/// A machine with one CPU.
fn with_slabs(f: impl FnOnce(&Slabs<'_, '_>)) {
    Spec::of_size(16 << 20).run(f);
}
