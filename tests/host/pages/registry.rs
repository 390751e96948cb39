//! Who comes to and leaves a registry of shrinkers, and when.

use super::Spec;
use super::machine::{MIB, Reclaiming, run_on};
use super::reclaim::{alloc, exhaust, finish, leak, machine};
use quarry::gfp::Gfp;
use quarry::mm::zone::{AllocError, REGISTRY_PLACES, Registration, RegistryError, Scanned, Shrinker};
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
    finish(machine, taken);
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
