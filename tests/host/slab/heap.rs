//! The allocator behind `alloc`: early heap, hand-over, and nulls where there is nothing.
#![expect(clippy::multiple_unsafe_ops_per_block, reason = "one block goes through all of them")]

use super::*;
use machine::in_interrupt;
use quarry::addr::VirtRange;
use quarry::mm::alloc::GlobalHeap;
use quarry::mm::slab::{KMALLOC_MAX_SIZE, Misuse};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::Ordering;

const GRANT: usize = 64 << 10;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).unwrap()
}

fn slice<'b>(block: *mut u8, size: usize) -> &'b mut [u8] {
    assert!(!block.is_null());
    // SAFETY: the tests pass blocks that they have.
    unsafe { std::slice::from_raw_parts_mut(block, size) }
}

/// Runs `f` with a heap that has a grant.
fn with_heap(f: impl FnOnce(&Slabs<'_, '_>, &GlobalHeap<&Slabs<'_, '_>>)) {
    Spec::of_size(16 << 20).run(|slabs| {
        let grant = Layout::from_size_align(GRANT, 4096).unwrap();
        // SAFETY: not empty.
        let memory = unsafe { std::alloc::alloc(grant) };
        let heap = GlobalHeap::new(slabs);
        assert_eq!(heap.early_range(), None);
        // SAFETY: the layout is not empty.
        assert!(unsafe { heap.alloc(layout(8)) }.is_null(), "memory from nowhere");
        let range = VirtRange::from_size(VirtAddr::new(memory.expose_provenance() as u64), GRANT as u64).unwrap();
        // SAFETY: allocated for this, once.
        unsafe { heap.grant(range) };
        assert_eq!(heap.early_range(), Some(range));
        f(slabs, &heap);
        // SAFETY: allocated above; the heap is not used any more.
        unsafe { std::alloc::dealloc(memory, grant) };
    });
}

#[test]
fn blocks_of_the_early_heap_go_back_to_it_after_the_hand_over() {
    with_heap(|slabs, heap| {
        let is_kmalloc = |block: *mut u8| slabs.ksize(VirtAddr::new(block.addr() as u64)).is_ok();
        // SAFETY: each block is used with its layout until it is freed, once.
        unsafe {
            let (one, two) = (heap.alloc(layout(100)), heap.alloc_zeroed(layout(200)));
            assert!(!is_kmalloc(one) && !is_kmalloc(two) && slice(two, 200).iter().all(|byte| *byte == 0));
            slice(one, 100).fill(1);
            let one = heap.realloc(one, layout(100), 300);
            assert!(!is_kmalloc(one) && slice(one, 100).iter().all(|byte| *byte == 1));
            assert!(heap.alloc(layout(GRANT)).is_null());
            assert!(heap.early_usage().0 >= 500);

            heap.hand_over();
            slice(two, 200).fill(2);
            let moved = heap.realloc(two, layout(200), 1000);
            assert!(is_kmalloc(moved) && slice(moved, 200).iter().all(|byte| *byte == 2));
            let three = heap.alloc(layout(100));
            assert!(is_kmalloc(three));
            heap.dealloc(one, layout(300));
            assert_eq!(heap.early_usage().0, 0, "blocks of the early heap are lost");
            let zeroed = heap.alloc_zeroed(layout(5000));
            assert!(slice(zeroed, 5000).iter().all(|byte| *byte == 0));
            for (block, size) in [(moved, 1000), (three, 100), (zeroed, 5000)] {
                heap.dealloc(block, layout(size));
            }
        }
        assert!(slabs.hal().reports().is_empty());
    });
}

#[test]
fn no_memory_is_a_null_and_the_old_block_stays() {
    with_heap(|slabs, heap| {
        heap.hand_over();
        // SAFETY: each block is used with its layout until it is freed, once.
        unsafe {
            let block = heap.alloc(layout(100));
            slice(block, 100).fill(9);
            assert!(heap.alloc(layout(KMALLOC_MAX_SIZE + 1)).is_null());
            assert!(heap.realloc(block, layout(100), KMALLOC_MAX_SIZE + 1).is_null());
            assert!(heap.realloc(block, layout(100), isize::MAX as usize).is_null());
            assert!(heap.alloc(Layout::from_size_align(8, 2 * KMALLOC_MAX_SIZE).unwrap()).is_null());
            with_pages(slabs, 0, || {
                assert!(heap.alloc(layout(20_000)).is_null());
                assert!(heap.alloc_zeroed(layout(20_000)).is_null());
                assert!(heap.realloc(block, layout(100), 20_000).is_null());
            });
            assert!(slice(block, 100).iter().all(|byte| *byte == 9));
            heap.dealloc(block, layout(100));
        }
        assert_eq!(slabs.hal().reports(), []);
    });
}

