//! The heap of one CPU over a range of memory, as firmware and other machines have it.

use quarry::addr::{Order, PAGE_SIZE, VirtAddr};
use quarry::gfp::Gfp;
use quarry::mm::page::PageMap;
use quarry::mm::slab::{CacheSpec, SlabFlags};
use quarry::mm::zone::PageHal;
use quarry::single::{Heap, Masking, OneCpu, Pages, StartError};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::thread::LocalKey;

const PAGE: usize = 4096;

/// Memory that is the test's for good, starting `skew` bytes behind a page.
fn memory(size: usize, skew: usize) -> (*mut u8, usize) {
    let room = vec![0xa5_u8; size + 2 * PAGE].leak();
    let at = room.as_mut_ptr();
    let skip = at.align_offset(PAGE) + skew;
    (at.wrapping_add(skip), size)
}

fn heap(machine: OneCpu) -> &'static Heap {
    let pages: &'static Pages = Box::leak(Box::new(Pages::new(machine)));
    Box::leak(Box::new(Heap::new(pages)))
}

fn started(size: usize) -> &'static Heap {
    let heap = heap(OneCpu::new().with_seed(7));
    let (at, size) = memory(size, 0);
    // SAFETY: leaked memory, and this thread alone.
    unsafe { heap.start(at, size) }.unwrap();
    heap
}

fn at_rest(heap: &'static Heap) -> u64 {
    heap.slabs().shrink_all();
    heap.slabs().pages().drain_all();
    heap.slabs().check().unwrap();
    heap.slabs().pages().check().unwrap();
    heap.slabs().pages().free_page_count()
}

#[test]
fn memory_in_pages_and_objects_out_and_all_of_it_back() {
    let heap = started(8 << 20);
    assert!(at_rest(heap) > (8 << 20) / PAGE_SIZE - 40, "two pages a MiB for descriptors");
    // The memory that the caches keep for themselves exists after the first round.
    fill_and_empty(heap);
    let before = at_rest(heap);
    fill_and_empty(heap);
    assert_eq!(at_rest(heap), before);
}

fn fill_and_empty(heap: &'static Heap) {
    let before = at_rest(heap);
    let objects: Vec<VirtAddr> = (1..2000).map(|size| heap.slabs().kmalloc(size, Gfp::KERNEL).unwrap()).collect();
    for (object, size) in objects.iter().zip(1..) {
        // SAFETY: as many bytes are this test's.
        unsafe { object.as_ptr::<u8>().write_bytes(0x5a, size) };
    }
    let page = heap.slabs().pages().alloc_pages(Gfp::KERNEL, Order::new(3).unwrap()).unwrap();
    assert!(at_rest(heap) < before);
    for object in objects {
        raw!(heap.slabs().kfree(object)).unwrap();
    }
    raw!(heap.slabs().pages().free_pages(page, Order::new(3).unwrap())).unwrap();
}

#[test]
fn memory_that_starts_and_ends_anywhere_is_used_by_whole_pages() {
    for (size, skew) in [(300 << 10, 1), (1 << 20, 4095), ((5 << 20) + 77, 8)] {
        let heap = heap(OneCpu::new());
        let (at, size) = memory(size, skew);
        // SAFETY: leaked memory, and this thread alone.
        unsafe { heap.start(at, size) }.unwrap();
        let before = at_rest(heap);
        let mut taken = Vec::new();
        while let Ok(page) = heap.slabs().pages().alloc_pages(Gfp::ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN, Order::ZERO) {
            let start = at as u64..at as u64 + size as u64;
            let page_start = heap.slabs().hal().map().phys(page).get();
            assert!(start.contains(&page_start) && start.contains(&(page_start + PAGE_SIZE - 1)));
            taken.push(page);
        }
        assert!(taken.len() as u64 >= before - 1);
        for page in taken {
            raw!(heap.slabs().pages().free_pages(page, Order::ZERO)).unwrap();
        }
        assert_eq!(at_rest(heap), before);
    }
}

#[test]
fn too_little_memory_is_refused_and_nothing_is_served() {
    for size in [0, 100, 4096, 16 << 10, 32 << 10] {
        let heap = heap(OneCpu::new());
        let (at, size) = memory(size, 0);
        // SAFETY: leaked memory, and this thread alone.
        let refused = unsafe { heap.start(at, size) };
        assert!(matches!(refused, Err(StartError::TooSmall(_) | StartError::Slabs(_))), "{size}: {refused:?}");
        let layout = Layout::from_size_align(8, 8).unwrap();
        // SAFETY: the layout is not empty.
        assert!(unsafe { heap.alloc(layout) }.is_null());
    }
}

