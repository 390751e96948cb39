//! What is known of a device: windows, masks, limits, and what the device tree says.

use super::machine::{BUS, MIB, SIZE, on_a_machine, ram};
use crate::vmalloc::kernel::RAM;
use quarry::addr::{DmaAddr, PhysAddr, PhysRange};
use quarry::mm::dma::{DeviceSpec, DmaError, DmaWindow, MAX_WINDOWS, ToDevice};

fn window(bus: u64, cpu: u64, size: u64) -> DmaWindow {
    DmaWindow { bus: DmaAddr::new(bus), cpu: PhysRange::from_size(PhysAddr::new(cpu), size).unwrap() }
}

// Behaviours 319 and 320
#[test]
fn a_mask_that_leaves_no_ram_is_refused_and_the_old_one_stays() {
    on_a_machine(64, 1, |dma| {
        let spec = DeviceSpec::new("emmc").with_window(window(BUS, RAM, SIZE)).unwrap();
        let mut device = dma.device(&spec);
        assert_eq!((device.mask(), device.coherent_mask()), (u64::from(u32::MAX), u64::from(u32::MAX)));
        assert_eq!(dma.set_mask(&mut device, BUS - 1), Err(DmaError::MaskTooNarrow(BUS - 1)));
        assert_eq!(dma.set_coherent_mask(&mut device, 0), Err(DmaError::MaskTooNarrow(0)));
        assert_eq!((device.mask(), device.coherent_mask()), (u64::from(u32::MAX), u64::from(u32::MAX)));
        // One byte of RAM is RAM.
        dma.set_mask(&mut device, BUS).unwrap();
        assert_eq!((device.mask(), device.coherent_mask()), (BUS, u64::from(u32::MAX)));
        let start = ram(dma).linear(PhysAddr::new(RAM));
        let bus = raw!(dma.map_single::<ToDevice>(&device, start, 1)).unwrap();
        assert_eq!(bus.get(), BUS);
        let refused = raw!(dma.map_single::<ToDevice>(&device, start, 2));
        let range = PhysRange::from_size(PhysAddr::new(RAM), 2).unwrap();
        assert_eq!(refused, Err(DmaError::Unreachable(range)));
        dma.set_mask(&mut device, u64::MAX).unwrap();
        assert!(raw!(dma.map_single::<ToDevice>(&device, start, 2)).is_ok());
        // RAM lies above what 32 bits without a window say.
        let mut plain = dma.device(&DeviceSpec::new("plain"));
        assert_eq!(dma.set_mask(&mut plain, RAM - 1), Err(DmaError::MaskTooNarrow(RAM - 1)));
        dma.set_mask(&mut plain, RAM + SIZE - 1).unwrap();
    });
}

// Behaviour 319
#[test]
fn every_window_counts_and_what_none_covers_is_refused() {
    on_a_machine(64, 1, |dma| {
        let spec = DeviceSpec::new("pcie")
            .with_window(window(0x1000_0000, RAM, MIB))
            .and_then(|spec| spec.with_window(window(0x8000_0000, RAM + 4 * MIB, 8 * MIB)))
            .unwrap();
        let device = dma.device(&spec);
        let map = |offset: u64, size| {
            raw!(dma.map_single::<ToDevice>(&device, ram(dma).linear(PhysAddr::new(RAM + offset)), size))
        };
        let unmap = |bus, size| raw!(dma.unmap_single::<quarry::mm::dma::FromDevice>(&device, bus, size));
        assert_eq!(map(0, 4096), Ok(DmaAddr::new(0x1000_0000)));
        assert_eq!(map(MIB - 1, 1), Ok(DmaAddr::new(0x100f_ffff)));
        assert_eq!(map(4 * MIB, 4096), Ok(DmaAddr::new(0x8000_0000)));
        for (offset, size) in [(MIB - 1, 2), (2 * MIB, 64), (4 * MIB - 1, 2), (12 * MIB - 1, 2), (12 * MIB, 1)] {
            let range = PhysRange::from_size(PhysAddr::new(RAM + offset), size).unwrap();
            assert_eq!(map(offset, size), Err(DmaError::Unreachable(range)), "{offset:#x}");
        }
        // And back.
        assert!(unmap(DmaAddr::new(0x1000_0000), 4096).is_ok());
        assert!(unmap(DmaAddr::new(0x8000_0000), 4096).is_ok());
        let hole = DmaAddr::new(0x1010_0000);
        assert_eq!(unmap(hole, 64), Err(DmaError::NoWindow(hole)));
        let end = DmaAddr::new(0x8080_0000);
        assert_eq!(unmap(end, 64), Err(DmaError::NoWindow(end)));
        assert_eq!(unmap(DmaAddr::new(0x8000_0000), 0), Err(DmaError::NoWindow(DmaAddr::new(0x8000_0000))));
    });
}

#[test]
fn windows_that_go_on_are_one_and_too_many_are_refused() {
    on_a_machine(64, 1, |dma| {
        let mut spec = DeviceSpec::new("soc");
        for piece in 0..8 {
            spec = spec.with_window(window(BUS + piece * 8 * MIB, RAM + piece * 8 * MIB, 8 * MIB)).unwrap();
        }
        let device = dma.device(&spec);
        let across = ram(dma).linear(PhysAddr::new(RAM + 8 * MIB - 64));
        assert_eq!(raw!(dma.map_single::<ToDevice>(&device, across, 128)), Ok(DmaAddr::new(BUS + 8 * MIB - 64)));
        let mut spec = DeviceSpec::new("soc");
        for piece in 0..MAX_WINDOWS as u64 {
            spec = spec.with_window(window(piece << 32, RAM, MIB)).unwrap();
        }
        assert_eq!(spec.with_window(window(1 << 40, RAM, MIB)).err(), Some(DmaError::TooManyWindows));
        let empty = DmaWindow { bus: DmaAddr::new(7), cpu: PhysRange::EMPTY };
        assert_eq!(DeviceSpec::new("x").with_window(empty).err(), Some(DmaError::BadWindow(DmaAddr::new(7))));
        let wraps = window(u64::MAX, RAM, 2);
        assert_eq!(DeviceSpec::new("x").with_window(wraps).err(), Some(DmaError::BadWindow(DmaAddr::new(u64::MAX))));
        assert!(DeviceSpec::new("x").with_window(window(u64::MAX, RAM, 1)).is_ok());
    });
}

#[test]
fn limits_of_a_device_are_checked() {
    on_a_machine(64, 1, |dma| {
        let mut device = dma.device(&DeviceSpec::new("a name that is longer than what is kept ä"));
        assert!("a name that is longer than what is kept ä".starts_with(device.name()) && device.name().len() > 20);
        assert_eq!(device.set_max_segment(0), Err(DmaError::BadLimit(0)));
        assert_eq!(device.set_boundary(0xfffe), Err(DmaError::BadLimit(0xfffe)));
        assert_eq!(device.set_boundary(0x3ff), Err(DmaError::BadLimit(0x3ff)));
        assert_eq!(device.set_min_align_mask(6), Err(DmaError::BadLimit(6)));
        assert_eq!(device.set_min_align_mask(0x1_ffff), Err(DmaError::BadLimit(0x1_ffff)));
        device.set_max_segment(4096).unwrap();
        device.set_boundary(0xffff).unwrap();
        device.set_min_align_mask(0xfff).unwrap();
        assert_eq!((device.max_segment(), device.boundary(), device.min_align_mask()), (4096, 0xffff, 0xfff));
        let first_line = align_of_val(&device);
        assert_eq!(first_line, 64, "what mapping needs is in one cache line");
    });
}
