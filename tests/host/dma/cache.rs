//! The simulated data cache itself: what it does to code that forgets something.

use quarry::addr::{DmaAddr, PhysAddr, PhysRange, VirtAddr, VirtRange};
use quarry::arch::host::{BusError, CacheConfig, CachedRam, SimDevice, Window};
use quarry::hal::Internal;
use quarry::hal::cache::DataCache;

const START: u64 = 0x4000_0000;
const SIZE: u64 = 2 << 20;
const LINES: [u64; 8] = [16, 32, 64, 128, 256, 512, 1024, 2048];

fn ram(line: u64, seed: u64, events: u32) -> CachedRam {
    let range = PhysRange::from_size(PhysAddr::new(START), SIZE).unwrap();
    CachedRam::new(range, CacheConfig { line, seed, events })
}

fn device(ram: &CachedRam, snoops: bool) -> SimDevice {
    SimDevice { windows: vec![Window { bus: DmaAddr::new(0), cpu: ram.range() }], mask: u64::MAX, snoops }
}

fn here(ram: &CachedRam, offset: u64) -> VirtAddr {
    ram.linear(PhysAddr::new(START + offset))
}

fn put(at: VirtAddr, value: u8) {
    raw!(at.as_ptr::<u8>().write_volatile(value));
}

fn get(at: VirtAddr) -> u8 {
    raw!(at.as_ptr::<u8>().read_volatile())
}

fn seen(ram: &CachedRam, device: &SimDevice, offset: u64) -> u8 {
    let mut byte = [0];
    device.read(ram, DmaAddr::new(offset), &mut byte).unwrap();
    byte[0]
}

fn bytes(at: VirtAddr, size: u64) -> VirtRange {
    VirtRange::from_size(at, size).unwrap()
}

fn promise() -> Internal {
    raw!(Internal::promised())
}

#[test]
fn a_device_sees_what_was_cleaned_and_nothing_else() {
    for line in LINES {
        let ram = ram(line, 1, 0);
        let device = device(&ram, false);
        put(here(&ram, 0), 7);
        put(here(&ram, line), 8);
        assert_eq!((seen(&ram, &device, 0), seen(&ram, &device, line)), (0, 0), "line of {line}");
        ram.clean(promise(), bytes(here(&ram, 0), 1));
        ram.complete();
        assert_eq!((seen(&ram, &device, 0), seen(&ram, &device, line)), (7, 0), "line of {line}");
        assert_eq!((ram.counts().cleaned, ram.counts().barriers), (1, 1));
    }
}

#[test]
fn what_a_device_wrote_is_seen_after_the_cache_has_dropped_the_line() {
    for line in LINES {
        let ram = ram(line, 1, 0);
        let device = device(&ram, false);
        put(here(&ram, 3), 7);
        ram.clean(promise(), bytes(here(&ram, 3), 1));
        ram.complete();
        device.write(&ram, DmaAddr::new(3), &[9]).unwrap();
        assert_eq!(get(here(&ram, 3)), 7, "the cache has the line");
        ram.invalidate(promise(), bytes(here(&ram, 3), 1));
        ram.complete();
        assert_eq!(get(here(&ram, 3)), 9);
        device.write(&ram, DmaAddr::new(3), &[10]).unwrap();
        assert_eq!(get(here(&ram, 3)), 10, "the cache does not have it");
    }
}

#[test]
fn maintenance_without_a_barrier_may_come_too_late() {
    let late = |seed| {
        let ram = ram(64, seed, 0);
        let device = device(&ram, false);
        put(here(&ram, 0), 7);
        ram.clean(promise(), bytes(here(&ram, 0), 1));
        seen(&ram, &device, 0) == 0
    };
    let late = (0..100).filter(|seed| late(*seed)).count();
    assert!((10..80).contains(&late), "{late} of 100");
}

#[test]
fn a_line_that_is_fetched_too_early_hides_what_comes_after() {
    let stale = |seed| {
        let ram = ram(64, seed, 0);
        let device = device(&ram, false);
        ram.stir_range(PhysRange::from_size(PhysAddr::new(START), 64).unwrap());
        device.write(&ram, DmaAddr::new(0), &[9]).unwrap();
        get(here(&ram, 0)) != 9
    };
    let stale = (0..100).filter(|seed| stale(*seed)).count();
    assert!((20..90).contains(&stale), "{stale} of 100");
    // Not where no cacheable mapping leads.
    for seed in 0..100 {
        let ram = ram(64, seed, 0);
        ram.set_cacheable(ram.range(), false);
        ram.stir_range(PhysRange::from_size(PhysAddr::new(START), 64).unwrap());
        device(&ram, false).write(&ram, DmaAddr::new(0), &[9]).unwrap();
        ram.set_cacheable(ram.range(), true);
        assert_eq!(get(here(&ram, 0)), 9);
    }
}

