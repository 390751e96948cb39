//! Streaming mappings: where the device finds them, which cache lines are touched, what is refused.

use super::machine::{BUS, Machine, SIZE, device, hardware, on_a_machine, ram, with_buffer};
use crate::vmalloc::kernel::RAM;
use quarry::addr::{DmaAddr, PhysAddr, PhysRange, VirtAddr};
use quarry::arch::host::BusError;
use quarry::mm::dma::{Bidirectional, DmaError, DmaHal, FromDevice, SgEntry, ToDevice};

fn counts(dma: &Machine<'_, '_>, f: impl FnOnce()) -> (u64, u64, u64) {
    let before = ram(dma).counts();
    f();
    let after = ram(dma).counts();
    (after.cleaned - before.cleaned, after.invalidated - before.invalidated, after.barriers - before.barriers)
}

// Behaviours 299 and 319
#[test]
fn a_device_finds_a_buffer_where_its_window_says() {
    on_a_machine(64, 1, |dma| {
        for coherent in [false, true] {
            let device = device(dma, coherent);
            with_buffer(dma, (128, 256), |_, buffer| {
                let bus = raw!(dma.map_single::<ToDevice>(&device, buffer.addr(dma), 256)).unwrap();
                assert_eq!(bus.get() - BUS, buffer.start.get() - RAM);
                raw!(dma.unmap_single::<ToDevice>(&device, bus, 256)).unwrap();
                let by_page = |offset, size| {
                    let page = dma
                        .hal()
                        .pages()
                        .page_at(quarry::mm::layout::phys_to_virt(buffer.start.align_down(4096)).unwrap());
                    raw!(dma.map_page::<ToDevice>(&device, page.unwrap(), (offset, size)))
                };
                assert_eq!(by_page(128, 256), Ok(bus));
                assert_eq!(by_page(8192, 0), Err(DmaError::Empty));
                assert_eq!(by_page(128, 8192), Err(DmaError::NotInPage(128, 8192)));
                assert_eq!(by_page(u64::MAX, 2), Err(DmaError::NotInPage(u64::MAX, 2)));
                raw!(dma.unmap_single::<ToDevice>(&device, bus, 256)).unwrap();
            });
            // The last byte of what the device reaches, and one more.
            let hardware = hardware(dma, &device);
            let last = DmaAddr::new(BUS + SIZE - 1);
            assert!(hardware.read(ram(dma), last, &mut [0]).is_ok());
            assert_eq!(hardware.read(ram(dma), last, &mut [0, 0]), Err(BusError::Nothing(last)));
        }
    });
}

// Behaviour 309
#[test]
fn only_lines_of_the_range_are_maintained_and_by_direction() {
    on_a_machine(64, 1, |dma| {
        let (cold, warm) = (device(dma, false), device(dma, true));
        with_buffer(dma, (0, 4096), |_, buffer| {
            let at = buffer.addr(dma);
            let mut bus = DmaAddr::ZERO;
            let map = |bus: &mut DmaAddr| *bus = raw!(dma.map_single::<FromDevice>(&cold, at, 4096)).unwrap();
            assert_eq!(counts(dma, || map(&mut bus)), (64, 0, 1));
            let part = DmaAddr::new(bus.get() + 100);
            assert_eq!(counts(dma, || raw!(dma.sync_for_cpu::<FromDevice>(&cold, part, 100)).unwrap()), (0, 3, 1));
            assert_eq!(counts(dma, || raw!(dma.sync_for_device::<FromDevice>(&cold, part, 100)).unwrap()), (3, 0, 1));
            assert_eq!(counts(dma, || raw!(dma.unmap_single::<FromDevice>(&cold, bus, 4096)).unwrap()), (0, 64, 1));
            let to = || {
                let bus = raw!(dma.map_single::<ToDevice>(&cold, at, 4096)).unwrap();
                raw!(dma.sync_for_cpu::<ToDevice>(&cold, bus, 4096)).unwrap();
                raw!(dma.unmap_single::<ToDevice>(&cold, bus, 4096)).unwrap();
            };
            assert_eq!(counts(dma, to), (64, 0, 1));
            let coherent = || {
                let bus = raw!(dma.map_single::<Bidirectional>(&warm, at, 4096)).unwrap();
                raw!(dma.sync_for_cpu::<Bidirectional>(&warm, bus, 4096)).unwrap();
                raw!(dma.sync_for_device::<Bidirectional>(&warm, bus, 4096)).unwrap();
                raw!(dma.unmap_single::<Bidirectional>(&warm, bus, 4096)).unwrap();
            };
            assert_eq!(counts(dma, coherent), (0, 0, 0));
            let mut list: Vec<_> = (0..4).map(|n| SgEntry::new(VirtAddr::new(at.get() + n * 1024), 1024)).collect();
            assert_eq!(counts(dma, || raw!(dma.map_sg::<FromDevice>(&cold, &mut list)).unwrap()), (64, 0, 1));
            assert_eq!(counts(dma, || raw!(dma.unmap_sg::<FromDevice>(&cold, &list)).unwrap()), (0, 64, 1));
        });
    });
}

