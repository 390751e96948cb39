//! `kmalloc` as an allocator of blocks with a size and an alignment, for Rust's own types: where a block lies, what stays of
//! it when it is resized, what a free gives back.

use super::*;
use machine::MIB;
use proptest::prelude::*;
use quarry::mm::alloc::{Allocator, KBox, KVec, WithGfp};
use quarry::mm::slab::{KMALLOC_MAX_SIZE, Misuse, SlabAllocError, SlabOptions};
use std::alloc::Layout;
use std::ptr::NonNull;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

fn at(block: NonNull<u8>) -> VirtAddr {
    VirtAddr::new(block.addr().get() as u64)
}

fn debugged() -> SlabOptions {
    SlabOptions { debug: Some("FZPU"), ..SlabOptions::default() }
}

// Behaviours 190, 214.
#[test]
fn every_alignment_is_kept_by_allocation_and_by_resizing() {
    let sizes = [1, 8, 24, 65, 80, 96, 100, 129, 160, 192, 200, 1000, 4000, 4097, 8192, 8193, 70_000];
    for options in [SlabOptions::default(), debugged()] {
        Spec::of_size(32 << 20).options(options).run(|slabs| {
            for align in (0..=16).step_by(if cfg!(miri) { 5 } else { 1 }).map(|shift| 1_usize << shift) {
                for size in sizes.into_iter().step_by(if cfg!(miri) { 5 } else { 1 }) {
                    let is_aligned = |block: NonNull<u8>| block.addr().get().is_multiple_of(align);
                    let old = layout(size, align);
                    let block = slabs.allocate(old, KERNEL).unwrap();
                    assert!(is_aligned(block), "{size} bytes at a multiple of {align}: {block:?}");
                    fill(at(block), 0xab, size);
                    let new = layout(size * 3, align);
                    // SAFETY: given out with the layout that is named, not used elsewhere.
                    let grown = unsafe { slabs.resize(block, old, new, KERNEL) }.unwrap();
                    assert!(is_aligned(grown) && holds(at(grown), 0xab, size), "{size}, {align}");
                    fill(at(grown), 0xab, size * 3);
                    let small = layout(size.div_ceil(4), align);
                    // SAFETY: given out with the layout that is named, not used elsewhere.
                    let shrunk = unsafe { slabs.resize(grown, new, small, KERNEL) }.unwrap();
                    assert!(is_aligned(shrunk) && holds(at(shrunk), 0xab, small.size()), "{size}, {align}");
                    // SAFETY: given out with the layout that is named, not used elsewhere.
                    unsafe { slabs.free(shrunk, small) };
                }
            }
            assert!(slabs.hal().reports().is_empty());
        });
    }
}

#[test]
fn resizing_to_a_larger_alignment_moves_the_block() {
    Spec::of_size(16 << 20).run(|slabs| {
        let (old, new) = (layout(64, 8), layout(64, 4096));
        let blocks = [(); 8].map(|()| slabs.allocate(old, KERNEL).unwrap());
        for block in blocks {
            fill(at(block), 7, 64);
            // SAFETY: given out with this layout.
            let moved = unsafe { slabs.resize(block, old, new, KERNEL) }.unwrap();
            assert!(moved.addr().get().is_multiple_of(4096) && holds(at(moved), 7, 64));
            // SAFETY: given out with this layout.
            unsafe { slabs.free(moved, new) };
        }
    });
}

#[test]
fn a_block_that_shrinks_gives_memory_back_if_there_is_much() {
    Spec::of_size(16 << 20).run(|slabs| {
        let resize = |block, from: Layout, to: Layout| {
            // SAFETY: the tests below pass blocks with their layouts.
            unsafe { slabs.resize(block, from, to, KERNEL) }.unwrap()
        };
        let (large, small, slightly) = (layout(1 << 20, 8), layout(100, 8), layout(700_000, 8));
        let block = slabs.allocate(large, KERNEL).unwrap();
        fill(at(block), 3, 100);
        let same = resize(block, large, slightly);
        assert_eq!(same, block);
        let moved = resize(same, slightly, small);
        assert_eq!(slabs.ksize(at(moved)), Ok(128));
        assert!(holds(at(moved), 3, 100));
        // Too little to move for.
        assert_eq!(resize(moved, small, layout(70, 8)), moved);
        // SAFETY: the last layout.
        unsafe { slabs.free(moved, layout(70, 8)) };
        // A block that there is no memory to move stays in place.
        let block = slabs.allocate(large, KERNEL).unwrap();
        let same = with_pages(slabs, 0, || resize(block, large, layout(20_000, 8)));
        assert_eq!(same, block);
        // SAFETY: the last layout.
        unsafe { slabs.free(same, layout(20_000, 8)) };
    });
}

