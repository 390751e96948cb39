//! Random operations against a bitmap: what is allocated is what the model says, everything else is free, and every
//! invariant holds. More than 100,000 operations a run; proptest prints the seed of a run that fails.

use super::machine::{GIB, MIB, Pages, run_on};
use super::{Spec, order, range};
use proptest::prelude::*;
use quarry::addr::{Order, PAGE_SIZE, Pfn, PhysAddr};
use quarry::gfp::Gfp;
use quarry::mm::page::{Kind, Page, PageMap};
use quarry::mm::zone::{PageBatch, PageHal};

const CASES: u32 = if cfg!(miri) { 2 } else { 128 };
const OPS: usize = if cfg!(miri) { 40 } else { 1000 };
const CPUS: u32 = 3;

#[derive(Clone, Debug)]
enum Op {
    Alloc { order: u8, flags: usize },
    Free(usize),
    FreeWrong { which: usize, order: u8 },
    FreeInside { which: usize, offset: u32 },
    Bulk { flags: usize },
    Split(usize),
    Share(usize),
    Exact { bytes: u64 },
    Contig { from: u32, pages: u32 },
    FindContig { pages: u32 },
    Drain { all: bool },
    Cpu(u32),
    Careful(bool),
}

/// Flags of allocations: every mobility and zone, and how deep they reach.
const FLAGS: [Gfp; 8] = [
    Gfp::KERNEL,
    Gfp::ATOMIC,
    Gfp::HIGHUSER_MOVABLE,
    Gfp::KERNEL.union(Gfp::RECLAIMABLE),
    Gfp::KERNEL.union(Gfp::DMA),
    Gfp::KERNEL.union(Gfp::COMP),
    Gfp::KERNEL.union(Gfp::COLD),
    Gfp::MEMALLOC.union(Gfp::ACCOUNT),
];

fn op() -> impl Strategy<Value = Op> {
    let order = prop_oneof![6 => 0..=3_u8, 2 => 4..=8_u8, 1 => 9..=10_u8];
    prop_oneof![
        20 => (order, 0..FLAGS.len()).prop_map(|(order, flags)| Op::Alloc { order, flags }),
        18 => any::<usize>().prop_map(Op::Free),
        2 => (any::<usize>(), 0..=10_u8).prop_map(|(which, order)| Op::FreeWrong { which, order }),
        2 => (any::<usize>(), 1..1024_u32).prop_map(|(which, offset)| Op::FreeInside { which, offset }),
        1 => (0..FLAGS.len()).prop_map(|flags| Op::Bulk { flags }),
        2 => any::<usize>().prop_map(Op::Split),
        2 => any::<usize>().prop_map(Op::Share),
        2 => (1..5 * MIB).prop_map(|bytes| Op::Exact { bytes }),
        1 => (0..5120_u32, 1..1500_u32).prop_map(|(from, pages)| Op::Contig { from, pages }),
        1 => (1..2000_u32).prop_map(|pages| Op::FindContig { pages }),
        1 => any::<bool>().prop_map(|all| Op::Drain { all }),
        2 => (0..CPUS).prop_map(Op::Cpu),
        1 => any::<bool>().prop_map(Op::Careful),
    ]
}

/// What the test knows.
struct Model {
    /// Live blocks: first page, order, references.
    live: Vec<(Page, u8, u32)>,
    /// For each page whether it belongs to a live block.
    used: Vec<bool>,
}

impl Model {
    fn take(&mut self, page: Page, order: u8) {
        for index in 0..1_u32 << order {
            let used = &mut self.used[(page.index() + index) as usize];
            assert!(!*used, "{:?} was handed out twice", page.offset(index));
            *used = true;
        }
        self.live.push((page, order, 1));
    }

    fn give(&mut self, which: usize) {
        let (page, order, _) = self.live.swap_remove(which);
        for index in 0..1_u32 << order {
            self.used[(page.index() + index) as usize] = false;
        }
    }

    fn pick(&self, which: usize) -> Option<usize> {
        (!self.live.is_empty()).then(|| which % self.live.len())
    }

    fn pages(&self) -> u64 {
        self.used.iter().filter(|used| **used).count() as u64
    }
}

