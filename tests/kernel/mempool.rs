//! Memory pools on CPUs that are there: waiting for each other's elements, handlers, failing memory, misuse.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use quarry::addr::Order;
use quarry::arch::aarch64::{cpu, irq};
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global::{self, KmallocPool, KmemCache, Mempool, MempoolOf, ThisKernel};
use quarry::kernel::{cpus, tick};
use quarry::ktest;
use quarry::mm::fault_inject::{MayRecover, fail_every};
use quarry::mm::mempool::{Backing, PoolCreateError, PoolDestroyError, PoolEmpty, PoolResizeError, PoolSpec};
use quarry::mm::slab::{CacheSpec, SlabFlags};
use spin::once::Once;

fn destroyed<B: Backing>(pool: MempoolOf<B>) {
    pool.check().expect("sound");
    assert!(global::mempool_destroy(pool).is_ok(), "nothing is in use");
}

fn free<B: Backing>(element: NonNull<u8>, pool: &MempoolOf<B>) {
    // SAFETY: the test's own, not used afterwards.
    unsafe { global::mempool_free(element.as_ptr(), pool) };
}

/// Elements of a pool of functions: places of this table.
static PLACES: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

fn take_place(_: Gfp, places: &&'static [AtomicBool]) -> Option<NonNull<u8>> {
    let free = places.iter().find(|place| !place.swap(true, Ordering::AcqRel))?;
    Some(NonNull::from(free).cast())
}

fn give_place(place: NonNull<u8>, _: &&'static [AtomicBool]) {
    // SAFETY: it came from `take_place`.
    let place = unsafe { place.cast::<AtomicBool>().as_ref() };
    assert!(place.swap(false, Ordering::AcqRel), "it was taken");
}

/// The pool that handlers take elements of, and what each CPU's handler has.
static HANDLERS_POOL: Once<global::FunctionPool<&'static [AtomicBool]>> = Once::new();
static HELD: [AtomicPtr<u8>; 8] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 8];

fn each() {
    let (Some(pool), cpu) = (HANDLERS_POOL.get(), cpu::current()) else { return };
    let held = HELD.get(cpu.get() as usize).expect("eight CPUs at most");
    let before = held.swap(core::ptr::null_mut(), Ordering::Relaxed);
    if !before.is_null() {
        raw!(global::mempool_free(before, pool));
    } else if let Ok(element) = global::mempool_alloc(pool, Gfp::NOWAIT) {
        held.store(element.as_ptr(), Ordering::Relaxed);
    }
}

// Behaviours 329 and 339: four CPUs, three elements, and handlers on each CPU that take one when they can.
ktest!(
    every_waiter_is_served_beside_handlers,
    machine one = "icount",
    machine four = "smp=4",
    machine four_counted = "smp=4 icount gic=3",
    timeout = 120,
);
fn every_waiter_is_served_beside_handlers() {
    // SAFETY: a place is taken by one at a time.
    let pool = unsafe { global::mempool_create("places", 2, take_place, give_place, PLACES.as_slice()) };
    let pool = HANDLERS_POOL.call_once(|| pool.expect("there are three"));
    tick::start(timer::frequency() / 20_000, each).expect("the timer is free");
    let served = AtomicU64::new(0);
    cpus::run_everywhere(&|_| {
        for _ in 0..500 {
            // A handler of this CPU may have one, and gives it back at its next tick.
            let element = global::mempool_alloc(pool, Gfp::KERNEL).expect("whoever may wait gets one");
            served.fetch_add(1, Ordering::Relaxed);
            free(element, pool);
        }
    });
    tick::stop().expect("it runs");
    for held in &HELD {
        raw!(global::mempool_free(held.swap(core::ptr::null_mut(), Ordering::Relaxed), pool));
    }
    assert_eq!(served.load(Ordering::Relaxed), 500 * global::online_cpus().count() as u64);
    pool.check().expect("sound");
    assert_eq!(pool.stats().reserve, 2);
    assert_eq!(PLACES.iter().filter(|place| place.load(Ordering::Relaxed)).count(), 2);
}

