//! Bounce slots: what is copied, where to, how many there are.

use super::machine::{BUS, MIB, device, hardware, on_a_machine, ram, with_buffer};
use crate::vmalloc::kernel::RAM;
use quarry::addr::{DmaAddr, PhysAddr, PhysRange, VirtAddr};
use quarry::mm::dma::{Bidirectional, DmaError, DmaHal, FromDevice, MAX_BOUNCE, SLOT_SIZE, ToDevice};
use quarry::mm::page::{Kind, PageMap};
use quarry::mm::zone::PageHal;
use std::sync::atomic::Ordering;

// Behaviour 314
#[test]
fn neighbours_in_a_cache_line_keep_what_they_have() {
    for line in [64, 2048] {
        for seed in 0..20 {
            on_a_machine(line, seed, |dma| {
                let device = device(dma, false);
                let hardware = hardware(dma, &device);
                dma.set_up_bounce(64).unwrap();
                for (offset, size) in [(4, 60), (0, 63), (1, 4096), (line - 1, 2), (line, line + 1)] {
                    with_buffer(dma, (offset, size), |whole, buffer| {
                        whole.fill(dma, |_| 0x11);
                        let bus = raw!(dma.map_single::<FromDevice>(&device, buffer.addr(dma), size)).unwrap();
                        assert!(dma.bounce_stats().used > 0);
                        hardware.write(ram(dma), bus, &vec![0x99; size as usize]).unwrap();
                        // Others write beside it meanwhile.
                        whole.part(0, offset).fill(dma, |_| 0x22);
                        let behind = whole.part(offset + size, 64);
                        behind.fill(dma, |_| 0x33);
                        whole.stir(dma);
                        raw!(dma.unmap_single::<FromDevice>(&device, bus, size)).unwrap();
                        assert!(buffer.read(dma).iter().all(|byte| *byte == 0x99), "{offset} {size}");
                        assert!(whole.part(0, offset).read(dma).iter().all(|byte| *byte == 0x22));
                        assert!(behind.read(dma).iter().all(|byte| *byte == 0x33));
                    });
                }
                // What only the device reads may share lines.
                with_buffer(dma, (4, 60), |_, buffer| {
                    let bus = raw!(dma.map_single::<ToDevice>(&device, buffer.addr(dma), 60)).unwrap();
                    assert_eq!(dma.bounce_stats().used, 0);
                    raw!(dma.unmap_single::<ToDevice>(&device, bus, 60)).unwrap();
                });
            });
        }
    }
}

// Behaviour 316
#[test]
fn what_the_mask_does_not_reach_is_bounced_by_direction() {
    for (seed, coherent) in (0..20).flat_map(|seed| [(seed, false), (seed, true)]) {
        on_a_machine(64, seed, |dma| {
            let mut device = device(dma, coherent);
            dma.set_up_bounce(64).unwrap();
            // The first 8 MiB.
            dma.set_mask(&mut device, BUS + 8 * MIB - 1).unwrap();
            let hardware = hardware(dma, &device);
            let far = ram(dma).linear(PhysAddr::new(RAM + 32 * MIB));
            let buffer = super::machine::Buffer { start: PhysAddr::new(RAM + 32 * MIB), size: 5000 };
            // Both ways: in, and out again.
            buffer.fill(dma, |index| index as u8);
            let bus = raw!(dma.map_single::<Bidirectional>(&device, far, 5000)).unwrap();
            let mut seen = vec![0; 5000];
            hardware.read(ram(dma), bus, &mut seen).unwrap();
            assert!(seen.iter().enumerate().all(|(index, byte)| *byte == index as u8));
            hardware.write(ram(dma), bus, &[0x77; 1000]).unwrap();
            let part = DmaAddr::new(bus.get() + 500);
            raw!(dma.sync_for_cpu::<Bidirectional>(&device, part, 100)).unwrap();
            assert_eq!(buffer.part(499, 102).read(dma)[..3], [0xf3, 0x77, 0x77], "only the part came back");
            assert_eq!(buffer.part(600, 1).read(dma), [600_u64 as u8]);
            buffer.part(500, 4).fill(dma, |_| 0x55);
            raw!(dma.sync_for_device::<Bidirectional>(&device, part, 4)).unwrap();
            let mut seen = [0; 6];
            hardware.read(ram(dma), DmaAddr::new(bus.get() + 499), &mut seen).unwrap();
            assert_eq!(seen, [0x77, 0x55, 0x55, 0x55, 0x55, 0x77]);
            raw!(dma.unmap_single::<Bidirectional>(&device, bus, 5000)).unwrap();
            assert_eq!(buffer.part(0, 1).read(dma), [0x77]);
            assert_eq!(buffer.part(502, 3).read(dma), [0x55, 0x55, 0x77]);
            assert_eq!(buffer.part(4999, 1).read(dma), [4999_u64 as u8]);
            // To the device: nothing comes back.
            buffer.fill(dma, |_| 1);
            let bus = raw!(dma.map_single::<ToDevice>(&device, far, 64)).unwrap();
            hardware.write(ram(dma), bus, &[2; 64]).unwrap();
            raw!(dma.unmap_single::<ToDevice>(&device, bus, 64)).unwrap();
            assert_eq!(buffer.part(0, 1).read(dma), [1]);
            // From the device: nothing goes there, nor is anything of the last mapping left.
            let bus = raw!(dma.map_single::<FromDevice>(&device, far, 64)).unwrap();
            hardware.read(ram(dma), bus, &mut seen).unwrap();
            assert_eq!(seen, [0; 6]);
            hardware.write(ram(dma), bus, &[3; 32]).unwrap();
            raw!(dma.unmap_single::<FromDevice>(&device, bus, 64)).unwrap();
            assert_eq!(buffer.part(30, 4).read(dma), [3, 3, 0, 0]);
        });
    }
}

