//! Threads that go from CPU to CPU: what they are inside of goes with them, and nothing of it stays behind.

use core::panic::Location;
use quarry::addr::CpuId;
use quarry::hal::wait::{Atomic, Scope};
use quarry::sync::class::{Class, Embedder, Hotplug, LockClass, SlabRegistry};
use quarry::sync::{HeldLocks, LockContext, RunningThread, Scopes, SwitchError, ThisCpu, ThreadContext, switch_thread};

/// A bit of the interrupt mask that says that interrupts are masked, and one that is always set.
const MASKED: u64 = 1;
const ALWAYS: u64 = 2;
/// A mask that lets interrupts in.
const OPEN: u64 = ALWAYS;

/// All but [`Scope::Cpu`], in which nobody switches.
const SCOPES: [Scope; Scope::COUNT - 1] =
    [Scope::Interrupt, Scope::Lock, Scope::Reclaim, Scope::Memalloc, Scope::NoIo, Scope::NoFs, Scope::Deferred];

struct Cpu {
    id: CpuId,
    scopes: Scopes<MASKED, ALWAYS>,
    held: HeldLocks,
    thread: RunningThread,
}

impl Cpu {
    fn new(id: u32) -> Self {
        let cpu =
            Self { id: CpuId::new(id), scopes: Scopes::new(), held: HeldLocks::new(), thread: RunningThread::new() };
        cpu.scopes.enforce(true);
        cpu.held.enforce(true);
        cpu
    }

    fn switch(&self, from: &ThreadContext, to: &ThreadContext) -> Result<(), SwitchError> {
        let Self { id, scopes, held, thread } = self;
        switch_thread(&ThisCpu { cpu: *id, scopes, held: Some(held), thread }, from, to)
    }

    fn inside(&self) -> Vec<Scope> {
        SCOPES.into_iter().filter(|scope| self.scopes.is_inside(*scope)).collect()
    }

    #[track_caller]
    fn take(&self, class: &'static LockClass, address: usize) {
        self.held.may_take(class, address, LockContext::Unmasked, Location::caller()).unwrap();
        self.held.take(class, address, Location::caller()).unwrap();
    }

    fn locks(&self) -> Vec<&'static str> {
        self.held.iter().map(|held| held.class().name).collect()
    }
}

/// Two CPUs that run their idle threads.
fn two_cpus() -> [(Cpu, ThreadContext); 2] {
    [0, 1].map(|id| (Cpu::new(id), ThreadContext::new()))
}

#[test]
fn a_scope_that_was_opened_on_one_cpu_is_in_force_on_the_next_and_nowhere_else() {
    for scope in SCOPES {
        let [(first, first_idle), (second, second_idle)] = two_cpus();
        let thread = ThreadContext::new();
        first.switch(&first_idle, &thread).unwrap();
        first.scopes.enter(scope);
        first.switch(&thread, &first_idle).unwrap();
        assert!(!first.scopes.is_inside(scope), "{scope:?} stays behind");
        assert!(thread.is_inside(scope) && !first_idle.is_inside(scope));
        assert_eq!((first.scopes.atomic(OPEN), first.scopes.no_wait()), (None, MASKED), "{scope:?}");
        second.switch(&second_idle, &thread).unwrap();
        assert_eq!(second.inside(), [scope]);
        assert_eq!(second.scopes.atomic(OPEN).is_some(), scope.forbids_waiting());
        assert_eq!(second.scopes.no_wait() & ALWAYS != 0, scope.forbids_waiting());
        second.scopes.leave(scope);
        assert_eq!((second.inside(), second.scopes.atomic(OPEN)), (vec![], None));
        second.switch(&thread, &second_idle).unwrap();
        assert!(!thread.is_inside(scope), "left on another CPU than it was entered on");
    }
}

#[test]
fn nested_scopes_end_one_by_one_wherever_the_thread_is() {
    let [(first, first_idle), (second, second_idle)] = two_cpus();
    let thread = ThreadContext::new();
    first.switch(&first_idle, &thread).unwrap();
    for scope in [Scope::NoFs, Scope::NoIo, Scope::NoFs, Scope::Lock, Scope::NoFs] {
        first.scopes.enter(scope);
    }
    first.switch(&thread, &first_idle).unwrap();
    // The scopes of the other CPU's own thread are its own.
    second.scopes.enter(Scope::Memalloc);
    second.switch(&second_idle, &thread).unwrap();
    assert_eq!(second.inside(), [Scope::Lock, Scope::NoIo, Scope::NoFs]);
    second.scopes.leave(Scope::NoFs);
    second.scopes.leave(Scope::Lock);
    assert_eq!(second.scopes.atomic(OPEN), None);
    assert_eq!(second.inside(), [Scope::NoIo, Scope::NoFs]);
    second.switch(&thread, &second_idle).unwrap();
    assert_eq!(second.inside(), [Scope::Memalloc]);
    first.switch(&first_idle, &thread).unwrap();
    first.scopes.leave(Scope::NoFs);
    assert_eq!(first.inside(), [Scope::NoIo, Scope::NoFs], "entered three times, left twice");
    first.scopes.leave(Scope::NoIo);
    first.scopes.leave(Scope::NoFs);
    assert_eq!(first.inside(), []);
}

