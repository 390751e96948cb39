//! `kmalloc` by size: which cache, how large, how aligned; resizing.

use super::*;
use quarry::mm::slab::{
    KMALLOC_MAX_CACHE_SIZE, KMALLOC_MAX_SIZE, KMALLOC_MIN_SIZE, KmallocCacheType, SlabAllocError, kmalloc_index,
    kmalloc_size,
};

// Behaviour 189, and every edge.
#[test]
fn every_size_goes_to_the_smallest_cache_that_holds_it() {
    Spec::of_size(16 << 20).run(|slabs| {
        let sizes = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192]
            .map(|size: usize| size.max(KMALLOC_MIN_SIZE));
        let mut all: Vec<usize> = (1..=2 * KMALLOC_MAX_CACHE_SIZE).collect();
        if cfg!(miri) {
            // The edges alone.
            all = sizes.into_iter().flat_map(|class| [class - 1, class, class + 1]).collect();
        }
        for size in all.iter().copied() {
            let object = slabs.kmalloc(size, KERNEL).unwrap();
            let usable = slabs.ksize(object).unwrap();
            let expected = sizes.into_iter().filter(|class| *class >= size && fits(*class)).min();
            assert_eq!(usable, expected.unwrap_or(size.next_power_of_two().max(4096)), "{size}");
            raw!(slabs.kfree(object)).unwrap();
        }
        for kind in KmallocCacheType::ALL {
            for size in all.iter().copied().filter(|size| *size <= KMALLOC_MAX_CACHE_SIZE) {
                let index = kmalloc_index(kind, size);
                let class = kmalloc_size(index);
                assert!(class >= size && slabs.kmalloc_cache(kind, size).unwrap().object_size() as usize == class);
                assert!(kind != KmallocCacheType::Dma || class.is_multiple_of(128));
            }
        }
    });
}

/// Whether a class exists with this build's smallest size.
fn fits(class: usize) -> bool {
    class.is_multiple_of(KMALLOC_MIN_SIZE)
}

#[test]
fn sizes_are_numbered_as_in_linux() {
    let kind = KmallocCacheType::Normal;
    if KMALLOC_MIN_SIZE == 8 {
        for (size, index) in
            [(8, 3), (9, 4), (64, 6), (65, 1), (96, 1), (97, 7), (128, 7), (129, 2), (192, 2), (193, 8)]
        {
            assert_eq!(kmalloc_index(kind, size), index, "{size}");
        }
        for (size, index) in [(8, 7), (65, 7), (128, 7), (129, 8), (192, 8), (193, 8), (256, 8)] {
            assert_eq!(kmalloc_index(KmallocCacheType::Dma, size), index, "{size}");
        }
    }
    for (size, index) in [(4096, 12), (4097, 13), (8192, 13), (8193, 0), (0, 0)] {
        assert_eq!(kmalloc_index(kind, size), index, "{size}");
    }
    assert_eq!([1, 2, 3, 13].map(kmalloc_size), [96, 192, 8, 8192]);
}

// Behaviours 190, 196.
#[test]
fn powers_of_two_are_aligned_to_themselves_up_to_4_mib() {
    Spec::of_size(32 << 20).run(|slabs| {
        // Three of the largest are more than Miri's machine has.
        for shift in 3..=if cfg!(miri) { 18 } else { 22 } {
            let size = 1_usize << shift;
            for kind in [Gfp::empty(), Gfp::RECLAIMABLE, Gfp::DMA] {
                let objects = [(); 3].map(|()| slabs.kmalloc(size, KERNEL | kind).unwrap());
                for object in objects {
                    assert!(object.get().is_multiple_of(size as u64), "{size} {object}");
                    fill(object, 0xcd, size);
                }
                for object in objects {
                    assert!(holds(object, 0xcd, size));
                    raw!(slabs.kfree(object)).unwrap();
                }
            }
        }
        assert_eq!(slabs.kmalloc(KMALLOC_MAX_SIZE + 1, KERNEL), Err(SlabAllocError::TooLarge));
        assert_eq!(slabs.kmalloc(usize::MAX, KERNEL), Err(SlabAllocError::TooLarge));
    });
}

