//! Restricted pools: a device that is confined to a pool works, and hears of no other memory.

use super::machine::{BUS, MIB, Machine, device, on_a_machine_with, ram, with_buffer};
use crate::random::Random;
use crate::vmalloc::kernel::RAM;
use quarry::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange};
use quarry::arch::host::{SimDevice, Window};
use quarry::gfp::Gfp;
use quarry::mm::dma::{
    Bidirectional, Device, DmaError, FromDevice, MAX_RESTRICTED_POOLS, RestrictedPool, SLOT_SIZE, SgEntry, ToDevice,
};
use std::sync::atomic::Ordering;

/// Memory that nobody has: 4 MiB.
fn reserved() -> PhysRange {
    PhysRange::from_size(PhysAddr::new(RAM + 32 * MIB), 4 * MIB).unwrap()
}

fn part(from: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(reserved().start().get() + from), size).unwrap()
}

/// A pool of 64 KiB for coherent memory and 32 slots behind it.
fn pool(dma: &Machine<'_, '_>) -> RestrictedPool {
    let coherent = part(0, 64 << 10);
    ram(dma).set_cacheable(coherent, false);
    let id = raw!(dma.add_pool(coherent, ram(dma).uncached(coherent.start()), false)).unwrap();
    raw!(dma.add_restricted_pool(part(64 << 10, 64 << 10), id)).unwrap()
}

/// A restricted device.
fn restricted(dma: &Machine<'_, '_>, coherent: bool) -> Device {
    let mut device = device(dma, coherent);
    device.set_restricted_pool(pool(dma));
    device
}

/// Its hardware, which a protection unit confines to the pool.
fn confined(device: &Device) -> SimDevice {
    let cpu = part(0, 128 << 10);
    let bus = DmaAddr::new(cpu.start().get() - RAM + BUS);
    SimDevice { windows: vec![Window { bus, cpu }], mask: device.mask(), snoops: device.is_coherent() }
}

fn with_pool(f: impl Fn(&Machine<'_, '_>, bool)) {
    for (seed, coherent) in (0..if cfg!(miri) { 1 } else { 8 }).flat_map(|seed| [(seed, false), (seed, true)]) {
        on_a_machine_with(reserved(), 64, seed, |dma| f(dma, coherent));
    }
}

#[test]
fn what_a_restricted_device_maps_is_copied_to_its_pool_whether_or_not_the_device_reaches_it() {
    with_pool(|dma, coherent| {
        let (device, other) = (restricted(dma, coherent), device(dma, coherent));
        let hardware = confined(&device);
        // Whole pages, which every other device gets as they are.
        with_buffer(dma, (0, 8192), |_, buffer| {
            let at = buffer.addr(dma);
            let near = raw!(dma.map_single::<ToDevice>(&other, at, 8192)).unwrap();
            assert!(hardware.read(ram(dma), near, &mut [0; 8]).is_err(), "the confined device would not reach it");
            raw!(dma.unmap_single::<ToDevice>(&other, near, 8192)).unwrap();
            buffer.fill(dma, |index| index as u8);
            let bus = raw!(dma.map_single::<Bidirectional>(&device, at, 8192)).unwrap();
            buffer.stir_both(dma, bus);
            let mut seen = vec![0; 8192];
            hardware.read(ram(dma), bus, &mut seen).unwrap();
            assert!(seen.iter().enumerate().all(|(index, byte)| *byte == index as u8));
            hardware.write(ram(dma), bus, &[0x77; 1000]).unwrap();
            raw!(dma.sync_for_cpu::<Bidirectional>(&device, bus, 500)).unwrap();
            assert_eq!(buffer.part(499, 2).read(dma), [0x77, 500_u64 as u8], "the part came back");
            buffer.part(0, 4).fill(dma, |_| 0x55);
            raw!(dma.sync_for_device::<Bidirectional>(&device, bus, 4)).unwrap();
            hardware.read(ram(dma), bus, seen.get_mut(..5).unwrap()).unwrap();
            assert_eq!(seen[..5], [0x55, 0x55, 0x55, 0x55, 0x77]);
            raw!(dma.unmap_single::<Bidirectional>(&device, bus, 8192)).unwrap();
            assert_eq!(buffer.part(998, 3).read(dma), [0x77, 0x77, 1000_u64 as u8]);
        });
    });
}

