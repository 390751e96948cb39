//! Pools of blocks: Linux's rows (`mm/dmapool_test.c`), random histories, misuse.

use super::machine::{Machine, device, on_a_machine};
use crate::alloc::TheSystem;
use crate::random::Random;
use quarry::addr::{DmaAddr, VirtAddr};
use quarry::gfp::Gfp;
use quarry::mm::dma::{CoherentBlock, Device, DmaError, DmaHal, DmaPool, PoolError, PoolShape};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

type Pool<'d, 'k, 'm> = DmaPool<'d, 'k, super::machine::Rig<'k, 'm>, TheSystem>;

fn shape(size: u64, align: u64, boundary: u64) -> PoolShape {
    PoolShape { size, align, boundary, poison: false }
}

fn pool<'d, 'k, 'm>(dma: &'d Machine<'k, 'm>, device: &'d Device, shape: PoolShape) -> Pool<'d, 'k, 'm> {
    Pool::new(dma, device, "test", shape).unwrap()
}

// Behaviour 321
#[test]
fn every_block_is_aligned_and_crosses_no_boundary() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        for (size, align, boundary) in
            [(16, 16, 0), (64, 64, 0), (256, 256, 0), (1024, 1024, 0), (4096, 4096, 0), (68, 32, 4096), (100, 4, 128)]
        {
            let pool = pool(dma, &device, shape(size, align, boundary));
            let blocks = (4096 / size * 512).clamp(1024, 8192);
            for round in 0..if cfg!(miri) { 1 } else { 3 } {
                let mut held: Vec<CoherentBlock> = (0..blocks).map(|_| pool.alloc(Gfp::KERNEL).unwrap()).collect();
                assert_eq!(pool.blocks().0, blocks);
                pool.check().unwrap();
                held.sort_by_key(|block| block.addr);
                for pair in held.windows(2) {
                    assert!(pair[0].addr.get() + size <= pair[1].addr.get(), "two blocks meet");
                }
                for block in &held {
                    assert!(block.bus.is_aligned(align) && block.addr.is_aligned(align));
                    let last = block.bus.get() + size - 1;
                    assert!(boundary == 0 || block.bus.get() / boundary == last / boundary, "{size} {round}");
                }
                held.into_iter().for_each(|block| raw!(pool.free(block)).unwrap());
                assert_eq!(pool.blocks().0, 0);
            }
            pool.destroy().unwrap();
            dma.check().unwrap();
        }
    });
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        for wrong in [
            shape(0, 8, 0),
            shape(8, 3, 0),
            shape(8, 0, 0),
            shape(64, 8, 32),
            shape(64, 8, 100),
            shape(8, 8192, 0),
            shape(u64::MAX, 8, 0),
        ] {
            assert_eq!(Pool::new(dma, &device, "wrong", wrong).err(), Some(PoolError::BadShape), "{wrong:?}");
        }
    });
}

// Behaviour 322
#[test]
fn wrong_frees_are_named_and_poison_shows_a_late_write() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        let pool = pool(dma, &device, PoolShape { poison: true, ..shape(96, 32, 0) });
        let (first, second) = (pool.alloc(Gfp::KERNEL).unwrap(), pool.alloc(Gfp::KERNEL).unwrap());
        let at = |offset: u64| CoherentBlock {
            addr: VirtAddr::new(first.addr.get() + offset),
            bus: DmaAddr::new(first.bus.get() + offset),
        };
        let free = |block| raw!(pool.free(block));
        for wrong in [
            at(32),
            at(1 << 30),
            CoherentBlock { bus: DmaAddr::ZERO, ..first },
            at(42 * 96),
            CoherentBlock { addr: VirtAddr::ZERO, ..first },
        ] {
            assert_eq!(free(wrong), Err(PoolError::NotOfPool(wrong)));
        }
        free(first).unwrap();
        assert_eq!(free(first), Err(PoolError::DoubleFree(first)));
        // The device goes on writing.
        raw!(first.addr.as_ptr::<u8>().wrapping_add(77).write_volatile(1));
        assert_eq!(pool.alloc(Gfp::KERNEL), Ok(first));
        assert_eq!(dma.hal().overwritten.load(Ordering::Relaxed), 1);
        let zeroed = pool.alloc(Gfp::KERNEL | Gfp::ZERO).unwrap();
        assert!((0..96).all(|index| raw!(zeroed.addr.as_ptr::<u8>().wrapping_add(index).read_volatile()) == 0));
        assert_eq!(dma.hal().overwritten.load(Ordering::Relaxed), 1);
        [first, second, zeroed].into_iter().for_each(|block| free(block).unwrap());
        pool.destroy().unwrap();
    });
}

