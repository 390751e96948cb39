//! Values in elements.

use super::*;
use crate::slab::machine::spec;
use quarry::mm::mempool::{CacheBacking, Mempool, PoolDestroyError};
use std::sync::Arc;

// A box drops its value and gives its element back, on the waiting way too.
#[test]
fn a_box_gives_its_element_back() {
    with_slabs(|slabs| {
        let cache = slabs.create(&spec("values", 16)).unwrap();
        let backing = CacheBacking::new(slabs, cache.cache());
        let raw =
            RawMempool::create(slabs, &PoolSpec::new("values", 2), backing).map_err(|refused| refused.error).unwrap();
        // SAFETY: the cache has 16 bytes at multiples of 16 for each object.
        let pool = unsafe { Mempool::<Arc<u64>, _, _>::over(raw) };
        let value = Arc::new(7);
        slabs.set_careful(true);
        slabs.hal().slabs_left.store(0, Ordering::Relaxed);
        let mut boxes: Vec<_> = (0..2).map(|_| pool.alloc(Arc::clone(&value), NOWAIT).unwrap()).collect();
        assert!(pool.alloc(Arc::clone(&value), NOWAIT).is_err());
        assert_eq!(
            (Arc::strong_count(&value), pool.raw().stats().reserve),
            (3, 0),
            "the value that found no room is gone"
        );
        *boxes[1] = Arc::new(9);
        assert_eq!((**boxes[0], **boxes[1]), (7, 9));
        drop(boxes);
        slabs.hal().slabs_left.store(u64::MAX, Ordering::Relaxed);
        slabs.set_careful(false);
        assert_eq!((Arc::strong_count(&value), pool.raw().stats().reserve), (1, 2));
        pool.raw().check().unwrap();
        // A box that is forgotten is missing.
        std::mem::forget(pool.alloc(Arc::clone(&value), KERNEL).unwrap());
        let (pool, why) = pool.destroy().map(|_| ()).unwrap_err();
        assert_eq!(why, PoolDestroyError::InUse { missing: 1 });
        slabs.hal().lines();
        drop(pool);
        assert!(slabs.hal().lines().concat().contains("pool dropped with 1 elements in use"));
        let (cache, _) = slabs.destroy(cache).unwrap_err();
        // The test's own way to what was forgotten.
        let lost = slabs.hal().reports();
        let first = lost.iter().find_map(|misuse| match misuse {
            quarry::mm::slab::Misuse::Remaining { first, .. } => *first,
            _ => None,
        });
        raw!(slabs.free_object(cache.cache(), first.unwrap())).unwrap();
        slabs.destroy(cache).map_err(|(_, why)| why).unwrap();
    });
}