fn apply(pages: &Pages<'_>, model: &mut Model, op: &Op) {
    match *op {
        Op::Alloc { order: o, flags } => {
            if let Ok(page) = pages.alloc_pages(FLAGS[flags] | Gfp::NOWARN, order(o)) {
                assert!(page.is_aligned(o));
                model.take(page, o);
            }
        }
        Op::Free(which) => {
            let Some(which) = model.pick(which) else { return };
            let (page, o, references) = model.live[which];
            raw!(pages.free_pages(page, order(o))).unwrap();
            match references {
                1 => model.give(which),
                _ => model.live[which].2 -= 1,
            }
        }
        Op::FreeWrong { which, order: o } => {
            let Some(which) = model.pick(which) else { return };
            let (page, right, _) = model.live[which];
            assert!(o == right || raw!(pages.free_pages(page, order(o))).is_err());
        }
        Op::FreeInside { which, offset } => {
            let Some(which) = model.pick(which) else { return };
            let (page, o, _) = model.live[which];
            let offset = offset % (1 << o);
            assert!(offset == 0 || raw!(pages.free_pages(page.offset(offset), Order::ZERO)).is_err());
        }
        Op::Bulk { flags } => {
            let mut batch = PageBatch::<70>::new();
            let _ = pages.alloc_pages_bulk(FLAGS[flags] | Gfp::NOWARN, &mut batch);
            while let Some(page) = batch.pop() {
                model.take(page, 0);
            }
        }
        Op::Split(which) => {
            let Some(which) = model.pick(which) else { return };
            let (page, o, references) = model.live[which];
            let plain = references == 1 && !pages.head(page).unwrap().1.is_compound();
            assert_eq!(raw!(pages.split_page(page, order(o))).is_ok(), plain);
            if plain {
                // An accounted page may be among them; each keeps the mark.
                model.give(which);
                (0..1 << o).for_each(|index| model.take(page.offset(index), 0));
            }
        }
        Op::Share(which) => {
            let Some(which) = model.pick(which) else { return };
            let (page, o, _) = model.live[which];
            pages.get_page(page.offset((1 << o) - 1)).unwrap();
            model.live[which].2 += 1;
        }
        Op::Exact { bytes } => {
            if let Ok(page) = pages.alloc_pages_exact(Gfp::KERNEL | Gfp::NOWARN, bytes) {
                let count = u32::try_from(bytes.div_ceil(PAGE_SIZE)).unwrap();
                (0..count).for_each(|index| model.take(page.offset(index), 0));
            }
        }
        Op::Contig { from, pages: count } => {
            let first = pages.hal().map().find(Pfn::containing(PhysAddr::new(GIB + u64::from(from) * PAGE_SIZE)));
            let Some(first) = first else { return };
            if pages.alloc_contig_range(first, count, Gfp::KERNEL).is_ok() {
                (0..count).for_each(|index| model.take(first.offset(index), 0));
            }
        }
        Op::FindContig { pages: count } => {
            if let Ok(first) = pages.alloc_contig_pages(count, 1, Gfp::KERNEL) {
                (0..count).for_each(|index| model.take(first.offset(index), 0));
            }
        }
        Op::Drain { all: true } => pages.drain_all(),
        Op::Drain { all: false } => pages.drain_local(),
        Op::Cpu(cpu) => {
            let here = quarry::hal::cpu::PerCpu::cpu(pages.hal()).get();
            pages.hal().set_online(here, false);
            pages.hal().set_online(cpu, true);
            run_on(cpu);
        }
        Op::Careful(careful) => pages.set_careful(careful),
    }
}

/// Every page is in use exactly if the model says so.
fn compare(pages: &Pages<'_>, model: &Model) {
    let map = pages.hal().map();
    for (index, used) in model.used.iter().enumerate() {
        let pfn = Pfn::new(GIB / PAGE_SIZE + index as u64);
        let Some(page) = map.find(pfn) else { continue };
        let (_, state) = pages.head(page).unwrap();
        assert_eq!(state.kind().is_allocated(), *used, "{page:?}");
        assert!(*used || matches!(state.kind(), Kind::Free | Kind::Pcp | Kind::Reserved | Kind::Hole));
    }
    pages.check().unwrap();
    let listed: u64 = (0..CPUS).map(|cpu| pages.pages_on_lists(quarry::addr::CpuId::new(cpu))).sum();
    assert_eq!(pages.free_page_count() + listed + model.pages(), pages.total_pages());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    // Behaviours 81, 120, 142.
    #[test]
    fn random_operations_agree_with_a_bitmap(ops in prop::collection::vec(op(), OPS)) {
        let banks = [range(GIB, 9 * MIB), range(GIB + 11 * MIB, 9 * MIB)];
        let spec = Spec::new(&banks).reserve(range(GIB + 5 * MIB, 20 * PAGE_SIZE)).limits(GIB + 4 * MIB).cpus(CPUS);
        spec.run(|pages| {
            let mut model = Model { live: Vec::new(), used: vec![false; 5 * 1024] };
            let whole = super::blocks(pages);
            for (number, op) in ops.iter().enumerate() {
                apply(pages, &mut model, op);
                if number % 100 == 99 {
                    compare(pages, &model);
                }
            }
            while let Some((page, o, references)) = model.live.first().copied() {
                for _ in 0..references {
                    raw!(pages.free_pages(page, order(o))).unwrap();
                }
                model.give(0);
            }
            pages.set_careful(false);
            compare(pages, &model);
            assert_eq!(pages.accounted_pages(), 0);
            // Promise 1: every page is free again and in its largest possible block.
            assert_eq!(super::blocks(pages), whole);
        });
    }
}
