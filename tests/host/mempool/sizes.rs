//! Making a reserve larger and smaller, and giving a pool up.

use super::*;
use crate::slab::machine::{Sim, in_interrupt};
use quarry::mm::mempool::{KmallocBacking, PoolDestroyError, PoolResizeError};

// Behaviour 335: a larger reserve grows by what is freed, if there is no memory at once; of a smaller one the surplus goes.
#[test]
fn a_reserve_grows_as_far_as_there_is_memory_and_shrinks_at_once() {
    with_slabs(|slabs| {
        let source = Source::of(6);
        let pool = numbers(slabs, 2, &source).unwrap();
        let elements = [(); 3].map(|()| pool.alloc(NOWAIT).unwrap());
        pool.resize(40).unwrap();
        assert_eq!((pool.stats().min, pool.stats().reserve), (40, 3), "all that the source has");
        pool.check().unwrap();
        elements.into_iter().for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
        assert_eq!((pool.stats().reserve, source.freed().len()), (6, 0), "the rest by frees");
        pool.resize(4).unwrap();
        assert_eq!((pool.stats().min, pool.stats().reserve, source.freed().len()), (4, 4, 2));
        pool.check().unwrap();
        pool.resize(3).unwrap();
        pool.resize(40).unwrap();
        assert_eq!(pool.stats().reserve, 6, "in the list that is there");
        pool.check().unwrap();
        pool.destroy().unwrap();
        assert_eq!(source.out(), 0);
    });
}

// Behaviour 336. Negative numbers are no `u32`.
#[test]
fn no_elements_are_refused() {
    with_slabs(|slabs| {
        let source = Source::of(100);
        assert_eq!(numbers(slabs, 0, &source).unwrap_err(), PoolCreateError::NoElements);
        let pool = numbers(slabs, 2, &source).unwrap();
        assert_eq!(pool.resize(0), Err(PoolResizeError::NoElements));
        assert_eq!((pool.stats().min, pool.stats().reserve), (2, 2));
        pool.destroy().unwrap();
    });
}

#[test]
fn what_may_sleep_of_a_pool_refuses_in_atomic_context_before_it_changes_anything() {
    with_slabs(|slabs| {
        let source = Source::of(100);
        let refused = in_interrupt(|| numbers(slabs, 2, &source));
        assert!(matches!(refused, Err(PoolCreateError::Atomic(_))));
        assert_eq!(source.out(), 0);
        let pool = numbers(slabs, 2, &source).unwrap();
        assert!(matches!(in_interrupt(|| pool.resize(5)), Err(PoolResizeError::Atomic(_))));
        assert_eq!(pool.stats().min, 2);
        let (pool, why) = in_interrupt(|| pool.destroy().unwrap_err());
        assert!(matches!(why, PoolDestroyError::Atomic(_)));
        let calls = std::mem::take(&mut *slabs.hal().atomic_calls.lock().unwrap());
        assert_eq!(calls, ["RawMempool::create", "RawMempool::resize", "RawMempool::destroy"]);
        pool.destroy().unwrap();
    });
}

// Behaviour 337, its first half: who takes a pool away is told what is missing, and the pool stays.
#[test]
fn a_pool_with_elements_in_use_is_not_destroyed() {
    with_slabs(|slabs| {
        let source = Source::of(4);
        let pool = numbers(slabs, 3, &source).unwrap();
        let elements = [(); 4].map(|()| pool.alloc(NOWAIT).unwrap());
        let (pool, why) = pool.destroy().unwrap_err();
        assert_eq!(why, PoolDestroyError::InUse { missing: 4 });
        let lines = slabs.hal().lines();
        assert!(lines.len() == 1 && lines[0].contains("pool destroyed with 4 elements in use; mempool \"numbers\""));
        elements.into_iter().for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
        pool.check().unwrap();
        pool.destroy().unwrap();
        assert_eq!(source.out(), 0);
    });
}

/// Runs `f` with the k-th allocation failing, for every k, until it passes: how many there are.
fn every_page_fails(slabs: &Slabs<'_, '_>, mut f: impl FnMut() -> bool) -> u64 {
    for left in 0.. {
        slabs.pages().set_careful(true);
        slabs.set_careful(true);
        slabs.hal().slabs_left.store(left, Ordering::Relaxed);
        let passed = f();
        let unused = slabs.hal().slabs_left.swap(u64::MAX, Ordering::Relaxed) != 0;
        slabs.set_careful(false);
        slabs.pages().set_careful(false);
        if passed && unused {
            return left - 1;
        }
        assert!(left < 100);
    }
    0
}

fn blocks<'s, 'm>(
    slabs: &'s Slabs<'s, 'm>,
    min: u32,
) -> Result<RawMempool<'s, Sim<'m>, KmallocBacking<'s, Sim<'m>>>, PoolCreateError> {
    let backing = KmallocBacking::new(slabs, 200)?;
    RawMempool::create(slabs, &PoolSpec::new("blocks", min), backing).map_err(|refused| refused.error)
}

// Behaviour 497, for pools: every allocation of each call fails once, and nothing is lost.
#[test]
fn no_failed_allocation_of_a_call_loses_anything() {
    with_slabs(|slabs| {
        let points = every_page_fails(slabs, || match blocks(slabs, 4) {
            Ok(pool) => {
                assert_eq!(pool.stats().reserve, 4);
                pool.destroy().map_err(|(_, why)| why).unwrap();
                true
            }
            Err(error) => {
                assert_eq!(error, PoolCreateError::OutOfMemory);
                false
            }
        });
        assert_eq!(points, 5, "the list and four elements");
        let pool = blocks(slabs, 4).unwrap();
        let points = every_page_fails(slabs, || {
            let outcome = pool.resize(40);
            let stats = pool.stats();
            pool.check().unwrap();
            match outcome {
                Err(error) => {
                    assert_eq!((error, stats.min, stats.reserve), (PoolResizeError::OutOfMemory, 4, 4));
                    false
                }
                Ok(()) => {
                    pool.resize(4).unwrap();
                    stats.min == 40 && stats.reserve == 40
                }
            }
        });
        // The list is allocated once, and stays.
        assert_eq!(points, 36);
        // An allocation has the reserve.
        let points = every_page_fails(slabs, || {
            let elements: Vec<_> = (0..4).map(|_| pool.alloc(KERNEL).unwrap()).collect();
            let full = pool.stats().reserve == 4;
            elements.into_iter().for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
            pool.check().unwrap();
            full
        });
        assert!(points >= 4);
        pool.destroy().map_err(|(_, why)| why).unwrap();
    });
}
