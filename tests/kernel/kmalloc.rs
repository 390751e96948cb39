//! `kmalloc` at its edges, with sizes that the compiler knows and sizes that it does not; and Rust's own types over it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::hint::black_box;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use quarry::addr::VirtAddr;
use quarry::arch::aarch64::esr::Access;
use quarry::gfp::Gfp;
use quarry::global::{self, Cache, ConstructedCache, KBox, KVec, KmallocApi};
use quarry::kernel::heap;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;
use quarry::mm::alloc::{Constructed, array_size, struct_size};
use quarry::mm::slab::{KMALLOC_MAX_CACHE_SIZE, KMALLOC_MAX_SIZE, KMALLOC_MIN_SIZE, Misuse, SlabAllocError, SlabFlags};

const KERNEL: Gfp = Gfp::KERNEL;

fn check() {
    global::slab_allocator().check().unwrap_or_else(|broken| panic!("{broken}"));
    global::page_allocator().check().unwrap_or_else(|broken| panic!("{broken}"));
}

fn free(object: NonNull<u8>) {
    // SAFETY: the tests pass what they have, once.
    unsafe { global::kfree(object.as_ptr()) };
}

fn usable(object: NonNull<u8>) -> usize {
    global::ksize(object.as_ptr()).expect("an allocation")
}

/// Allocates `$size` bytes as a constant and as a number that the compiler does not know: both must have `$class` bytes.
macro_rules! edge {
    ($($size:literal => $class:expr),* $(,)?) => {$({
        let constant = global::kmalloc($size, KERNEL).expect("memory");
        let runtime = global::kmalloc(black_box($size), black_box(KERNEL)).expect("memory");
        let class: usize = $class;
        assert_eq!((usable(constant), usable(runtime)), (class, class), "{} bytes", $size);
        free(constant);
        free(runtime);
    })*};
}

// Behaviours 189, 196.
ktest!(sizes_at_the_edges_are_the_same_known_and_unknown);
fn sizes_at_the_edges_are_the_same_known_and_unknown() {
    let at_least = |class: usize| class.max(KMALLOC_MIN_SIZE);
    let odd = |class: usize| if KMALLOC_MIN_SIZE > 64 { class.next_power_of_two() } else { class };
    edge!(
        1 => at_least(8), 8 => at_least(8), 9 => at_least(16), 64 => at_least(64), 65 => odd(96), 96 => odd(96),
        97 => 128, 128 => 128, 129 => odd(192), 192 => odd(192), 193 => 256, 256 => 256, 257 => 512, 4096 => 4096,
        4097 => 8192, 8191 => 8192, 8192 => 8192, 8193 => 16_384, 16_385 => 32_768, 2_097_153 => 4_194_304,
        4_194_304 => 4_194_304,
    );
    let too_large = [KMALLOC_MAX_SIZE + 1, black_box(KMALLOC_MAX_SIZE + 1), usize::MAX, isize::MAX as usize];
    for size in too_large {
        assert_eq!(global::kmalloc(size, KERNEL), Err(SlabAllocError::TooLarge));
    }
    assert_eq!(global::kmalloc(const { KMALLOC_MAX_SIZE + 1 }, KERNEL), Err(SlabAllocError::TooLarge));
    check();
}

// Behaviours 189, 190.
ktest!(every_size_up_to_twice_the_largest_cache, timeout = 60);
fn every_size_up_to_twice_the_largest_cache() {
    let mut before = 0;
    for size in 1..=2 * KMALLOC_MAX_CACHE_SIZE {
        let object = global::kmalloc(size, KERNEL).expect("memory");
        let class = usable(object);
        assert!(class >= size && class >= before, "{size} bytes are in {class}, after {before}");
        let aligned = if size.is_power_of_two() { size } else { 8 };
        assert!(object.addr().get().is_multiple_of(aligned), "{size} bytes at {object:?}");
        before = class;
        let wide = global::kmalloc(size, KERNEL | Gfp::DMA).expect("memory");
        assert!(usable(wide).is_multiple_of(128) && wide.addr().get().is_multiple_of(128), "{size} bytes for a device");
        free(wide);
        free(object);
    }
    check();
}

