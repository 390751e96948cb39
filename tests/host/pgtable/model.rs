//! Random sequences of every operation against a model that knows pages only, with all CPUs reading and writing in
//! between, on machines of each kind. After each step the tables' invariants, the machine's oracle and every
//! translation are checked.

use super::rig::{BASE, PAGE, RAM, Rig, phys, range, va};
use proptest::prelude::*;
use quarry::arch::host::{Config, FaultKind, Visibility, Who};
use quarry::hal::mmu::BbmLevel;
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::mm::pgtable::{Change, LivePolicy, MapFlags, PgtableError, UnmapFlags};
use std::collections::BTreeMap;

/// Pages in the window that everything happens in: three tables.
const WINDOW: u64 = 3 * 512;

#[derive(Clone, Copy, Debug)]
enum Op {
    Map { shift: u64, prot: Prot, flags: MapFlags },
    Unmap { flags: UnmapFlags },
    Protect { access: Access },
    Retype { memory: MemoryType },
    Carve,
    Collapse { flags: MapFlags },
    Touch { cpu: u32 },
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::ReadOnly), Just(Access::ReadWrite), Just(Access::Execute)]
}

fn map_flags() -> impl Strategy<Value = MapFlags> {
    (0..4_u32).prop_map(MapFlags::from_bits_truncate)
}

fn op() -> impl Strategy<Value = Op> {
    let normal =
        prop_oneof![Just(MemoryType::WriteBack), Just(MemoryType::NonCacheable), Just(MemoryType::WriteThrough)];
    prop_oneof![
        4 => (prop_oneof![3 => Just(0), 1 => Just(16), 1 => 1..600_u64], access(), map_flags())
            .prop_map(|(shift, access, flags)| Op::Map { shift, prot: Prot::kernel(access), flags }),
        3 => any::<bool>().prop_map(|keep| Op::Unmap {
            flags: if keep { UnmapFlags::KEEP_TABLES } else { UnmapFlags::empty() },
        }),
        2 => access().prop_map(|access| Op::Protect { access }),
        1 => normal.prop_map(|memory| Op::Retype { memory }),
        1 => Just(Op::Carve),
        2 => map_flags().prop_map(|flags| Op::Collapse { flags }),
        3 => (0..3_u32).prop_map(|cpu| Op::Touch { cpu }),
    ]
}

/// First page and number of pages: mostly round, so that blocks and groups occur.
fn pages() -> impl Strategy<Value = (u64, u64)> {
    let start = prop_oneof![2 => (0..3_u64).prop_map(|index| index * 512), 2 => (0..96_u64).prop_map(|index| index * 16), 1 => 0..WINDOW];
    let count = prop_oneof![2 => (1..=3_u64).prop_map(|count| count * 512), 2 => (1..=8_u64).prop_map(|count| count * 16), 2 => 1..40_u64];
    (start, count).prop_map(|(start, count)| (start, count.min(WINDOW - start)))
}

fn config() -> impl Strategy<Value = Config> {
    let visibility = prop_oneof![Just(Visibility::Late), any::<u64>().prop_map(Visibility::Mixed)];
    let base = prop_oneof![
        Just(Config::CORTEX_A72),
        Just(Config::MAX),
        Just(Config { bbm: BbmLevel::Two, ..Config::CORTEX_A72 }),
        Just(Config { range_invalidation: true, ..Config::CORTEX_A72 }),
    ];
    (base, visibility).prop_map(|(base, visibility)| Config { cpus: 3, visibility, ..base })
}

/// What a page is mapped to.
type Model = BTreeMap<u64, (u64, Prot)>;

struct Run {
    rig: Rig,
    model: Model,
    live: LivePolicy,
}

impl Run {
    fn new(config: Config) -> Self {
        let live = if config.bbm == BbmLevel::Two { LivePolicy::BbmLevel2 } else { LivePolicy::BreakBeforeMake };
        Self { rig: Rig::kernel(config), model: Model::new(), live }
    }

    fn mapped(&self, start: u64, count: u64) -> Vec<u64> {
        self.model.range(start..start + count).map(|(&page, _)| page).collect()
    }

    fn first_hole(&self, start: u64, count: u64) -> Option<u64> {
        (start..start + count).find(|page| !self.model.contains_key(page))
    }

    /// Promises CPUs that some pages stay as they are while an operation changes `count` from `start` on: those next to them,
    /// and at the edges of their blocks. Where a block has to be broken to be split, nobody is promised a page of it.
    fn promise_the_rest(&self, start: u64, count: u64) {
        let (first, end) = match self.live {
            LivePolicy::BbmLevel2 => (start, start + count),
            _ => (start & !511, (start + count).next_multiple_of(512)),
        };
        let around = [start & !511, (start + count).next_multiple_of(512)];
        let near = [first, end].into_iter().chain(around).flat_map(|page| [page.wrapping_sub(1), page]);
        for page in near.chain([0, WINDOW - 1]).filter(|page| *page < first || (end..WINDOW).contains(page)) {
            self.rig.machine.promise(range(BASE + page * PAGE, PAGE));
        }
    }

