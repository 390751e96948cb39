//! Resources of a device's driver are released in reverse order.

use crate::alloc::TheSystem;
use quarry::addr::VirtAddr;
use quarry::gfp::Gfp;
use quarry::mm::alloc::{Allocator, Stateless};
use quarry::mm::io::{Devres, NotKept};
use quarry::mm::slab::SlabAllocError;
use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

std::thread_local! {
    /// Bytes that `Counted` has given out, and allocations until the next one fails.
    static LIVE: RefCell<BTreeMap<usize, Layout>> = const { RefCell::new(BTreeMap::new()) };
    static LEFT: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// The system's allocator, which counts and fails as a test says.
#[derive(Clone, Copy)]
struct Counted;

impl Stateless for Counted {
    const THE: Self = Self;
}

// SAFETY: blocks of the system's allocator.
unsafe impl Allocator for Counted {
    fn allocate(&self, layout: Layout, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        let left = LEFT.get().checked_sub(1).ok_or(SlabAllocError::OutOfMemory)?;
        LEFT.set(if left == u32::MAX - 1 { u32::MAX } else { left });
        let block = TheSystem.allocate(layout, gfp)?;
        if !gfp.contains(Gfp::ZERO) {
            // SAFETY: as large.
            unsafe { block.write_bytes(0xee, layout.size()) };
        }
        LIVE.with_borrow_mut(|live| live.insert(block.addr().get(), layout));
        Ok(block)
    }

    unsafe fn resize(&self, _: NonNull<u8>, _: Layout, _: Layout, _: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        Err(SlabAllocError::OutOfMemory)
    }

    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        let known = LIVE.with_borrow_mut(|live| live.remove(&block.addr().get()));
        assert_eq!(known, Some(layout), "not what was given out");
        // SAFETY: `Allocator::free`: the block came from here with this layout, and nobody uses it afterwards.
        unsafe { TheSystem.free(block, layout) };
    }
}

fn live() -> usize {
    LIVE.with_borrow(BTreeMap::len)
}

type Log = Arc<Mutex<Vec<u32>>>;

/// Notes when it is dropped.
struct Noted(u32, Log);

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

fn noted(log: &Log, value: u32) -> Noted {
    Noted(value, Arc::clone(log))
}

/// Notes since the last call.
fn seen(log: &Log) -> Vec<u32> {
    std::mem::take(&mut *log.lock().unwrap())
}

#[test]
fn what_was_kept_last_goes_first() {
    let log = Log::default();
    let mut device = Devres::<Counted>::new();
    let number = |value: u32| device.keep(noted(&log, value), Gfp::KERNEL).unwrap().0;
    assert_eq!([number(1), number(2)], [1, 2]);
    let first: &Vec<u8> = device.keep(vec![7; 100], Gfp::KERNEL).unwrap();
    let second: &[u64; 3] = device.keep([1, 2, 3], Gfp::KERNEL).unwrap();
    assert_eq!((first.iter().map(|byte| u64::from(*byte)).sum::<u64>(), second), (700, &[1, 2, 3]));

    let mark = device.mark();
    device.keep(noted(&log, 3), Gfp::KERNEL).unwrap();
    device.keep(noted(&log, 4), Gfp::KERNEL).unwrap();
    device.release_to(mark);
    assert_eq!(seen(&log), [4, 3], "a group");
    device.release_to(mark);
    assert_eq!(device.count(), 4);
    device.keep(noted(&log, 5), Gfp::KERNEL).unwrap();
    drop(device);
    assert_eq!(seen(&log), [5, 2, 1]);
    assert_eq!(live(), 0);
}

// A group that is closed goes whenever its turn comes, and takes nothing else along, however often it is released.
#[test]
fn a_closed_group_goes_alone_and_once() {
    let log = Log::default();
    let mut device = Devres::<Counted>::new();
    device.keep(noted(&log, 1), Gfp::KERNEL).unwrap();
    let outer = device.mark();
    device.keep(noted(&log, 2), Gfp::KERNEL).unwrap();
    let inner = device.mark();
    device.keep(noted(&log, 3), Gfp::KERNEL).unwrap();
    device.keep(noted(&log, 4), Gfp::KERNEL).unwrap();
    let inner = device.close(inner);
    let outer = device.close(outer);
    device.keep(noted(&log, 5), Gfp::KERNEL).unwrap();
    device.release_group(inner);
    assert_eq!(seen(&log), [4, 3]);
    device.keep(noted(&log, 6), Gfp::KERNEL).unwrap();
    device.release_group(inner);
    assert!(seen(&log).is_empty(), "nothing is left of it");
    device.release_group(outer);
    assert_eq!(seen(&log), [2]);
    device.release_all();
    assert_eq!(seen(&log), [6, 5, 1]);
    assert_eq!((device.count(), live()), (0, 0));
}