ktest!(elements_of_every_kind_are_whole_and_come_back);
fn elements_of_every_kind_are_whole_and_come_back() {
    fn try_out<B: Backing>(pool: MempoolOf<B>, size: usize) {
        let elements = [
            global::mempool_alloc(&pool, Gfp::KERNEL).expect("memory"),
            global::mempool_alloc_preallocated(&pool).expect("a reserve"),
            global::mempool_alloc_preallocated(&pool).expect("a reserve"),
        ];
        for (element, byte) in elements.iter().zip(1_u8..) {
            // SAFETY: the element's bytes.
            unsafe { element.write_bytes(byte, size) };
        }
        for (element, byte) in elements.into_iter().zip(1_u8..) {
            // SAFETY: the element's bytes.
            let bytes = unsafe { core::slice::from_raw_parts(element.as_ptr(), size) };
            assert!(bytes.iter().all(|found| *found == byte), "shared with another");
            free(element, &pool);
        }
        assert_eq!(pool.stats().reserve, 2);
        destroyed(pool);
    }
    for size in [8, 100, 256, 8192, 100_000] {
        try_out(global::mempool_create_kmalloc_pool("kmalloc", 2, size).expect("memory"), size);
    }
    for order in [0, 2] {
        let order = Order::new(order).expect("an order");
        try_out(global::mempool_create_page_pool("pages", 2, order).expect("memory"), 4096 << order.get());
    }
    let spec = CacheSpec { name: "pool-test", size: 72, align: 0, flags: SlabFlags::NO_MERGE, constructor: None };
    let cache = KmemCache::create(&spec).expect("a cache");
    try_out(global::mempool_create_slab_pool("cache", 2, &cache).expect("memory"), 72);
    assert!(cache.destroy().is_ok(), "nothing is left");
}

ktest!(boxes_give_their_elements_back);
fn boxes_give_their_elements_back() {
    let pool = Mempool::<[u64; 9]>::create(&PoolSpec::new("boxes", 2)).expect("memory");
    let mut first = pool.alloc([1; 9], Gfp::KERNEL).expect("memory");
    let second = pool.alloc([2; 9], Gfp::ATOMIC).expect("memory");
    *first = [3; 9];
    assert_eq!((*first, *second), ([3; 9], [2; 9]));
    drop((first, second));
    let forgotten = core::mem::ManuallyDrop::new(pool.alloc([4; 9], Gfp::KERNEL).expect("memory"));
    let at = NonNull::from(&**forgotten).cast::<u8>();
    let (pool, why) = pool.destroy_all().expect_err("one is missing");
    assert_eq!(why, PoolDestroyError::InUse { missing: 1 });
    free(at, pool.raw());
    pool.raw().check().expect("sound");
    assert!(pool.destroy_all().is_ok());
    // The cache went with it.
    let again = Mempool::<[u64; 9]>::create(&PoolSpec::new("boxes", 2)).expect("memory");
    assert!(again.destroy_all().is_ok());
}

// Behaviour 497, for pools.
ktest!(no_failed_allocation_of_a_pool_loses_anything, machine = "mem=64M", timeout = 120);
fn no_failed_allocation_of_a_pool_loses_anything() {
    let rounds =
        fail_every(&ThisKernel, MayRecover::Yes, || global::mempool_create_kmalloc_pool("failing", 3, 300), destroyed);
    assert!(rounds.expect("sound").points >= 4, "the list and three elements");
    let rounds = fail_every(
        &ThisKernel,
        MayRecover::Yes,
        || global::mempool_create_page_pool("failing", 3, Order::ZERO),
        destroyed,
    );
    assert!(rounds.expect("sound").points >= 4);
    let rounds = fail_every(
        &ThisKernel,
        MayRecover::Yes,
        || Mempool::<[u64; 40]>::create(&PoolSpec::new("failing", 3)),
        |pool| assert!(pool.destroy_all().is_ok()),
    );
    assert!(rounds.expect("sound").points >= 4);
    // Growing goes on by frees where elements are not to be had, and fails where its list is not.
    let grow = || {
        let pool = global::mempool_create_kmalloc_pool("failing", 1, 300).map_err(|_| PoolResizeError::OutOfMemory)?;
        match global::mempool_resize(&pool, 60) {
            Ok(()) => Ok(pool),
            Err(error) => {
                destroyed(pool);
                Err(error)
            }
        }
    };
    let rounds = fail_every(&ThisKernel, MayRecover::Yes, grow, destroyed).expect("sound");
    assert!(rounds.points >= 62 && rounds.recovered >= 59, "{rounds:?}");
    // An allocation has the reserve.
    let pool = global::mempool_create_kmalloc_pool("failing", 1, 300).expect("memory");
    let alloc = || global::mempool_alloc(&pool, Gfp::ATOMIC);
    let rounds = fail_every(&ThisKernel, MayRecover::Yes, alloc, |element| free(element, &pool)).expect("sound");
    assert_eq!(rounds.points, rounds.recovered);
    destroyed(pool);
}