// Behaviour 205.
#[test]
fn a_block_that_cannot_grow_stays_what_it_was() {
    Spec::of_size(16 << 20).run(|slabs| {
        let object = slabs.kmalloc(200, KERNEL).unwrap();
        fill(object, 0x5a, 200);
        for size in [20_000, 100_000, KMALLOC_MAX_SIZE] {
            let refused = with_pages(slabs, 0, || raw!(slabs.krealloc(object, size, KERNEL)));
            assert_eq!(refused, Err(SlabAllocError::OutOfMemory), "{size}");
        }
        assert_eq!(raw!(slabs.krealloc(object, KMALLOC_MAX_SIZE + 1, KERNEL)), Err(SlabAllocError::TooLarge));
        assert!(holds(object, 0x5a, 200));
        assert_eq!(slabs.ksize(object), Ok(256));
        raw!(slabs.kfree(object)).unwrap();
    });
}

// Behaviour 197: what does not need a compiler that checks each access.
#[test]
fn a_wrong_free_of_a_large_block_is_named() {
    Spec::of_size(16 << 20).run(|slabs| {
        let object = slabs.kmalloc(20_000, KERNEL).unwrap();
        for inside in [1, 8, 4096, 16_384] {
            let wrong = raw!(slabs.kfree(offset(object, inside)));
            assert!(wrong.is_err(), "{inside}: {wrong:?}");
            assert!(slabs.ksize(offset(object, inside)).is_err(), "{inside}");
        }
        assert!(matches!(raw!(slabs.kfree(offset(object, 1))), Err(Misuse::Misaligned { .. })));
        assert_eq!(slabs.ksize(object), Ok(32_768));
        raw!(slabs.kfree(object)).unwrap();
        assert!(raw!(slabs.kfree(object)).is_err() && slabs.ksize(object).is_err());
    });
}

// Behaviour 207.
#[test]
fn the_size_of_what_is_no_allocation_is_an_error() {
    for options in [SlabOptions::default(), debugged()] {
        Spec::of_size(16 << 20).options(options).run(|slabs| {
            let object = slabs.kmalloc(50, KERNEL).unwrap();
            // In a cache with red zones the bytes beyond the request stay out of bounds, even after a call of `ksize`.
            let usable = if options.debug.is_some() { 50 } else { 64 };
            assert_eq!(slabs.ksize(object), Ok(usable));
            assert!(matches!(slabs.ksize(offset(object, 8)), Err(Misuse::Misaligned { .. })));
            assert!(slabs.ksize(slabs.hal().outside()).is_err());
            fill(offset(object, 50), 0x12, 1);
            raw!(slabs.kfree(object)).unwrap();
            let overwritten =
                |each: &Misuse| matches!(*each, Misuse::Overwritten { at, .. } if at == offset(object, 50));
            let reports = slabs.hal().reports();
            assert_eq!(reports.len(), usize::from(options.debug.is_some()), "{reports:?}");
            assert!(reports.iter().all(overwritten), "{reports:?}");
            assert!(matches!(slabs.ksize(object), Err(Misuse::DoubleFree { .. })));
            assert_eq!(slabs.ksize(VirtAddr::ZERO), Ok(0));
        });
    }
}