#[test]
fn who_reclaims_may_not_wait_on_the_next_cpu_either() {
    let [(first, first_idle), (second, second_idle)] = two_cpus();
    let reclaimer = ThreadContext::new();
    first.switch(&first_idle, &reclaimer).unwrap();
    first.scopes.enter(Scope::Reclaim);
    first.switch(&reclaimer, &first_idle).unwrap();
    second.switch(&second_idle, &reclaimer).unwrap();
    assert_eq!(second.scopes.atomic(OPEN), Some(Atomic::Reclaim));
    assert_eq!(first.scopes.atomic(OPEN), None, "others wait where it was");
}

#[test]
fn whether_booting_is_over_is_the_cpus_and_not_the_threads() {
    let [(first, first_idle), (booting, booting_idle)] = two_cpus();
    booting.scopes.enforce(false);
    booting.held.enforce(false);
    let thread = ThreadContext::new();
    first.switch(&first_idle, &thread).unwrap();
    assert_eq!(first.scopes.atomic(OPEN | MASKED), Some(Atomic::Masked));
    first.switch(&thread, &first_idle).unwrap();
    booting.switch(&booting_idle, &thread).unwrap();
    assert_eq!(booting.scopes.atomic(OPEN | MASKED), None);
    booting.take(SlabRegistry::CLASS, 8);
    booting.take(Hotplug::CLASS, 16);
    booting.switch(&thread, &booting_idle).unwrap();
    first.switch(&first_idle, &thread).unwrap();
    assert_eq!(first.scopes.atomic(OPEN | MASKED), Some(Atomic::Masked));
    let order = first.held.may_take(Hotplug::CLASS, 24, LockContext::Unmasked, Location::caller());
    order.unwrap_err();
}

#[test]
fn a_lock_is_held_by_the_thread_that_took_it() {
    let [(first, first_idle), (second, second_idle)] = two_cpus();
    let thread = ThreadContext::new();
    first.switch(&first_idle, &thread).unwrap();
    first.take(Embedder::CLASS, 8);
    first.take(Hotplug::CLASS, 16);
    first.switch(&thread, &first_idle).unwrap();
    assert_eq!(first.locks(), [] as [&str; 0]);
    // The next thread on that CPU would wait, which is no deadlock, and may take what comes first in the order.
    first.take(Embedder::CLASS, 24);
    second.switch(&second_idle, &thread).unwrap();
    assert_eq!(second.locks(), ["embedding kernel", "cpu hotplug"]);
    let again = second.held.may_take(Embedder::CLASS, 8, LockContext::Unmasked, Location::caller());
    assert!(again.unwrap_err().to_string().starts_with("deadlock: "), "the thread takes its own lock again");
    second.held.give(Embedder::CLASS, 8, LockContext::Unmasked).unwrap();
    second.switch(&thread, &second_idle).unwrap();
    assert_eq!((first.locks(), second.locks()), (vec!["embedding kernel"], vec![]));
    second.switch(&second_idle, &thread).unwrap();
    second.held.give(Hotplug::CLASS, 16, LockContext::Unmasked).unwrap();
    assert_eq!(second.locks(), [] as [&str; 0]);
}

// Failures on request count the calls of a thread, and a report of a CPU that does not answer its time.
#[test]
fn a_thread_keeps_its_number_and_its_time_on_every_cpu() {
    let [(first, first_idle), (second, second_idle)] = two_cpus();
    let (thread, other) = (ThreadContext::new(), ThreadContext::new());
    assert_eq!(first.thread.number(), None, "no thread yet: the CPU stands for itself");
    first.switch(&first_idle, &thread).unwrap();
    let number = first.thread.number().unwrap();
    assert!(number >= 1 << 16 && number != u32::MAX);
    first.thread.waits_since(77);
    first.switch(&thread, &other).unwrap();
    assert_ne!(first.thread.number(), Some(number));
    assert_eq!(first.thread.waiting_since(), 0);
    first.thread.waits_since(99);
    second.switch(&second_idle, &thread).unwrap();
    assert_eq!((second.thread.number(), second.thread.waiting_since()), (Some(number), 77));
    first.switch(&other, &first_idle).unwrap();
    assert_ne!(first.thread.number(), None);
}

