//! Coherent memory: sizes, reserves, what each frame is meanwhile, what is refused.

use super::machine::{BUS, MIB, SIZE, device, on_a_machine, ram};
use crate::random::Random;
use crate::vmalloc::kernel::RAM;
use quarry::addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use quarry::gfp::Gfp;
use quarry::hal::prot::{MemoryType, Prot};
use quarry::mm::dma::{CoherentBlock, DmaError, DmaHal};
use quarry::mm::page::{Kind, PageMap};
use quarry::mm::vmalloc::{VmFlags, VmallocError};
use quarry::mm::zone::{FreeError, PageHal};
use std::sync::atomic::Ordering;

fn fill(block: CoherentBlock, size: u64, byte: u8) {
    raw!(block.addr.as_ptr::<u8>().write_bytes(byte, size as usize));
}

fn holds(block: CoherentBlock, size: u64, byte: u8) -> bool {
    raw!(std::slice::from_raw_parts(block.addr.as_ptr::<u8>(), size as usize)).iter().all(|found| *found == byte)
}

// Behaviours 297 and 301
#[test]
fn coherent_memory_is_zero_and_has_whole_pages() {
    on_a_machine(64, 1, |dma| {
        for coherent in [false, true] {
            let device = device(dma, coherent);
            for size in [1, 4096, 4097, 8192, 12288, 65536, 2 * MIB, 3 * MIB, 4 * MIB] {
                let block = dma.alloc_coherent(&device, size, Gfp::KERNEL).unwrap();
                let whole = size.next_multiple_of(PAGE_SIZE);
                assert!(holds(block, whole, 0), "{size}");
                fill(block, whole, 0xa5);
                let align = whole.next_power_of_two();
                assert!(block.bus.is_aligned(align.min(2 * MIB)) && block.addr.is_aligned(PAGE_SIZE), "{size}");
                let other = dma.alloc_coherent(&device, size, Gfp::KERNEL).unwrap();
                assert!(holds(other, whole, 0), "{size} {coherent}");
                assert!(holds(block, whole, 0xa5), "{size} {coherent}");
                raw!(dma.free_coherent(&device, size, block)).unwrap();
                raw!(dma.free_coherent(&device, size, other)).unwrap();
                dma.check().unwrap();
            }
            assert_eq!(dma.alloc_coherent(&device, 0, Gfp::KERNEL), Err(DmaError::Empty));
            let huge = dma.alloc_coherent(&device, 4 * MIB + 1, Gfp::KERNEL);
            assert_eq!(huge, Err(DmaError::TooLarge(4 * MIB + 1)));
        }
    });
}

// Behaviour 326
#[test]
fn a_frame_that_is_uncached_says_so_and_nobody_else_maps_or_frees_it() {
    on_a_machine(64, 1, |dma| {
        let (cold, warm) = (device(dma, false), device(dma, true));
        let state = |block: CoherentBlock| {
            let phys = PhysAddr::new(block.bus.get() - BUS + RAM);
            let pages = dma.hal().pages();
            let page = pages.hal().map().find(Pfn::containing(phys)).unwrap();
            (page, pages.head(page).unwrap().1)
        };
        let uncached = dma.alloc_coherent(&cold, 4096, Gfp::KERNEL).unwrap();
        let cached = dma.alloc_coherent(&warm, 4096, Gfp::KERNEL).unwrap();
        let combined = dma.alloc_wc(&warm, 4096, Gfp::KERNEL).unwrap();
        let synced = dma.alloc_noncoherent(&cold, 4096, Gfp::KERNEL).unwrap();
        let types =
            [uncached, combined, cached, synced].map(|block| (state(block).1.kind(), state(block).1.memory_type()));
        let (nc, wb) = (MemoryType::NonCacheable, MemoryType::WriteBack);
        assert_eq!(types, [(Kind::Dma, nc), (Kind::Dma, nc), (Kind::Dma, wb), (Kind::Dma, wb)]);
        assert_eq!(uncached.addr, ram(dma).uncached(PhysAddr::new(uncached.bus.get() - BUS + RAM)));
        assert_eq!(cached.addr, ram(dma).linear(PhysAddr::new(cached.bus.get() - BUS + RAM)));
        for block in [uncached, cached] {
            let (page, _) = state(block);
            let mapped = dma.hal().space.vmap(&[page], VmFlags::empty(), Prot::KERNEL_RW);
            assert!(
                matches!(mapped, Err(VmallocError::BadPage(FreeError::Claimed { kind: Kind::Dma, .. }))),
                "{mapped:?}"
            );
            let freed = raw!(dma.hal().pages().free_pages(page, quarry::addr::Order::ZERO));
            assert!(freed.is_err(), "{freed:?}");
        }
        for (device, block) in [(&cold, uncached), (&warm, combined), (&warm, cached), (&cold, synced)] {
            raw!(dma.free_coherent(device, 4096, block)).unwrap();
        }
        // Given back, it is ordinary memory again.
        assert_eq!(dma.reserved_pages(), (512, 0));
        assert_eq!(dma.trim_reserves(), 512);
    });
}

