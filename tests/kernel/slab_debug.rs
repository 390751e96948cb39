//! Debugging of slabs in the machine: what the boot argument switches on, and what a report says with the names of
//! functions.

use core::ptr::NonNull;
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache};
use quarry::ktest;
use quarry::mm::slab::{CacheSpec, KmallocCacheType, SlabFlags};

fn cache(name: &'static str, size: u32, flags: SlabFlags) -> KmemCache {
    let spec = CacheSpec { name, size, align: 0, flags: flags | SlabFlags::NO_MERGE, constructor: None };
    KmemCache::create(&spec).expect("a cache")
}

fn write(object: NonNull<u8>, at: usize, byte: u8) {
    // SAFETY: a byte of the object's slot, which nothing but this test and the allocator's checks looks at.
    unsafe { object.as_ptr().wrapping_add(at).write_volatile(byte) };
}

#[inline(never)]
fn who_allocates(cache: &KmemCache) -> NonNull<u8> {
    let object = cache.alloc(Gfp::KERNEL).expect("memory");
    core::hint::black_box(object)
}

#[inline(never)]
fn who_frees(cache: &KmemCache, object: NonNull<u8>) {
    // SAFETY: the test's own; what is written to it afterwards is what the test is about.
    unsafe { cache.free(object) };
    core::hint::black_box(object);
}

// Behaviour 147: the report names who allocated, who freed, and the byte.
ktest!(
    a_write_after_the_free_is_reported_with_both_users,
    report = "BUG victim: Poison overwritten",
    report = "First byte 0x78 instead of 0x6b",
    report = "Allocated in 0x",
    report = "who_allocates",
    report = "Freed in 0x",
    report = "who_frees",
    report = "FIX victim: Restoring Poison",
    report = "the kernel goes on"
);
fn a_write_after_the_free_is_reported_with_both_users() {
    let cache = cache("victim", 64, SlabFlags::DEBUG);
    let object = who_allocates(&cache);
    who_frees(&cache, object);
    write(object, 50, 0x78);
    let other = who_allocates(&cache);
    assert_ne!(object, other);
    who_frees(&cache, other);
    assert_eq!(cache.validate().errors(), 0);
    cache.destroy().expect("nothing is in use");
    log::info!("the kernel goes on");
}

// Behaviour 145.
ktest!(a_write_behind_an_object_is_two_errors_and_then_none);
fn a_write_behind_an_object_is_two_errors_and_then_none() {
    let cache = cache("fenced", 64, SlabFlags::RED_ZONE);
    let object = who_allocates(&cache);
    write(object, 64, 0x12);
    assert_eq!(cache.validate().errors(), 2);
    assert_eq!(cache.validate().errors(), 0);
    who_frees(&cache, object);
    cache.destroy().expect("nothing is in use");
}

// Behaviour 149: the boot argument names the cache; the others are as they always are.
ktest!(
    the_boot_argument_debugs_one_cache,
    machine = "append=slab_debug=ZU,kmalloc-32",
    report = "BUG kmalloc-32: kmalloc Redzone overwritten",
    report = "First byte 0xab instead of 0xcc",
    report = "Allocated in 0x",
    report = "the_boot_argument_debugs_one_cache",
    report = "kmalloc-32 alone"
);
fn the_boot_argument_debugs_one_cache() {
    let object = global::kmalloc(18, Gfp::KERNEL).expect("memory");
    assert_eq!(global::ksize(object.as_ptr()), Ok(18));
    write(object, 18, 0xab);
    write(object, 19, 0xab);
    // SAFETY: the test's own.
    unsafe { global::kfree(object.as_ptr()) };
    let slabs = global::slab_allocator();
    let flags = |size| slabs.kmalloc_cache(KmallocCacheType::Normal, size).expect("a cache").flags() & SlabFlags::DEBUG;
    assert_eq!(flags(32), SlabFlags::RED_ZONE | SlabFlags::STORE_USER);
    assert_eq!(flags(64), SlabFlags::empty());
    slabs.check().expect("the invariants hold");
    log::info!("kmalloc-32 alone");
}

// Behaviour 155: nobody debugs here; the report has the caller of the second free all the same.
ktest!(
    a_double_free_is_reported_with_its_caller,
    report = "BUG twice: double free of 0x",
    report = "Called from 0x",
    report = "who_frees",
    report = "freed once"
);
fn a_double_free_is_reported_with_its_caller() {
    let cache = cache("twice", 64, SlabFlags::empty());
    let (one, two) = (who_allocates(&cache), who_allocates(&cache));
    who_frees(&cache, one);
    who_frees(&cache, two);
    who_frees(&cache, one);
    assert_eq!(global::slab_allocator().info(cache.cache()).active_objects, 0);
    cache.destroy().expect("nothing is in use");
    log::info!("freed once");
}

// Behaviour 150.
ktest!(
    a_leaked_object_is_named_when_its_cache_shall_go,
    report = "BUG leaky: cannot be destroyed, objects in use: 1",
    report = "Called from 0x",
    report = "a_leaked_object_is_named_when_its_cache_shall_go",
    report = "Object 0x",
    report = "Allocated in 0x",
    report = "who_allocates",
    report = "named"
);
fn a_leaked_object_is_named_when_its_cache_shall_go() {
    let cache = cache("leaky", 64, SlabFlags::STORE_USER);
    let object = who_allocates(&cache);
    let (cache, left) = cache.destroy().expect_err("an object is in use");
    assert_eq!(left.in_use().map(|left| left.objects), Some(1));
    who_frees(&cache, object);
    cache.destroy().expect("nothing is in use");
    log::info!("named");
}

// Behaviour 177.
ktest!(
    misuse_is_the_end_where_that_is_asked_for,
    machine = "append=panic_on_warn=1",
    report = "BUG twice: double free",
    report = "panic at "
);
fn misuse_is_the_end_where_that_is_asked_for() {
    let cache = cache("twice", 64, SlabFlags::empty());
    let object = who_allocates(&cache);
    who_frees(&cache, object);
    who_frees(&cache, object);
    panic_if_reached();
}

#[inline(never)]
fn panic_if_reached() {
    log::error!("a double free was not the end");
}