// Behaviour 317
#[test]
fn slots_that_run_out_are_an_error_and_come_back() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        let at = ram(dma).linear(PhysAddr::new(RAM + 33 * MIB + 4));
        let map = |size| raw!(dma.map_single::<FromDevice>(&device, at, size));
        assert_eq!(map(8), Err(DmaError::NoBounceSlots));
        dma.set_up_bounce(7).unwrap();
        assert_eq!(dma.bounce_stats().slots, 8, "whole pages");
        assert_eq!(dma.set_up_bounce(8), Err(DmaError::AlreadySetUp));
        let mut held: Vec<DmaAddr> = (0..8).map(|_| map(8).unwrap()).collect();
        held.sort();
        assert!(held.windows(2).all(|pair| pair[1].get() - pair[0].get() == SLOT_SIZE));
        assert_eq!(map(8), Err(DmaError::BounceFull(8)));
        let stats = dma.bounce_stats();
        assert_eq!((stats.used, stats.most), (8, 8));
        // Two that are not side by side are no room for two.
        for index in [1, 3] {
            raw!(dma.unmap_single::<FromDevice>(&device, held[index], 8)).unwrap();
        }
        assert_eq!(map(SLOT_SIZE + 1), Err(DmaError::BounceFull(SLOT_SIZE + 1)));
        raw!(dma.unmap_single::<FromDevice>(&device, held[2], 8)).unwrap();
        let three = map(3 * SLOT_SIZE).unwrap();
        assert_eq!(three, held[1]);
        // What is no mapping is refused: another start, another size, a slot that is free.
        let wrong = |bus: DmaAddr, size| raw!(dma.unmap_single::<FromDevice>(&device, bus, size));
        let inside = DmaAddr::new(three.get() + SLOT_SIZE);
        assert_eq!(wrong(inside, 8), Err(DmaError::NotBounced(inside, 8)));
        assert_eq!(wrong(three, 8), Err(DmaError::NotBounced(three, 8)));
        let other = super::machine::device(dma, false);
        raw!(dma.unmap_single::<FromDevice>(&device, three, 3 * SLOT_SIZE)).unwrap();
        assert_eq!(wrong(three, 3 * SLOT_SIZE), Err(DmaError::NotBounced(three, 3 * SLOT_SIZE)));
        let mine = map(64).unwrap();
        let theirs = raw!(dma.map_single::<FromDevice>(&other, at, 64)).unwrap();
        let stolen = raw!(dma.unmap_single::<FromDevice>(&other, mine, 64));
        assert_eq!(stolen, Err(DmaError::NotBounced(mine, 64)), "it is another device's");
        raw!(dma.unmap_single::<FromDevice>(&other, theirs, 64)).unwrap();
        raw!(dma.unmap_single::<FromDevice>(&device, mine, 64)).unwrap();
        for index in [0, 4, 5, 6, 7] {
            raw!(dma.unmap_single::<FromDevice>(&device, held[index], 8)).unwrap();
        }
        assert_eq!(map(MAX_BOUNCE + 1), Err(DmaError::BounceTooLarge(MAX_BOUNCE + 1)));
        assert_eq!(map(MAX_BOUNCE), Err(DmaError::BounceFull(MAX_BOUNCE)));
    });
}

