//! Caches of one type: sizes and alignments of types, what is dropped when, constructors.

use super::*;
use quarry::mm::alloc::{Cache, Constructed, ConstructedCache};
use quarry::mm::slab::{CreateError, SlabAllocError, SlabFlags, SlabOptions};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

const FLAGS: SlabFlags = SlabFlags::NO_MERGE;

struct Noted<'c> {
    number: u64,
    dropped: &'c Cell<u64>,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.dropped.set(self.dropped.get() + self.number);
    }
}

#[test]
fn a_box_of_a_cache_drops_its_value_and_frees_its_object() {
    Spec::of_size(16 << 20).run(|slabs| {
        let dropped = Cell::new(0);
        let cache = Cache::create_in("noted", FLAGS, slabs).unwrap();
        let boxes: Vec<_> =
            (1..=100).map(|number| cache.alloc(Noted { number, dropped: &dropped }, KERNEL).unwrap()).collect();
        assert!(boxes.iter().map(|noted| noted.number).eq(1..=100));
        let (cache, left) = cache.destroy().unwrap_err();
        assert_eq!((left.in_use().unwrap().objects, dropped.get()), (100, 0));
        drop(boxes);
        assert_eq!(dropped.get(), 5050);
        cache.destroy().unwrap();
        slabs.hal().reports();
    });
}

#[test]
fn values_are_aligned_as_their_type_wants() {
    #[repr(align(256))]
    struct Wide(u8);
    #[repr(align(8192))]
    struct TooWide;
    for options in [SlabOptions::default(), SlabOptions { debug: Some("FZPU"), ..SlabOptions::default() }] {
        Spec::of_size(16 << 20).options(options).run(|slabs| {
            let cache = Cache::create_in("wide", FLAGS, slabs).unwrap();
            let boxes: Vec<_> = (0..100).map(|byte| cache.alloc(Wide(byte), KERNEL).unwrap()).collect();
            for (wide, byte) in boxes.iter().zip(0..) {
                assert!((&raw const **wide).addr().is_multiple_of(256) && wide.0 == byte);
            }
            drop(boxes);
            cache.destroy().unwrap();
            assert_eq!(Cache::<(), _>::create_in("nothing", FLAGS, slabs).err(), Some(CreateError::Empty));
            let refused = Cache::<[TooWide; 1], _>::create_in("too-wide", FLAGS, slabs).err();
            assert_eq!(refused, Some(CreateError::Empty));
            let refused = Cache::<(TooWide, u8), _>::create_in("too-wide", FLAGS, slabs).err();
            assert_eq!(refused, Some(CreateError::Align));
            let refused = Cache::<[u8; 1 << 20], _>::create_in("too-large", FLAGS, slabs).err();
            assert_eq!(refused, Some(CreateError::TooLarge));
        });
    }
}

#[test]
fn a_value_that_panics_in_drop_does_not_lose_its_object() {
    struct Bomb(#[expect(dead_code, reason = "a type without bytes has no cache")] u64);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = Cache::create_in("bomb", FLAGS, slabs).unwrap();
        let bomb = cache.alloc(Bomb(1), KERNEL).unwrap();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(bomb))).is_err());
        cache.destroy().unwrap();
    });
}

#[test]
fn without_memory_there_is_no_box_and_nothing_is_lost() {
    Spec::of_size(16 << 20).run(|slabs| {
        let dropped = Cell::new(0);
        let cache = Cache::create_in("noted", FLAGS, slabs).unwrap();
        let refused = with_pages(slabs, 0, || cache.alloc(Noted { number: 1, dropped: &dropped }, KERNEL));
        assert_eq!((refused.err(), dropped.get()), (Some(SlabAllocError::OutOfMemory), 1));
        cache.destroy().unwrap();
    });
}

static MADE: AtomicU64 = AtomicU64::new(0);

struct Counted {
    magic: u64,
    uses: u64,
}

impl Constructed for Counted {
    fn construct() -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self { magic: 0x600d, uses: 0 }
    }
}

// Behaviour 166: typed.
#[test]
fn a_constructed_value_is_made_once_and_stays_made() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = ConstructedCache::<Counted, _>::create_in("counted", FLAGS, slabs).unwrap();
        let mut most = 0;
        for _ in 0..200 {
            let mut one = cache.alloc(KERNEL).unwrap();
            assert_eq!(one.magic, 0x600d);
            one.uses += 1;
            most = most.max(one.uses);
        }
        assert!(most > 1, "no object was used twice");
        assert!(MADE.load(Ordering::Relaxed) < 200, "made again at each allocation");
        let zeroed = cache.alloc(KERNEL | Gfp::ZERO);
        assert_eq!(zeroed.err(), Some(SlabAllocError::ZeroConstructed));
        cache.destroy().map_err(|(_, left)| left).unwrap();
    });
}