// A caller of `alloc` has no flags: where it is decides.
#[test]
fn nobody_is_made_to_wait_where_that_is_not_legal() {
    with_heap(|slabs, heap| {
        heap.hand_over();
        in_interrupt(|| {
            // SAFETY: each block is used with its layout until it is freed, once.
            unsafe {
                let block = heap.alloc(layout(300));
                slice(block, 300).fill(1);
                let block = heap.realloc(block, layout(300), 30_000);
                slice(block, 30_000).fill(2);
                heap.dealloc(block, layout(30_000));
                // Its first attempt fails, so that it tries all that it may.
                assert!(with_pages(slabs, 0, || heap.alloc(layout(20_000))).is_null());
            }
        });
        assert_eq!(slabs.hal().atomic_sleeps.load(Ordering::Relaxed), 0);
    });
}

// Effect of a wrong size: none in a release, as `kfree` needs no size.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "asks the checking build")]
fn a_block_is_not_freed_as_more_or_much_less_than_it_is() {
    with_heap(|slabs, heap| {
        heap.hand_over();
        for (size, wrong) in
            [(100, 200), (100, 20), (1000, 400), (1000, 5000), (8000, 9000), (20_000, 100), (20_000, 40_000)]
        {
            // SAFETY: each block is freed once.
            unsafe {
                let block = heap.alloc(layout(size));
                let at = VirtAddr::new(block.expose_provenance() as u64);
                heap.dealloc(block, layout(wrong));
                let [Misuse::WrongSize { at: named, size: said, usable }] = slabs.hal().reports()[..] else {
                    panic!("{size} bytes were freed as {wrong}")
                };
                assert_eq!((named, said), (at, layout(wrong).pad_to_align().size()));
                assert_eq!(slabs.ksize(at), Ok(usable), "it is still there");
                heap.dealloc(block, layout(size));
            }
            assert_eq!(slabs.hal().reports(), []);
        }
    });
}

// It was asked to be small, and stays large for lack of memory.
#[test]
fn a_block_that_could_not_be_moved_is_freed_as_what_it_was_asked_to_be() {
    with_heap(|slabs, heap| {
        heap.hand_over();
        // SAFETY: each block is freed once.
        unsafe {
            let block = heap.alloc(layout(8000));
            let shrunk = with_pages(slabs, 0, || heap.realloc(block, layout(8000), 3000));
            assert_eq!(shrunk, block, "there was nothing to move it to");
            heap.dealloc(shrunk, layout(3000));
        }
        assert_eq!(slabs.hal().reports(), []);
    });
}

#[test]
fn an_early_block_that_shrinks_takes_no_more_along_than_fits() {
    with_heap(|slabs, heap| {
        // SAFETY: each block is freed once.
        unsafe {
            let early = heap.alloc(layout(1000));
            slice(early, 1000).fill(5);
            heap.hand_over();
            let mut around: Vec<_> = (0..60).map(|_| heap.alloc(layout(64))).collect();
            around.iter().for_each(|block| slice(*block, 64).fill(7));
            let before = |block: &*mut u8| around.contains(&block.wrapping_add(64));
            let place = around.iter().position(before).unwrap();
            let free = around.swap_remove(place);
            heap.dealloc(free, layout(64));
            let moved = heap.realloc(early, layout(1000), 64);
            assert_eq!(moved, free, "the one that was freed last");
            assert!(slice(moved, 64).iter().all(|byte| *byte == 5));
            for block in around {
                assert!(slice(block, 64).iter().all(|byte| *byte == 7), "bytes of a neighbour");
                heap.dealloc(block, layout(64));
            }
            heap.dealloc(moved, layout(64));
        }
        assert_eq!((slabs.hal().reports(), heap.early_usage().0), (vec![], 0));
    });
}