// Behaviours 191, 192.
ktest!(no_bytes_are_a_pointer_that_can_be_freed);
fn no_bytes_are_a_pointer_that_can_be_freed() {
    let none = global::kmalloc(black_box(0), KERNEL).expect("no memory is needed");
    assert_eq!(global::kmalloc(0, KERNEL), Ok(none));
    assert_eq!(global::ksize(none.as_ptr()), Ok(0));
    for _ in 0..2 {
        free(none);
        // SAFETY: null is nothing to free.
        unsafe { global::kfree(core::ptr::null_mut::<u8>()) };
    }
    // SAFETY: each is the allocation that the call before returned.
    let grown = unsafe { global::krealloc(none.as_ptr(), 100, KERNEL) }.expect("memory");
    // SAFETY: each is the allocation that the call before returned.
    assert_eq!(unsafe { global::krealloc(grown.as_ptr(), 0, KERNEL) }, Ok(none));
}

// Behaviour 191.
ktest!(no_bytes_cannot_be_written);
fn no_bytes_cannot_be_written() {
    let none = global::kmalloc(0, KERNEL).expect("no memory is needed");
    expect_fault(FaultKind::Translation(Access::Write), VirtAddr::of(none.as_ptr()));
    // SAFETY: the store faults, which is what the test is about, and ends the machine.
    unsafe { none.write_volatile(1) };
}

// Behaviours 194, 195.
ktest!(sizes_that_overflow_are_refused);
fn sizes_that_overflow_are_refused() {
    for (count, size) in [(usize::MAX, 2), (1 << 33, 1 << 33), (black_box(3), usize::MAX / 2)] {
        assert_eq!(global::kmalloc_array(count, size, KERNEL), Err(SlabAllocError::Overflow));
        assert_eq!(global::kcalloc(count, size, KERNEL), Err(SlabAllocError::Overflow));
    }
    for size in [array_size::<u64>(usize::MAX / 4), struct_size::<u64, u64>(usize::MAX / 8)] {
        assert_eq!(global::kmalloc(size, KERNEL), Err(SlabAllocError::TooLarge));
    }
}

// Behaviour 209.
ktest!(sensitive_content_is_gone_before_anybody_else_has_the_object);
fn sensitive_content_is_gone_before_anybody_else_has_the_object() {
    for size in [100, 5000, 20_000] {
        let object = global::kmalloc(size, KERNEL).expect("memory");
        let bytes = usable(object);
        // SAFETY: the test's own, as large.
        unsafe { object.write_bytes(0xab, bytes) };
        // SAFETY: not used by anybody afterwards, but looked at while it is free.
        unsafe { global::try_kfree_sensitive(object.as_ptr()) }.expect("an allocation");
        // The first word of a free object is the allocator's, and pages that are free keep what was there.
        // SAFETY: memory of the linear map, which nobody writes meanwhile.
        let rest = unsafe { core::slice::from_raw_parts(object.as_ptr().wrapping_add(8), bytes - 8) };
        assert!(rest.iter().all(|byte| *byte == 0), "{size} bytes");
        // SAFETY: it is not freed again.
        let twice = unsafe { global::try_kfree_sensitive(object.as_ptr()) };
        assert!(matches!(twice, Err(Misuse::DoubleFree { .. } | Misuse::Foreign { .. })), "{twice:?}");
    }
    check();
}

ktest!(alloc_is_kmalloc_from_the_hand_over_on, machine a72 = "", machine max = "cpu=max");
fn alloc_is_kmalloc_from_the_hand_over_on() {
    let early = heap::usage();
    assert_eq!(early.0, 0, "what booting took of it has gone back");
    let boxes: Vec<Box<u64>> = (0..100).map(Box::new).collect();
    for (number, boxed) in boxes.iter().enumerate() {
        assert_eq!((**boxed, global::ksize(&raw const **boxed)), (number as u64, Ok(KMALLOC_MIN_SIZE)));
    }
    assert!(global::ksize(boxes.as_ptr()).is_ok());
    assert_eq!(heap::usage(), early, "somebody still allocates from the early heap");
    #[repr(align(4096))]
    struct Aligned([u8; 100]);
    let aligned = Box::new(Aligned([1; 100]));
    assert!((&raw const aligned.0).addr().is_multiple_of(4096));
    let layout = Layout::from_size_align(5_000_000, 8192).expect("a layout");
    // SAFETY: not empty.
    let block = unsafe { alloc::alloc::alloc(layout) };
    // The compiler takes an allocation that nobody uses for one that succeeds.
    assert!(black_box(block).is_null(), "larger than the largest block, and aligned to more than a page");
    let mut bytes = Vec::new();
    assert!(bytes.try_reserve_exact(1 << 40).is_err());
    bytes.extend((0..=u8::MAX).cycle().take(300_000));
    bytes.truncate(1000);
    bytes.shrink_to_fit();
    assert_eq!(global::ksize(bytes.as_ptr()), Ok(1024));
    assert!(bytes.iter().copied().eq((0..=u8::MAX).cycle().take(1000)));
    check();
}

