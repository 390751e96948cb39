//! What each direction needs of the caches: everything arrives, and it does not as soon as one call is left out.

use super::machine::{Buffer, Machine, device, hardware, on_a_machine, ram, with_buffer};
use quarry::addr::DmaAddr;
use quarry::arch::host::SimDevice;
use quarry::gfp::Gfp;
use quarry::mm::dma::{Bidirectional, Device, Direction, FromDevice, SgEntry, ToDevice};
use std::sync::atomic::Ordering;

/// What went wrong, if anything did.
type Seen = Result<(), &'static str>;

fn expect(right: bool, what: &'static str) -> Seen {
    if right { Ok(()) } else { Err(what) }
}

fn pattern(round: u8) -> impl Fn(u64) -> u8 {
    move |index| (index as u8).wrapping_mul(7).wrapping_add(round.wrapping_mul(31)) | 1
}

fn bytes(round: u8, from: u64, size: u64) -> Vec<u8> {
    (from..from + size).map(pattern(round)).collect()
}

fn device_reads(dma: &Machine<'_, '_>, hardware: &SimDevice, at: DmaAddr, size: u64) -> Vec<u8> {
    let mut seen = vec![0; size as usize];
    hardware.read(ram(dma), at, &mut seen).unwrap();
    seen
}

/// A buffer goes to the device and back, and part of it in between.
fn transfer<D: Direction>(dma: &Machine<'_, '_>, device: &Device, buffer: &Buffer) -> Seen {
    let hardware = hardware(dma, device);
    let size = buffer.size;
    // Junk that nobody may see again.
    buffer.fill(dma, |_| 0xee);
    if D::TO_DEVICE {
        buffer.fill(dma, pattern(1));
    }
    let bus = raw!(dma.map_single::<D>(device, buffer.addr(dma), size)).unwrap();
    let (from, part) = (size / 4, size / 2);
    let middle = DmaAddr::new(bus.get() + from);
    let inside = buffer.part(from, part);
    let mut result = Ok(());
    buffer.stir_both(dma, bus);
    if D::TO_DEVICE {
        result = expect(device_reads(dma, &hardware, bus, size) == bytes(1, 0, size), "the device reads");
    }
    if D::FROM_DEVICE {
        hardware.write(ram(dma), bus, &bytes(2, 0, size)).unwrap();
        buffer.stir_both(dma, bus);
    }
    raw!(dma.sync_for_cpu::<D>(device, middle, part)).unwrap();
    if D::FROM_DEVICE {
        result = result.and(expect(inside.read(dma) == bytes(2, from, part), "the CPU reads a part"));
    }
    if D::TO_DEVICE {
        inside.fill(dma, pattern(3));
    } else {
        // Whatever the CPU leaves there, the device writes over it.
        inside.fill(dma, |_| 0xee);
    }
    raw!(dma.sync_for_device::<D>(device, middle, part)).unwrap();
    buffer.stir_both(dma, bus);
    if D::TO_DEVICE {
        let seen = device_reads(dma, &hardware, middle, part);
        result = result.and(expect(seen == bytes(3, 0, part), "the device reads a part"));
    }
    if D::FROM_DEVICE {
        hardware.write(ram(dma), middle, &bytes(4, from, part)).unwrap();
        buffer.stir_both(dma, bus);
    }
    raw!(dma.unmap_single::<D>(device, bus, size)).unwrap();
    if D::FROM_DEVICE {
        let mut wanted = bytes(2, 0, size);
        wanted[from as usize..(from + part) as usize].copy_from_slice(&bytes(4, from, part));
        result = result.and(expect(buffer.read(dma) == wanted, "the CPU reads"));
    }
    result
}