#[test]
fn memory_is_aligned_zeroed_if_wanted_and_found_again() {
    let mut device = Devres::<Counted>::new();
    let mut all = Vec::new();
    for bytes in [0, 1, 64, 100, 4000, 4064, 4065, 8192, 100_000, 4 << 20] {
        for gfp in [Gfp::KERNEL, Gfp::KERNEL | Gfp::ZERO] {
            let memory = device.memory(bytes, gfp).unwrap();
            let at = VirtAddr::of(memory.as_ptr());
            assert!(at.is_aligned(if bytes <= 4064 { 32 } else { 8 }), "{bytes}");
            // SAFETY: as many bytes, which the allocator of this test has filled.
            let content = unsafe { std::slice::from_raw_parts(memory.as_ptr(), bytes) };
            let wanted = if gfp.contains(Gfp::ZERO) { 0 } else { 0xee };
            assert!(content.iter().all(|byte| *byte == wanted), "{bytes}");
            // SAFETY: as many bytes, which the allocator of this test has filled.
            unsafe { memory.write_bytes(0x55, bytes) };
            all.push(memory.as_ptr());
        }
    }
    assert_eq!(device.memory(usize::MAX, Gfp::KERNEL), Err(SlabAllocError::Overflow));
    assert_eq!(device.count(), all.len());
    // In any order.
    for index in [3, 0, 15, 7, 19] {
        raw!(device.free_memory(all[index])).unwrap();
        assert_eq!(raw!(device.free_memory(all[index])), Err(NotKept(VirtAddr::of(all[index]))), "twice");
    }
    let inside = all[10].wrapping_add(8);
    assert_eq!(raw!(device.free_memory(inside)), Err(NotKept(VirtAddr::of(inside))));
    assert!(raw!(device.free_memory(std::ptr::null_mut())).is_err());
    assert_eq!(device.count(), all.len() - 5);
    device.release_all();
    assert_eq!(live(), 0);
}

#[test]
fn an_action_runs_in_its_turn_or_at_once() {
    let log = Log::default();
    let note = |value: u32| {
        let log = Arc::clone(&log);
        move || log.lock().unwrap().push(value)
    };
    let device = Devres::<Counted>::new();
    device.action(note(1), Gfp::KERNEL).unwrap();
    device.keep(noted(&log, 2), Gfp::KERNEL).unwrap();
    device.try_action(note(3), Gfp::KERNEL).unwrap();
    assert!(seen(&log).is_empty());
    LEFT.set(0);
    assert_eq!(device.action(note(4), Gfp::KERNEL), Err(SlabAllocError::OutOfMemory));
    assert_eq!(seen(&log), [4], "or reset");
    let refused = device.try_action(note(5), Gfp::KERNEL).unwrap_err();
    assert!(seen(&log).is_empty(), "it comes back");
    refused.value.unwrap()();
    assert_eq!(seen(&log), [5]);
    LEFT.set(u32::MAX);
    drop(device);
    assert_eq!(seen(&log), [3, 2, 1]);
    assert_eq!(live(), 0);
}

// Behaviour 497, for devices: whichever allocation of a probe fails, all that it had goes back in reverse, and what was there
// before stays.
#[test]
fn a_failed_probe_undoes_what_it_did_in_reverse() {
    let log = Log::default();
    let mut device = Devres::<Counted>::new();
    device.keep(noted(&log, 0), Gfp::KERNEL).unwrap();
    let before = live();
    for left in 0.. {
        LEFT.set(left);
        let outcome = device.probe(|device| {
            device.keep(noted(&log, 1), Gfp::KERNEL)?;
            device.memory(100, Gfp::KERNEL)?;
            device.keep(noted(&log, 2), Gfp::KERNEL)?;
            device.memory(10_000, Gfp::KERNEL)?;
            let log = Arc::clone(&log);
            device.action(move || log.lock().unwrap().push(3), Gfp::KERNEL)
        });
        LEFT.set(u32::MAX);
        let undone = seen(&log);
        if outcome.is_ok() {
            assert_eq!(left, 6, "a value, memory, a value, large memory with its entry, an action");
            assert!(undone.is_empty());
            break;
        }
        // The value that found no room was dropped first.
        let wanted: [&[u32]; 6] = [&[1], &[1], &[2, 1], &[2, 1], &[2, 1], &[3, 2, 1]];
        assert_eq!(undone, wanted[left as usize], "{left}");
        assert_eq!((device.count(), live()), (1, before), "{left}");
    }
    drop(device);
    assert_eq!(seen(&log), [3, 2, 1, 0]);
    assert_eq!(live(), 0);
}

#[test]
fn a_long_row_needs_no_stack() {
    let mut device = Devres::<TheSystem>::new();
    for value in 0..if cfg!(miri) { 100 } else { 200_000_u32 } {
        device.keep(value, Gfp::KERNEL).unwrap();
    }
    device.release_all();
    assert_eq!(device.count(), 0);
}
