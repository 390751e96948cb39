//! Rules for the elements that a pool has, and for its waits.

use super::*;
use crate::slab::machine::{bytes, fill, in_interrupt};
use crate::slab::thread::at_open_points;
use quarry::addr::{Order, VirtAddr};
use quarry::mm::mempool::{Backing, KmallocBacking, PageBacking, PoolEmpty};
use std::cell::RefCell;

// Behaviour 327.
#[test]
fn a_new_pool_has_its_reserve_or_nothing() {
    with_slabs(|slabs| {
        let source = Source::of(100);
        let pool = numbers(slabs, 4, &source).unwrap();
        assert_eq!((source.out(), pool.stats().reserve, pool.stats().min), (4, 4, 4));
        pool.check().unwrap();
        pool.destroy().unwrap();
        assert_eq!((source.out(), source.freed().len()), (0, 4));
        // The third fails.
        source.set(2);
        assert_eq!(numbers(slabs, 4, &source).unwrap_err(), PoolCreateError::OutOfMemory);
        assert_eq!((source.out(), source.freed().len()), (0, 2));
    });
}

// Behaviour 331: null is nothing, ZERO is refused, the backing comes first.
#[test]
fn the_reserve_is_used_only_when_the_backing_fails() {
    with_slabs(|slabs| {
        let source = Source::of(4 + 2);
        let pool = numbers(slabs, 4, &source).unwrap();
        raw!(pool.free(std::ptr::null_mut())).unwrap();
        assert_eq!(pool.alloc(KERNEL | Gfp::ZERO), Err(PoolEmpty::Zero));
        assert!(matches!(pool.alloc(Gfp::DMA | Gfp::DMA32), Err(PoolEmpty::Flags(_))));
        assert_eq!((source.out(), pool.stats().reserve), (4, 4), "refused before anything");
        let first: Vec<_> = (0..2).map(|_| pool.alloc(NOWAIT).unwrap()).collect();
        assert_eq!((source.out(), pool.stats().reserve), (6, 4), "from the backing");
        let rest: Vec<_> = (0..4).map(|_| pool.alloc(NOWAIT).unwrap()).collect();
        assert_eq!((source.out(), pool.stats().reserve), (6, 0), "from the reserve");
        assert_eq!(pool.alloc(NOWAIT), Err(PoolEmpty::Empty));
        pool.check().unwrap();
        let asked = source.asked();
        assert!(asked.iter().all(|gfp| !gfp.contains(Gfp::NOFAIL | Gfp::MEMALLOC)), "{asked:?}");
        first.into_iter().chain(rest).for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
        pool.destroy().unwrap();
        assert_eq!(source.out(), 0);
    });
}

// Behaviour 330.
#[test]
fn a_freed_element_fills_the_reserve_first() {
    with_slabs(|slabs| {
        let source = Source::of(4);
        let pool = numbers(slabs, 3, &source).unwrap();
        let elements: Vec<_> = (0..4).map(|_| pool.alloc(NOWAIT).unwrap()).collect();
        for (freed, element) in elements.into_iter().enumerate() {
            raw!(pool.free(element.as_ptr())).unwrap();
            assert_eq!(pool.stats().reserve as usize, (freed + 1).min(3));
            assert_eq!(source.freed().len(), usize::from(freed == 3), "the fourth goes to the backing");
            pool.check().unwrap();
        }
        pool.destroy().unwrap();
    });
}

// Behaviour 334.
#[test]
fn a_preallocated_element_never_comes_from_the_backing() {
    with_slabs(|slabs| {
        let source = Source::of(100);
        let pool = numbers(slabs, 2, &source).unwrap();
        source.asked();
        let elements = [(); 2].map(|()| pool.alloc_preallocated().unwrap());
        assert_eq!(pool.alloc_preallocated(), None);
        assert!(source.asked().is_empty(), "nobody asks it");
        elements.into_iter().for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
        pool.destroy().unwrap();
    });
}