#[test]
fn what_was_not_allocated_so_is_not_freed() {
    on_a_machine(64, 1, |dma| {
        for coherent in [false, true] {
            let device = device(dma, coherent);
            let block = dma.alloc_coherent(&device, 8192, Gfp::KERNEL).unwrap();
            let next = dma.alloc_coherent(&device, 8192, Gfp::KERNEL).unwrap();
            let at = |offset: u64| CoherentBlock {
                addr: VirtAddr::new(block.addr.get() + offset),
                bus: DmaAddr::new(block.bus.get() + offset),
            };
            let other_bus = CoherentBlock { bus: DmaAddr::new(block.bus.get() + 4096), ..block };
            let elsewhere = CoherentBlock { addr: VirtAddr::new(0x1000), ..block };
            let wrong = [
                (at(4096), 4096),
                (at(1), 8192),
                (block, 4096),
                (block, 16384),
                (other_bus, 8192),
                (elsewhere, 8192),
                (block, 0),
                (block, u64::MAX),
            ];
            for (named, size) in wrong {
                let refused = raw!(dma.free_coherent(&device, size, named));
                assert_eq!(refused, Err(DmaError::NotAllocated(named.addr, named.bus, size)), "{coherent}");
            }
            raw!(dma.free_coherent(&device, 8192, block)).unwrap();
            let twice = raw!(dma.free_coherent(&device, 8192, block));
            assert_eq!(twice, Err(DmaError::NotAllocated(block.addr, block.bus, 8192)));
            raw!(dma.free_coherent(&device, 8192, next)).unwrap();
        }
    });
}

// Behaviour 316
#[test]
fn coherent_memory_is_where_the_coherent_mask_reaches() {
    on_a_machine(64, 1, |dma| {
        for coherent in [false, true] {
            let mut device = device(dma, coherent);
            dma.set_coherent_mask(&mut device, BUS + 6 * MIB - 1).unwrap();
            let mut held = Vec::new();
            let error = loop {
                match dma.alloc_coherent(&device, 64 << 10, Gfp::KERNEL | Gfp::NOWARN) {
                    Ok(block) => held.push(block),
                    Err(error) => break error,
                }
                let last = held.last().unwrap().bus.get();
                assert!(last + (64 << 10) <= BUS + 6 * MIB);
            };
            assert!(matches!(error, DmaError::Unreachable(_) | DmaError::Alloc(_)), "{error}");
            for block in held {
                raw!(dma.free_coherent(&device, 64 << 10, block)).unwrap();
            }
            dma.trim_reserves();
        }
    });
}

// Behaviour 497
#[test]
fn a_reserve_that_cannot_be_made_leaves_nothing_behind() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        let pages = dma.hal().pages();
        let free = pages.free_page_count();
        dma.hal().no_uncache.store(true, Ordering::Relaxed);
        let refused = dma.alloc_coherent(&device, 4096, Gfp::KERNEL);
        assert!(matches!(refused, Err(DmaError::Alias(_))), "{refused:?}");
        dma.hal().no_uncache.store(false, Ordering::Relaxed);
        pages.drain_all();
        assert_eq!(pages.free_page_count(), free);
        for kth in 0..6 {
            pages.hal().until_failure.store(kth, Ordering::Relaxed);
            let result = dma.alloc_coherent(&device, 4096, Gfp::KERNEL | Gfp::NOWARN);
            pages.hal().until_failure.store(u64::MAX, Ordering::Relaxed);
            if let Ok(block) = result {
                raw!(dma.free_coherent(&device, 4096, block)).unwrap();
            }
            dma.trim_reserves();
            pages.drain_all();
            assert_eq!(pages.free_page_count(), free, "after failure {kth}");
        }
    });
}

#[test]
fn reserves_made_beforehand_serve_where_none_can_be_made() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        dma.set_up_reserves(&device, 3 * MIB).unwrap();
        assert_eq!(dma.reserved_pages(), (1024, 0));
        dma.hal().no_uncache.store(true, Ordering::Relaxed);
        let blocks: Vec<_> = (0..1024).map(|_| dma.alloc_coherent(&device, 4096, Gfp::ATOMIC).unwrap()).collect();
        assert!(dma.alloc_coherent(&device, 4096, Gfp::ATOMIC).is_err());
        let mut addresses: Vec<_> = blocks.iter().map(|block| block.addr).collect();
        addresses.sort();
        assert!(addresses.windows(2).all(|pair| pair[0] != pair[1]));
        blocks.into_iter().for_each(|block| raw!(dma.free_coherent(&device, 4096, block)).unwrap());
        assert_eq!(dma.trim_reserves(), 0, "they stay");
    });
}

#[test]
fn random_allocations_agree_with_a_model() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        let mut random = Random(7);
        let mut live: Vec<(CoherentBlock, u64, u8)> = Vec::new();
        for round in 0..if cfg!(miri) { 20_u32 } else { 1500 } {
            if random.below(5) < 3 && live.len() < 60 {
                let size = 1 << random.below(19);
                let size = size + random.below(size);
                let Ok(block) = dma.alloc_coherent(&device, size, Gfp::KERNEL | Gfp::NOWARN) else { continue };
                let bytes = size.next_multiple_of(PAGE_SIZE);
                assert!(holds(block, bytes, 0));
                fill(block, bytes, round as u8);
                live.push((block, size, round as u8));
            } else if !live.is_empty() {
                let (block, size, byte) = live.swap_remove(random.below(live.len() as u64) as usize);
                assert!(holds(block, size.next_multiple_of(PAGE_SIZE), byte), "nobody else wrote there");
                raw!(dma.free_coherent(&device, size, block)).unwrap();
            }
            if round % 50 == 0 {
                dma.check().unwrap();
                dma.trim_reserves();
            }
        }
        live.into_iter().for_each(|(block, size, _)| raw!(dma.free_coherent(&device, size, block)).unwrap());
        assert!(dma.reserved_pages().0 * PAGE_SIZE < SIZE);
    });
}