#[test]
fn collections_live_on_it() {
    let heap = started(64 << 20);
    let before = at_rest(heap);
    for size in [1, 8, 100, 4096, 9000, 1 << 20, 3 << 20] {
        for align in [1, 64, 4096] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the layout is not empty.
            let block = unsafe { heap.alloc_zeroed(layout) };
            assert!(!block.is_null() && block.addr().is_multiple_of(align));
            // SAFETY: as many bytes are this test's.
            assert!(unsafe { std::slice::from_raw_parts(block, size) }.iter().all(|byte| *byte == 0));
            // SAFETY: allocated above.
            let block = unsafe { heap.realloc(block, layout, 2 * size) };
            assert!(!block.is_null() && block.addr().is_multiple_of(align));
            // SAFETY: allocated above with the first layout and resized, so it has this one.
            unsafe { heap.dealloc(block, Layout::from_size_align(2 * size, align).unwrap()) };
        }
    }
    assert_eq!(at_rest(heap), before);
}

#[test]
fn a_block_may_be_larger_than_the_largest_of_kmalloc() {
    let heap = started(64 << 20);
    let before = at_rest(heap);
    let layout = Layout::from_size_align(20 << 20, 8).unwrap();
    // SAFETY: the layout is not empty.
    let block = unsafe { heap.alloc(layout) };
    // SAFETY: as many bytes are this test's.
    unsafe { block.write_bytes(3, 20 << 20) };
    // SAFETY: allocated above.
    let block = unsafe { heap.realloc(block, layout, 25 << 20) };
    // SAFETY: resized above, and as many bytes.
    assert!(unsafe { std::slice::from_raw_parts(block, 20 << 20) }.iter().all(|byte| *byte == 3));
    let large = Layout::from_size_align(25 << 20, 8).unwrap();
    // SAFETY: resized above to `large`, and not used elsewhere.
    let block = unsafe { heap.realloc(block, large, 100) };
    assert!(at_rest(heap) + 8 > before, "the large one has gone back");
    // SAFETY: resized above to this layout, and not used afterwards.
    unsafe { heap.dealloc(block, Layout::from_size_align(100, 8).unwrap()) };
    // SAFETY: the layout is not empty.
    assert!(unsafe { heap.alloc(Layout::from_size_align(100 << 20, 8).unwrap()) }.is_null());
    assert_eq!(at_rest(heap), before);
}

#[test]
fn a_heap_lies_in_its_own_memory_if_nobody_has_a_static_for_it() {
    let (at, size) = memory(1 << 20, 24);
    // SAFETY: leaked memory, and this thread alone.
    let heap = unsafe { Heap::place(at, size, 9) }.unwrap();
    let before = at_rest(heap);
    let object = heap.slabs().kmalloc(100, Gfp::KERNEL).unwrap();
    assert!((at as u64..at as u64 + size as u64).contains(&object.get()));
    raw!(heap.slabs().kfree(object)).unwrap();
    assert_eq!(at_rest(heap), before);
    // SAFETY: leaked memory, and this thread alone.
    assert!(unsafe { Heap::place(memory(64 << 10, 0).0, 64 << 10, 0) }.is_err());
}

thread_local! {
    static MASKED: Cell<usize> = const { Cell::new(0) };
    static MASKINGS: Cell<usize> = const { Cell::new(0) };
}

fn bump(counter: &'static LocalKey<Cell<usize>>, by: isize) -> usize {
    let before = counter.get();
    counter.set(before.wrapping_add_signed(by));
    before
}

#[test]
fn interrupts_are_masked_meanwhile_and_open_afterwards() {
    let save = || {
        bump(&MASKINGS, 1);
        bump(&MASKED, 1)
    };
    let heap = heap(OneCpu::new().with_masking(Masking { save, restore: |before| MASKED.set(before) }));
    let (at, size) = memory(1 << 20, 0);
    // SAFETY: leaked memory, and this thread alone.
    unsafe { heap.start(at, size) }.unwrap();
    let maskings = MASKINGS.get();
    let spec = CacheSpec { name: "seven", size: 7, align: 1, flags: SlabFlags::empty(), constructor: None };
    let cache = heap.slabs().create(&spec).unwrap();
    let object = heap.slabs().alloc_object(cache.cache(), Gfp::KERNEL).unwrap();
    raw!(heap.slabs().free_object(cache.cache(), object)).unwrap();
    heap.slabs().destroy(cache).map_err(|(_, left)| left).unwrap();
    assert!(MASKINGS.get() > maskings && MASKED.get() == 0);
}

#[test]
fn its_statics_are_some_kib() {
    let (pages, heap) = (size_of::<Pages>(), size_of::<Heap>());
    assert!(pages + heap <= 80 << 10, "{pages} and {heap}");
}
