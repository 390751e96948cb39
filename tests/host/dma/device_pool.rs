//! Pools of coherent memory that the device tree sets aside: a device's own and no other, the default one first.

use super::machine::{BUS, MIB, Machine, device, on_a_machine_with, ram};
use crate::random::Random;
use crate::vmalloc::kernel::RAM;
use quarry::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use quarry::gfp::Gfp;
use quarry::mm::dma::{CoherentBlock, Device, DmaError, MAX_DEVICE_POOLS, PoolId};
use std::sync::atomic::Ordering;

/// Memory that nobody has: 4 MiB.
fn reserved() -> PhysRange {
    PhysRange::from_size(PhysAddr::new(RAM + 32 * MIB), 4 * MIB).unwrap()
}

fn part(from: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(reserved().start().get() + from), size).unwrap()
}

fn add(dma: &Machine<'_, '_>, range: PhysRange, is_default: bool) -> Result<PoolId, DmaError> {
    ram(dma).set_cacheable(range, false);
    raw!(dma.add_pool(range, ram(dma).uncached(range.start()), is_default))
}

fn with_pools(f: impl FnOnce(&Machine<'_, '_>)) {
    on_a_machine_with(reserved(), 64, 1, f);
}

fn is_in(range: PhysRange, block: CoherentBlock) -> bool {
    range.contains(PhysAddr::new(block.bus.get() - BUS + RAM))
}

fn fill(block: CoherentBlock, size: u64, byte: u8) {
    raw!(block.addr.as_ptr::<u8>().write_bytes(byte, size as usize));
}

fn holds(block: CoherentBlock, size: u64, byte: u8) -> bool {
    raw!(std::slice::from_raw_parts(block.addr.as_ptr::<u8>(), size as usize)).iter().all(|found| *found == byte)
}

fn free(dma: &Machine<'_, '_>, device: &Device, size: u64, block: CoherentBlock) -> Result<(), DmaError> {
    raw!(dma.free_coherent(device, size, block))
}

#[test]
fn a_device_with_a_pool_has_coherent_memory_from_there_and_from_nowhere_else() {
    with_pools(|dma| {
        let range = part(0, MIB);
        let id = add(dma, range, false).unwrap();
        assert_eq!((dma.pool_at(range.start()), dma.pool_at(part(PAGE_SIZE, 1).start())), (Some(id), None));
        for coherent in [false, true] {
            let (mut owner, other) = (device(dma, coherent), device(dma, coherent));
            owner.set_pool(Some(id));
            let mut held = Vec::new();
            for wc in [false, true] {
                let block = if wc {
                    dma.alloc_wc(&owner, 5000, Gfp::KERNEL).unwrap()
                } else {
                    dma.alloc_coherent(&owner, 5000, Gfp::ATOMIC).unwrap()
                };
                assert!(is_in(range, block) && holds(block, 8192, 0) && block.bus.is_aligned(8192));
                assert_eq!(block.addr, ram(dma).uncached(PhysAddr::new(block.bus.get() - BUS + RAM)));
                fill(block, 8192, 3);
                held.push((block, 5000));
            }
            while let Ok(block) = dma.alloc_coherent(&owner, 64 << 10, Gfp::KERNEL) {
                assert!(is_in(range, block));
                held.push((block, 64 << 10));
            }
            assert_eq!(held.len(), 2 + 15);
            let full = dma.alloc_coherent(&owner, 64 << 10, Gfp::KERNEL);
            assert_eq!(full, Err(DmaError::PoolFull(64 << 10)), "though there is memory elsewhere");
            assert_eq!(dma.alloc_coherent(&owner, 2 * MIB, Gfp::KERNEL), Err(DmaError::PoolFull(2 * MIB)));
            assert_eq!(dma.alloc_coherent(&owner, 0, Gfp::KERNEL), Err(DmaError::Empty));
            let elsewhere = dma.alloc_coherent(&other, 64 << 10, Gfp::KERNEL).unwrap();
            assert!(!is_in(range, elsewhere));
            free(dma, &other, 64 << 10, elsewhere).unwrap();
            // Streaming mappings and memory that is synced are as before.
            let synced = dma.alloc_noncoherent(&owner, 4096, Gfp::KERNEL).unwrap();
            assert!(!is_in(range, synced));
            free(dma, &owner, 4096, synced).unwrap();
            assert_eq!(dma.pool_pages(id), (256, 4 + 15 * 16));
            dma.check().unwrap();
            held.into_iter().for_each(|(block, size)| free(dma, &owner, size, block).unwrap());
            assert_eq!(dma.pool_pages(id), (256, 0));
            // Without it the device is as any other.
            owner.set_pool(None);
            let block = dma.alloc_coherent(&owner, 4096, Gfp::KERNEL).unwrap();
            assert!(!is_in(range, block));
            free(dma, &owner, 4096, block).unwrap();
            dma.trim_reserves();
        }
    });
}

