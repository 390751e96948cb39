//! Whether the candidate does what an allocator must, before it is measured: what it hands out is one's own, wrong frees are
//! refused, everything comes back; also with an interrupt at any of its instructions.

use super::short::CompareExchange;
use super::slabs::OBJECTS;
use super::slub::Slub;
use crate::heap::{FAILED, Unable};
use alloc::vec::Vec;
use core::ptr::{from_ref, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};
use quarry::addr::VirtAddr;
use quarry::arch::aarch64::irq;
use quarry::arch::aarch64::step::{Step, Then, step_through};
use quarry::gfp::Gfp;
use quarry::global;
use spin::mutex::SpinMutex;

/// Whether frees are refused that must be, and what interrupts do at every instruction does no harm.
#[inline(never)]
pub(super) fn check<E: CompareExchange>() -> Result<(), Unable> {
    let slub = Slub::new()?;
    wrong_frees_are_refused::<E>(&slub)?;
    SLUB.store(from_ref(&slub).cast_mut(), Relaxed);
    irq::local_irq_enable();
    let result = interrupt_everywhere::<E>(&slub);
    irq::local_irq_disable();
    SLUB.store(null_mut(), Relaxed);
    result
}

fn wrong_frees_are_refused<E: CompareExchange>(slub: &Slub) -> Result<(), Unable> {
    let mut objects = [VirtAddr::ZERO; 2 * OBJECTS];
    for place in &mut objects {
        *place = slub.take::<E>().ok_or(FAILED)?;
    }
    // Of a slab that is full, and of the CPU's own.
    let [elsewhere, .., own] = objects;
    let inside = |distance| VirtAddr::new(own.get() + distance);
    let page = global::alloc_page(Gfp::KERNEL).map_err(|_| FAILED)?;
    let foreign = [inside(8), inside(32), inside(1), global::page_address(page), VirtAddr::of(&raw const SLUB)];
    let nowhere = [VirtAddr::new(0), VirtAddr::new(0xffff_7000_0000_0000), VirtAddr::new(0x5a5a_5a5a_5a5a_5a58)];
    let refused = foreign.into_iter().chain(nowhere).all(|wrong| !slub.give::<E>(wrong));
    let freed = [elsewhere, own].into_iter().all(|object| slub.give::<E>(object));
    let twice = [own, elsewhere].into_iter().any(|object| slub.give::<E>(object));
    let [_, rest @ .., _] = objects;
    let all = rest.into_iter().all(|object| slub.give::<E>(object));
    raw!(global::try_free_page(page)).map_err(|_| FAILED)?;
    match (refused, freed && all, twice, slub.shrink::<E>()) {
        (true, true, false, 0) => Ok(()),
        (false, ..) => Err("what is no object was freed"),
        (_, false, ..) => Err("an object was not freed"),
        (.., true, _) => Err("an object was freed twice"),
        _ => Err("a slab is lost"),
    }
}

/// Work of the interrupt, and the code that it interrupts.
#[derive(Clone, Copy)]
enum Deed {
    Take,
    /// The object that was allocated last: of the CPU's slab, if that has been handed out in part.
    GiveLast,
    /// The one that was allocated first: of another slab.
    GiveFirst,
    /// Two are taken and the first is given back: what lies on top is the same as before, what lies below is not.
    TakeTwoGiveOne,
    /// So many that the CPU gets another slab.
    TakeMany,
}

const DEEDS: [Deed; 5] = [Deed::Take, Deed::GiveLast, Deed::GiveFirst, Deed::TakeTwoGiveOne, Deed::TakeMany];
const OPERATIONS: [Deed; 3] = [Deed::Take, Deed::GiveLast, Deed::GiveFirst];
/// Number of cached objects.
const STATES: [usize; 4] = [0, 1, 2, 5];

/// Owners of the objects.
static HELD: SpinMutex<Vec<VirtAddr>> = SpinMutex::new(Vec::new());
/// The most of them: two slabs that were prepared, what a deed takes, and the operation.
const MOST: usize = 3 * OBJECTS + 2;

static SLUB: AtomicPtr<Slub> = AtomicPtr::new(null_mut());
/// The deed is done at this instruction, or has been done.
static AT: AtomicU64 = AtomicU64::new(NEVER);
const NEVER: u64 = u64::MAX;
/// Instructions so far that an interrupt can come at.
static STEPS: AtomicU64 = AtomicU64::new(0);
static INTERRUPT: SpinMutex<Option<fn()>> = SpinMutex::new(None);