ktest!(
    misuse_of_elements_is_named,
    report = "mempool poison overwritten: byte 40 of the element at ",
    report = "it was written to after it was freed, and is set aside; mempool \"io\", by ",
    report = "element freed twice: ",
    report = "is in the pool's reserve; mempool \"io\", by ",
    report = "is no element of the pool: ",
    report = "pool destroyed with 1 elements in use; mempool \"io\""
);
fn misuse_of_elements_is_named() {
    let pool = global::mempool_create_kmalloc_pool("io", 2, 128).expect("memory");
    let elements = [(); 2].map(|()| global::mempool_alloc_preallocated(&pool).expect("a reserve"));
    let [stale, other] = elements;
    free(stale, &pool);
    // SAFETY: inside the element.
    let byte = unsafe { stale.add(40) };
    // SAFETY: memory that is there; that it is freed is what the test is about.
    unsafe { byte.write_volatile(1) };
    assert!(global::mempool_alloc_preallocated(&pool).is_none(), "nobody gets it");
    free(other, &pool);
    free(other, &pool);
    let outside = NonNull::from(&pool).cast();
    free(outside, &pool);
    let held = global::mempool_alloc_preallocated(&pool).expect("whole");
    let Err((pool, why)) = global::mempool_destroy(pool) else { panic!("one is in use") };
    assert_eq!(why, PoolDestroyError::InUse { missing: 1 });
    free(held, &pool);
    destroyed(pool);
    // Elements that the pool has lost.
    raw!(global::kfree(stale.as_ptr()));
}

ktest!(
    whoever_may_not_sleep_makes_no_pool,
    report = "sleeping function called in atomic context (interrupts are masked): mempool_create_kmalloc_pool"
);
fn whoever_may_not_sleep_makes_no_pool() {
    let pool: KmallocPool = global::mempool_create_kmalloc_pool("pool", 1, 64).expect("memory");
    let boxes = Mempool::<u64>::create(&PoolSpec::new("boxes", 1)).expect("memory");
    let spec = CacheSpec { name: "pool-test", size: 72, align: 0, flags: SlabFlags::NO_MERGE, constructor: None };
    let cache = KmemCache::create(&spec).expect("a cache");
    let masked = irq::local_irq_save();
    let refused = |error: Option<PoolCreateError>| matches!(error, Some(PoolCreateError::Atomic(_)));
    assert!(refused(global::mempool_create_kmalloc_pool("pool", 1, 64).err()));
    assert!(refused(global::mempool_create_page_pool("pool", 1, Order::ZERO).err()));
    assert!(refused(global::mempool_create_slab_pool("pool", 1, &cache).err()));
    // SAFETY: refused, since waiting is not legal here; the functions fit each other.
    assert!(refused(unsafe { global::mempool_create("pool", 1, take_place, give_place, PLACES.as_slice()) }.err()));
    assert!(refused(Mempool::<u64>::create(&PoolSpec::new("more", 1)).err()));
    assert!(matches!(global::mempool_resize(&pool, 2), Err(PoolResizeError::Atomic(_))));
    let Err((pool, why)) = global::mempool_destroy(pool) else { panic!("destroyed") };
    assert!(matches!(why, PoolDestroyError::Atomic(_)));
    let Err((boxes, why)) = boxes.destroy_all() else { panic!("destroyed") };
    assert!(matches!(why, PoolDestroyError::Atomic(_)));
    assert_eq!(global::mempool_alloc(&pool, Gfp::NOWAIT | Gfp::ZERO), Err(PoolEmpty::Zero));
    drop(masked);
    assert!(boxes.destroy_all().is_ok());
    destroyed(pool);
    assert!(cache.destroy().is_ok());
}