// Behaviours 191, 192.
#[test]
fn no_bytes_are_an_address_that_can_be_freed() {
    Spec::of_size(16 << 20).run(|slabs| {
        let none = slabs.kmalloc(0, KERNEL).unwrap();
        assert_eq!(none, Slabs::ZERO_SIZE);
        assert_eq!(slabs.ksize(none), Ok(0));
        for _ in 0..2 {
            raw!(slabs.kfree(none)).unwrap();
            raw!(slabs.kfree(VirtAddr::ZERO)).unwrap();
        }
        let object = raw!(slabs.krealloc(none, 100, KERNEL)).unwrap();
        raw!(slabs.kfree(object)).unwrap();
    });
}

// Behaviour 194.
#[test]
fn an_array_that_overflows_is_refused() {
    Spec::of_size(16 << 20).run(|slabs| {
        for (count, size) in [(usize::MAX, 2), (1 << 33, 1 << 33), (3, usize::MAX / 2)] {
            assert_eq!(slabs.kmalloc_array(count, size, KERNEL), Err(SlabAllocError::Overflow));
        }
        let object = slabs.kmalloc_array(10, 20, KERNEL | Gfp::ZERO).unwrap();
        assert!(holds(object, 0, 200));
        raw!(slabs.kfree(object)).unwrap();
    });
}

// Behaviours 202, 204, 206.
#[test]
fn resizing_keeps_what_fits() {
    Spec::of_size(32 << 20).run(|slabs| {
        let mut object = raw!(slabs.krealloc(VirtAddr::ZERO, 1, KERNEL)).unwrap();
        let mut size = 1_usize;
        fill(object, 1, 1);
        for (byte, next) in (2..).zip([7, 8, 9, 201, 235, 201, 4096, 8192, 8193, 40_000, 20_000, 300, 1 << 20, 8, 3]) {
            let kept = bytes(object, size.min(next));
            object = raw!(slabs.krealloc(object, next, KERNEL)).unwrap();
            assert_eq!(bytes(object, kept.len()), kept, "{size} to {next}");
            fill(object, byte, next);
            size = next;
        }
        assert_eq!(raw!(slabs.krealloc(object, 0, KERNEL)), Ok(Slabs::ZERO_SIZE));
        let wild = raw!(slabs.krealloc(slabs.hal().outside(), 8, KERNEL));
        assert_eq!(wild, Err(SlabAllocError::NotAllocated(slabs.hal().outside())));
        assert_eq!(slabs.hal().reports().len(), 1);
    });
}

// Behaviour 211: with zeroing of what was not asked for.
#[test]
fn resizing_with_zero_gives_zeroes() {
    Spec::of_size(16 << 20).run(|slabs| {
        let zero = KERNEL | Gfp::ZERO;
        let object = slabs.kmalloc(48, zero).unwrap();
        fill(object, 0xab, 48);
        let object = raw!(slabs.krealloc(object, 40, zero)).unwrap();
        let object = raw!(slabs.krealloc(object, 56, zero)).unwrap();
        assert!(holds(object, 0xab, 40) && holds(offset(object, 40), 0, 16));
        let object = raw!(slabs.krealloc(object, 112, zero)).unwrap();
        assert!(holds(object, 0xab, 40) && holds(offset(object, 40), 0, 72));
        raw!(slabs.kfree(object)).unwrap();
    });
}

// Behaviour 211: what lies behind the bytes that were asked for with zeroes is zero too, with any earlier contents, since the
// requested size is not recorded.
#[test]
fn growing_in_place_what_was_zeroed_gives_zeroes() {
    Spec::of_size(16 << 20).run(|slabs| {
        let zero = KERNEL | Gfp::ZERO;
        for (size, class) in [(1, 8), (5, 8), (40, 64), (100, 128), (150, 192), (3000, 4096), (5000, 8192)] {
            let object = slabs.kmalloc(class, KERNEL).unwrap();
            fill(object, 0xee, class);
            raw!(slabs.kfree(object)).unwrap();
            let again = slabs.kmalloc(size, zero).unwrap();
            assert_eq!(again, object, "by the fast path");
            assert_eq!(raw!(slabs.krealloc(again, class, zero)), Ok(object), "in place");
            assert!(holds(object, 0, class), "{size} to {class}");
            raw!(slabs.kfree(object)).unwrap();
        }
    });
}

