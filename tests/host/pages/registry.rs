//! Who comes to and leaves a registry of shrinkers, and when.

use super::Spec;
use super::machine::{MIB, Reclaiming, Sim, in_interrupt, run_on};
use super::reclaim::{alloc, exhaust, finish, leak, machine};
use quarry::gfp::Gfp;
use quarry::hal::cpu::Interrupts;
use quarry::hal::wait::{Atomic, Context, Scope, Wait, WaitQueue, Waited};
use quarry::mm::zone::{AllocError, Pressure, REGISTRY_PLACES, Registration, RegistryError, Scanned, Shrinker};
use quarry::sync;
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Leaves its own registry when it is called, which cannot be.
struct Leaver {
    machine: Reclaiming,
    place: Mutex<Option<Registration>>,
    answer: Mutex<Option<Result<(), RegistryError>>>,
}

impl Shrinker for Leaver {
    fn name(&self) -> &str {
        "leaver"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        1
    }

    fn scan_objects(&self, _: Gfp, _: u64) -> Scanned {
        if let Some(place) = self.place.lock().unwrap().take() {
            let answer = self.machine.reclaim.shrinkers().unregister(self.machine.pages.hal(), place);
            *self.answer.lock().unwrap() = Some(answer);
        }
        Scanned::Stop
    }
}

#[test]
fn a_registry_names_what_is_wrong() {
    let machine = machine();
    let shrinkers = machine.reclaim.shrinkers();
    let hal = machine.pages.hal();
    let leaver = leak(Leaver { machine, place: Mutex::default(), answer: Mutex::default() });
    let taken = exhaust(machine);
    let place = shrinkers.register(hal, leaver).unwrap();
    *leaver.place.lock().unwrap() = Some(place);
    assert_eq!(alloc(machine, Gfp::KERNEL, 0), Err(AllocError::OutOfMemory));
    assert_eq!(*leaver.answer.lock().unwrap(), Some(Err(RegistryError::AtWork)));
    assert_eq!(shrinkers.unregister(hal, place), Ok(()));
    assert_eq!(shrinkers.unregister(hal, place), Err(RegistryError::Gone));
    assert_eq!(machine.reclaim.oom_hooks().unregister(hal, place), Err(RegistryError::Gone), "of another registry");
    let places: Vec<_> = (0..REGISTRY_PLACES).map(|_| shrinkers.register(hal, leaver).unwrap()).collect();
    assert_eq!(shrinkers.register(hal, leaver), Err(RegistryError::Full));
    assert_eq!(shrinkers.unregister(hal, place), Err(RegistryError::Gone), "the place has another tenant");
    for place in places {
        shrinkers.unregister(hal, place).unwrap();
    }
    finish(machine, taken);
}

/// Stays in its call until it is let go.
struct Slow {
    inside: AtomicBool,
    let_go: AtomicBool,
    left: AtomicBool,
}

impl Slow {
    fn new(let_go: bool) -> &'static Self {
        leak(Self { inside: false.into(), let_go: let_go.into(), left: false.into() })
    }
}

impl Shrinker for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        1
    }

    fn scan_objects(&self, _: Gfp, _: u64) -> Scanned {
        self.inside.store(true, Ordering::SeqCst);
        while !self.let_go.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.left.store(true, Ordering::SeqCst);
        Scanned::Stop
    }
}

/// What the interrupts of a CPU do that is busy otherwise.
fn answer_until(machine: Reclaiming, done: &dyn Fn() -> bool) {
    while !done() {
        machine.pages.answer_requests();
        std::thread::yield_now();
    }
}

