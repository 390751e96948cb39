//! A bounded exhaustive explorer: every execution of a few short programs on CPUs that reorder as Armv8 permits (Arm ARM B2.3,
//! D8.16), operationally. Memory is one (the architecture is multi-copy atomic); each CPU performs the instructions of
//! its program in any order that barriers, acquires, releases, dependencies and coherence leave; translation is an act of its
//! own, before the access, by a walk or from what the CPU has cached, leaf and table apart, and it may happen as early as
//! the last ISB. At any time a CPU may walk and cache what is valid, or drop it. A fault that was seen is taken later.
//!
//! An invalidation reaches each CPU at some time between its issue and the DSB that waits for it; what that CPU had translated
//! and not yet accessed begins anew. A TLB holds no fault; an instruction that has been translated already, on the CPU that
//! invalidates, keeps its translation until an ISB.
//!
//! Stronger than the architecture: no load takes its value from a store of its own CPU before that reaches memory, a DMB is
//! performed at one moment, and loads with the caches off happen in order.

use std::collections::{BTreeSet, HashSet};

/// A word of memory: data, a table entry, or a page, which is one word. Its number, written into an entry, points to it.
pub(super) type Loc = u8;
/// The entry at which every walk begins.
pub(super) const ROOT: Loc = 0;
pub(super) const LOCS: usize = 8;
/// In a register: the access has ended in a fault.
pub(super) const FAULT: u8 = 0xff;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Store {
        to: Loc,
        value: u8,
        release: bool,
    },
    Load {
        from: Loc,
        into: usize,
    },
    /// A loop that ends when the location holds the value.
    Await {
        from: Loc,
        value: u8,
        acquire: bool,
    },
    /// A load by virtual address, or a store of `store`. With `retry` a first fault is one that the handler looks into and
    /// returns from.
    Access {
        store: Option<u8>,
        into: usize,
        retry: bool,
    },
    Dsb,
    DsbSt,
    Isb,
    /// Of the one virtual address, on every CPU; `last` leaves cached tables alone.
    Tlbi {
        last: bool,
    },
    /// Of one line, to the point of coherency.
    Clean {
        at: Loc,
    },
    Sev,
    /// A loop of load and WFE with the caches off.
    Poll {
        from: Loc,
        value: u8,
    },
    /// A load with the caches off.
    LoadOff {
        from: Loc,
        into: usize,
    },
}

impl Op {
    const fn is_access(self) -> bool {
        matches!(self, Self::Store { .. } | Self::Load { .. } | Self::Await { .. } | Self::Access { .. })
            || self.is_off()
    }

    const fn is_store(self) -> bool {
        matches!(self, Self::Store { .. } | Self::Access { store: Some(_), .. })
    }

    const fn is_off(self) -> bool {
        matches!(self, Self::Poll { .. } | Self::LoadOff { .. })
    }

    /// Nothing of the kind happens before it is certain that the instruction is executed at all.
    const fn has_effect(self) -> bool {
        self.is_store() || matches!(self, Self::Tlbi { .. } | Self::Clean { .. } | Self::Sev | Self::Isb)
    }

    const fn place(self) -> Option<Loc> {
        match self {
            Self::Store { to: at, .. }
            | Self::Load { from: at, .. }
            | Self::Await { from: at, .. }
            | Self::Clean { at } => Some(at),
            _ => None,
        }
    }
}

/// How far an instruction has got.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Step {
    Waiting {
        retried: bool,
    },
    Translated {
        page: Loc,
        retried: bool,
    },
    Faulted {
        retried: bool,
    },
    /// An invalidation that has yet to reach these CPUs.
    Issued {
        cpus: u8,
    },
    /// A poll has read another value.
    Missed,
    Asleep,
    Done,
}

const WAITING: Step = Step::Waiting { retried: false };

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Cpu {
    steps: Vec<Step>,
    /// The cached leaf, the page it points to; 0 for none.
    leaf: Loc,
    /// The cached table, its entry.
    table: Loc,
    event: bool,
}