/// The same with a list of two buffers.
fn list<D: Direction>(dma: &Machine<'_, '_>, device: &Device, buffer: &Buffer) -> Seen {
    let hardware = hardware(dma, device);
    let half = buffer.size / 2;
    let parts = [buffer.part(0, half), buffer.part(half, half)];
    buffer.fill(dma, pattern(1));
    let mut entries = [0, 1].map(|index: usize| SgEntry::new(parts[index].addr(dma), half as u32));
    raw!(dma.map_sg::<D>(device, &mut entries)).unwrap();
    let mut result = Ok(());
    for round in 2..4 {
        parts.iter().zip(&entries).for_each(|(part, entry)| part.stir_both(dma, entry.bus()));
        for (entry, from) in entries.iter().zip([0, half]) {
            if D::TO_DEVICE {
                let right = device_reads(dma, &hardware, entry.bus(), half) == bytes(round - 1, from, half);
                result = result.and(expect(right, "the device reads an entry"));
            }
            if D::FROM_DEVICE {
                hardware.write(ram(dma), entry.bus(), &bytes(round + 10, from, half)).unwrap();
            }
        }
        parts.iter().zip(&entries).for_each(|(part, entry)| part.stir_both(dma, entry.bus()));
        if round == 3 {
            break;
        }
        raw!(dma.sync_sg_for_cpu::<D>(device, &entries)).unwrap();
        if D::FROM_DEVICE {
            result = result.and(expect(buffer.read(dma) == bytes(round + 10, 0, buffer.size), "the CPU reads a list"));
        }
        buffer.fill(dma, pattern(round));
        raw!(dma.sync_sg_for_device::<D>(device, &entries)).unwrap();
    }
    raw!(dma.unmap_sg::<D>(device, &entries)).unwrap();
    if D::FROM_DEVICE {
        result = result.and(expect(buffer.read(dma) == bytes(13, 0, buffer.size), "the CPU reads the list at last"));
    }
    result
}

/// Coherent memory where something else was before.
fn coherent(dma: &Machine<'_, '_>, device: &Device) -> Seen {
    let hardware = hardware(dma, device);
    let block = dma.alloc_coherent(device, 4096, Gfp::KERNEL).unwrap();
    let words = block.addr.as_ptr::<u8>();
    let read =
        |size: usize| (0..size).map(|index| raw!(words.wrapping_add(index).read_volatile())).collect::<Vec<u8>>();
    let mut result = expect(read(4096).iter().all(|byte| *byte == 0), "it is not zero");
    let phys = quarry::addr::PhysAddr::new(block.bus.get() - super::machine::BUS + ram(dma).range().start().get());
    let stir = || ram(dma).stir_range(quarry::addr::PhysRange::from_size(phys, 4096).unwrap());
    for round in 1..4 {
        (0..256).for_each(|index| raw!(words.wrapping_add(index).write_volatile(pattern(round)(index as u64))));
        stir();
        let right = device_reads(dma, &hardware, block.bus, 256) == bytes(round, 0, 256);
        result = result.and(expect(right, "the device reads what was written before"));
        hardware.write(ram(dma), block.bus, &bytes(round + 50, 0, 256)).unwrap();
        stir();
        result = result.and(expect(read(256) == bytes(round + 50, 0, 256), "the CPU reads what was written before"));
    }
    raw!(dma.free_coherent(device, 4096, block)).unwrap();
    result
}

/// Memory that is synced by hand: its zeros have arrived.
fn noncoherent(dma: &Machine<'_, '_>, device: &Device) -> Seen {
    let hardware = hardware(dma, device);
    let block = dma.alloc_noncoherent(device, 4096, Gfp::KERNEL).unwrap();
    let phys = quarry::addr::PhysAddr::new(block.bus.get() - super::machine::BUS + ram(dma).range().start().get());
    let buffer = Buffer { start: phys, size: 4096 };
    buffer.stir(dma);
    let mut result = expect(device_reads(dma, &hardware, block.bus, 4096).iter().all(|byte| *byte == 0), "not zero");
    hardware.write(ram(dma), block.bus, &bytes(1, 0, 4096)).unwrap();
    buffer.stir(dma);
    raw!(dma.sync_for_cpu::<FromDevice>(device, block.bus, 4096)).unwrap();
    result = result.and(expect(buffer.read(dma) == bytes(1, 0, 4096), "the CPU reads"));
    raw!(dma.free_coherent(device, 4096, block)).unwrap();
    result
}

