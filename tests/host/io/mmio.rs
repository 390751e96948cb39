//! Accesses to registers: their width, their order, and what is refused before anything is accessed.

use quarry::arch::host::{IoEvent, Recorder};
use quarry::hal::io::Width;
use quarry::mm::io::{AccessError, Mmio, RegisterBlock};

fn registers(recorder: &Recorder) -> Mmio<&Recorder> {
    // SAFETY: the recorder stands for the registers, and outlives the value.
    unsafe { Mmio::new(recorder, recorder.range()) }
}

/// The order is Linux's: a barrier behind a read, a barrier before a write, none where the name says so.
#[test]
fn every_access_is_one_instruction_with_the_barrier_that_its_name_promises() {
    use IoEvent::{Load, LoadBarrier, Store, StoreBarrier};
    let recorder = Recorder::new(0x40);
    recorder.fill(|index| u8::try_from(index).unwrap() | 0x80);
    let device = registers(&recorder);
    assert_eq!(device.readb(1), Ok(0x81));
    assert_eq!(device.readw(2), Ok(0x8382));
    assert_eq!(device.readl(4), Ok(0x8786_8584));
    assert_eq!(device.readq(8), Ok(0x8f8e_8d8c_8b8a_8988));
    assert_eq!(
        recorder.take_events(),
        [
            Load(1, Width::Byte),
            LoadBarrier(0x81),
            Load(2, Width::Half),
            LoadBarrier(0x8382),
            Load(4, Width::Word),
            LoadBarrier(0x8786_8584),
            Load(8, Width::Double),
            LoadBarrier(0x8f8e_8d8c_8b8a_8988),
        ]
    );
    device.writeb(0x11, 1).unwrap();
    device.writew(0x2222, 2).unwrap();
    device.writel(0x3333_3333, 4).unwrap();
    device.writeq(u64::MAX, 8).unwrap();
    assert_eq!(
        recorder.take_events(),
        [
            StoreBarrier,
            Store(1, Width::Byte, 0x11),
            StoreBarrier,
            Store(2, Width::Half, 0x2222),
            StoreBarrier,
            Store(4, Width::Word, 0x3333_3333),
            StoreBarrier,
            Store(8, Width::Double, u64::MAX),
        ]
    );
    assert_eq!(device.readl_relaxed(4), Ok(0x3333_3333));
    device.writeq_relaxed(5, 16).unwrap();
    assert_eq!(recorder.take_events(), [Load(4, Width::Word), Store(16, Width::Double, 5)]);
    let known = registers(&recorder).sized::<0x40>().unwrap();
    assert_eq!(known.read::<u16, 2>(), 0x2222);
    known.write::<u8, 0x3f>(9);
    assert_eq!(known.read_relaxed::<u8, 0x3f>(), 9);
    known.write_relaxed::<u32, 0x3c>(0);
    assert_eq!(
        recorder.take_events(),
        [
            Load(2, Width::Half),
            LoadBarrier(0x2222),
            StoreBarrier,
            Store(0x3f, Width::Byte, 9),
            Load(0x3f, Width::Byte),
            Store(0x3c, Width::Word, 0),
        ]
    );
}

// Behaviour 290: what the CPU would answer with an alignment fault is not tried.
#[test]
fn what_lies_outside_or_is_not_aligned_is_not_accessed() {
    let recorder = Recorder::new(0x10);
    let device = registers(&recorder);
    let outside = |offset, bytes| AccessError::Outside { offset, bytes, size: 0x10 };
    assert_eq!(device.readb(0x10), Err(outside(0x10, 1)));
    assert_eq!(device.readl(0xd), Err(outside(0xd, 4)));
    assert_eq!(device.readq(u64::MAX), Err(outside(u64::MAX, 8)));
    assert_eq!(device.writeq(0, 9), Err(outside(9, 8)));
    for offset in [1, 2, 3] {
        assert!(matches!(device.writel(0, offset), Err(AccessError::Unaligned(_, Width::Word))));
    }
    assert!(matches!(device.readsw(1, &mut [0; 2]), Err(AccessError::Unaligned(_, Width::Half))));
    assert_eq!(device.memcpy_fromio(&mut [0; 9], 8), Err(outside(8, 9)));
    assert_eq!(device.memcpy_toio(17, &[]), Err(outside(17, 0)));
    assert_eq!(device.memset_io(0, 1, 17), Err(outside(0, 17)));
    assert_eq!(device.memset_io(1, 1, u64::MAX), Err(outside(1, u64::MAX)));
    assert_eq!(recorder.take_events(), []);
    assert_eq!(recorder.bytes(), [0; 16]);
    assert!(matches!(registers(&recorder).sized::<0x11>(), Err(AccessError::Outside { .. })));
    // Registers that do not start at a multiple of 8 can be reached, but not by offsets known when compiling.
    let odd = Recorder::at_offset(0x10, 4);
    assert!(matches!(registers(&odd).sized::<8>(), Err(AccessError::Misplaced(..))));
    assert!(registers(&odd).readq(4).is_ok() && registers(&odd).readq(0).is_err());
}

