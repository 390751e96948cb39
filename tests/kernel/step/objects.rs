//! Objects of a cache: the pool of the test, its calls, and the tests of each.
#![expect(clippy::indexing_slicing, reason = "a test that runs out of its own places has failed")]

use super::deeds::{Calls, DEEDS, Deed, MOST, Pool, name, pointer};
use super::rounds::{Arrival, interrupt_everywhere};
use super::visit::timer_interrupt;
use crate::interrupts::with_timer;
use core::ptr::NonNull;
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache};
use quarry::ktest;
use quarry::mm::slab::{CacheInfo, CacheSpec, SlabFlags};
use spin::once::Once;

static CACHE: Once<KmemCache> = Once::new();

fn cache() -> &'static KmemCache {
    let spec = CacheSpec { name: "stepped", size: 600, align: 0, flags: SlabFlags::NO_MERGE, constructor: None };
    CACHE.call_once(|| KmemCache::create(&spec).expect("a cache"))
}

/// A cache of the test's own.
struct Own;

impl Pool for Own {
    const SIZE: usize = 600;
    // An array and its spare have 31 each.
    const FULL: usize = 62;
    const MANY: usize = 70;

    fn at_hand() -> usize {
        usize::try_from(info().at_hand).expect("fewer objects than addresses")
    }

    fn in_use() -> u64 {
        info().active_objects
    }

    fn shrink() {
        cache().shrink();
    }

    fn drain() {
        global::slab_allocator().try_shrink_all(u64::MAX).expect("nobody makes a cache");
        assert_eq!(Self::at_hand(), 0);
    }

