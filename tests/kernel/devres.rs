//! Devices of this machine and what their drivers have: given back in reverse, whichever step fails.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::sync::atomic::{AtomicU32, Ordering};
use quarry::addr::{PhysAddr, VirtAddr};
use quarry::gfp::Gfp;
use quarry::global::{self, Devres, IoMemError, ThisKernel};
use quarry::ktest;
use quarry::mm::dma::{DeviceSpec, DmaError};
use quarry::mm::fault_inject::{MayRecover, fail_every};
use quarry::mm::io::IoError;
use quarry::mm::io::resource::ResourceError;
use quarry::mm::slab::KMALLOC_MAX_SIZE;

/// The machine's clock, whose last registers say what it is.
const RTC: PhysAddr = PhysAddr::new(0x0901_0000);
const RTC_SIZE: u64 = 0x1000;
const PRIME_CELL: u64 = 0xff0;

/// How many probes are undone.
static UNDONE: AtomicU32 = AtomicU32::new(0);
/// How far the clock was set up: its driver's actions take one step back each, in reverse.
static STEP: AtomicU32 = AtomicU32::new(0);

fn step(device: &Devres, number: u32) -> Result<(), IoMemError> {
    STEP.store(number, Ordering::Relaxed);
    let back = move || assert_eq!(STEP.swap(number - 1, Ordering::Relaxed), number, "in reverse");
    global::devm_add_action_or_reset(device, back).map_err(IoMemError::Memory)
}

/// Steps of a driver of the clock.
fn probe(device: &Devres) -> Result<VirtAddr, IoMemError> {
    global::devm_request_mem_region(device, RTC, RTC_SIZE, "probe")?;
    step(device, 1)?;
    let registers = global::devm_ioremap(device, RTC, RTC_SIZE)?;
    step(device, 2)?;
    let state = global::devm_kzalloc(device, 64, Gfp::KERNEL).map_err(IoMemError::Memory)?;
    // SAFETY: 64 bytes, the device's.
    assert!(unsafe { core::slice::from_raw_parts(state.as_ptr(), 64) }.iter().all(|byte| *byte == 0));
    global::devm_kmalloc(device, 10_000, Gfp::KERNEL).map_err(IoMemError::Memory)?;
    step(device, 3)?;
    // SAFETY: mapped above; reading an identification changes nothing.
    let cell = unsafe { global::readl(VirtAddr::new(registers.get() + PRIME_CELL)) };
    assert_eq!(cell & 0xff, 0x0d);
    Ok(registers)
}

ktest!(a_failed_probe_undoes_in_reverse_what_it_did, machine = "mem=64M", timeout = 120);
fn a_failed_probe_undoes_in_reverse_what_it_did() {
    // Memory that stays once there was a mapping, a region.
    let mut warm = Devres::new();
    warm.probe(probe).expect("memory");
    drop(warm);
    let start = || {
        let mut device = Devres::new();
        match device.probe(probe) {
            Ok(_) => Ok(device),
            Err(error) => {
                assert_eq!((device.count(), STEP.load(Ordering::Relaxed)), (0, 0));
                UNDONE.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    };
    let rounds = fail_every(&ThisKernel, MayRecover::Yes, start, drop).expect("sound");
    assert!(rounds.points >= 8 && UNDONE.load(Ordering::Relaxed) >= 7, "{rounds:?}");
    assert_eq!(STEP.load(Ordering::Relaxed), 0);
    // Nobody has the clock, or its addresses.
    let device = Devres::new();
    // SAFETY: the machine's clock, whose identification alone is read.
    let clock = unsafe { global::devm_ioremap_resource(&device, RTC, RTC_SIZE, "clock") }.expect("free again");
    assert_eq!(clock.readl(PRIME_CELL).expect("inside") & 0xff, 0x0d);
    // SAFETY: refused, as the clock is taken; its identification alone would be read.
    let busy = unsafe { global::devm_ioremap_resource(&device, RTC, RTC_SIZE, "other") };
    assert!(matches!(busy, Err(IoMemError::Region(ResourceError::Busy { .. }))), "{:?}", busy.err());
    let other_type = global::devm_ioremap_wc(&device, RTC, RTC_SIZE);
    assert!(matches!(other_type, Err(IoMemError::Map(IoError::Conflict { .. }))), "{other_type:?}");
    assert_eq!(device.count(), 1);
}

ktest!(
    memory_of_a_device_is_as_large_as_kmallocs,
    report = "devm_kfree: ",
    report = "is no memory of the device",
    exit = 0
);
fn memory_of_a_device_is_as_large_as_kmallocs() {
    let mut device = Devres::new();
    let group = global::devres_open_group(&device);
    for size in [1, 64, 4064, 4065, 100_000, KMALLOC_MAX_SIZE] {
        let memory = global::devm_kzalloc(&device, size, Gfp::KERNEL).expect("memory");
        assert!(VirtAddr::of(memory.as_ptr()).is_aligned(if size > 4064 { 4096 } else { 32 }), "{size}");
        // SAFETY: as many bytes, the device's.
        let bytes = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), size) };
        assert!(bytes.iter().all(|byte| *byte == 0), "{size}");
        bytes.fill(0xa5);
    }
    assert!(global::devm_kmalloc(&device, KMALLOC_MAX_SIZE + 1, Gfp::KERNEL).is_err());
    assert!(global::devm_kcalloc(&device, usize::MAX, 2, Gfp::KERNEL).is_err());
    let group = global::devres_close_group(&device, group);
    let kept = global::devm_kcalloc(&device, 4, 8, Gfp::ATOMIC).expect("memory");
    global::devres_release_group(&mut device, group);
    assert_eq!(device.count(), 1);
    raw!(global::devm_kfree(&device, kept.as_ptr())).expect("its own");
    raw!(global::devm_kfree(&device, kept.as_ptr())).expect_err("twice");
    assert_eq!(device.count(), 0);
}