static DROPPED: AtomicU32 = AtomicU32::new(0);

struct Noted(u64);

impl Drop for Noted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

ktest!(boxes_rows_and_caches_live_in_kmalloc, machine a72 = "", machine max = "cpu=max");
fn boxes_rows_and_caches_live_in_kmalloc() {
    let boxed = KBox::new(Noted(5), KERNEL).expect("memory");
    assert_eq!((boxed.0, global::ksize(&raw const *boxed)), (5, Ok(KMALLOC_MIN_SIZE)));
    drop(boxed);
    assert_eq!(DROPPED.swap(0, Ordering::Relaxed), 1);

    let mut row: KVec<u32> = KVec::new();
    for value in 0..100_000 {
        row.push(value, KERNEL).expect("memory");
    }
    assert!(row.iter().copied().eq(0..100_000));
    let atomic = row.extend_from_slice(&[1, 2, 3], Gfp::ATOMIC);
    assert_eq!((atomic, row.len()), (Ok(()), 100_003));
    assert_eq!(KVec::<u8>::with_capacity(KMALLOC_MAX_SIZE + 1, KERNEL).err(), Some(SlabAllocError::TooLarge));
    let slice = row.into_boxed_slice(KERNEL).expect("it only shrinks");
    assert_eq!(slice.len(), 100_003);

    let cache = Cache::<Noted>::create("noted", SlabFlags::NO_MERGE).expect("a cache");
    let boxes: Vec<_> = (0..500).map(|number| cache.alloc(Noted(number), KERNEL).expect("memory")).collect();
    assert!(boxes.iter().map(|noted| noted.0).eq(0..500));
    drop(boxes);
    assert_eq!(DROPPED.load(Ordering::Relaxed), 500);
    cache.destroy().expect("nothing is in use");

    let mut listed = allocator_api2::vec::Vec::new_in(KmallocApi::<{ Gfp::ATOMIC.bits() }>::THE);
    listed.extend(0..1000_u16);
    assert!(listed.iter().copied().eq(0..1000) && global::ksize(listed.as_ptr()).is_ok());
    drop((listed, slice));
    check();
}

struct Made {
    magic: u32,
    uses: u32,
}

impl Constructed for Made {
    fn construct() -> Self {
        Self { magic: 0x600d, uses: 0 }
    }
}

// Behaviour 166: typed, by the fast paths.
ktest!(a_constructed_value_stays_made_while_it_is_free);
fn a_constructed_value_stays_made_while_it_is_free() {
    let cache = ConstructedCache::<Made>::create("made", SlabFlags::NO_MERGE).expect("a cache");
    let mut most = 0;
    for _ in 0..200 {
        let mut one = cache.alloc(KERNEL).expect("memory");
        assert_eq!(one.magic, 0x600d);
        one.uses += 1;
        most = most.max(one.uses);
    }
    assert!(most > 1, "no object was used twice");
    cache.destroy().map_err(|(_, left)| left).expect("nothing is in use");
    check();
}

ktest!(what_is_larger_than_the_largest_block_comes_from_vmalloc);
fn what_is_larger_than_the_largest_block_comes_from_vmalloc() {
    let is_vmalloc = |row: &Vec<u8>| global::is_vmalloc_addr(VirtAddr::of(row.as_ptr()));
    let mut row = alloc::vec![7; KMALLOC_MAX_SIZE];
    assert!(!is_vmalloc(&row), "the largest block");
    row.reserve_exact(1);
    row.push(7);
    assert!(is_vmalloc(&row) && row.iter().all(|byte| *byte == 7));
    row.resize(3 * KMALLOC_MAX_SIZE / 2, 8);
    assert!(is_vmalloc(&row) && row.iter().skip(KMALLOC_MAX_SIZE + 1).all(|byte| *byte == 8));
    row.truncate(100);
    row.shrink_to_fit();
    assert!(!is_vmalloc(&row) && row.iter().all(|byte| *byte == 7));
    let zeroed: Vec<u8> = alloc::vec![0; KMALLOC_MAX_SIZE + 1];
    assert!(is_vmalloc(&zeroed) && zeroed.iter().all(|byte| *byte == 0));
    let none = Vec::<u8>::new().try_reserve_exact(1 << 40);
    assert!(none.is_err(), "more than there is");
    drop((row, zeroed));
    check();
}