/// A moment of an execution.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct State {
    pub(super) memory: [u8; LOCS],
    /// Contents of memory behind the caches.
    beyond: [u8; LOCS],
    pub(super) registers: [u8; 4],
    cpus: Vec<Cpu>,
    /// Every program has ended.
    pub(super) ended: bool,
}

impl State {
    /// The leaves that CPUs have cached.
    pub(super) fn leaves(&self) -> impl Iterator<Item = Loc> {
        self.cpus.iter().map(|cpu| cpu.leaf).filter(|leaf| *leaf != 0)
    }
}

/// Programs, one a CPU, each instruction with a name, and what must not be.
#[derive(Clone)]
pub(super) struct Litmus {
    pub(super) programs: Vec<Vec<(&'static str, Op)>>,
    /// Values other than zero at the start.
    pub(super) memory: Vec<(Loc, u8)>,
    /// Levels of the tables: 1 or 2.
    pub(super) levels: u8,
    /// The bad outcome that a state is, if it is one.
    pub(super) bad: fn(&State) -> Option<&'static str>,
}

impl Litmus {
    /// The same without an instruction, or with its acquire or release taken away.
    pub(super) fn without(mut self, name: &str) -> Self {
        let mut found = 0;
        for program in &mut self.programs {
            program.retain_mut(|(label, op)| {
                if *label != name {
                    return true;
                }
                found += 1;
                match op {
                    Op::Store { release: weaker @ true, .. } | Op::Await { acquire: weaker @ true, .. } => {
                        *weaker = false
                    }
                    Op::Access { retry: retry @ true, .. } => *retry = false,
                    Op::Tlbi { last: last @ false } if name.starts_with("any level") => *last = true,
                    _ => return false,
                }
                true
            });
        }
        assert_eq!(found, 1, "one instruction is called {name:?}");
        self
    }

    /// Every execution. Returns all that is wrong with any of them, and how many moments there were.
    pub(super) fn explore(&self) -> (BTreeSet<&'static str>, usize) {
        let (mut wrong, mut ends) = (BTreeSet::new(), false);
        let mut memory = [0; LOCS];
        for &(at, value) in &self.memory {
            memory[usize::from(at)] = value;
        }
        let cpus = self.programs.iter().map(|program| Cpu {
            steps: vec![WAITING; program.len()],
            leaf: 0,
            table: 0,
            event: false,
        });
        let start = State { memory, beyond: memory, registers: [0; 4], cpus: cpus.collect(), ended: false };
        let mut seen = HashSet::from([start.clone()]);
        let mut left = vec![start];
        while let Some(state) = left.pop() {
            let mut next = Vec::new();
            self.instructions(&state, &mut next);
            let mut judged = state.clone();
            judged.ended = state.cpus.iter().all(|cpu| cpu.steps.iter().all(|step| *step == Step::Done));
            ends |= judged.ended;
            wrong.extend((self.bad)(&judged));
            if !judged.ended && next.is_empty() {
                wrong.insert("a CPU waits for ever");
            }
            self.spontaneous(&state, &mut next);
            for state in next {
                assert!(seen.len() < 20_000_000, "too many moments: a shorter program, please");
                if seen.insert(state.clone()) {
                    left.push(state);
                }
            }
        }
        assert!(ends || !wrong.is_empty(), "no execution ends");
        (wrong, seen.len())
    }

    fn op(&self, cpu: usize, index: usize) -> Op {
        self.programs[cpu][index].1
    }