#[test]
fn whoever_unregisters_a_shrinker_waits_until_it_is_at_work_nowhere() {
    let machine = Spec::of_size(16 * MIB).cpus(2).with_reclaimer();
    let slow = Slow::new(false);
    let taken = exhaust(machine);
    let place = machine.reclaim.shrinkers().register(machine.pages.hal(), slow).unwrap();
    machine.pages.hal().others.store(true, Ordering::SeqCst);
    std::thread::scope(|threads| {
        let shrinking = threads.spawn(|| {
            run_on(1);
            assert_eq!(alloc(machine, Gfp::KERNEL | Gfp::NORETRY, 0), Err(AllocError::OutOfMemory));
        });
        answer_until(machine, &|| slow.inside.load(Ordering::SeqCst));
        let waits = &machine.pages.hal().watcher.waits;
        let before = waits.load(Ordering::SeqCst);
        threads.spawn(move || {
            while waits.load(Ordering::SeqCst) == before {
                std::thread::yield_now();
            }
            slow.let_go.store(true, Ordering::SeqCst);
        });
        machine.reclaim.shrinkers().unregister(machine.pages.hal(), place).unwrap();
        assert!(slow.left.load(Ordering::SeqCst));
        answer_until(machine, &|| shrinking.is_finished());
    });
    finish(machine, taken);
}

#[test]
fn whoever_cannot_wait_for_a_shrinker_at_work_is_told() {
    let machine = Spec::of_size(16 * MIB).cpus(2).with_reclaimer();
    let hal = machine.pages.hal();
    let slow = Slow::new(false);
    let taken = exhaust(machine);
    let shrinkers = machine.reclaim.shrinkers();
    let place = shrinkers.register(hal, slow).unwrap();
    // The machine says that nobody would wake this CPU.
    assert!(!hal.others.load(Ordering::SeqCst));
    std::thread::scope(|threads| {
        let shrinking = threads.spawn(|| {
            run_on(1);
            assert_eq!(alloc(machine, Gfp::KERNEL | Gfp::NORETRY, 0), Err(AllocError::OutOfMemory));
        });
        answer_until(machine, &|| slow.inside.load(Ordering::SeqCst));
        assert_eq!(shrinkers.unregister(hal, place), Err(RegistryError::AtWork));
        slow.let_go.store(true, Ordering::SeqCst);
        answer_until(machine, &|| shrinking.is_finished());
    });
    assert!(shrinkers.visit(hal, |_, _| Some(())).is_some(), "it is still there");
    assert_eq!(shrinkers.unregister(hal, place), Ok(()));
    finish(machine, taken);
}

#[test]
fn whoever_may_not_wait_unregisters_nobody() {
    let machine = machine();
    let (hal, shrinkers) = (machine.pages.hal(), machine.reclaim.shrinkers());
    // Who waits for good is not told.
    hal.others.store(true, Ordering::SeqCst);
    let place = shrinkers.register(hal, Slow::new(true)).unwrap();
    assert_eq!(in_interrupt(|| shrinkers.unregister(hal, place)), Err(RegistryError::Atomic(Atomic::Masked)));
    for (scope, error) in [
        (Scope::Lock, RegistryError::Atomic(Atomic::Lock)),
        (Scope::Interrupt, RegistryError::Atomic(Atomic::Interrupt)),
        (Scope::Reclaim, RegistryError::AtWork),
        (Scope::Deferred, RegistryError::AtWork),
    ] {
        let inside = sync::enter(hal, scope);
        assert_eq!(shrinkers.unregister(hal, place), Err(error), "{scope:?}");
        drop(inside);
    }
    assert_eq!(hal.watcher.atomic_calls.swap(0, Ordering::Relaxed), 3, "the mistakes are reported");
    // Work that was put off, which leaves while it is done.
    let left = shrinkers.visit(hal, |_, _| {
        let _inside = sync::enter(hal, Scope::Deferred);
        Some(shrinkers.unregister(hal, place))
    });
    assert_eq!(left, Some(Err(RegistryError::AtWork)));
    assert_eq!(shrinkers.unregister(hal, place), Ok(()));
    assert_eq!(shrinkers.visit(hal, |_, _| Some(())), None);
}

/// A CPU that looks twice when it waits, and lets something happen in between.
struct Twice<'m> {
    sim: &'m Sim<'m>,
    between: Cell<Option<Box<dyn FnOnce() + 'm>>>,
}

impl Pressure for Twice<'_> {}