#[test]
fn lists_of_a_restricted_device_are_copied_entry_by_entry() {
    with_pool(|dma, coherent| {
        let device = restricted(dma, coherent);
        let hardware = confined(&device);
        with_buffer(dma, (0, 4 * PAGE_SIZE), |_, buffer| {
            let entry = |index: u64| SgEntry::new(buffer.part(index * PAGE_SIZE, PAGE_SIZE).addr(dma), 4096);
            let mut list: Vec<_> = (0..4).map(entry).collect();
            buffer.fill(dma, |_| 0);
            raw!(dma.map_sg::<FromDevice>(&device, &mut list)).unwrap();
            for (entry, byte) in list.iter().zip(1..) {
                hardware.write(ram(dma), entry.bus(), &[byte; 4096]).unwrap();
            }
            raw!(dma.unmap_sg::<FromDevice>(&device, &list)).unwrap();
            let came = buffer.read(dma);
            assert!(came.iter().enumerate().all(|(index, byte)| usize::from(*byte) == 1 + index / 4096));
        });
    });
}

#[test]
fn a_restricted_device_has_no_memory_but_its_pools() {
    with_pool(|dma, coherent| {
        let mut device = restricted(dma, coherent);
        let pool = device.restricted_pool().unwrap();
        // There are slots for everybody, and RAM.
        dma.set_up_bounce(64).unwrap();
        let block = dma.alloc_coherent(&device, 8192, Gfp::KERNEL).unwrap();
        assert!(part(0, 64 << 10).contains(PhysAddr::new(block.bus.get() - BUS + RAM)));
        let combined = dma.alloc_wc(&device, 4096, Gfp::KERNEL).unwrap();
        assert!(part(0, 64 << 10).contains(PhysAddr::new(combined.bus.get() - BUS + RAM)));
        assert_eq!(dma.alloc_coherent(&device, 128 << 10, Gfp::KERNEL), Err(DmaError::PoolFull(128 << 10)));
        assert_eq!(dma.alloc_noncoherent(&device, 4096, Gfp::KERNEL), Err(DmaError::Restricted));
        raw!(dma.free_coherent(&device, 4096, combined)).unwrap();
        raw!(dma.free_coherent(&device, 8192, block)).unwrap();
        with_buffer(dma, (0, 4096), |_, buffer| {
            let map = || raw!(dma.map_single::<ToDevice>(&device, buffer.addr(dma), 4096));
            let held: Vec<_> = (0..16).map(|_| map().unwrap()).collect();
            let stats = dma.restricted_stats(pool);
            assert_eq!((stats.slots, stats.used, dma.bounce_stats().used), (32, 32, 0));
            assert_eq!(map(), Err(DmaError::BounceFull(4096)), "though there are slots for everybody");
            held.into_iter().for_each(|bus| raw!(dma.unmap_single::<ToDevice>(&device, bus, 4096)).unwrap());
            assert_eq!((dma.restricted_stats(pool).used, dma.restricted_stats(pool).most), (0, 32));
            // Without the pool it is as any other.
            device.set_pool(None);
            let bus = raw!(dma.map_single::<ToDevice>(&device, buffer.addr(dma), 4096)).unwrap();
            assert_eq!(bus.get() - BUS + RAM, buffer.start.get());
            raw!(dma.unmap_single::<ToDevice>(&device, bus, 4096)).unwrap();
        });
    });
}