#[test]
fn rows_and_boxes_grow_over_pages_and_come_back() {
    Spec::of_size(32 << 20).run(|slabs| {
        let mut row = KVec::new_in(slabs);
        let values = if cfg!(miri) { 5_000 } else { 100_000_u32 };
        for value in 0..values {
            row.push(value, KERNEL).unwrap();
        }
        assert!(row.iter().copied().eq(0..values));
        let boxed = KBox::new_in([7_u64; 100], KERNEL, slabs).unwrap();
        let refused = row.reserve(1 << 20, KERNEL);
        assert_eq!(refused, Err(SlabAllocError::TooLarge));
        row.truncate(10);
        row.shrink_to_fit(KERNEL).unwrap();
        assert_eq!(slabs.ksize(VirtAddr::new(row.as_ptr().addr() as u64)), Ok(64));
        assert_eq!(boxed.iter().sum::<u64>(), 700);
        let mut listed = allocator_api2::vec::Vec::new_in(WithGfp::<_>::new(slabs));
        listed.extend(0..5000_u16);
        assert!(listed.iter().copied().eq(0..5000));
    });
}

// Behaviour 205: for a row, with each allocation failing in turn.
#[test]
#[cfg_attr(miri, ignore = "a million elements")]
fn a_row_survives_each_allocation_that_fails() {
    Spec::of_size(16 << 20).run(|slabs| {
        for left in [0, 1, 3, 6] {
            let mut row = KVec::new_in(slabs);
            let full = with_pages(slabs, left, || row.extend(0..=u32::MAX, KERNEL));
            let refused = full.expect_err("memory ran out").value;
            assert_eq!(row.len(), refused as usize);
            assert!(row.iter().copied().eq(0..refused));
            if row.len() < KMALLOC_MAX_SIZE / 4 {
                row.push(refused, KERNEL).unwrap();
            }
        }
    });
}

#[derive(Clone, Debug)]
enum Op {
    Alloc(u16, u32),
    Free(usize),
    Resize(usize, u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any::<u16>(), 0..=12_u32).prop_map(|(size, align)| Op::Alloc(size, align)),
        2 => any::<usize>().prop_map(Op::Free),
        3 => (any::<usize>(), any::<u16>()).prop_map(|(index, size)| Op::Resize(index, size)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 64 }, failure_persistence: None, ..ProptestConfig::default() })]

    // Behaviour 217: with alignments.
    #[test]
    fn blocks_of_any_layout_are_apart_and_keep_their_bytes(ops in proptest::collection::vec(op(), 1..if cfg!(miri) { 60 } else { 300 })) {
        Spec::of_size(32 * MIB).run(|slabs| {
            let mut live: Vec<(NonNull<u8>, Layout)> = Vec::new();
            for op in ops {
                match op {
                    Op::Alloc(size, align) => {
                        let wanted = layout(usize::from(size).max(1), 1 << align);
                        let block = slabs.allocate(wanted, KERNEL).unwrap();
                        assert!(block.addr().get().is_multiple_of(wanted.align()));
                        fill(at(block), 0xab, wanted.size());
                        live.push((block, wanted));
                    }
                    Op::Free(index) if !live.is_empty() => {
                        let (block, was) = live.swap_remove(index % live.len());
                        assert!(holds(at(block), 0xab, was.size()));
                        fill(at(block), 0xcd, was.size());
                        // SAFETY: the model's, with its layout.
                        unsafe { slabs.free(block, was) };
                    }
                    Op::Resize(index, size) if !live.is_empty() => {
                        let index = index % live.len();
                        let (block, was) = live[index];
                        let new = layout(usize::from(size).max(1), was.align());
                        // SAFETY: the model's, with its layout.
                        let block = unsafe { slabs.resize(block, was, new, KERNEL) }.unwrap();
                        assert!(block.addr().get().is_multiple_of(new.align()));
                        assert!(holds(at(block), 0xab, was.size().min(new.size())));
                        fill(at(block), 0xab, new.size());
                        live[index] = (block, new);
                    }
                    Op::Free(_) | Op::Resize(..) => {}
                }
            }
            for (block, was) in live {
                assert!(holds(at(block), 0xab, was.size()));
                // SAFETY: the model's, with its layout.
                unsafe { slabs.free(block, was) };
            }
        });
    }
}
