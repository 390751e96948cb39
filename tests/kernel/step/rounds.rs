//! The rounds: an operation from each state, with each deed, interrupted at each instruction.
#![expect(clippy::indexing_slicing, reason = "a test that runs out of its own places has failed")]

use super::deeds::{Calls, Deed, HELD, Held, MOST, Operation, Pool, name, pointer};
use super::visit::{
    AGAIN, BY_TIMER, CAME, DEED, IN_SEQUENCE, LAST, MISSED, NEXT, PASSES, PATH, STEPS, meet, note, visit,
};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use quarry::addr::VirtAddr;
use quarry::arch::aarch64::irq;
use quarry::arch::aarch64::step::{step_through, stop_at};

/// How the interrupt comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// The debug exception is the interrupt.
    InTheStep,
    /// Again, so many instructions after the first.
    Twice(u64),
    /// The timer's interrupt is pending, and taken before the instruction.
    Timer,
}

/// The word that each word of a thing holds.
fn pattern(item: u64) -> u64 {
    item.rotate_left(17) ^ 0x5a5a_a5a5_0ff0_f00f
}

fn words<P: Pool>(item: u64) -> &'static mut [u64] {
    let start = VirtAddr::new(item).as_ptr::<u64>();
    // SAFETY: the things are the test's own, as large and aligned to a word; each slice is dropped before the next.
    unsafe { core::slice::from_raw_parts_mut(start, P::SIZE / 8) }
}

/// That no two are the same and none is anybody else's: each can hold something of its own.
fn verify_held<P: Pool>(held: &Held) {
    let items = &held.items[..held.len];
    items.iter().for_each(|item| words::<P>(*item).fill(pattern(*item)));
    for item in items {
        assert!(words::<P>(*item).iter().all(|word| *word == pattern(*item)), "{item:#x} is somebody else's");
    }
    // An object that holds its own pattern may still exist twice.
    for item in items {
        let first = &mut words::<P>(*item)[0];
        assert_eq!(*first, pattern(*item), "{item:#x} was handed out twice");
        *first = 0;
    }
}

/// Brings the pool into a state: this number cached, and enough held to free.
///
/// After a deed that takes memory from the caller, all is made anew: slabs that differ from round to round would make another
/// path of each.
fn prepare<P: Pool>(calls: &Calls, deed: Deed, at_hand: usize) {
    let mut held = HELD.lock();
    let enough = P::MANY * 2 + calls.count;
    let kept = if matches!(deed, Deed::TakeMany | Deed::Drain) { 0 } else { enough };
    while held.len > kept {
        (calls.handler_free)(held.pop());
    }
    P::shrink();
    while held.len < enough {
        held.push((calls.handler_alloc)());
    }
    let mut now = P::at_hand();
    while now < at_hand {
        (calls.handler_free)(held.pop());
        now += 1;
    }
    while now > at_hand {
        held.push((calls.handler_alloc)());
        now -= 1;
    }
    assert_eq!(P::at_hand(), at_hand);
}

/// How a round goes.
#[derive(Clone, Copy)]
enum Way {
    /// Stepped, and noted; no interrupt comes.
    Noted,
    /// Stepped up to instruction number `at`, or the first one after it at which an interrupt is taken.
    Stepped { at: u64 },
    /// Run up to the place of instruction number `at`, which is come to the `passes`-th time.
    Run { at: u64, place: VirtAddr, passes: u64 },
}

/// One operation, with an interrupt: the number of the instruction at which it came, if it did before the operation had ended.
fn one_round(calls: &Calls, operation: Operation, arrival: Arrival, way: Way) -> Option<u64> {
    if let Way::Stepped { at } | Way::Run { at, .. } = way {
        NEXT.store(at, Ordering::Relaxed);
    }
    AGAIN.store(if let Arrival::Twice(further) = arrival { further } else { 0 }, Ordering::Relaxed);
    BY_TIMER.store(arrival == Arrival::Timer, Ordering::Relaxed);
    STEPS.store(0, Ordering::Relaxed);
    LAST.store(0, Ordering::Relaxed);
    let mut items = [NonNull::dangling(); MOST];
    let items = &mut items[..calls.count];
    match operation {
        Operation::Alloc => {
            go(way, || (calls.alloc)(items));
            items.iter().for_each(|item| HELD.lock().push(name(*item)));
        }
        Operation::Free => {
            items.iter_mut().for_each(|item| *item = pointer(HELD.lock().pop()));
            go(way, || (calls.free)(items));
        }
    }
    let last = LAST.load(Ordering::Relaxed);
    (last != 0).then_some(last)
}

