//! Coherent memory out of contiguous areas: that of every device and a device's own, lent to movable pages meanwhile.

use super::machine::{BUS, MIB, Machine, device, on_a_machine_with, ram};
use crate::random::Random;
use crate::vmalloc::kernel::RAM;
use quarry::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use quarry::gfp::Gfp;
use quarry::hal::prot::MemoryType;
use quarry::mm::dma::{CoherentBlock, Device, DmaError, DmaHal};
use quarry::mm::page::{Kind, Page, PageMap};
use quarry::mm::zone::{CmaArea, CmaUsage, PageHal};
use std::sync::atomic::Ordering;

/// Where the area lies, of 16 MiB.
fn area_range() -> PhysRange {
    PhysRange::from_size(PhysAddr::new(RAM + 32 * MIB), 16 * MIB).unwrap()
}

fn add_area(dma: &Machine<'_, '_>, at: PhysRange) -> CmaArea {
    let pages = dma.hal().pages();
    let first = pages.hal().map().find(Pfn::containing(at.start())).unwrap();
    raw!(pages.add_cma(first, u32::try_from(at.size() / PAGE_SIZE).unwrap())).unwrap()
}

/// Runs `f` on a machine with an area for every device.
fn with_area(f: impl FnOnce(&Machine<'_, '_>, CmaArea)) {
    on_a_machine_with(area_range(), 64, 1, |dma| {
        let area = add_area(dma, area_range());
        *dma.hal().area.lock().unwrap() = Some(area);
        f(dma, area);
        dma.trim_reserves();
        dma.hal().pages().drain_all();
        assert_eq!(dma.hal().pages().cma_usage(area), Ok(CmaUsage { free: 4096, lent: 0, taken: 0 }));
    });
}

fn phys(block: CoherentBlock) -> PhysAddr {
    PhysAddr::new(block.bus.get() - BUS + RAM)
}