/// The memory that is allocated next is dirty in the caches.
fn dirty_all(dma: &Machine<'_, '_>) {
    use quarry::mm::dma::DmaHal;
    use quarry::mm::page::PageMap;
    use quarry::mm::zone::PageHal;
    let pages = dma.hal().pages();
    for order in [0, 9].map(|order| quarry::addr::Order::new(order).unwrap()) {
        let page = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
        let block = Buffer { start: pages.hal().map().phys(page), size: order.bytes().min(16384) };
        block.fill(dma, |_| 0xdd);
        // Some of it has been written back.
        block.stir(dma);
        raw!(pages.free_pages(page, order)).unwrap();
    }
}

type Scenario = fn(&Machine<'_, '_>) -> Seen;

/// In a buffer of whole lines, and in one that shares lines and is bounced.
fn both(dma: &Machine<'_, '_>, f: fn(&Machine<'_, '_>, &Device, &Buffer) -> Seen) -> Seen {
    let device = device(dma, false);
    let line = ram(dma).range().size().min(256);
    with_buffer(dma, (0, 2 * line), |_, buffer| f(dma, &device, buffer))?;
    dma.set_up_bounce(16).unwrap();
    // The slots hold what is not to be seen.
    dma.hal().caches.paused.store(true, Ordering::Relaxed);
    with_buffer(dma, (4, 16 * 1024), |_, buffer| {
        buffer.fill(dma, |_| 0xcc);
        let bus = raw!(dma.map_single::<Bidirectional>(&device, buffer.addr(dma), buffer.size)).unwrap();
        raw!(dma.unmap_single::<Bidirectional>(&device, bus, buffer.size)).unwrap();
    });
    dma.hal().caches.paused.store(false, Ordering::Relaxed);
    with_buffer(dma, (4, 2 * line), |_, buffer| f(dma, &device, buffer))
}

const SCENARIOS: [(&str, Scenario); 8] = [
    ("to the device", |dma| both(dma, transfer::<ToDevice>)),
    ("from the device", |dma| both(dma, transfer::<FromDevice>)),
    ("both ways", |dma| both(dma, transfer::<Bidirectional>)),
    ("a list to the device", |dma| both(dma, list::<ToDevice>)),
    ("a list from the device", |dma| both(dma, list::<FromDevice>)),
    ("a list both ways", |dma| both(dma, list::<Bidirectional>)),
    ("coherent", |dma| {
        dirty_all(dma);
        coherent(dma, &device(dma, false))
    }),
    ("noncoherent", |dma| {
        dirty_all(dma);
        noncoherent(dma, &device(dma, false))
    }),
];

/// What a scenario says, and how many calls of maintenance it made.
fn run(scenario: Scenario, line: u64, seed: u64, left_out: u64) -> (Seen, u64) {
    let mut outcome = (Ok(()), 0);
    on_a_machine(line, seed, |dma| {
        dma.hal().caches.left_out.store(left_out, Ordering::Relaxed);
        let seen = scenario(dma);
        dma.hal().caches.left_out.store(u64::MAX, Ordering::Relaxed);
        outcome = (seen, dma.hal().caches.calls.load(Ordering::Relaxed));
    });
    outcome
}

// Behaviours 299, 309, 314, 315 and 326
#[test]
fn everything_arrives_whatever_the_caches_do() {
    for (name, scenario) in SCENARIOS {
        for line in [16, 64, 128] {
            for seed in 0..if cfg!(miri) { 1 } else { 6 } {
                let (seen, _) = run(scenario, line, seed, u64::MAX);
                assert_eq!(seen, Ok(()), "{name}, lines of {line}, seed {seed}");
            }
        }
    }
}

// Each clean, each invalidation and each barrier, left out by itself.
#[test]
fn nothing_arrives_for_certain_when_one_call_is_left_out() {
    if cfg!(miri) {
        return;
    }
    for (name, scenario) in SCENARIOS {
        let (_, calls) = run(scenario, 64, 0, u64::MAX);
        assert!(calls >= 2, "{name} makes {calls} calls");
        for left_out in 0..calls {
            let noticed = (0..200).any(|seed| run(scenario, 64, seed, left_out).0.is_err());
            assert!(noticed, "{name}: nobody misses call {left_out} of {calls}");
        }
    }
}