#[test]
fn what_no_device_can_be_given_is_refused() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        let start = ram(dma).linear(PhysAddr::new(RAM));
        let map = |at, size| raw!(dma.map_single::<ToDevice>(&device, at, size));
        assert_eq!(map(start, 0), Err(DmaError::Empty));
        let on_stack = 0_u64;
        let stack = VirtAddr::new((&raw const on_stack).addr() as u64);
        assert_eq!(map(stack, 8), Err(DmaError::NotLinear(stack)));
        assert_eq!(map(VirtAddr::ZERO, 8), Err(DmaError::NotLinear(VirtAddr::ZERO)));
        assert_eq!(map(start, u64::MAX), Err(DmaError::Wraps(PhysAddr::new(RAM), u64::MAX)));
        let all = PhysRange::from_size(PhysAddr::new(RAM), SIZE + 1).unwrap();
        assert_eq!(map(start, SIZE + 1), Err(DmaError::BounceTooLarge(SIZE + 1)), "{all}");
        let outside = DmaAddr::new(BUS + SIZE);
        assert_eq!(raw!(dma.unmap_single::<FromDevice>(&device, outside, 64)), Err(DmaError::NoWindow(outside)));
        assert_eq!(raw!(dma.sync_for_device::<ToDevice>(&device, outside, 64)), Err(DmaError::NoWindow(outside)));
        assert_eq!(raw!(dma.map_sg::<ToDevice>(&device, &mut [])), Err(DmaError::Empty));
        // Registers of another device.
        let inside = PhysRange::from_size(PhysAddr::new(RAM + 4096), 4096).unwrap();
        assert_eq!(raw!(dma.map_resource::<ToDevice>(&device, inside)), Err(DmaError::Ram(inside)));
        let registers = PhysRange::from_size(PhysAddr::new(0x900_0000), 4096).unwrap();
        assert_eq!(raw!(dma.map_resource::<ToDevice>(&device, registers)), Err(DmaError::Unreachable(registers)));
        assert_eq!(raw!(dma.map_resource::<ToDevice>(&device, PhysRange::EMPTY)), Err(DmaError::Empty));
        let free = dma.device(&quarry::mm::dma::DeviceSpec::new("dma"));
        let bus = raw!(dma.map_resource::<ToDevice>(&free, registers)).unwrap();
        assert_eq!(bus.get(), 0x900_0000);
        raw!(dma.unmap_resource::<ToDevice>(&free, bus, 4096)).unwrap();
    });
}

#[test]
fn a_list_is_mapped_whole_or_not_at_all() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, false);
        dma.set_up_bounce(4).unwrap();
        with_buffer(dma, (0, 16384), |_, buffer| {
            let at = |offset| VirtAddr::new(buffer.addr(dma).get() + offset);
            // Three that bounce want six slots; the last one does not get any.
            let mut list: Vec<_> = (0..3).map(|n| SgEntry::new(at(n * 4096 + 4), 4000)).collect();
            let refused = raw!(dma.map_sg::<FromDevice>(&device, &mut list));
            assert_eq!(refused, Err(DmaError::BounceFull(4000)));
            assert_eq!(dma.bounce_stats().used, 0);
            list[1] = SgEntry::new(VirtAddr::ZERO, 8);
            assert_eq!(raw!(dma.map_sg::<FromDevice>(&device, &mut list)), Err(DmaError::NotLinear(VirtAddr::ZERO)));
            let mut two = [list[0], SgEntry::new(at(8192), 4096)];
            raw!(dma.map_sg::<FromDevice>(&device, &mut two)).unwrap();
            assert_eq!(dma.bounce_stats().used, 2);
            raw!(dma.unmap_sg::<FromDevice>(&device, &two)).unwrap();
        });
    });
}
