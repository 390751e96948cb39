//! The protocols, in the order of their instructions in `src`, and what must not come of them.

use super::machine::{FAULT, Litmus, Loc, Op, ROOT, State};

const TABLE: Loc = 1;
const OLD: Loc = 2;
const NEW: Loc = 3;
const FLAG: Loc = 4;
const ARRIVED: Loc = 5;
const DATA: Loc = 6;
const WORD: Loc = 7;

const fn store(to: Loc, value: u8) -> Op {
    Op::Store { to, value, release: false }
}
const fn release(to: Loc, value: u8) -> Op {
    Op::Store { to, value, release: true }
}
const fn acquire(from: Loc, value: u8) -> Op {
    Op::Await { from, value, acquire: true }
}
const fn read(into: usize) -> Op {
    Op::Access { store: None, into, retry: false }
}
const TLBI: Op = Op::Tlbi { last: true };
const TLBI_ANY_LEVEL: Op = Op::Tlbi { last: false };

/// A new mapping, `PageTable::map` over `tlb::publish`. The CPU that makes it uses it at once; another that hears of it may
/// have the fault of before, which the handler looks into (`spurious`).
pub(super) fn publish() -> Litmus {
    Litmus {
        programs: vec![
            vec![
                ("data", store(NEW, 1)),
                ("entry", store(ROOT, NEW)),
                ("dsb ishst", Op::DsbSt),
                ("isb", Op::Isb),
                ("use", read(0)),
                ("flag", store(FLAG, 1)),
            ],
            vec![
                ("acquire", acquire(FLAG, 1)),
                ("handler of spurious faults", Op::Access { store: None, into: 1, retry: true }),
            ],
        ],
        memory: vec![],
        levels: 1,
        bad: |state| match state.registers {
            _ if !state.ended => None,
            [FAULT, ..] => Some("the CPU that mapped it faults"),
            [_, FAULT, ..] => Some("a CPU that heard of it faults twice"),
            [1, 1, ..] => None,
            _ => Some("a CPU reads old data"),
        },
    }
}

/// A new table, `FreshTable` joined by `Table::link` over `Mmu::publish_table`. Its frame held what looks like an entry.
pub(super) fn publish_table() -> Litmus {
    Litmus {
        programs: vec![
            vec![("leaf", store(TABLE, NEW)), ("dsb ishst", Op::DsbSt), ("link", store(ROOT, TABLE))],
            vec![("use", read(0))],
        ],
        memory: vec![(TABLE, OLD), (OLD, 9)],
        levels: 2,
        bad: |state| {
            let walked = state.leaves().any(|leaf| leaf == OLD) || state.ended && state.registers[0] == 9;
            walked.then_some("a walker sees what the frame held before it was a table")
        },
    }
}

fn foreign(state: &State) -> Option<&'static str> {
    match state.registers[0] {
        _ if !state.ended => None,
        _ if state.memory[usize::from(OLD)] != 9 => Some("a CPU writes into memory that has a new owner"),
        FAULT => None,
        _ => Some("the CPU that unmapped it still reads it"),
    }
}

/// `PageTable::flush_leaf` after an entry was cleared: `order_before_invalidate`, `invalidate`, `complete`. Then the page has a
/// new owner.
pub(super) fn unmap() -> Litmus {
    Litmus {
        programs: vec![
            vec![
                ("entry", store(ROOT, 0)),
                ("dsb ishst", Op::DsbSt),
                ("tlbi", TLBI),
                ("dsb ish", Op::Dsb),
                ("isb", Op::Isb),
                ("new owner", store(OLD, 9)),
                ("use", read(0)),
            ],
            vec![("other", Op::Access { store: Some(7), into: 1, retry: false })],
        ],
        memory: vec![(ROOT, OLD)],
        levels: 1,
        bad: foreign,
    }
}