impl Interrupts for Twice<'_> {
    type Saved = bool;

    fn save(&self) -> bool {
        self.sim.save()
    }

    fn restore(&self, saved: bool) {
        self.sim.restore(saved);
    }
}

impl Context for Twice<'_> {
    fn enter(&self, scope: Scope) {
        self.sim.enter(scope);
    }

    fn leave(&self, scope: Scope) {
        self.sim.leave(scope);
    }

    fn is_inside(&self, scope: Scope) -> bool {
        self.sim.is_inside(scope)
    }

    fn atomic(&self) -> Option<Atomic> {
        self.sim.atomic()
    }
}

impl Wait for Twice<'_> {
    fn wait(&self, _: &WaitQueue, condition: &mut dyn FnMut() -> bool) -> Waited {
        assert!(!condition());
        self.between.take().unwrap()();
        if condition() { Waited::Woken } else { Waited::WouldNeverWake }
    }

    fn wake(&self, queue: &WaitQueue) {
        Wait::wake(self.sim, queue);
    }
}

// The last one stops, and wakes who waits for that; before he looks somebody else has the place and works in it.
#[test]
fn whoever_waits_for_a_tenant_does_not_wait_for_the_next_one() {
    let machine = Spec::of_size(16 * MIB).cpus(3).with_reclaimer();
    let (hal, shrinkers) = (machine.pages.hal(), machine.reclaim.shrinkers());
    let (first, next) = (Slow::new(false), Slow::new(false));
    let place = shrinkers.register(hal, first).unwrap();
    std::thread::scope(|threads| {
        let visit = |cpu| {
            threads.spawn(move || {
                run_on(cpu);
                let _: Option<()> = shrinkers.visit(hal, |tenant, _| {
                    tenant.scan_objects(Gfp::KERNEL, 1);
                    None
                });
            })
        };
        let at_work = |slow: &Slow| {
            while !slow.inside.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        };
        let visiting = visit(1);
        at_work(first);
        let leaving = Twice { sim: hal, between: Cell::new(None) };
        let between = || {
            first.let_go.store(true, Ordering::SeqCst);
            visiting.join().unwrap();
            let registered = shrinkers.register(hal, next).unwrap();
            assert!(format!("{registered:?}").contains("place: 0"), "the same place");
            visit(2);
            at_work(next);
            registered
        };
        let (sender, receiver) = std::sync::mpsc::channel();
        leaving.between.set(Some(Box::new(move || sender.send(between()).unwrap())));
        let left = shrinkers.unregister(&leaving, place);
        next.let_go.store(true, Ordering::SeqCst);
        assert_eq!(left, Ok(()));
        hal.others.store(true, Ordering::SeqCst);
        shrinkers.unregister(hal, receiver.recv().unwrap()).unwrap();
    });
}

#[test]
fn a_place_has_no_new_tenant_while_the_last_one_is_at_work_in_it() {
    let machine = Spec::of_size(16 * MIB).cpus(3).with_reclaimer();
    let hal = machine.pages.hal();
    let slow = Slow::new(false);
    let next = Slow::new(true);
    let shrinkers = machine.reclaim.shrinkers();
    let place = shrinkers.register(hal, slow).unwrap();
    hal.others.store(true, Ordering::SeqCst);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            run_on(1);
            let _: Option<()> = shrinkers.visit(hal, |tenant, _| {
                tenant.scan_objects(Gfp::KERNEL, 1);
                None
            });
        });
        while !slow.inside.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let leaving = threads.spawn(|| {
            run_on(2);
            shrinkers.unregister(hal, place).unwrap();
        });
        while shrinkers.visit(hal, |_, _| Some(())).is_some() {
            std::thread::yield_now();
        }
        let other = shrinkers.register(hal, next).unwrap();
        let places = (format!("{place:?}"), format!("{other:?}"));
        slow.let_go.store(true, Ordering::SeqCst);
        leaving.join().unwrap();
        shrinkers.unregister(hal, other).unwrap();
        assert!(places.0.contains("place: 0") && places.1.contains("place: 1"), "{places:?}");
    });
}