    fn check() {
        global::slab_allocator().check_cache(cache().cache()).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

fn info() -> CacheInfo {
    global::slab_allocator().info(cache().cache())
}

fn alloc_waiting() -> u64 {
    name(cache().alloc(Gfp::KERNEL).expect("memory"))
}

fn alloc_atomic() -> u64 {
    name(cache().alloc(Gfp::ATOMIC).expect("memory"))
}

fn free_to_cache(object: u64) {
    // SAFETY: the test's own, not used afterwards.
    unsafe { cache().free(pointer(object)) };
}

fn kfree(object: u64) {
    // SAFETY: the test's own, not used afterwards.
    unsafe { global::kfree(pointer(object).as_ptr()) };
}

/// With interrupts masked.
fn alloc_many(objects: &mut [NonNull<u8>]) {
    cache().alloc_bulk(Gfp::ATOMIC, objects).expect("memory");
}

/// With interrupts masked.
fn free_many(objects: &[NonNull<u8>]) {
    // SAFETY: the test's own, not used afterwards.
    assert_eq!(unsafe { cache().free_bulk(objects) }, 0);
}

/// With interrupts masked.
fn alloc_masked() -> u64 {
    let mut objects = [NonNull::dangling()];
    alloc_many(&mut objects);
    name(objects[0])
}

/// With interrupts masked.
fn kfree_masked(object: u64) {
    // SAFETY: the test's own, not used afterwards.
    unsafe { global::try_kfree(pointer(object).as_ptr()) }.expect("allocated");
}

/// The deeds, as functions without arguments.
macro_rules! deeds {
    ($pool:ty, $calls:ident) => {{
        const RUN: [(Deed, fn()); DEEDS.len()] = [
            (DEEDS[0], || DEEDS[0].run::<$pool>(&$calls)),
            (DEEDS[1], || DEEDS[1].run::<$pool>(&$calls)),
            (DEEDS[2], || DEEDS[2].run::<$pool>(&$calls)),
            (DEEDS[3], || DEEDS[3].run::<$pool>(&$calls)),
            (DEEDS[4], || DEEDS[4].run::<$pool>(&$calls)),
            (DEEDS[5], || DEEDS[5].run::<$pool>(&$calls)),
            (DEEDS[6], || DEEDS[6].run::<$pool>(&$calls)),
            (DEEDS[7], || DEEDS[7].run::<$pool>(&$calls)),
            (DEEDS[8], || DEEDS[8].run::<$pool>(&$calls)),
            (DEEDS[9], || DEEDS[9].run::<$pool>(&$calls)),
        ];
        RUN
    }};
}

/// An array and its spare: with nothing, with some, with one of them full, with both.
const STATES: &[usize] = &[0, 1, 15, 30, 31, 32, 62];

static RESTARTING: Calls = Calls {
    alloc: |objects| objects[0] = pointer(alloc_atomic()),
    free: |objects| kfree(name(objects[0])),
    count: 1,
    states: STATES,
    handler_alloc: alloc_atomic,
    handler_free: kfree,
    restarts: Some(true),
};

static RESTARTING_CACHE: Calls = Calls {
    alloc: |objects| objects[0] = pointer(alloc_waiting()),
    free: |objects| free_to_cache(name(objects[0])),
    count: 1,
    states: STATES,
    handler_alloc: alloc_masked,
    handler_free: kfree_masked,
    restarts: Some(true),
};

static MASKED: Calls = Calls {
    alloc: alloc_many,
    free: |objects| kfree_masked(name(objects[0])),
    count: 1,
    states: STATES,
    handler_alloc: alloc_atomic,
    handler_free: kfree,
    restarts: Some(false),
};

static THREE: Calls = Calls {
    alloc: alloc_many,
    free: free_many,
    count: 3,
    states: STATES,
    handler_alloc: alloc_atomic,
    handler_free: kfree,
    restarts: None,
};

/// More than a magazine holds, so that most states take the same paths.
static FORTY: Calls = Calls { count: MOST, states: &[0, 31, 62], ..THREE };

/// Where arrays are off: every call goes to the slabs.
static LONG_WAY: Calls = Calls { states: &[0], restarts: None, ..RESTARTING };

// Behaviour 185: as with a cache that is debugged, or with failures on request.
ktest!(an_interrupt_at_any_instruction_of_a_call_without_arrays, machine = "mem=64M", timeout = 60);
fn an_interrupt_at_any_instruction_of_a_call_without_arrays() {
    global::slab_allocator().set_careful(true);
    interrupt_everywhere::<Own>(&LONG_WAY, &deeds!(Own, LONG_WAY), &[Arrival::InTheStep]);
    global::slab_allocator().set_careful(false);
}

// Behaviour 185.
ktest!(an_interrupt_at_any_instruction_of_a_restarting_call, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_restarting_call() {
    interrupt_everywhere::<Own>(&RESTARTING, &deeds!(Own, RESTARTING), &[Arrival::InTheStep]);
}

// Behaviour 185.
ktest!(an_interrupt_at_any_instruction_of_a_cache_s_call, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_cache_s_call() {
    interrupt_everywhere::<Own>(&RESTARTING_CACHE, &deeds!(Own, RESTARTING_CACHE), &[Arrival::InTheStep]);
}

ktest!(an_interrupt_at_any_instruction_of_a_masking_call, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_masking_call() {
    interrupt_everywhere::<Own>(&MASKED, &deeds!(Own, MASKED), &[Arrival::InTheStep]);
}

// Behaviour 185.
ktest!(an_interrupt_at_any_instruction_of_a_call_for_three, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_call_for_three() {
    interrupt_everywhere::<Own>(&THREE, &deeds!(Own, THREE), &[Arrival::InTheStep]);
}

// Behaviour 185.
ktest!(an_interrupt_at_any_instruction_of_a_call_for_forty, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_call_for_forty() {
    let deeds = deeds!(Own, FORTY);
    // One of each kind: forty take a while.
    let deeds = [deeds[0], deeds[5], deeds[7], deeds[8], deeds[9]];
    interrupt_everywhere::<Own>(&FORTY, &deeds, &[Arrival::InTheStep]);
}

// Behaviour 185.
ktest!(the_timer_at_any_instruction_of_a_call, machine gicv2 = "mem=64M", machine gicv3 = "mem=64M gic=3", timeout = 300);
fn the_timer_at_any_instruction_of_a_call() {
    with_timer(timer_interrupt, || {
        interrupt_everywhere::<Own>(&RESTARTING, &deeds!(Own, RESTARTING), &[Arrival::Timer]);
    });
}

// Behaviour 185.
ktest!(two_interrupts_in_one_call, machine = "mem=64M", timeout = 300);
fn two_interrupts_in_one_call() {
    let deeds = deeds!(Own, RESTARTING);
    let arrivals = [1, 2, 5, 11].map(Arrival::Twice);
    interrupt_everywhere::<Own>(&RESTARTING, &deeds[5..6], &arrivals);
    interrupt_everywhere::<Own>(&RESTARTING, &deeds[6..7], &arrivals);
}