// Behaviour 329: the fifth of four sleeps until one is freed.
#[test]
fn whoever_may_wait_gets_the_next_element_that_is_freed() {
    with_slabs(|slabs| {
        let source = Box::leak(Box::new(Source::of(4)));
        let pool = numbers(slabs, 4, source).unwrap();
        let elements: Vec<_> = (0..4).map(|_| pool.alloc(KERNEL).unwrap()).collect();
        let first = elements[0];
        // SAFETY: the deed is done, or gone, before the pool is.
        let shared: &'static Numbers<'_, '_, '_> =
            unsafe { std::mem::transmute::<&Numbers<'_, '_, '_>, &'static Numbers<'_, '_, '_>>(&pool) };
        ASLEEP.set(Some(Box::new(move || raw!(shared.free(first.as_ptr())).unwrap())));
        assert_eq!(pool.alloc(KERNEL), Ok(first));
        // Or until the backing has memory again.
        ASLEEP.set(Some(Box::new(|| source.set(1))));
        let late = pool.alloc(KERNEL).unwrap();
        assert!(!elements.contains(&late));
        elements.into_iter().chain([late]).for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
        pool.destroy().unwrap();
    });
}

// The flags in the order of their cost: at once, then with reclaim, then everything.
#[test]
fn nobody_left_to_wake_is_an_error_after_all_else() {
    with_slabs(|slabs| {
        let source = Source::of(1);
        let pool = numbers(slabs, 1, &source).unwrap();
        let element = pool.alloc(KERNEL).unwrap();
        source.asked();
        assert_eq!(pool.alloc(KERNEL | Gfp::NOFAIL), Err(PoolEmpty::WouldNeverWake));
        let asked = source.asked();
        let (first, last) = (asked[0], asked[asked.len() - 1]);
        assert!(!first.may_wait() && first.contains(Gfp::NOMEMALLOC | Gfp::NORETRY | Gfp::NOWARN));
        assert!(asked[1].contains(Gfp::DIRECT_RECLAIM | Gfp::NORETRY), "{asked:?}");
        assert!(last.contains(Gfp::DIRECT_RECLAIM) && !last.intersects(Gfp::NORETRY | Gfp::NOFAIL), "{asked:?}");
        raw!(pool.free(element.as_ptr())).unwrap();
        pool.destroy().unwrap();
    });
}

// A call that may wait asserts it every time, not only when the pool is empty.
#[test]
fn waiting_where_that_is_not_legal_is_reported_and_not_done() {
    with_slabs(|slabs| {
        let source = Source::of(3);
        let pool = numbers(slabs, 1, &source).unwrap();
        let reported = || slabs.hal().atomic_sleeps.swap(0, Ordering::Relaxed);
        let elements = in_interrupt(|| [(); 3].map(|()| pool.alloc(KERNEL)));
        assert_eq!(reported(), 3);
        assert_eq!(in_interrupt(|| pool.alloc(KERNEL)), Err(PoolEmpty::Empty), "it does not wait");
        assert_eq!(reported(), 1);
        in_interrupt(|| elements.into_iter().for_each(|element| raw!(pool.free(element.unwrap().as_ptr())).unwrap()));
        pool.destroy().unwrap();
        // The same where elements are cached.
        let backing = KmallocBacking::new(slabs, 64).unwrap();
        let pool =
            RawMempool::create(slabs, &PoolSpec::new("atomic", 1), backing).map_err(|refused| refused.error).unwrap();
        let element = in_interrupt(|| pool.alloc(KERNEL)).unwrap();
        assert_ne!(reported(), 0);
        raw!(pool.free(element.as_ptr())).unwrap();
        pool.destroy().map_err(|(_, why)| why).unwrap();
    });
}

// Behaviour 339: a handler wherever interrupts are open, on the CPU that is in the middle of a call.
#[test]
fn handlers_allocate_and_free_in_the_middle_of_a_call() {
    with_slabs(|slabs| {
        let source = Source::of(3);
        let pool = numbers(slabs, 2, &source).unwrap();
        let held = RefCell::new(Vec::new());
        let handler = || {
            in_interrupt(|| {
                let mut held = held.borrow_mut();
                match held.pop() {
                    Some(element) => raw!(pool.free(NonNull::as_ptr(element))).unwrap(),
                    None => held.extend(pool.alloc(NOWAIT).ok()),
                }
            });
        };
        at_open_points(&handler, || {
            for _ in 0..200 {
                let elements: Vec<_> = (0..2).filter_map(|_| pool.alloc(NOWAIT).ok()).collect();
                elements.into_iter().for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
            }
        });
        held.take().into_iter().for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
        pool.check().unwrap();
        assert_eq!(pool.stats().reserve, 2);
        pool.destroy().unwrap();
        assert_eq!(source.out(), 0);
    });
}

#[test]
fn pages_and_blocks_of_kmalloc_are_elements() {
    with_slabs(|slabs| {
        fn try_out<B: Backing>(slabs: &Slabs<'_, '_>, size: usize, backing: B) {
            let spec = PoolSpec::new("memory", 2);
            let pool = RawMempool::create(slabs, &spec, backing).map_err(|refused| refused.error).unwrap();
            let backing = pool.alloc(KERNEL).unwrap();
            let reserved = [(); 2].map(|()| pool.alloc_preallocated().unwrap());
            for (element, byte) in [backing, reserved[0], reserved[1]].into_iter().zip(1..) {
                fill(VirtAddr::of(element.as_ptr()), byte, size);
            }
            for (element, byte) in [backing, reserved[0], reserved[1]].into_iter().zip(1..) {
                assert_eq!(bytes(VirtAddr::of(element.as_ptr()), size), vec![byte; size]);
                raw!(pool.free(element.as_ptr())).unwrap();
            }
            pool.check().unwrap();
            pool.destroy().map_err(|(_, why)| why).unwrap();
        }
        for size in [1, 8, 100, 256, 8192, 10_000, 1 << 20] {
            try_out(slabs, size, KmallocBacking::new(slabs, size).unwrap());
        }
        for order in [0, 1, 3] {
            let order = Order::new(order).unwrap();
            try_out(slabs, 4096 << order.get(), PageBacking::new(slabs.pages(), order).unwrap());
        }
        assert_eq!(KmallocBacking::new(slabs, 0).map(|_| ()), Err(PoolCreateError::Size));
        assert_eq!(KmallocBacking::new(slabs, (4 << 20) + 1).map(|_| ()), Err(PoolCreateError::Size));
    });
}