#[test]
fn strings_reach_one_register_again_and_again() {
    let recorder = Recorder::new(8);
    let device = registers(&recorder);
    device.writesl(4, &[1, 2, 3]).unwrap();
    let mut read = [0; 2];
    device.readsl(4, &mut read).unwrap();
    assert_eq!(read, [3, 3]);
    let store = |value| IoEvent::Store(4, Width::Word, value);
    let load = IoEvent::Load(4, Width::Word);
    assert_eq!(recorder.take_events(), [store(1), store(2), store(3), load, load]);
}

/// Accesses that `memcpy_fromio`, `memcpy_toio` and `memset_io` may use for `count` bytes from `offset` on: double words at
/// their own multiples, bytes before and behind.
fn accesses(offset: u64, count: u64) -> Vec<(u64, Width)> {
    let mut left: Vec<u64> = (offset..offset + count).collect();
    let mut found = Vec::new();
    while let Some(at) = left.first().copied() {
        let width = if at % 8 == 0 && left.len() >= 8 { Width::Double } else { Width::Byte };
        found.push((at, width));
        left.drain(..usize::try_from(width.bytes()).unwrap());
    }
    found
}

/// Addresses that were accessed, by any kind of access.
fn places(recorder: &Recorder) -> Vec<(u64, Width)> {
    let place = |event| match event {
        IoEvent::Load(at, width) | IoEvent::Store(at, width, _) => (at, width),
        barrier => panic!("{barrier:?}"),
    };
    recorder.take_events().into_iter().map(place).collect()
}

#[test]
fn blocks_are_copied_by_aligned_accesses_at_every_offset_and_length() {
    for (offset, count) in (0..9).flat_map(|offset| (0..30).map(move |count| (offset, count))) {
        let recorder = Recorder::new(64);
        let device = registers(&recorder);
        let bytes: Vec<u8> = (1..).take(usize::try_from(count).unwrap()).collect();
        device.memcpy_toio(offset, &bytes).unwrap();
        assert_eq!(places(&recorder), accesses(offset, count));
        let mut back = vec![0; bytes.len()];
        device.memcpy_fromio(&mut back, offset).unwrap();
        assert_eq!(back, bytes);
        assert_eq!(places(&recorder), accesses(offset, count));
        device.memset_io(offset, 0xee, count).unwrap();
        assert_eq!(places(&recorder), accesses(offset, count));
        let inside = usize::try_from(offset).unwrap()..usize::try_from(offset + count).unwrap();
        for (index, byte) in recorder.bytes().into_iter().enumerate() {
            assert_eq!(byte, if inside.contains(&index) { 0xee } else { 0 });
        }
    }
}

/// Three registers.
#[repr(C)]
struct Three(std::cell::Cell<u32>, std::cell::Cell<u32>, std::cell::Cell<u32>);

// SAFETY: cells of numbers.
unsafe impl RegisterBlock for Three {}

/// One.
#[repr(C)]
struct One(std::cell::Cell<u32>);

// SAFETY: cells of numbers.
unsafe impl RegisterBlock for One {}

#[test]
fn a_block_of_registers_must_fit_where_it_is_put() {
    let memory = Three(7.into(), 8.into(), 9.into());
    let range = quarry::addr::VirtRange::from_size(quarry::addr::VirtAddr::of(&raw const memory), 12).unwrap();
    let recorder = Recorder::new(1);
    // SAFETY: the memory outlives the value.
    let device = unsafe { Mmio::new(&recorder, range) };
    std::hint::black_box(std::ptr::from_ref(&memory).expose_provenance());
    let block = device.registers::<Three>(0).unwrap();
    assert_eq!((block.0.get(), block.1.get(), block.2.get()), (7, 8, 9));
    assert!(matches!(device.registers::<Three>(4), Err(AccessError::Outside { .. })));
    assert!(matches!(device.registers::<Three>(u64::MAX), Err(AccessError::Outside { .. })));
    assert_eq!(device.registers::<One>(8).unwrap().0.get(), 9);
    assert!(matches!(device.registers::<One>(1), Err(AccessError::Misplaced(..))));
}