impl Deed {
    /// Takes one away to free it.
    fn chosen(self) -> Option<VirtAddr> {
        let mut held = HELD.lock();
        match self {
            Self::GiveLast => held.pop(),
            Self::GiveFirst if !held.is_empty() => Some(held.remove(0)),
            _ => None,
        }
    }

    fn run<E: CompareExchange>(self, slub: &Slub) -> bool {
        let take = |count: usize| (0..count).all(|_| slub.take::<E>().map(|object| HELD.lock().push(object)).is_some());
        match self {
            Self::Take => take(1),
            Self::GiveLast | Self::GiveFirst => self.chosen().is_none_or(|object| slub.give::<E>(object)),
            Self::TakeTwoGiveOne => {
                let first = slub.take::<E>();
                take(1) && first.is_some_and(|object| slub.give::<E>(object))
            }
            Self::TakeMany => take(OBJECTS),
        }
    }

    /// The deed as an interrupt.
    fn interrupt<E: CompareExchange>(self) -> fn() {
        fn with<E: CompareExchange>(deed: Deed) {
            // SAFETY: `check` leaves it there as long as anything is stepped through.
            let slub = unsafe { &*SLUB.load(Relaxed) };
            assert!(deed.run::<E>(slub), "the interrupt's operation failed");
        }
        match self {
            Self::Take => || with::<E>(Self::Take),
            Self::GiveLast => || with::<E>(Self::GiveLast),
            Self::GiveFirst => || with::<E>(Self::GiveFirst),
            Self::TakeTwoGiveOne => || with::<E>(Self::TakeTwoGiveOne),
            Self::TakeMany => || with::<E>(Self::TakeMany),
        }
    }
}

fn visit(step: &Step) -> Then {
    let at = AT.load(Relaxed);
    if at == NEVER {
        return Then::Run;
    }
    if !step.interruptible || STEPS.fetch_add(1, Relaxed) < at {
        return Then::Step;
    }
    AT.store(NEVER, Relaxed);
    if let Some(interrupt) = *INTERRUPT.lock() {
        interrupt();
    }
    Then::Restart
}

/// Every deed at every instruction of every operation, from every state.
fn interrupt_everywhere<E: CompareExchange>(slub: &Slub) -> Result<(), Unable> {
    HELD.lock().reserve_exact(MOST);
    for deed in DEEDS {
        *INTERRUPT.lock() = Some(deed.interrupt::<E>());
        for operation in OPERATIONS {
            for state in STATES {
                let mut at = 0;
                while interrupted_at::<E>(slub, operation, state, at)? {
                    at += 1;
                }
                if at < 10 {
                    return Err("the short way was not stepped through");
                }
            }
        }
    }
    give_all::<E>(slub)?;
    *HELD.lock() = Vec::new();
    Ok(())
}

/// An operation with an interrupt at one of its instructions; whether it had so many.
fn interrupted_at<E: CompareExchange>(slub: &Slub, operation: Deed, state: usize, at: u64) -> Result<bool, Unable> {
    give_all::<E>(slub)?;
    for _ in 0..2 * OBJECTS - state {
        HELD.lock().push(slub.take::<E>().ok_or(FAILED)?);
    }
    let chosen = operation.chosen();
    STEPS.store(0, Relaxed);
    AT.store(at, Relaxed);
    let done = step_through(visit, || match chosen {
        Some(object) => slub.give::<E>(object).then_some(VirtAddr::ZERO),
        None => slub.take::<E>(),
    });
    let came = AT.swap(NEVER, Relaxed) == NEVER;
    match done {
        None => return Err("an instruction could not be stepped over"),
        Some(None) => return Err("an operation failed that was interrupted"),
        Some(Some(VirtAddr::ZERO)) => {}
        Some(Some(object)) => HELD.lock().push(object),
    }
    Ok(came)
}

/// Frees all that anybody has, of which no two may be the same, and nothing may be left.
fn give_all<E: CompareExchange>(slub: &Slub) -> Result<(), Unable> {
    let mut held = HELD.lock();
    held.sort_unstable();
    if held.iter().zip(held.iter().skip(1)).any(|(one, next)| one == next) {
        return Err("an object was handed out twice");
    }
    if !held.drain(..).all(|object| slub.give::<E>(object)) {
        return Err("an object in use was taken for a free one");
    }
    if slub.shrink::<E>() == 0 { Ok(()) } else { Err("an object is lost") }
}