#[test]
fn a_switch_that_is_wrong_is_refused_and_changes_nothing() {
    let [(first, first_idle), (second, second_idle)] = two_cpus();
    let (thread, other) = (ThreadContext::new(), ThreadContext::new());
    first.switch(&first_idle, &thread).unwrap();
    first.scopes.enter(Scope::NoFs);
    let number = first.thread.number();
    assert_eq!(second.switch(&second_idle, &thread), Err(SwitchError::Runs(first.id)), "it is not saved yet");
    assert_eq!(second.switch(&thread, &second_idle), Err(SwitchError::NotHere(Some(first.id))));
    assert_eq!(first.switch(&other, &first_idle), Err(SwitchError::NotHere(None)), "another thread runs here");
    assert_eq!(first.switch(&first_idle, &other), Err(SwitchError::NotHere(None)));
    assert_eq!((second.thread.number(), second_idle.runs_on(), second.inside()), (None, None, vec![]));
    assert_eq!((first.thread.number(), thread.runs_on(), first.inside()), (number, Some(first.id), vec![Scope::NoFs]));
    // To go on with the same thread is no switch.
    first.switch(&thread, &thread).unwrap();
    assert_eq!((thread.runs_on(), first.inside()), (Some(first.id), vec![Scope::NoFs]));
    for error in [SwitchError::NotMasked, SwitchError::Runs(first.id), SwitchError::NotHere(None)] {
        assert!(error.to_string().starts_with("no switch of threads: "));
    }
}

/// Any number below `end`, the same ones in every run.
fn any(state: &mut u64, end: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap() % end
}

// A model knows how deep each thread is inside of each scope, wherever it runs.
#[test]
fn every_thread_is_inside_of_what_it_has_entered_after_any_switches() {
    const CPUS: usize = 3;
    const THREADS: usize = 7;
    let cpus: Vec<Cpu> = (0..3).map(Cpu::new).collect();
    let threads: Vec<ThreadContext> = (0..THREADS).map(|_| ThreadContext::new()).collect();
    let mut depths = [[0_u32; Scope::COUNT]; THREADS];
    let mut runs: [usize; CPUS] = [0, 1, 2];
    for (cpu, thread) in cpus.iter().zip(&threads) {
        cpu.switch(&ThreadContext::new(), thread).unwrap();
    }
    let (mut state, mut switches) = (27, 0);
    for _ in 0..20_000 {
        let cpu = any(&mut state, CPUS);
        let scope = SCOPES[any(&mut state, SCOPES.len())];
        let depth = &mut depths[runs[cpu]][scope as usize];
        match any(&mut state, 3) {
            0 if *depth < 5 => {
                *depth += 1;
                cpus[cpu].scopes.enter(scope);
            }
            1 if *depth > 0 => {
                *depth -= 1;
                cpus[cpu].scopes.leave(scope);
            }
            _ => {
                let next = any(&mut state, THREADS);
                let answer = cpus[cpu].switch(&threads[runs[cpu]], &threads[next]);
                match runs.iter().position(|thread| *thread == next) {
                    Some(other) if other != cpu => assert_eq!(answer, Err(SwitchError::Runs(cpus[other].id))),
                    _ => {
                        answer.unwrap();
                        runs[cpu] = next;
                        switches += 1;
                    }
                }
            }
        }
        for (cpu, thread) in cpus.iter().zip(runs) {
            let wanted: Vec<Scope> = SCOPES.into_iter().filter(|scope| depths[thread][*scope as usize] != 0).collect();
            assert_eq!(cpu.inside(), wanted);
            assert_eq!(cpu.scopes.no_wait() & ALWAYS != 0, wanted.iter().any(|scope| scope.forbids_waiting()));
        }
    }
    assert!(switches > 1000, "{switches}");
}

#[test]
fn a_thread_that_has_to_stay_on_its_cpu_is_not_left() {
    let [(cpu, idle), _] = two_cpus();
    let (pinned, next) = (ThreadContext::new(), ThreadContext::new());
    cpu.switch(&idle, &pinned).unwrap();
    cpu.scopes.enter(Scope::Cpu);
    assert_eq!(cpu.switch(&pinned, &next), Err(SwitchError::Pinned));
    assert_eq!((pinned.runs_on(), next.runs_on()), (Some(cpu.id), None), "nothing has changed");
    cpu.scopes.leave(Scope::Cpu);
    cpu.switch(&pinned, &next).unwrap();
}
