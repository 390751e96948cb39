//! Owning types: what they hold goes with them, and what the device has nobody else does.

use super::machine::{device, hardware, on_a_machine, ram, with_buffer};
use quarry::addr::DmaAddr;
use quarry::gfp::Gfp;
use quarry::mm::dma::{Bidirectional, CoherentBox, CoherentVec, DmaError, DmaMapping, FromDevice, ToDevice};

// Behaviour 297
#[test]
fn values_in_coherent_memory_are_seen_by_both_and_freed_with_their_owner() {
    for seed in 0..10 {
        on_a_machine(64, seed, |dma| {
            for coherent in [false, true] {
                let device = device(dma, coherent);
                let hardware = hardware(dma, &device);
                let mut ring = CoherentVec::<[u32; 4], _>::new(dma, &device, 300, Gfp::KERNEL).unwrap();
                assert_eq!(
                    (ring.len(), ring.is_empty(), ring.read(299), ring.read(300)),
                    (300, false, Some([0; 4]), None)
                );
                // Across a page.
                assert!(ring.write(256, [1, 2, 3, 4]) && !ring.write(300, [0; 4]));
                let place = ring.bus_of(256).unwrap();
                assert_eq!((place.get(), ring.bus_of(300)), (ring.bus().get() + 4096, None));
                let mut seen = [0; 16];
                hardware.read(ram(dma), place, &mut seen).unwrap();
                assert_eq!(seen, [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
                hardware.write(ram(dma), DmaAddr::new(place.get() + 4), &[9]).unwrap();
                assert_eq!(ring.read(256), Some([1, 9, 3, 4]));
                let mut word = CoherentBox::<u64, _>::new(dma, &device, Gfp::KERNEL).unwrap();
                assert_eq!(word.read(), 0);
                word.write(u64::MAX);
                hardware.write(ram(dma), word.bus(), &[0; 4]).unwrap();
                assert_eq!(word.read(), 0xffff_ffff_0000_0000);
                let none = CoherentVec::<u8, _>::new(dma, &device, 0, Gfp::KERNEL);
                assert_eq!(none.err(), Some(DmaError::Empty));
                let huge = CoherentVec::<u64, _>::new(dma, &device, usize::MAX, Gfp::KERNEL);
                assert!(matches!(huge.err(), Some(DmaError::TooLarge(_))));
            }
        });
    }
}

// Behaviour 300
#[test]
fn a_mapped_buffer_is_given_back_for_a_scope() {
    for seed in 0..10 {
        on_a_machine(64, seed, |dma| {
            let device = device(dma, false);
            let hardware = hardware(dma, &device);
            dma.set_up_bounce(16).unwrap();
            for offset in [0, 4] {
                with_buffer(dma, (offset, 512), |_, place| {
                    let slice = raw!(std::slice::from_raw_parts_mut(place.addr(dma).as_ptr::<u8>(), 512));
                    {
                        let mut mapping = raw!(DmaMapping::<FromDevice, _>::new(dma, &device, slice)).unwrap();
                        assert_eq!((mapping.len(), mapping.is_empty()), (512, false));
                        hardware.write(ram(dma), mapping.bus(), &[1; 512]).unwrap();
                        place.stir_both(dma, mapping.bus());
                        assert!(mapping.sync_for_cpu(|bytes| bytes.iter().all(|byte| *byte == 1)).unwrap());
                        hardware.write(ram(dma), mapping.bus(), &[2; 512]).unwrap();
                        place.stir_both(dma, mapping.bus());
                    }
                    assert!(slice.iter().all(|byte| *byte == 2), "unmapped when it is dropped");
                    let seen = DmaMapping::<ToDevice, _>::scope(dma, &device, slice, |mapping| {
                        mapping.fill(|bytes| bytes.fill(3)).unwrap();
                        let mut seen = [0; 512];
                        hardware.read(ram(dma), mapping.bus(), &mut seen).unwrap();
                        seen
                    });
                    assert_eq!(seen, Ok([3; 512]));
                    DmaMapping::<Bidirectional, _>::scope(dma, &device, slice, |mapping| {
                        mapping.fill(|bytes| bytes.fill(4)).unwrap();
                        hardware.write(ram(dma), mapping.bus(), &[5]).unwrap();
                        assert_eq!(mapping.sync_for_cpu(|bytes| (bytes[0], bytes[1])), Ok((5, 4)));
                    })
                    .unwrap();
                });
            }
            let mut on_stack = [0_u8; 64];
            let mut heap = vec![0_u8; 64];
            let refused = DmaMapping::<ToDevice, _>::scope(dma, &device, &mut on_stack, |_| ());
            assert!(matches!(refused, Err(DmaError::NotLinear(_))));
            assert!(DmaMapping::<ToDevice, _>::scope(dma, &device, &mut heap, |_| ()).is_err(), "not of this RAM");
            assert!(DmaMapping::<ToDevice, _>::scope(dma, &device, &mut on_stack[..0], |_| ()).is_err());
        });
    }
}