    /// Whether an instruction must wait for an earlier one of its CPU.
    fn is_held_up(&self, state: &State, cpu: usize, index: usize) -> bool {
        let op = self.op(cpu, index);
        (0..index).any(|earlier| {
            let step = state.cpus[cpu].steps[earlier];
            step != Step::Done && {
                let before = self.op(cpu, earlier);
                let waits_for = match op {
                    Op::Dsb => before.is_access() || matches!(before, Op::Tlbi { .. } | Op::Clean { .. }),
                    Op::DsbSt => before.is_store(),
                    Op::Store { release: true, .. } => before.is_access(),
                    _ => false,
                };
                let holds = match before {
                    Op::Dsb | Op::DsbSt | Op::Isb => true,
                    Op::Await { acquire, .. } => acquire && op.is_access() || op.has_effect(),
                    // It may still fault.
                    Op::Access { .. } => {
                        op.has_effect() && !matches!(step, Step::Translated { .. }) || matches!(op, Op::Access { .. })
                    }
                    Op::Poll { .. } => true,
                    _ => false,
                };
                let same = op.place().is_some() && op.place() == before.place();
                waits_for || holds || same || op.is_off() && before.is_off()
            }
        })
    }

    /// The page that a walk comes to; 0 for none.
    fn walk(&self, state: &State, cpu: usize) -> Loc {
        let cached = state.cpus[cpu].table;
        let first = if self.levels == 2 && cached != 0 { cached } else { state.memory[usize::from(ROOT)] };
        if self.levels == 1 || first == 0 { first } else { state.memory[usize::from(first)] }
    }

    /// All that an instruction of some CPU can do next.
    fn instructions(&self, state: &State, next: &mut Vec<State>) {
        for (cpu, program) in self.programs.iter().enumerate() {
            for index in 0..program.len() {
                self.instruction(state, cpu, index, next);
            }
        }
    }