fn is_in(range: PhysRange, block: CoherentBlock, size: u64) -> bool {
    range.contains_range(PhysRange::from_size(phys(block), size).unwrap())
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

fn taken(dma: &Machine<'_, '_>, area: CmaArea) -> u32 {
    let usage = dma.hal().pages().cma_usage(area).unwrap();
    assert_eq!(usage.free + usage.lent + usage.taken, area.pages());
    usage.taken
}

// Behaviours 297 and 325
#[test]
fn large_coherent_memory_is_from_the_area_zeroed_and_goes_back_to_it() {
    with_area(|dma, area| {
        for coherent in [false, true] {
            let device = device(dma, coherent);
            for size in [3 * MIB, 4 * MIB, 4 * MIB + 1, 5 * MIB, 8 * MIB, 16 * MIB] {
                let block = dma.alloc_coherent(&device, size, Gfp::KERNEL).unwrap();
                let whole = size.next_multiple_of(PAGE_SIZE);
                assert!(is_in(area_range(), block, whole) && holds(block, whole, 0), "{size:#x} {coherent}");
                assert!(block.bus.is_aligned(size.next_power_of_two().min(4 * MIB)));
                fill(block, whole, 0x5a);
                assert!(holds(block, whole, 0x5a));
                let state = |at: u64| {
                    let map = dma.hal().pages().hal().map();
                    let page = map.find(Pfn::containing(PhysAddr::new(phys(block).get() + at))).unwrap();
                    map.get(page).state()
                };
                let memory = if coherent { MemoryType::WriteBack } else { MemoryType::NonCacheable };
                for at in [0, PAGE_SIZE, whole - 1] {
                    assert_eq!((state(at).kind(), state(at).memory_type()), (Kind::Dma, memory));
                }
                dma.check().unwrap();
                dma.hal().pages().check().unwrap();
                for wrong in [size - PAGE_SIZE, size + PAGE_SIZE, PAGE_SIZE] {
                    assert!(free(dma, &device, wrong, block).is_err(), "{wrong:#x} of {size:#x}");
                }
                free(dma, &device, size, block).unwrap();
                assert!(free(dma, &device, size, block).is_err(), "twice");
                assert_eq!(taken(dma, area), 0, "movable pages have it again at once");
                dma.check().unwrap();
            }
            let huge = dma.alloc_coherent(&device, 17 * MIB, Gfp::KERNEL);
            assert_eq!(huge, Err(DmaError::TooLarge(17 * MIB)));
        }
    });
}

#[test]
fn small_coherent_memory_leaves_the_area_alone() {
    with_area(|dma, area| {
        for coherent in [false, true] {
            let device = device(dma, coherent);
            for size in [1, 4096, 65536] {
                let block = dma.alloc_coherent(&device, size, Gfp::KERNEL).unwrap();
                assert!(!is_in(area_range(), block, size));
                free(dma, &device, size, block).unwrap();
            }
            assert_eq!(taken(dma, area), 0);
        }
        // Cached memory that is synced is no other.
        let cold = device(dma, false);
        let block = dma.alloc_noncoherent(&cold, MIB, Gfp::KERNEL).unwrap();
        assert!(is_in(area_range(), block, MIB));
        free(dma, &cold, MIB, block).unwrap();
    });
}

/// Takes every page outside of the area, and gives every other one back.
fn fragment(dma: &Machine<'_, '_>) -> Vec<Page> {
    let pages = dma.hal().pages();
    let mut taken: Vec<Page> =
        std::iter::from_fn(|| pages.alloc_pages(Gfp::MEMALLOC | Gfp::NOWARN, Order::ZERO).ok()).collect();
    let kept = taken.extract_if(.., |page| page.index().is_multiple_of(2)).collect();
    taken.into_iter().for_each(|page| raw!(pages.free_pages(page, Order::ZERO)).unwrap());
    kept
}

// Behaviour 325
#[test]
fn two_megabytes_are_had_when_all_other_memory_is_in_pieces() {
    with_area(|dma, area| {
        let kept = fragment(dma);
        for coherent in [false, true] {
            let device = device(dma, coherent);
            let block = dma.alloc_coherent(&device, 2 * MIB, Gfp::KERNEL | Gfp::NOWARN).unwrap();
            assert!(is_in(area_range(), block, 2 * MIB) && taken(dma, area) == 512);
            // Not for who may not wait; and not for small ones, which are shared out of a reserve.
            let atomic = dma.alloc_coherent(&device, 4 * MIB, Gfp::ATOMIC | Gfp::NOWARN);
            assert!(matches!(atomic, Err(DmaError::Alloc(_))), "{atomic:?}");
            free(dma, &device, 2 * MIB, block).unwrap();
            let small = dma.alloc_coherent(&device, 4096, Gfp::KERNEL | Gfp::NOWARN).unwrap();
            assert_eq!(is_in(area_range(), small, 4096), !coherent, "a reserve is two megabytes in a row");
            free(dma, &device, 4096, small).unwrap();
            dma.trim_reserves();
        }
        kept.into_iter().for_each(|page| raw!(dma.hal().pages().free_pages(page, Order::ZERO)).unwrap());
    });
}

#[test]
fn a_devices_own_area_serves_it_alone_and_first() {
    let reserved = PhysRange::from_size(PhysAddr::new(RAM + 32 * MIB), 8 * MIB).unwrap();
    on_a_machine_with(reserved, 64, 1, |dma| {
        let area = add_area(dma, reserved);
        *dma.hal().area.lock().unwrap() = Some(area);
        let own = |coherent| {
            let mut device = device(dma, coherent);
            device.set_area(Some(area));
            device
        };
        // Nobody else's: the machine has no area for every device.
        let lent = dma.hal().area.lock().unwrap().take();
        for coherent in [false, true] {
            let (owner, other) = (own(coherent), device(dma, coherent));
            let first = dma.alloc_coherent(&owner, 4096, Gfp::KERNEL).unwrap();
            let second = dma.alloc_coherent(&other, 4096, Gfp::KERNEL).unwrap();
            let third = dma.alloc_coherent(&owner, 8192, Gfp::KERNEL).unwrap();
            let large = dma.alloc_coherent(&other, 4 * MIB, Gfp::KERNEL).unwrap();
            assert!(is_in(reserved, first, 4096) && is_in(reserved, third, 8192), "{coherent}");
            assert!(!is_in(reserved, second, 4096) && !is_in(reserved, large, 4 * MIB), "{coherent}");
            free(dma, &other, 4 * MIB, large).unwrap();
            // Used up: from elsewhere.
            let mut held = Vec::new();
            loop {
                let block = dma.alloc_coherent(&owner, MIB, Gfp::KERNEL).unwrap();
                held.push(block);
                if !is_in(reserved, block, MIB) {
                    break;
                }
            }
            assert!((6..=9).contains(&held.len()), "{}", held.len());
            held.into_iter().for_each(|block| free(dma, &owner, MIB, block).unwrap());
            free(dma, &owner, 4096, first).unwrap();
            free(dma, &other, 4096, second).unwrap();
            free(dma, &owner, 8192, third).unwrap();
            dma.check().unwrap();
            dma.trim_reserves();
            assert_eq!(taken(dma, area), 0);
        }
        *dma.hal().area.lock().unwrap() = lent;
    });
}

// Behaviour 497
#[test]
fn what_fails_in_the_middle_goes_back_to_the_area() {
    with_area(|dma, area| {
        let pages = dma.hal().pages();
        let cold = device(dma, false);
        dma.hal().no_uncache.store(true, Ordering::Relaxed);
        for size in [MIB, 3 * MIB, 6 * MIB] {
            assert!(dma.alloc_coherent(&cold, size, Gfp::KERNEL).is_err());
            assert_eq!(taken(dma, area), 0);
        }
        dma.hal().no_uncache.store(false, Ordering::Relaxed);
        pages.drain_all();
        let free_pages = pages.free_page_count();
        for coherent in [false, true] {
            let device = device(dma, coherent);
            for size in [MIB, 3 * MIB, 8 * MIB] {
                for kth in 0..4 {
                    pages.hal().until_failure.store(kth, Ordering::Relaxed);
                    let result = dma.alloc_coherent(&device, size, Gfp::KERNEL | Gfp::NOWARN);
                    pages.hal().until_failure.store(u64::MAX, Ordering::Relaxed);
                    if let Ok(block) = result {
                        free(dma, &device, size, block).unwrap();
                    }
                    dma.trim_reserves();
                    pages.drain_all();
                    assert_eq!((pages.free_page_count(), taken(dma, area)), (free_pages, 0), "{size:#x}, {kth}");
                }
            }
        }
        // A mask that the area lies beyond.
        let mut near = device(dma, true);
        dma.set_coherent_mask(&mut near, BUS + 32 * MIB - 1).unwrap();
        if let Ok(block) = dma.alloc_coherent(&near, MIB, Gfp::KERNEL) {
            assert!(!is_in(area_range(), block, MIB));
            free(dma, &near, MIB, block).unwrap();
        }
        assert_eq!(taken(dma, area), 0);
    });
}

// Promises 2, 8 and 9
#[test]
fn random_allocations_beside_movable_pages_agree_with_a_model() {
    with_area(|dma, area| {
        let devices = [device(dma, false), device(dma, true)];
        let pages = dma.hal().pages();
        let mut random = Random(11);
        let mut live: Vec<(usize, CoherentBlock, u64, u8)> = Vec::new();
        let mut movable: Vec<Page> = Vec::new();
        for round in 0..if cfg!(miri) { 10_u32 } else { 600 } {
            match random.below(4) {
                0 if live.len() < 20 => {
                    let which = random.below(2) as usize;
                    let size = 1 + random.below(5 * MIB);
                    let gfp = if random.below(3) == 0 { Gfp::ATOMIC } else { Gfp::KERNEL };
                    let Ok(block) = dma.alloc_coherent(&devices[which], size, gfp | Gfp::NOWARN) else { continue };
                    let bytes = size.next_multiple_of(PAGE_SIZE);
                    assert!(holds(block, bytes, 0));
                    fill(block, bytes, round as u8);
                    live.push((which, block, size, round as u8));
                }
                1 if !live.is_empty() => {
                    let (which, block, size, byte) = live.swap_remove(random.below(live.len() as u64) as usize);
                    assert!(holds(block, size.next_multiple_of(PAGE_SIZE), byte), "nobody else wrote there");
                    free(dma, &devices[which], size, block).unwrap();
                }
                2 => movable
                    .extend((0..300).filter_map(|_| pages.alloc_pages(Gfp::NOWAIT | Gfp::MOVABLE, Order::ZERO).ok())),
                _ => movable.drain(..).for_each(|page| raw!(pages.free_pages(page, Order::ZERO)).unwrap()),
            }
            if round % 50 == 0 {
                dma.check().unwrap();
                pages.check().unwrap();
                let _ = taken(dma, area);
            }
        }
        live.into_iter().for_each(|(which, block, size, _)| free(dma, &devices[which], size, block).unwrap());
        movable.into_iter().for_each(|page| raw!(pages.free_pages(page, Order::ZERO)).unwrap());
    });
}

// Behaviour 326
#[test]
fn nothing_stale_comes_back_over_what_a_device_writes_to_an_area() {
    for seed in 0..if cfg!(miri) { 1 } else { 8 } {
        on_a_machine_with(area_range(), 64, seed, |dma| {
            let area = add_area(dma, area_range());
            *dma.hal().area.lock().unwrap() = Some(area);
            let pages = dma.hal().pages();
            // Dirty lines of the previous owner.
            let lent: Vec<Page> =
                std::iter::from_fn(|| pages.alloc_pages(Gfp::NOWAIT | Gfp::MOVABLE, Order::ZERO).ok()).collect();
            for page in &lent {
                let at = ram(dma).linear(pages.hal().map().phys(*page));
                raw!(at.as_ptr::<u8>().write_bytes(0xdd, 256));
            }
            lent.into_iter().for_each(|page| raw!(pages.free_pages(page, Order::ZERO)).unwrap());
            let cold = device(dma, false);
            let block = dma.alloc_coherent(&cold, 6 * MIB, Gfp::KERNEL).unwrap();
            fill(block, 256, 0x11);
            ram(dma).stir_range(PhysRange::from_size(phys(block), 4096).unwrap());
            assert!(holds(block, 256, 0x11), "a dirty line was written back");
            free(dma, &cold, 6 * MIB, block).unwrap();
        });
    }
}
