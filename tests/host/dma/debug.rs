//! The checks: each misuse is reported by its name, and right use is not.

use super::machine::{Machine, device, on_a_machine, ram, with_buffer};
use crate::vmalloc::kernel::RAM;
use quarry::addr::{DmaAddr, PhysAddr, VirtAddr};
use quarry::gfp::Gfp;
use quarry::mm::dma::{
    Bidirectional, Device, DmaDirection, DmaError, DmaHal, FromDevice, MappingKind, Misuse, SgEntry, ToDevice,
};
use quarry::mm::page::Kind;

fn told(dma: &Machine<'_, '_>) -> Vec<Misuse> {
    std::mem::take(&mut dma.hal().reports.lock().unwrap())
}

/// A device whose calls are checked, and two pages of buffers.
fn watched(f: impl FnOnce(&Machine<'_, '_>, &Device, VirtAddr)) {
    on_a_machine(64, 1, |dma| {
        dma.watch(64).unwrap();
        assert_eq!(dma.watch(64), Err(DmaError::AlreadySetUp));
        let device = device(dma, false);
        with_buffer(dma, (0, 8192), |_, buffer| f(dma, &device, buffer.addr(dma)));
        assert_eq!(dma.watched(), 0, "nothing is left mapped");
        assert_eq!(told(dma), []);
    });
}

fn map(dma: &Machine<'_, '_>, device: &Device, at: VirtAddr) -> DmaAddr {
    raw!(dma.map_single::<ToDevice>(device, at, 4096)).unwrap()
}

// Behaviour 302
#[test]
fn unmapping_what_is_not_mapped_so_is_reported_and_not_done() {
    watched(|dma, device, at| {
        let unmap = |device, bus, size| raw!(dma.unmap_single::<ToDevice>(device, bus, size)).unwrap_err();
        let wild = DmaAddr::new(super::machine::BUS + 0x5000);
        assert_eq!(unmap(device, wild, 4096), DmaError::Misused(Misuse::NotMapped));
        let printed = dma.hal().printed.lock().unwrap().pop().unwrap();
        assert!(printed.contains("nic@0") && printed.contains("4096 bytes"), "{printed}");
        assert!(printed.contains(&wild.to_string()) && printed.contains("debug.rs"), "{printed}");
        let bus = map(dma, device, at);
        assert_eq!(unmap(device, bus, 64), DmaError::Misused(Misuse::OtherSize(4096)));
        let other = super::machine::device(dma, false);
        assert_eq!(unmap(&other, bus, 4096), DmaError::Misused(Misuse::OtherDevice));
        let way = raw!(dma.unmap_single::<FromDevice>(device, bus, 4096));
        assert_eq!(way, Err(DmaError::Misused(Misuse::OtherDirection(DmaDirection::ToDevice))));
        let kind = raw!(dma.unmap_resource::<ToDevice>(device, bus, 4096));
        assert_eq!(kind, Err(DmaError::Misused(Misuse::OtherKind(MappingKind::Single))));
        raw!(dma.unmap_single::<ToDevice>(device, bus, 4096)).unwrap();
        assert_eq!(unmap(device, bus, 4096), DmaError::Misused(Misuse::NotMapped));
        assert_eq!(told(dma).len(), 6);
    });
}

// Behaviours 304 and 310
#[test]
fn a_list_is_unmapped_as_it_was_mapped_and_fits_the_device() {
    watched(|dma, _, at| {
        let mut device = device(dma, false);
        let mut list = [0, 1, 2].map(|n| SgEntry::new(VirtAddr::new(at.get() + n * 1024), 1024));
        raw!(dma.map_sg::<ToDevice>(&device, &mut list)).unwrap();
        assert_eq!(told(dma), []);
        let fewer = raw!(dma.unmap_sg::<ToDevice>(&device, &list[..2]));
        assert_eq!(fewer, Err(DmaError::Misused(Misuse::OtherCount(3))));
        raw!(dma.unmap_sg::<ToDevice>(&device, &list)).unwrap();
        told(dma);
        device.set_max_segment(512).unwrap();
        raw!(dma.map_sg::<ToDevice>(&device, &mut list[..1])).unwrap();
        raw!(dma.unmap_sg::<ToDevice>(&device, &list[..1])).unwrap();
        assert_eq!(told(dma), [Misuse::SegmentTooLong(512)]);
        device.set_max_segment(1 << 16).unwrap();
        device.set_boundary(0xfff).unwrap();
        let mut crosses = [SgEntry::new(VirtAddr::new(at.get() + 4000), 1000)];
        raw!(dma.map_sg::<ToDevice>(&device, &mut crosses)).unwrap();
        raw!(dma.unmap_sg::<ToDevice>(&device, &crosses)).unwrap();
        assert_eq!(told(dma), [Misuse::SegmentCrosses(0xfff)]);
    });
}