// Behaviour 322
#[test]
fn a_pool_with_blocks_in_use_says_so_when_it_ends() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        let pool = pool(dma, &device, shape(2048, 2048, 0));
        let held: Vec<_> = (0..3).map(|_| pool.alloc(Gfp::KERNEL).unwrap()).collect();
        raw!(pool.free(held[0])).unwrap();
        raw!(pool.free(held[1])).unwrap();
        assert_eq!(pool.destroy(), Err(PoolError::InUse(1)));
        // One chunk of the two is lost; the test gives it back.
        assert_eq!(dma.reserved_pages().1, 1);
        let chunk = CoherentBlock { addr: held[2].addr.align_down(4096), bus: DmaAddr::new(held[2].bus.get() & !4095) };
        raw!(dma.free_coherent(&device, 4096, chunk)).unwrap();
    });
}

// Behaviour 497
#[test]
fn a_pool_without_memory_says_so_and_goes_on_later() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        let pool = pool(dma, &device, shape(64, 64, 0));
        dma.hal().no_uncache.store(true, Ordering::Relaxed);
        assert!(matches!(pool.alloc(Gfp::KERNEL), Err(PoolError::Memory(DmaError::Alias(_)))));
        dma.hal().no_uncache.store(false, Ordering::Relaxed);
        assert_eq!(pool.blocks(), (0, 0));
        let block = pool.alloc(Gfp::KERNEL).unwrap();
        assert_eq!(pool.blocks(), (1, 64));
        raw!(pool.free(block)).unwrap();
        let _ = dma.hal().pages();
    });
}

#[test]
fn random_histories_agree_with_a_model() {
    for (seed, (size, align, boundary)) in
        [(16, 16, 0), (68, 32, 4096), (300, 4, 1024), (5000, 8, 0)].into_iter().enumerate()
    {
        on_a_machine(64, 1, |dma| {
            let device = device(dma, true);
            let pool = pool(dma, &device, shape(size, align, boundary));
            let mut random = Random(seed as u64 + 1);
            let mut live: BTreeMap<VirtAddr, CoherentBlock> = BTreeMap::new();
            for _ in 0..if cfg!(miri) { 50 } else { 3000 } {
                if random.below(20) < 11 {
                    let block = pool.alloc(Gfp::KERNEL).unwrap();
                    let before = live.range(..=block.addr).next_back();
                    assert!(before.is_none_or(|(addr, _)| addr.get() + size <= block.addr.get()));
                    let behind = live.range(block.addr..).next();
                    assert!(behind.is_none_or(|(addr, _)| block.addr.get() + size <= addr.get()));
                    live.insert(block.addr, block);
                } else if let Some(block) = live.values().nth(random.below(live.len().max(1) as u64) as usize).copied()
                {
                    live.remove(&block.addr);
                    raw!(pool.free(block)).unwrap();
                    assert_eq!(raw!(pool.free(block)), Err(PoolError::DoubleFree(block)));
                }
                assert_eq!(pool.blocks().0, live.len() as u64);
            }
            pool.check().unwrap();
            live.into_values().for_each(|block| raw!(pool.free(block)).unwrap());
        });
    }
}