#[test]
fn a_mapping_in_one_pool_is_no_mapping_of_another_device() {
    on_a_machine_with(reserved(), 64, 1, |dma| {
        let device = restricted(dma, false);
        let mut second = super::machine::device(dma, false);
        second.set_restricted_pool(device.restricted_pool().unwrap());
        let stranger = super::machine::device(dma, false);
        with_buffer(dma, (0, 4096), |_, buffer| {
            let bus = raw!(dma.map_single::<FromDevice>(&device, buffer.addr(dma), 4096)).unwrap();
            // The second has bounced, so that its unmapping looks for the slot.
            let own = raw!(dma.map_single::<FromDevice>(&second, buffer.addr(dma), 64)).unwrap();
            let refused = raw!(dma.unmap_single::<FromDevice>(&second, bus, 4096));
            assert_eq!(refused, Err(DmaError::NotBounced(bus, 4096)));
            raw!(dma.unmap_single::<FromDevice>(&stranger, bus, 4096)).unwrap();
            assert_eq!(dma.restricted_stats(device.restricted_pool().unwrap()).used, 3, "nothing was given back");
            raw!(dma.unmap_single::<FromDevice>(&second, own, 64)).unwrap();
            raw!(dma.unmap_single::<FromDevice>(&device, bus, 4096)).unwrap();
        });
    });
}

#[test]
fn what_cannot_be_a_restricted_pool_is_refused() {
    on_a_machine_with(reserved(), 64, 1, |dma| {
        let first = pool(dma);
        let add = |range| raw!(dma.add_restricted_pool(range, first.coherent()));
        for bad in [part(0, 0), part(MIB + 1, 4096), part(MIB, 4097)] {
            assert_eq!(add(bad), Err(DmaError::BadPool(bad)));
        }
        assert_eq!(add(part(64 << 10, 4096)), Err(DmaError::AlreadySetUp), "slots are there");
        dma.hal().no_records.store(true, Ordering::Relaxed);
        assert_eq!(add(part(MIB, 4096)), Err(DmaError::NoRecords));
        dma.hal().no_records.store(false, Ordering::Relaxed);
        for index in 1..MAX_RESTRICTED_POOLS as u64 {
            let range = part(MIB + index * 4096, 4096);
            let added = add(range).unwrap();
            assert_eq!(dma.restricted_pool_at(range.start(), first.coherent()), Some(added));
            assert_eq!(dma.restricted_stats(added).slots, 4096 / SLOT_SIZE);
        }
        assert_eq!(add(part(2 * MIB, 4096)), Err(DmaError::TooManyPools));
        assert_eq!(dma.restricted_pool_at(part(2 * MIB, 4096).start(), first.coherent()), None);
    });
}

// Promise 9
#[test]
fn random_mappings_of_a_restricted_device_keep_every_byte() {
    with_pool(|dma, coherent| {
        let device = restricted(dma, coherent);
        let hardware = confined(&device);
        let mut random = Random(u64::from(coherent) + 7);
        with_buffer(dma, (0, 32 << 10), |whole, _| {
            for round in 0..if cfg!(miri) { 3_u8 } else { 40 } {
                let offset = random.below(16 << 10);
                let size = 1 + random.below(16 << 10);
                let buffer = whole.part(offset, size);
                whole.fill(dma, |_| round);
                let bus = raw!(dma.map_single::<FromDevice>(&device, buffer.addr(dma), size)).unwrap();
                hardware.write(ram(dma), bus, &vec![0x80 | round; size as usize]).unwrap();
                whole.part(0, offset).fill(dma, |_| 0x40 | round);
                buffer.stir_both(dma, bus);
                raw!(dma.unmap_single::<FromDevice>(&device, bus, size)).unwrap();
                assert!(buffer.read(dma).iter().all(|byte| *byte == 0x80 | round), "{offset} {size}");
                assert!(whole.part(0, offset).read(dma).iter().all(|byte| *byte == 0x40 | round));
                dma.check().unwrap();
            }
        });
    });
}
