//! Many objects at once on the machine, whose fast path is not the simulated one's.

use core::ptr::NonNull;
use quarry::addr::{Address, Order};
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache};
use quarry::ktest;
use quarry::mm::slab::{CacheSpec, SlabFlags};

const MANY: usize = 13;

fn cache(name: &'static str, size: u32) -> KmemCache {
    let flags = SlabFlags::NO_MERGE;
    KmemCache::create(&CacheSpec { name, size, align: 0, flags, constructor: None }).expect("a cache")
}

fn allocate(cache: &KmemCache) -> [NonNull<u8>; MANY] {
    let mut objects = [NonNull::dangling(); MANY];
    cache.alloc_bulk(Gfp::KERNEL, &mut objects).expect("memory");
    objects
}

/// The objects with `wrong` among them, in this place.
fn with(objects: &[NonNull<u8>; MANY], wrong: NonNull<u8>, place: usize) -> [NonNull<u8>; MANY + 1] {
    let mut right = objects.iter().copied();
    core::array::from_fn(|index| Some(wrong).filter(|_| index == place).or_else(|| right.next()).expect("as many"))
}

fn check() {
    global::slab_allocator().check().unwrap_or_else(|broken| panic!("{broken}"));
}

fn at(address: usize) -> NonNull<u8> {
    NonNull::new(address as *mut u8).expect("not zero")
}

// Behaviours 157, 171: for every bad object, in every place of a round, the others are freed, once.
ktest!(what_is_wrong_among_many_is_left_out, machine a72 = "", machine max = "cpu=max");
fn what_is_wrong_among_many_is_left_out() {
    for size in [24, 256] {
        let (cache, other) = (cache("many", size), cache("others", size));
        let foreign = other.alloc(Gfp::KERNEL).expect("memory");
        let page = global::get_free_pages(Gfp::KERNEL, Order::ZERO).expect("memory").at();
        let on_stack = 0_u64;
        for place in [0, 1, 2, 3, 6, 12, 13] {
            let kept = allocate(&cache);
            let free = cache.alloc(Gfp::KERNEL).expect("memory");
            // SAFETY: the test's own; used afterwards for its address alone.
            unsafe { cache.free(free) };
            let wrong = [
                free,
                kept[3],
                at(kept[7].addr().get() + 8),
                at(kept[7].addr().get() ^ 0x0f << 56),
                foreign,
                NonNull::from(&on_stack).cast(),
                at(page.as_ptr::<u8>().addr()),
                at(0x1000),
                at(check as fn() as usize),
                at(usize::MAX),
            ];
            // SAFETY: none but the kept ones is an object that may be freed, and these are, once.
            let first = unsafe { cache.free_bulk(&kept) };
            assert_eq!(first, 0);
            for wrong in wrong {
                let objects = allocate(&cache);
                let again = objects.contains(&wrong);
                // SAFETY: none but the kept ones is an object that may be freed, and these are, once.
                let left_out = unsafe { cache.free_bulk(&with(&objects, wrong, place)) };
                assert_eq!(left_out, 1, "{wrong:?} in place {place}, size {size}, twice: {again}");
            }
            check();
        }
        // SAFETY: the test's own.
        unsafe { other.free(foreign) };
        raw!(global::try_free_page(page)).expect("its owner");
        // Nothing of either is in use.
        cache.destroy().expect("all are free");
        other.destroy().expect("all are free");
    }
}

// More than an array holds, in every number up to that: each is somebody's once, and all come back.
ktest!(any_number_is_allocated_and_freed_at_once, machine a72 = "", machine max = "cpu=max");
fn any_number_is_allocated_and_freed_at_once() {
    let cache = cache("numbers", 256);
    let mut objects = [NonNull::dangling(); 300];
    for count in (0..objects.len()).step_by(7).chain([1, 2, 3, 4, 5, 127, 128, 129]) {
        let objects = objects.get_mut(..count).expect("no more than there are");
        cache.alloc_bulk(Gfp::KERNEL, objects).expect("memory");
        for (index, object) in objects.iter().enumerate() {
            // SAFETY: the test's own.
            unsafe { object.cast::<usize>().write(index) };
        }
        for (index, object) in objects.iter().enumerate() {
            // SAFETY: the test's own.
            assert_eq!(unsafe { object.cast::<usize>().read() }, index, "of {count}");
        }
        // SAFETY: the test's own, not used afterwards.
        assert_eq!(unsafe { cache.free_bulk(objects) }, 0, "of {count}");
        check();
    }
    cache.destroy().expect("all are free");
}