    fn instruction(&self, state: &State, cpu: usize, index: usize, next: &mut Vec<State>) {
        let step = state.cpus[cpu].steps[index];
        let mut to = |step: Step, change: &dyn Fn(&mut State)| {
            let mut state = state.clone();
            state.cpus[cpu].steps[index] = step;
            change(&mut state);
            next.push(state);
        };
        let held_up = self.is_held_up(state, cpu, index);
        match (self.op(cpu, index), step) {
            (_, Step::Done) => {}
            (Op::Access { .. }, Step::Waiting { retried }) => {
                let behind_isb = (0..index)
                    .any(|earlier| self.op(cpu, earlier) == Op::Isb && state.cpus[cpu].steps[earlier] != Step::Done);
                if !behind_isb {
                    let leaf = state.cpus[cpu].leaf;
                    match if leaf == 0 { self.walk(state, cpu) } else { leaf } {
                        0 => to(Step::Faulted { retried }, &|_| {}),
                        page => to(Step::Translated { page, retried }, &|_| {}),
                    }
                }
            }
            (Op::Access { store, into, .. }, Step::Translated { page, .. }) if !held_up => {
                to(Step::Done, &|state| match store {
                    Some(value) => state.memory[usize::from(page)] = value,
                    None => state.registers[into] = state.memory[usize::from(page)],
                });
            }
            (Op::Access { into, retry, .. }, Step::Faulted { retried }) => {
                // It is taken when it is certain that the instruction is executed.
                let certain = (0..index).all(|earlier| {
                    let step = state.cpus[cpu].steps[earlier];
                    let may_branch = matches!(self.op(cpu, earlier), Op::Await { .. } | Op::Access { .. } | Op::Isb);
                    step == Step::Done || !may_branch || matches!(step, Step::Translated { .. })
                });
                let again = retry && !retried;
                let step = if again { Step::Waiting { retried: true } } else { Step::Done };
                if certain {
                    to(step, &|state| {
                        if !again {
                            state.registers[into] = FAULT;
                        }
                        // What follows is fetched anew when the handler returns.
                        restart(&mut state.cpus[cpu].steps[index + 1..]);
                    });
                }
            }
            (Op::Tlbi { .. }, Step::Issued { cpus: 0 }) => to(Step::Done, &|_| {}),
            (Op::Tlbi { last }, Step::Issued { cpus }) => {
                for reached in (0..state.cpus.len()).filter(|reached| cpus >> reached & 1 == 1) {
                    to(Step::Issued { cpus: cpus & !(1 << reached) }, &|state| {
                        let there = &mut state.cpus[reached];
                        there.leaf = 0;
                        if !last {
                            there.table = 0;
                        }
                        if reached != cpu {
                            restart(&mut there.steps);
                        }
                    });
                }
            }
            (Op::Poll { .. }, Step::Missed) => {
                let awake = state.cpus[cpu].event;
                to(if awake { WAITING } else { Step::Asleep }, &|state| state.cpus[cpu].event = false);
            }
            (Op::Poll { .. }, Step::Asleep) => {
                if state.cpus[cpu].event {
                    to(WAITING, &|state| state.cpus[cpu].event = false);
                }
            }
            _ if held_up => {}
            (Op::Poll { from, value }, _) => {
                let done = state.beyond[usize::from(from)] == value;
                to(if done { Step::Done } else { Step::Missed }, &|_| {});
            }
            (Op::LoadOff { from, into }, _) => {
                to(Step::Done, &|state| state.registers[into] = state.beyond[usize::from(from)]);
            }
            (Op::Store { to: at, value, .. }, _) => to(Step::Done, &|state| state.memory[usize::from(at)] = value),
            (Op::Load { from, into }, _) => {
                to(Step::Done, &|state| state.registers[into] = state.memory[usize::from(from)]);
            }
            (Op::Await { from, value, .. }, _) => {
                if state.memory[usize::from(from)] == value {
                    to(Step::Done, &|_| {});
                }
            }
            (Op::Tlbi { .. }, _) => to(Step::Issued { cpus: (1 << state.cpus.len()) - 1 }, &|_| {}),
            (Op::Clean { at }, _) => {
                to(Step::Done, &|state| state.beyond[usize::from(at)] = state.memory[usize::from(at)]);
            }
            (Op::Sev, _) => to(Step::Done, &|state| state.cpus.iter_mut().for_each(|cpu| cpu.event = true)),
            (Op::Dsb | Op::DsbSt | Op::Isb, _) => to(Step::Done, &|_| {}),
            (Op::Access { .. }, _) => {}
        }
    }

    /// All that the machine can do by itself.
    fn spontaneous(&self, state: &State, next: &mut Vec<State>) {
        let mut to = |change: &dyn Fn(&mut State)| {
            let mut state = state.clone();
            change(&mut state);
            next.push(state);
        };
        let translates = self.programs.iter().flatten().any(|(_, op)| matches!(op, Op::Access { .. }));
        for cpu in (0..state.cpus.len()).filter(|_| translates) {
            let Cpu { leaf, table, .. } = state.cpus[cpu];
            let page = self.walk(state, cpu);
            if leaf != 0 {
                to(&|state| state.cpus[cpu].leaf = 0);
            } else if page != 0 {
                to(&|state| state.cpus[cpu].leaf = page);
            }
            if self.levels == 2 {
                let entry = state.memory[usize::from(ROOT)];
                if table != 0 {
                    to(&|state| state.cpus[cpu].table = 0);
                } else if entry != 0 {
                    to(&|state| state.cpus[cpu].table = entry);
                }
            }
        }
        let off = self.programs.iter().flatten().any(|(_, op)| op.is_off());
        for at in (0..LOCS).filter(|&at| off && state.memory[at] != state.beyond[at]) {
            // A line is written back when the cache likes.
            to(&|state| state.beyond[at] = state.memory[at]);
        }
    }
}

/// Drops the translations of instructions that have not accessed anything yet.
fn restart(steps: &mut [Step]) {
    for step in steps {
        if let Step::Translated { retried, .. } = *step {
            *step = Step::Waiting { retried };
        }
    }
}