#[test]
fn the_default_pool_comes_first_for_devices_that_are_not_coherent() {
    with_pools(|dma| {
        let (range, own) = (part(0, 64 << 10), part(MIB, 64 << 10));
        let id = add(dma, range, true).unwrap();
        let own_id = add(dma, own, false).unwrap();
        let (cold, warm) = (device(dma, false), device(dma, true));
        let mut owner = device(dma, false);
        owner.set_pool(Some(own_id));
        let blocks: Vec<_> = (0..17).map(|_| dma.alloc_coherent(&cold, 4096, Gfp::KERNEL).unwrap()).collect();
        assert!(blocks[..16].iter().all(|block| is_in(range, *block)) && !is_in(range, blocks[16]));
        assert_eq!(dma.pool_pages(id), (16, 16));
        let cached = dma.alloc_coherent(&warm, 4096, Gfp::KERNEL).unwrap();
        let theirs = dma.alloc_coherent(&owner, 4096, Gfp::KERNEL).unwrap();
        assert!(!is_in(range, cached) && is_in(own, theirs));
        // Not by a device with another pool, and not of a pool by a device without one.
        assert!(free(dma, &owner, 4096, blocks[0]).is_err());
        assert!(free(dma, &cold, 4096, theirs).is_err());
        free(dma, &owner, 4096, theirs).unwrap();
        free(dma, &warm, 4096, cached).unwrap();
        blocks.into_iter().for_each(|block| free(dma, &cold, 4096, block).unwrap());
        assert_eq!((dma.pool_pages(id), dma.pool_pages(own_id)), ((16, 0), (16, 0)));
    });
}

#[test]
fn what_is_no_allocation_of_a_pool_is_not_freed() {
    with_pools(|dma| {
        let id = add(dma, part(0, MIB), false).unwrap();
        let mut owner = device(dma, false);
        owner.set_pool(Some(id));
        let block = dma.alloc_coherent(&owner, 8192, Gfp::KERNEL).unwrap();
        let next = dma.alloc_coherent(&owner, 8192, Gfp::KERNEL).unwrap();
        let at = |offset: u64| CoherentBlock {
            addr: VirtAddr::new(block.addr.get() + offset),
            bus: DmaAddr::new(block.bus.get() + offset),
        };
        let other_bus = CoherentBlock { bus: DmaAddr::new(block.bus.get() + 4096), ..block };
        for (named, size) in [
            (at(4096), 4096),
            (at(1), 8192),
            (block, 4096),
            (block, 16384),
            (block, 0),
            (block, u64::MAX),
            (other_bus, 8192),
            (at(MIB), 4096),
        ] {
            let refused = free(dma, &owner, size, named);
            assert_eq!(refused, Err(DmaError::NotAllocated(named.addr, named.bus, size)));
        }
        free(dma, &owner, 8192, block).unwrap();
        assert!(free(dma, &owner, 8192, block).is_err(), "twice");
        free(dma, &owner, 8192, next).unwrap();
    });
}

#[test]
fn what_cannot_be_a_pool_is_refused() {
    with_pools(|dma| {
        for bad in [part(0, 0), part(1, 4096), part(0, 4097), part(4095, 1)] {
            assert_eq!(add(dma, bad, false), Err(DmaError::BadPool(bad)));
        }
        dma.hal().no_records.store(true, Ordering::Relaxed);
        assert_eq!(add(dma, part(0, 4096), false), Err(DmaError::NoRecords));
        dma.hal().no_records.store(false, Ordering::Relaxed);
        add(dma, part(0, 8192), true).unwrap();
        assert_eq!(add(dma, part(4096, 8192), false), Err(DmaError::AlreadySetUp), "it has some of it");
        assert_eq!(add(dma, part(MIB, 8192), true), Err(DmaError::AlreadySetUp), "one default");
        for index in 1..MAX_DEVICE_POOLS as u64 {
            add(dma, part(index * 8192, 8192), false).unwrap();
        }
        assert_eq!(add(dma, part(MIB, 8192), false), Err(DmaError::TooManyPools));
        dma.check().unwrap();
        // Beyond the reach of a device.
        let mut near = device(dma, false);
        dma.set_coherent_mask(&mut near, BUS + 32 * MIB - 1).unwrap();
        near.set_pool(dma.pool_at(part(8192, 1).start()));
        assert_eq!(dma.alloc_coherent(&near, 4096, Gfp::KERNEL), Err(DmaError::PoolFull(4096)));
    });
}