// Compiled once, so that a path is the same whichever way it is gone.
#[inline(never)]
fn go(way: Way, mut body: impl FnMut()) {
    let call: &mut dyn FnMut() = &mut body;
    let gone = match way {
        Way::Noted => step_through(note, call),
        Way::Stepped { .. } => step_through(visit, call),
        Way::Run { place, passes, .. } => {
            PASSES.store(passes, Ordering::Relaxed);
            stop_at(place, meet, call)
        }
    };
    gone.expect("every instruction can be stepped over");
}

/// Every invariant is tested after so many rounds, and after the last one: it takes longer than a round.
const CHECK_EVERY: u64 = 16;

/// Every instruction of an operation, from one state, with one deed.
fn every_instruction<P: Pool>(
    calls: &'static Calls,
    operation: Operation,
    arrival: Arrival,
    deed: Deed,
    state: usize,
    baseline: u64,
) {
    PATH.lock().len = 0;
    // Stepping to each instruction from the start takes the square of their number, so the path is noted once, and each
    // place on it run to. It is stepped to where this time's path misses it, and behind the noted path's end.
    if !matches!(arrival, Arrival::Twice(_)) {
        prepare::<P>(calls, deed, state);
        one_round(calls, operation, arrival, Way::Noted);
    }
    let mut at = 1;
    for index in 0.. {
        prepare::<P>(calls, deed, state);
        let noted = PATH.lock().at(index);
        let ran = noted.and_then(|(number, place, passes)| {
            at = number;
            one_round(calls, operation, arrival, Way::Run { at, place, passes })
        });
        let came = ran.or_else(|| {
            if noted.is_some() {
                MISSED.fetch_add(1, Ordering::Relaxed);
                prepare::<P>(calls, deed, state);
            }
            one_round(calls, operation, arrival, Way::Stepped { at })
        });
        let held = HELD.lock();
        verify_held::<P>(&held);
        let in_use = P::in_use() - baseline;
        assert_eq!(in_use, held.len as u64, "{operation:?} from {state} at hand, interrupt at {at} ({came:?})");
        if came.is_none() || at.is_multiple_of(CHECK_EVERY) {
            P::check();
        }
        match came {
            None if PATH.lock().at(index + 1).is_some() => at += 1,
            None => return,
            Some(came) => at = at.max(came) + 1,
        }
    }
}

/// All of it for one pair of calls.
pub(super) fn interrupt_everywhere<P: Pool>(calls: &'static Calls, deeds: &[(Deed, fn())], arrivals: &[Arrival]) {
    irq::local_irq_enable();
    let baseline = P::in_use();
    IN_SEQUENCE.store(0, Ordering::Relaxed);
    CAME.store(0, Ordering::Relaxed);
    MISSED.store(0, Ordering::Relaxed);
    for arrival in arrivals {
        for (deed, run) in deeds {
            *DEED.lock() = Some(*run);
            for operation in [Operation::Alloc, Operation::Free] {
                for state in calls.states {
                    if P::takes_the_long_way(operation, *state, calls.count) && !deed.moves_much() {
                        continue;
                    }
                    every_instruction::<P>(calls, operation, *arrival, *deed, *state, baseline);
                }
            }
            log::info!("{arrival:?} {deed:?}: {} interrupts so far", CAME.load(Ordering::Relaxed));
        }
    }
    let (came, in_sequence) = (CAME.load(Ordering::Relaxed), IN_SEQUENCE.load(Ordering::Relaxed));
    let missed = MISSED.load(Ordering::Relaxed);
    log::info!("{came} interrupts, {in_sequence} of them in sequences that restart");
    log::info!("{missed} places were not on their round's path, and stepped to");
    // The slow path of a masking call may need a magazine, which comes from `kmalloc` by its fast path.
    let as_expected = match calls.restarts {
        Some(true) => in_sequence != 0,
        Some(false) => in_sequence < came / 100,
        None => in_sequence < came / 2,
    };
    assert!(as_expected, "{in_sequence} of {came} in sequences");
    let mut held = HELD.lock();
    while held.len != 0 {
        (calls.handler_free)(held.pop());
    }
    drop(held);
    assert_eq!(P::in_use(), baseline);
    P::shrink();
    P::check();
}