#[test]
fn a_dirty_line_takes_its_neighbours_along() {
    let ram = ram(64, 1, 0);
    let device = device(&ram, false);
    put(here(&ram, 1), 7);
    device.write(&ram, DmaAddr::new(0), &[9]).unwrap();
    ram.clean(promise(), bytes(here(&ram, 1), 1));
    ram.complete();
    assert_eq!(seen(&ram, &device, 0), 0, "what the device wrote is lost");
}

#[test]
fn an_invalidation_may_lose_what_was_written_or_keep_it() {
    let kept = |seed| {
        let ram = ram(64, seed, 0);
        put(here(&ram, 0), 7);
        ram.invalidate(promise(), bytes(here(&ram, 0), 1));
        ram.complete();
        get(here(&ram, 0)) == 7
    };
    let kept = (0..100).filter(|seed| kept(*seed)).count();
    assert!((20..80).contains(&kept), "{kept} of 100");
}

#[test]
fn a_mapping_that_is_not_cacheable_reads_and_writes_memory() {
    let ram = ram(64, 1, 0);
    let device = device(&ram, false);
    let uncached = ram.uncached(PhysAddr::new(START));
    put(here(&ram, 0), 7);
    assert_eq!(get(uncached), 0, "the cache has it");
    ram.set_cacheable(ram.range(), false);
    // By the other mapping: maintenance is of memory, not of addresses.
    ram.clean_and_invalidate(promise(), bytes(uncached, 1));
    ram.complete();
    assert_eq!(get(uncached), 7);
    put(uncached, 8);
    assert_eq!(seen(&ram, &device, 0), 8);
    device.write(&ram, DmaAddr::new(0), &[9]).unwrap();
    assert_eq!(get(uncached), 9);
    ram.set_cacheable(ram.range(), true);
    assert_eq!(get(here(&ram, 0)), 9);
}

#[test]
fn a_line_that_was_left_dirty_comes_back_later() {
    let lost = |seed| {
        let ram = ram(64, seed, 0);
        put(here(&ram, 0), 7);
        ram.set_cacheable(ram.range(), false);
        let uncached = ram.uncached(PhysAddr::new(START));
        put(uncached, 8);
        ram.stir_range(PhysRange::from_size(PhysAddr::new(START), 64).unwrap());
        get(uncached) == 7
    };
    assert!((0..100).any(lost));
}

#[test]
fn a_coherent_device_needs_no_maintenance() {
    for seed in 0..50 {
        let ram = ram(64, seed, 1000);
        let device = device(&ram, true);
        for round in 1..50 {
            put(here(&ram, 0), round);
            assert_eq!(seen(&ram, &device, 0), round);
            device.write(&ram, DmaAddr::new(0), &[round + 100]).unwrap();
            ram.step();
            assert_eq!(get(here(&ram, 0)), round + 100);
        }
    }
}

#[test]
fn a_device_reaches_what_its_windows_and_its_mask_say() {
    let ram = ram(64, 1, 0);
    let window = Window { bus: DmaAddr::new(0xc000_0000), cpu: ram.range() };
    let device = SimDevice { windows: vec![window], mask: 0xc000_0fff, snoops: false };
    assert!(device.write(&ram, DmaAddr::new(0xc000_0ffe), &[1, 2]).is_ok());
    assert_eq!(get(here(&ram, 0xfff)), 2);
    let (low, high) = (DmaAddr::new(0xbfff_ffff), DmaAddr::new(0xc000_0fff));
    assert_eq!(device.write(&ram, low, &[1, 2]), Err(BusError::Nothing(low)));
    assert_eq!(device.write(&ram, high, &[1, 2]), Err(BusError::Mask(high)));
    let last = DmaAddr::new(u64::MAX);
    assert_eq!(device.read(&ram, last, &mut [0, 0]), Err(BusError::Nothing(last)));
}

#[test]
fn maintenance_where_nothing_is_mapped_is_told() {
    let ram = ram(64, 1, 0);
    ram.clean(promise(), bytes(VirtAddr::new(0x1000), 1));
    assert_eq!(ram.violations().len(), 1);
}