// Behaviour 317
#[test]
fn low_bits_are_kept_and_no_boundary_is_crossed() {
    on_a_machine(64, 1, |dma| {
        let mut device = device(dma, false);
        dma.set_up_bounce(128).unwrap();
        for mask in [0, 0xff, 0x7ff, 0xfff, 0xffff] {
            device.set_min_align_mask(mask).unwrap();
            for low in [1, 0x123, 0xabc, 0xfff, 0x1801] {
                let at = VirtAddr::new(ram(dma).linear(PhysAddr::new(RAM + 33 * MIB)).get() + low);
                let bus = raw!(dma.map_single::<FromDevice>(&device, at, 3000)).unwrap();
                assert_eq!((bus.get() ^ low) & u64::from(mask), 0, "{mask:#x} {low:#x}");
                dma.check().unwrap();
                raw!(dma.unmap_single::<FromDevice>(&device, bus, 3000)).unwrap();
            }
        }
        device.set_min_align_mask(0).unwrap();
        device.set_boundary(0xfff).unwrap();
        let at = ram(dma).linear(PhysAddr::new(RAM + 33 * MIB + 1));
        let mut held = Vec::new();
        while let Ok(bus) = raw!(dma.map_single::<FromDevice>(&device, at, 3000)) {
            assert_eq!(bus.get() & !0xfff, (bus.get() + 2999) & !0xfff);
            held.push(bus);
        }
        assert_eq!(held.len(), 64, "every page has one");
        let refused = raw!(dma.map_single::<FromDevice>(&device, at, 4097));
        assert_eq!(refused, Err(DmaError::BounceTooLarge(4097)));
        held.iter().for_each(|bus| raw!(dma.unmap_single::<FromDevice>(&device, *bus, 3000)).unwrap());
    });
}

// Behaviour 497
#[test]
fn setting_up_undoes_what_it_began() {
    on_a_machine(64, 1, |dma| {
        assert_eq!(dma.set_up_bounce(0), Err(DmaError::Empty));
        assert_eq!(dma.set_up_bounce(u64::MAX), Err(DmaError::TooLarge(u64::MAX)));
        assert!(matches!(dma.set_up_bounce(1 << 20), Err(DmaError::Contiguous(_))), "more than there is");
        let free = dma.hal().pages().free_page_count();
        dma.hal().no_records.store(true, Ordering::Relaxed);
        assert_eq!(dma.set_up_bounce(64), Err(DmaError::NoRecords));
        dma.hal().no_records.store(false, Ordering::Relaxed);
        dma.hal().pages().drain_all();
        assert_eq!(dma.hal().pages().free_page_count(), free);
        dma.set_up_bounce(64).unwrap();
        let map = dma.hal().pages().hal().map();
        let page = |number: u64| map.find(quarry::addr::Pfn::new(RAM / 4096 + number)).unwrap();
        let of_dma = (0..16384).filter(|number| map.get(page(*number)).state().kind() == Kind::Dma);
        assert_eq!(of_dma.count(), 32, "its pages say whose they are");
    });
}

#[test]
fn a_device_that_does_not_reach_the_slots_is_told_so() {
    on_a_machine(64, 1, |dma| {
        dma.set_up_bounce(64).unwrap();
        let window = quarry::mm::dma::DmaWindow {
            bus: DmaAddr::new(0),
            cpu: PhysRange::from_size(PhysAddr::new(RAM + 48 * MIB), MIB).unwrap(),
        };
        let device = dma.device(&quarry::mm::dma::DeviceSpec::new("far").with_window(window).unwrap());
        let at = ram(dma).linear(PhysAddr::new(RAM + 40 * MIB));
        let refused = raw!(dma.map_single::<ToDevice>(&device, at, 64));
        assert!(matches!(refused, Err(DmaError::BounceUnreachable(_))), "{refused:?}");
        assert_eq!(dma.bounce_stats().used, 0);
    });
}