/// A table taken out by `Gather::flush`, `WalkDepth::AnyLevel`: its frame goes to a new owner, whose data look like an entry.
pub(super) fn unmap_table() -> Litmus {
    Litmus {
        programs: vec![
            vec![
                ("unlink", store(ROOT, 0)),
                ("dsb ishst", Op::DsbSt),
                ("any level: tlbi", TLBI_ANY_LEVEL),
                ("dsb ish", Op::Dsb),
                ("new owner", store(TABLE, NEW)),
            ],
            vec![("other", Op::Access { store: Some(7), into: 1, retry: false })],
        ],
        memory: vec![(ROOT, TABLE), (TABLE, OLD)],
        levels: 2,
        bad: |state| {
            let walked = state.leaves().any(|leaf| leaf == NEW) || state.memory[usize::from(NEW)] == 7;
            walked.then_some("a walker goes through a frame that is no table any more")
        },
    }
}

fn two_translations(state: &State) -> Option<&'static str> {
    let entry = state.memory[usize::from(ROOT)];
    state.leaves().any(|leaf| entry != 0 && leaf != entry).then_some("two translations at once")
}

/// The loop of `break_window::rebuild`.
fn rebuild() -> [(&'static str, Op); 8] {
    [
        ("break", store(ROOT, 0)),
        ("dsb ishst", Op::DsbSt),
        ("tlbi", TLBI),
        ("dsb ish", Op::Dsb),
        ("isb", Op::Isb),
        ("make", store(ROOT, NEW)),
        ("dsb ishst of the make", Op::DsbSt),
        ("isb of the make", Op::Isb),
    ]
}

/// Break-before-make beside a CPU that walks all the time.
pub(super) fn break_before_make() -> Litmus {
    let mut first = rebuild().to_vec();
    first.push(("use", read(0)));
    Litmus {
        programs: vec![first, vec![("other", Op::Access { store: None, into: 1, retry: true })]],
        memory: vec![(ROOT, OLD), (NEW, 1)],
        levels: 1,
        bad: |state| match state.registers[0] {
            _ if two_translations(state).is_some() => two_translations(state),
            _ if !state.ended => None,
            FAULT => Some("the CPU that made it faults"),
            1 => None,
            _ => Some("the CPU that made it uses the old one"),
        },
    }
}

/// `hold::wait_here`, `is_held` and `release` around a break-before-make: the CPU that is held must never see it broken.
pub(super) fn hold() -> Litmus {
    let mut first = vec![("acquire of is_held", acquire(ARRIVED, 1)), ("look", Op::Load { from: DATA, into: 0 })];
    first.extend(rebuild());
    first.push(("release", release(FLAG, 1)));
    Litmus {
        programs: vec![
            first,
            vec![
                ("data", store(DATA, 1)),
                ("before", read(1)),
                ("stlr", release(ARRIVED, 1)),
                ("ldaxr", acquire(FLAG, 1)),
                ("isb of wait_here", Op::Isb),
                ("after", read(2)),
            ],
        ],
        memory: vec![(ROOT, OLD), (NEW, 1), (OLD, 2)],
        levels: 1,
        bad: |state| match state.registers {
            _ if two_translations(state).is_some() => two_translations(state),
            _ if !state.ended => None,
            [_, FAULT, ..] => Some("the other CPU faults before it is held"),
            [_, _, FAULT, _] => Some("the other CPU faults after it was held"),
            [0, ..] => Some("what it did before is not there when it is held"),
            [1, 2, 1, _] => None,
            _ => Some("the other CPU uses the old mapping"),
        },
    }
}

/// `secondary::prepare` and `spin_table::release`, both over `cache::clean_and_invalidate_to_poc`, and firmware that waits with its caches off.
pub(super) fn spin_table() -> Litmus {
    Litmus {
        programs: vec![
            vec![
                ("table", store(DATA, 1)),
                ("clean of the table", Op::Clean { at: DATA }),
                ("dsb behind the table", Op::Dsb),
                ("word", store(WORD, 1)),
                ("clean of the word", Op::Clean { at: WORD }),
                ("dsb behind the word", Op::Dsb),
                ("sev", Op::Sev),
            ],
            vec![("poll", Op::Poll { from: WORD, value: 1 }), ("look", Op::LoadOff { from: DATA, into: 0 })],
        ],
        memory: vec![],
        levels: 1,
        bad: |state| (state.ended && state.registers[0] != 1).then_some("the CPU that starts reads an old table"),
    }
}