    fn step(&mut self, op: Op, start: u64, count: u64) {
        let Rig { table, frames, .. } = &self.rig;
        let span = range(BASE + start * PAGE, count * PAGE);
        let at = |page: u64| va(BASE + page * PAGE);
        match op {
            Op::Map { shift, prot, flags } => {
                let to = RAM + (start + shift) * PAGE;
                let expected = match self.mapped(start, count).first() {
                    Some(&page) => Err(PgtableError::Overlap(at(page))),
                    None => Ok(()),
                };
                assert_eq!(self.rig.map(span.start().get(), span.size(), to, prot, flags), expected);
                if expected.is_ok() {
                    self.model.extend((0..count).map(|page| (start + page, (to + page * PAGE, prot))));
                }
            }
            Op::Unmap { flags } => {
                raw!(table.carve(frames, span, self.live)).expect("frames");
                let mut gather = table.gather(frames);
                raw!(table.unmap(span, flags, &mut gather)).expect("carved");
                gather.flush();
                for page in self.mapped(start, count) {
                    let (to, _) = self.model.remove(&page).expect("just listed");
                    // Another page may map the same memory.
                    if !self.model.values().any(|&(other, _)| other == to) {
                        self.rig.machine.give_away(phys(to, PAGE));
                    }
                }
            }
            Op::Protect { access } => {
                let change = Change::access(access);
                self.change(span, start, count, change, self.live, |prot| prot.with_access(access).expect("Normal"));
            }
            Op::Retype { memory } => {
                let change = Change::memory(memory);
                let policy = LivePolicy::BreakBeforeMake;
                self.change(span, start, count, change, policy, |prot| prot.with_memory(memory).expect("Normal"));
            }
            Op::Carve => raw!(table.carve(frames, span, self.live)).expect("frames"),
            Op::Collapse { flags } => {
                raw!(table.collapse(frames, span, flags, self.live)).expect("supported");
            }
            Op::Touch { cpu } => (start..start + count).step_by(7).for_each(|page| self.touch(cpu, page)),
        }
    }

    fn change(
        &mut self,
        span: quarry::addr::VirtRange,
        start: u64,
        count: u64,
        change: Change,
        policy: LivePolicy,
        model: impl Fn(Prot) -> Prot,
    ) {
        raw!(self.rig.table.carve(&self.rig.frames, span, self.live)).expect("frames");
        let expected = match self.first_hole(start, count) {
            Some(page) => Err(PgtableError::NotMapped(va(BASE + page * PAGE))),
            None => Ok(()),
        };
        assert_eq!(raw!(self.rig.table.protect(span, change, policy)), expected);
        if expected.is_ok() {
            self.model.range_mut(start..start + count).for_each(|(_, page)| page.1 = model(page.1));
        }
    }

    /// A CPU reads, writes and executes a page, and gets what the model says.
    fn touch(&self, cpu: u32, page: u64) {
        let cpu = self.rig.cpu(cpu);
        let addr = va(BASE + page * PAGE + page % 512 * 8);
        let kind = |fault: quarry::arch::host::Fault| fault.kind;
        match self.model.get(&page) {
            None => assert!(matches!(cpu.load(addr, Who::Kernel).map_err(kind), Err(FaultKind::Translation(_)))),
            Some(&(to, prot)) => {
                let allowed = |allowed: bool| if allowed { Ok(()) } else { Err(FaultKind::Permission) };
                assert_eq!(cpu.store(addr, Who::Kernel, page).map_err(kind), allowed(prot.is_writable()));
                assert_eq!(cpu.load(addr, Who::Kernel).map(drop).map_err(kind), Ok(()));
                assert_eq!(cpu.load(addr, Who::User).map(drop).map_err(kind), Err(FaultKind::Permission));
                let fetched = cpu.fetch(addr, Who::Kernel).map_err(kind);
                assert_eq!(fetched.map(|phys| phys.get() & !(PAGE - 1)), allowed(prot.is_executable()).map(|()| to));
            }
        }
    }

    fn verify(&self) {
        let census = self.rig.check();
        assert_eq!(census.pages + 512 * census.pmd_blocks, self.model.len() as u64);
        for page in 0..WINDOW {
            let found = self.rig.table.translate(va(BASE + page * PAGE));
            let expected = self.model.get(&page).copied();
            assert_eq!(found.map(|found| (found.phys.get(), found.leaf.prot)), expected, "page {page}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn tables_and_tlbs_agree_with_the_model_after_every_step(
        config in config(),
        steps in proptest::collection::vec((op(), pages()), 1..24),
    ) {
        let mut run = Run::new(config);
        for (op, (start, count)) in steps {
            run.promise_the_rest(start, count);
            run.step(op, start, count);
            run.rig.machine.withdraw_promises();
            run.verify();
        }
        run.step(Op::Unmap { flags: UnmapFlags::empty() }, 0, WINDOW);
        run.verify();
        prop_assert!(run.rig.check().tables <= 4);
    }

    // Behaviour 500: with allocations failing at any point, nothing is half done.
    #[test]
    fn failing_allocations_leave_the_model_valid(
        config in config(),
        steps in proptest::collection::vec((op(), pages(), 0..3_u64), 1..16),
    ) {
        let mut run = Run::new(config);
        for (op, (start, count), successes) in steps {
            let span = range(BASE + start * PAGE, count * PAGE);
            run.rig.machine.fail_allocation_after(Some(successes));
            if let Op::Map { shift, prot, flags } = op {
                let to = RAM + (start + shift) * PAGE;
                let mapped = run.rig.map(span.start().get(), span.size(), to, prot, flags);
                if mapped.is_ok() {
                    run.model.extend((0..count).map(|page| (start + page, (to + page * PAGE, prot))));
                }
            } else {
                let carved = raw!(run.rig.table.carve(&run.rig.frames, span, run.live));
                run.rig.machine.fail_allocation_after(None);
                prop_assert!(matches!(carved, Ok(()) | Err(PgtableError::NoFrame)));
                run.step(op, start, count);
            }
            run.rig.machine.fail_allocation_after(None);
            run.verify();
        }
    }
}