// Behaviours 306 and 307
#[test]
fn memory_that_is_nobodys_to_give_is_reported() {
    watched(|dma, device, at| {
        let stack = [0_u8; 64];
        let wild =
            [VirtAddr::new((&raw const stack).addr() as u64), VirtAddr::new(0xffff_8000_dead_b000), VirtAddr::ZERO];
        for at in wild {
            assert_eq!(raw!(dma.map_single::<ToDevice>(device, at, 64)), Err(DmaError::NotLinear(at)));
            assert_eq!(told(dma), [Misuse::NotLinear(at)]);
        }
        // A page that is free: the last one of RAM.
        let free = ram(dma).linear(PhysAddr::new(RAM + super::machine::SIZE - 4096));
        let bus = raw!(dma.map_single::<ToDevice>(device, free, 64)).unwrap();
        assert!(matches!(told(dma)[..], [Misuse::NotOwned(Kind::Free | Kind::Pcp)]));
        raw!(dma.unmap_single::<ToDevice>(device, bus, 64)).unwrap();
        let pages = dma.hal().pages();
        let page = pages.page_at(quarry::mm::layout::phys_to_virt(ram(dma).phys(at).unwrap()).unwrap()).unwrap();
        raw!(pages.claim(page, Kind::PageTable, 0)).unwrap();
        let bus = map(dma, device, at);
        assert_eq!(told(dma), [Misuse::NotOwned(Kind::PageTable)]);
        raw!(dma.unmap_single::<ToDevice>(device, bus, 4096)).unwrap();
        raw!(pages.disown(page, Kind::PageTable)).unwrap();
    });
}

// Behaviour 309
#[test]
fn syncing_outside_or_the_wrong_way_is_reported() {
    watched(|dma, device, at| {
        let bus = map(dma, device, at);
        let part = |offset| DmaAddr::new(bus.get() + offset);
        raw!(dma.sync_for_cpu::<ToDevice>(device, part(100), 3996)).unwrap();
        raw!(dma.sync_for_device::<ToDevice>(device, part(4095), 1)).unwrap();
        assert_eq!(told(dma), []);
        let sync = |bus, size| raw!(dma.sync_for_cpu::<ToDevice>(device, bus, size)).unwrap_err();
        assert_eq!(sync(part(100), 3997), DmaError::Misused(Misuse::SyncOutside(4096)));
        assert_eq!(sync(part(4096), 1), DmaError::Misused(Misuse::SyncNotMapped));
        let way = raw!(dma.sync_for_device::<FromDevice>(device, bus, 64));
        assert_eq!(way, Err(DmaError::Misused(Misuse::SyncDirection(DmaDirection::ToDevice))));
        assert_eq!(told(dma).len(), 3);
        raw!(dma.unmap_single::<ToDevice>(device, bus, 4096)).unwrap();
        // Of a mapping both ways either way will do.
        let both = raw!(dma.map_single::<Bidirectional>(device, at, 4096)).unwrap();
        raw!(dma.sync_for_cpu::<FromDevice>(device, both, 64)).unwrap();
        raw!(dma.sync_for_device::<ToDevice>(device, both, 64)).unwrap();
        raw!(dma.unmap_single::<Bidirectional>(device, both, 4096)).unwrap();
    });
}

// Behaviour 311
#[test]
fn two_mappings_of_a_cache_line_are_reported_if_a_device_writes_there() {
    watched(|dma, device, at| {
        let second = |offset: u64| VirtAddr::new(at.get() + offset);
        let first = raw!(dma.map_single::<ToDevice>(device, at, 64)).unwrap();
        let again = raw!(dma.map_single::<ToDevice>(device, at, 64)).unwrap();
        assert_eq!(told(dma), [], "many may read");
        raw!(dma.unmap_single::<ToDevice>(device, again, 64)).unwrap();
        let written = raw!(dma.map_single::<FromDevice>(device, at, 64)).unwrap();
        assert_eq!(told(dma), [Misuse::SharedLine(first)]);
        raw!(dma.unmap_single::<FromDevice>(device, written, 64)).unwrap();
        let beside = raw!(dma.map_single::<FromDevice>(device, second(64), 64)).unwrap();
        assert_eq!(told(dma), [], "another line");
        raw!(dma.unmap_single::<ToDevice>(device, first, 64)).unwrap();
        raw!(dma.unmap_single::<FromDevice>(device, beside, 64)).unwrap();
    });
}

// Behaviour 312
#[test]
fn a_device_that_goes_leaves_nothing_mapped() {
    watched(|dma, device, at| {
        assert_eq!(dma.device_gone(device), 0);
        let bus = map(dma, device, at);
        let block = dma.alloc_coherent(device, 4096, Gfp::KERNEL).unwrap();
        assert_eq!(dma.device_gone(device), 2);
        assert_eq!(told(dma), [Misuse::DeviceGone(2)]);
        let twice = raw!(dma.free_coherent(device, 8192, block));
        assert_eq!(twice, Err(DmaError::Misused(Misuse::OtherSize(4096))));
        raw!(dma.free_coherent(device, 4096, block)).unwrap();
        raw!(dma.unmap_single::<ToDevice>(device, bus, 4096)).unwrap();
        told(dma);
    });
}

#[test]
fn checking_ends_when_there_is_no_room_for_notes() {
    on_a_machine(64, 1, |dma| {
        assert_eq!(dma.watch(0), Err(DmaError::Empty));
        dma.hal().no_records.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(dma.watch(2), Err(DmaError::NoRecords));
        dma.hal().no_records.store(false, std::sync::atomic::Ordering::Relaxed);
        dma.watch(2).unwrap();
        let device = device(dma, false);
        with_buffer(dma, (0, 8192), |_, buffer| {
            let at = |n: u64| VirtAddr::new(buffer.addr(dma).get() + n * 64);
            let buses = [0, 1, 2].map(|n| raw!(dma.map_single::<ToDevice>(&device, at(n), 64)).unwrap());
            assert_eq!(told(dma), [Misuse::Overflow]);
            buses.into_iter().for_each(|bus| raw!(dma.unmap_single::<ToDevice>(&device, bus, 64)).unwrap());
            assert_eq!(told(dma), [], "what was not noted is not called wrong");
        });
    });
}