// Behaviour 212.
#[test]
fn zeroed_memory_is_zero_whatever_was_there() {
    Spec::of_size(16 << 20).run(|slabs| {
        for shift in 0..20 {
            let size = 1 << shift;
            let object = slabs.kmalloc(size, KERNEL).unwrap();
            fill(object, 0xee, size);
            raw!(slabs.kfree(object)).unwrap();
            let object = slabs.kmalloc(size, KERNEL | Gfp::ZERO).unwrap();
            assert!(holds(object, 0, size), "{size}");
            raw!(slabs.kfree(object)).unwrap();
        }
    });
}

// Behaviour 211.
#[test]
fn boot_arguments_zero_on_allocation_and_on_free() {
    use quarry::mm::slab::SlabOptions;
    for (init_on_alloc, init_on_free) in [(true, false), (false, true)] {
        let options = SlabOptions { init_on_alloc, init_on_free, ..SlabOptions::default() };
        Spec::of_size(16 << 20).options(options).run(|slabs| {
            for size in [64, 512, 1024, 8192] {
                let object = slabs.kmalloc(size, KERNEL).unwrap();
                fill(object, 0xab, size);
                raw!(slabs.kfree(object)).unwrap();
                let middle = offset(object, size as u64 / 4);
                assert!(!init_on_free || holds(middle, 0, 8), "{size}");
                let again = slabs.kmalloc(size, KERNEL).unwrap();
                assert!(again == object && holds(again, 0, size), "{size}");
                raw!(slabs.kfree(again)).unwrap();
            }
        });
    }
}

// Behaviour 209.
#[test]
fn sensitive_content_is_gone_before_the_object_is() {
    Spec::of_size(16 << 20).run(|slabs| {
        let object = slabs.kmalloc(100, KERNEL).unwrap();
        fill(object, 0xab, slabs.ksize(object).unwrap());
        raw!(slabs.kfree_sensitive(object)).unwrap();
        assert!(holds(offset(object, 8), 0, 120));
        assert!(raw!(slabs.kfree_sensitive(object)).is_err());
        raw!(slabs.kfree_sensitive(VirtAddr::ZERO)).unwrap();
    });
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    Spec::of_size(16 << 20).run(|slabs| {
        for size in [64, 100_000] {
            for flag in [Gfp::HIGHMEM, Gfp::DMA32] {
                assert_eq!(slabs.kmalloc(size, KERNEL | flag), Err(SlabAllocError::Zone(flag)), "{size}");
            }
            let both = slabs.kmalloc(size, KERNEL | Gfp::NOFAIL | Gfp::NORETRY);
            assert!(matches!(both, Err(SlabAllocError::Flags(_))), "{size}");
        }
        let sleeps = || slabs.hal().atomic_sleeps.load(std::sync::atomic::Ordering::Relaxed);
        let object = machine::in_interrupt(|| slabs.kmalloc(64, KERNEL)).unwrap();
        assert_eq!(sleeps(), 1, "with objects at hand and without");
        raw!(slabs.kfree(object)).unwrap();
        let object = machine::in_interrupt(|| slabs.kmalloc(64, KERNEL)).unwrap();
        assert_eq!(sleeps(), 2);
        machine::in_interrupt(|| raw!(slabs.kfree(object))).unwrap();
        let object = machine::in_interrupt(|| slabs.kmalloc(64, Gfp::ATOMIC)).unwrap();
        assert_eq!(sleeps(), 2);
        raw!(slabs.kfree(object)).unwrap();
    });
}

// A block that has room says no less about the flags than one that has none.
#[test]
fn resizing_in_place_refuses_what_resizing_elsewhere_refuses() {
    Spec::of_size(16 << 20).run(|slabs| {
        let sleeps = || slabs.hal().atomic_sleeps.load(std::sync::atomic::Ordering::Relaxed);
        for size in [64, 100_000] {
            let object = slabs.kmalloc(size, KERNEL).unwrap();
            let both = raw!(slabs.krealloc(object, size - 1, KERNEL | Gfp::NOFAIL | Gfp::NORETRY));
            assert!(matches!(both, Err(SlabAllocError::Flags(_))), "{size}");
            let before = sleeps();
            assert_eq!(machine::in_interrupt(|| raw!(slabs.krealloc(object, size - 1, KERNEL))), Ok(object));
            assert_eq!(sleeps(), before + 1, "{size}");
            assert_eq!(machine::in_interrupt(|| raw!(slabs.krealloc(object, size, Gfp::ATOMIC))), Ok(object));
            assert_eq!(sleeps(), before + 1, "{size}");
            raw!(slabs.kfree(object)).unwrap();
        }
    });
}