// Promises 2 and 8
#[test]
fn random_allocations_of_a_pool_of_odd_size_agree_with_a_model() {
    for pages in [1, 3, 63, 64, 65, 100, 200, 1024] {
        with_pools(|dma| {
            let id = add(dma, part(0, pages * PAGE_SIZE), false).unwrap();
            let mut owner = device(dma, false);
            owner.set_pool(Some(id));
            let mut random = Random(pages);
            let mut live: Vec<(CoherentBlock, u64, u8)> = Vec::new();
            for round in 0..if cfg!(miri) { 10_u32 } else { 400 } {
                if random.below(5) < 3 {
                    let magnitude = random.below(19);
                    let size = 1 + random.below(1 << magnitude);
                    let Ok(block) = dma.alloc_coherent(&owner, size, Gfp::KERNEL) else { continue };
                    let bytes = size.next_multiple_of(PAGE_SIZE);
                    assert!(is_in(part(0, pages * PAGE_SIZE - bytes + 1), block) && holds(block, bytes, 0));
                    fill(block, bytes, round as u8);
                    live.push((block, size, round as u8));
                } else if !live.is_empty() {
                    let (block, size, byte) = live.swap_remove(random.below(live.len() as u64) as usize);
                    assert!(holds(block, size.next_multiple_of(PAGE_SIZE), byte), "nobody else wrote there");
                    free(dma, &owner, size, block).unwrap();
                }
                let used: u64 = live.iter().map(|(_, size, _)| size.div_ceil(PAGE_SIZE)).sum();
                assert_eq!(dma.pool_pages(id), (pages, used));
                dma.check().unwrap();
            }
            live.into_iter().for_each(|(block, size, _)| free(dma, &owner, size, block).unwrap());
            // All of it in one piece again.
            let whole = 1 << pages.ilog2();
            let block = dma.alloc_coherent(&owner, whole * PAGE_SIZE, Gfp::KERNEL).unwrap();
            free(dma, &owner, whole * PAGE_SIZE, block).unwrap();
        });
    }
}

// Behaviour 326
#[test]
fn what_the_firmware_left_in_the_caches_does_not_come_later() {
    for seed in 0..if cfg!(miri) { 1 } else { 8 } {
        on_a_machine_with(reserved(), 64, seed, |dma| {
            let range = part(0, 16 << 10);
            let at = ram(dma).linear(range.start());
            raw!(at.as_ptr::<u8>().write_bytes(0xdd, 16 << 10));
            let id = add(dma, range, false).unwrap();
            let mut owner = device(dma, false);
            owner.set_pool(Some(id));
            let block = dma.alloc_coherent(&owner, 16 << 10, Gfp::KERNEL).unwrap();
            fill(block, 16 << 10, 0x11);
            ram(dma).stir_range(range);
            assert!(holds(block, 16 << 10, 0x11), "a dirty line was written back");
            free(dma, &owner, 16 << 10, block).unwrap();
        });
    }
}

// The checker is worth something only if it fails.
#[test]
fn damaged_bits_of_a_pool_are_found() {
    with_pools(|dma| {
        let id = add(dma, part(0, 100 * PAGE_SIZE), false).unwrap();
        let mut owner = device(dma, false);
        owner.set_pool(Some(id));
        let block = dma.alloc_coherent(&owner, 3 * PAGE_SIZE, Gfp::KERNEL).unwrap();
        let given = dma.hal().given.lock().unwrap().clone();
        assert_eq!(given.len(), 2, "busy bits, and first pages");
        for (which, word, bit) in [(0, 0, 1), (0, 0, 9), (0, 1, 63), (1, 0, 40), (0, 1, 36)] {
            let (start, bytes) = given[which];
            assert!(word * 8 < bytes);
            let place = std::ptr::with_exposed_provenance_mut::<u64>(start + word * 8);
            let flip = || raw!(*place ^= 1_u64 << bit);
            flip();
            assert_eq!(dma.check().err().map(|broken| broken.tag), Some("DPL-1"), "{which} {word} {bit}");
            flip();
        }
        dma.check().unwrap();
        free(dma, &owner, 3 * PAGE_SIZE, block).unwrap();
    });
}