ktest!(
    a_mapping_and_a_region_go_before_their_turn,
    report = "is no mapping of the device",
    report = "is no region of the device",
    exit = 0
);
fn a_mapping_and_a_region_go_before_their_turn() {
    let mut device = Devres::new();
    let claim = |device: &Devres| global::devm_request_mem_region(device, RTC, RTC_SIZE, "early").map(drop);
    claim(&device).expect("nobody has the clock");
    let at = global::devm_ioremap(&device, RTC, RTC_SIZE).expect("mapped");
    let memory = global::devm_kmalloc(&device, 64, Gfp::KERNEL).expect("memory");
    // Neither an address of another kind, nor one that the device does not have, nor a part of its region.
    raw!(global::devm_iounmap(&mut device, memory.as_ptr())).expect_err("memory, not a mapping");
    raw!(global::devm_iounmap(&mut device, VirtAddr::new(at.get() + 4))).expect_err("inside");
    assert!(raw!(device.free_memory(at.as_ptr())).is_err(), "a mapping, not memory");
    for (start, size) in [(RTC, RTC_SIZE / 2), (PhysAddr::new(RTC.get() + 4), 4), (PhysAddr::new(0x1000), RTC_SIZE)] {
        global::devm_release_mem_region(&mut device, start, size).expect_err("no region of the device");
    }
    assert_eq!(device.count(), 3);
    raw!(global::devm_iounmap(&mut device, at)).expect("its own");
    assert!(global::vmap_space().iter().all(|area| area.phys != Some(RTC)), "the mapping is gone");
    global::devm_release_mem_region(&mut device, RTC, RTC_SIZE).expect("its own");
    assert_eq!(device.count(), 1);
    // Another one has the addresses at once, and the first no longer.
    let other = Devres::new();
    claim(&other).expect("released");
    global::devm_release_mem_region(&mut device, RTC, RTC_SIZE).expect_err("of another device");
    raw!(global::devm_iounmap(&mut device, at)).expect_err("twice");
    assert!(claim(&device).is_err(), "the other still has it");
}

ktest!(coherent_memory_of_a_device_goes_with_what_else_it_has);
fn coherent_memory_of_a_device_goes_with_what_else_it_has() {
    for coherent in [false, true] {
        let clock = global::dma_device(&DeviceSpec::new("clock").with_coherent(coherent));
        let start = || {
            let device = Devres::new();
            let both =
                [4096, 8192].map(|size| global::dmam_alloc_coherent(&device, &clock, size, Gfp::KERNEL | Gfp::NOWARN));
            match both {
                [Ok(first), Ok(second)] => {
                    assert_ne!(first.bus, second.bus);
                    Ok(device)
                }
                [Err(error), _] | [_, Err(error)] => {
                    drop(device);
                    // The reserve stays until memory is short.
                    global::dma().trim_reserves();
                    Err::<Devres, DmaError>(error)
                }
            }
        };
        let end = |device: Devres| {
            assert_eq!(device.count(), 2);
            drop(device);
            // It is nobody's any more: a reserve of which nothing is in use goes back whole.
            global::dma().trim_reserves();
            assert_eq!(global::dma().reserved_pages().0, 0);
        };
        end(start().expect("memory"));
        let rounds = fail_every(&ThisKernel, MayRecover::Yes, start, end).expect("sound");
        assert!(rounds.points >= 3, "{rounds:?}");
    }
    global::check_dma().expect("sound");
}
