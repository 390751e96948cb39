//! The slab allocator in the machine: what the simulated one cannot show.

use core::ptr::NonNull;
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache};
use quarry::ktest;
use quarry::mm::slab::{CacheSpec, DestroyError, Misuse, SlabFlags};

fn check() {
    global::slab_allocator().check().unwrap_or_else(|broken| panic!("{broken}"));
    global::page_allocator().check().unwrap_or_else(|broken| panic!("{broken}"));
}

fn fill(object: NonNull<u8>, byte: u8, size: usize) {
    // SAFETY: the object is the test's own, and as large.
    unsafe { object.write_bytes(byte, size) };
}

fn holds(object: NonNull<u8>, byte: u8, size: usize) -> bool {
    // SAFETY: the object is the test's own, and as large.
    unsafe { core::slice::from_raw_parts(object.as_ptr(), size) }.iter().all(|found| *found == byte)
}

ktest!(every_size_is_memory_of_its_own, machine a72 = "", machine max = "cpu=max");
fn every_size_is_memory_of_its_own() {
    let sizes = [1, 8, 9, 16, 33, 64, 65, 96, 97, 128, 129, 192, 193, 1000, 4096, 4097, 8192, 8193, 70_000, 4 << 20];
    for round in 0..3 {
        let objects = sizes.map(|size| global::kmalloc(size, Gfp::KERNEL).expect("memory"));
        for (index, (object, size)) in (1..).zip(objects.iter().zip(sizes)) {
            assert!(global::ksize(object.as_ptr()).expect("allocated") >= size, "{size}");
            assert!(!size.is_power_of_two() || object.addr().get().is_multiple_of(size.min(4096)), "{size} {object:?}");
            fill(*object, index, size);
        }
        for (index, (object, size)) in (1..).zip(objects.iter().zip(sizes)) {
            assert!(holds(*object, index, size), "{size} in round {round}");
            // SAFETY: the test's own, not used afterwards.
            unsafe { global::kfree(object.as_ptr()) };
        }
        check();
    }
}

ktest!(
    a_cache_is_not_destroyed_with_interrupts_masked,
    report = "sleeping function called in atomic context (interrupts are masked): SlabAllocator::destroy",
    report = "a_cache_is_not_destroyed_with_interrupts_masked",
    report = "it stayed",
);
fn a_cache_is_not_destroyed_with_interrupts_masked() {
    let spec = CacheSpec { name: "stays", size: 64, align: 0, flags: SlabFlags::NO_MERGE, constructor: None };
    let cache = KmemCache::create(&spec).expect("memory");
    let guard = quarry::arch::aarch64::irq::local_irq_save();
    let (cache, why) = cache.destroy().expect_err("refused");
    drop(guard);
    assert!(matches!(why, DestroyError::Atomic(_)), "{why}");
    cache.destroy().expect("nothing is in use");
    check();
    quarry::kprintln!("it stayed");
}

ktest!(a_cache_gives_its_pages_back_when_it_is_destroyed);
fn a_cache_gives_its_pages_back_when_it_is_destroyed() {
    let before = free_pages();
    let spec = CacheSpec { name: "test", size: 200, align: 0, flags: SlabFlags::NO_MERGE, constructor: None };
    let cache = KmemCache::create(&spec).expect("a cache");
    let mut objects = [NonNull::dangling(); 500];
    for (byte, object) in (0..=u8::MAX).cycle().zip(&mut objects) {
        *object = cache.alloc(Gfp::KERNEL).expect("memory");
        fill(*object, byte, 200);
    }
    check();
    for (byte, object) in (0..=u8::MAX).cycle().zip(&objects) {
        assert!(holds(*object, byte, 200));
    }
    let cache = cache.destroy().expect_err("objects are in use").0;
    for object in objects {
        // SAFETY: the test's own, not used afterwards.
        unsafe { cache.free(object) };
    }
    check();
    cache.destroy().expect("nothing is in use");
    assert_eq!(free_pages(), before);
}

fn free_pages() -> u64 {
    global::slab_allocator().shrink_all();
    global::drain_all_pages();
    global::nr_free_pages()
}

ktest!(wrong_frees_are_named);
fn wrong_frees_are_named() {
    let object = global::kmalloc(100, Gfp::KERNEL).expect("memory").as_ptr();
    let stack = 0_u8;
    let wrong = [object.wrapping_add(1), (&raw const stack).cast_mut(), 0x1000 as *mut u8];
    // SAFETY: none of these is freed.
    let answers = wrong.map(|address| unsafe { global::try_kfree(address) });
    assert!(matches!(answers[0], Err(Misuse::Misaligned { .. })), "{answers:?}");
    assert!(matches!(answers[1], Err(Misuse::NotLinear(_))), "{answers:?}");
    assert!(matches!(answers[2], Err(Misuse::NotLinear(_))), "{answers:?}");
    // SAFETY: the test's own.
    assert_eq!(unsafe { global::try_kfree(object) }, Ok(()));
    // SAFETY: it is not freed again.
    assert!(matches!(unsafe { global::try_kfree(object) }, Err(Misuse::DoubleFree { .. })));
    check();
}
