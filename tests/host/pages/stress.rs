//! Threads that play CPUs, interrupts that come between any two calls, blocks freed where they were not allocated. A bit
//! for each page says whether somebody has it; whoever fails finds the seed in the test's output.

use super::machine::{GIB, MIB, Pages, in_interrupt, on_cpus, run_on};
use super::{Spec, blocks, give_back, order, range, take_all};
use quarry::addr::{CpuId, Order, to_usize};
use quarry::gfp::{Gfp, ZoneType};
use quarry::mm::page::Page;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

const CPUS: u32 = 4;
/// 100,000 and more on all CPUs together.
const STEPS: u64 = if cfg!(miri) { 60 } else { 30_000 };

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What all CPUs know.
struct Shared<'p, 'm> {
    pages: &'p Pages<'m>,
    /// For each page whether somebody has it.
    used: Vec<AtomicBool>,
    /// Blocks that await their free on each CPU.
    mail: Vec<Mutex<Vec<(Page, Order)>>>,
}

impl Shared<'_, '_> {
    fn alloc(&self, gfp: Gfp, order: Order) -> Option<(Page, Order)> {
        let page = self.pages.alloc_pages(gfp | Gfp::NOWARN, order).ok()?;
        for index in 0..1_u32 << order.get() {
            let used = &self.used[(page.index() + index) as usize];
            assert!(!used.swap(true, Ordering::AcqRel), "{:?} was handed out twice", page.offset(index));
        }
        Some((page, order))
    }

    fn free(&self, (page, order): (Page, Order)) {
        for index in 0..1_u32 << order.get() {
            assert!(self.used[(page.index() + index) as usize].swap(false, Ordering::AcqRel));
        }
        raw!(self.pages.free_pages(page, order)).unwrap();
    }

    /// What a handler does: it comes at any time, takes and gives back, and may not wait.
    fn interrupt(&self, random: &mut Random, cpu: u32) {
        in_interrupt(|| {
            let block = self.alloc(Gfp::ATOMIC, order(u8::try_from(random.below(4)).unwrap()));
            let mail = self.mail[cpu as usize].lock().unwrap().pop();
            mail.into_iter().chain(block).for_each(|block| self.free(block));
        });
    }

    fn run(&self, cpu: u32, seed: u64) {
        const FLAGS: [Gfp; 6] = [
            Gfp::ATOMIC,
            Gfp::NOWAIT,
            Gfp::KERNEL,
            Gfp::HIGHUSER_MOVABLE,
            Gfp::KERNEL.union(Gfp::COMP),
            Gfp::NOWAIT.union(Gfp::RECLAIMABLE).union(Gfp::DMA),
        ];
        let mut random = Random(seed.rotate_left(cpu * 7) | 1);
        let mut held = Vec::new();
        for _ in 0..STEPS {
            let bound = if random.below(4) == 0 { 11 } else { 4 };
            let wanted = order(u8::try_from(random.below(bound)).unwrap());
            match random.below(16) {
                0..=6 => held.extend(self.alloc(FLAGS[to_usize(random.below(6))], wanted)),
                7..=11 if !held.is_empty() => self.free(held.swap_remove(to_usize(random.below(held.len() as u64)))),
                12 if !held.is_empty() => {
                    let block = held.swap_remove(to_usize(random.below(held.len() as u64)));
                    self.mail[to_usize(random.below(CPUS.into()))].lock().unwrap().push(block);
                }
                13 => self.interrupt(&mut random, cpu),
                14 if random.below(64) == 0 => self.pages.drain_local(),
                _ => self.pages.answer_requests(),
            }
        }
        held.into_iter().for_each(|block| self.free(block));
    }
}

// Behaviours 81, 104, 106, 120, 142.
#[test]
fn several_cpus_with_interrupts_agree_with_a_bitmap() {
    let seeds: &[u64] = if cfg!(miri) { &[1] } else { &[0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03] };
    for seed in seeds {
        println!("seed {seed:#x}");
        let banks = [range(GIB, 13 * MIB), range(GIB + 16 * MIB, 20 * MIB)];
        Spec::new(&banks).limits(GIB + 8 * MIB).cpus(CPUS).run(|pages| {
            let before = blocks(pages);
            let shared = Shared {
                pages,
                used: (0..36 * 256).map(|_| AtomicBool::new(false)).collect(),
                mail: (0..CPUS).map(|_| Mutex::default()).collect(),
            };
            on_cpus(pages, CPUS, |cpu| shared.run(cpu, *seed));
            for mail in &shared.mail {
                mail.lock().unwrap().drain(..).for_each(|block| shared.free(block));
            }
            // Two ways to count, whoever had the pages last: the counters, and a walk over the lists.
            pages.check().unwrap();
            let listed: u64 = (0..CPUS).map(|cpu| pages.pages_on_lists(CpuId::new(cpu))).sum();
            assert_eq!(pages.free_page_count() + listed, pages.total_pages());
            assert_eq!(blocks(pages), before, "one free block for each maximal run");
            for kind in [ZoneType::Dma, ZoneType::Dma32] {
                let free = pages.free_blocks(kind).unwrap();
                let walked: u64 = (0..=10).map(|o| free.blocks_of(order(o)) << o).sum();
                assert_eq!(pages.zone(kind).unwrap().free, walked);
                let traffic = pages.traffic(kind).unwrap();
                assert_eq!(traffic.allocated, traffic.freed, "{kind:?}");
            }
        });
    }
}

// Behaviour 104: the last pages are on another CPU's lists.
#[test]
fn the_last_pages_come_back_from_another_cpu() {
    Spec::of_size(16 * MIB).without_reserve().cpus(2).run(|pages| {
        run_on(1);
        // The first one takes a page block over, the second fills the list.
        let listed = [0; 2].map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap());
        give_back(pages, listed, Order::ZERO);
        let kept = pages.pages_on_lists(CpuId::new(1));
        assert!(kept > 1);
        run_on(0);
        let mut taken = take_all(pages, Order::ZERO);
        assert_eq!(taken.len() as u64 + kept, pages.total_pages(), "who cannot wait does not get them");
        assert_eq!(pages.free_page_count(), 0);
        // Who may wait does, and nothing is counted twice.
        taken.push(pages.alloc_pages(Gfp::KERNEL | Gfp::MEMALLOC, Order::ZERO).unwrap());
        assert_eq!(pages.pages_on_lists(CpuId::new(1)), 0);
        let here = pages.pages_on_lists(CpuId::BOOT);
        assert_eq!(taken.len() as u64 + pages.free_page_count() + here, pages.total_pages());
        pages.check().unwrap();
        give_back(pages, taken, Order::ZERO);
    });
}

// Behaviour 74: which order holds so many bytes, and what an order holds.
#[test]
fn orders_and_sizes_agree() {
    assert_eq!(Order::new(11), None);
    for o in 0..=10 {
        let order = order(o);
        assert_eq!((order.get(), order.pages(), order.bytes()), (o, 1 << o, 4096 << o));
        assert_eq!(Order::for_bytes(order.bytes()), Some(order));
        assert_eq!(Order::for_bytes(order.bytes() - 1), Some(order));
        assert_eq!(Order::for_bytes(order.bytes() + 1), Order::new(o + 1));
    }
    assert_eq!(Order::for_bytes(1), Some(Order::ZERO));
    assert_eq!(Order::for_bytes(u64::MAX), None);
}
