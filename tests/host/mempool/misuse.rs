//! Elements that are freed twice, written to after their free, or none: named, and never given out twice.

use super::*;
use crate::slab::machine::spec;
use quarry::addr::{Order, VirtAddr};
use quarry::mm::mempool::{
    Backing, CacheBacking, KmallocBacking, NotElement, NotFreed, POISON_END, POISON_FREE, POISON_IN_USE, PageBacking,
};
use quarry::mm::slab::Misuse;
use std::mem::MaybeUninit;

fn pool<'s, 'm, B: Backing>(slabs: &'s Slabs<'s, 'm>, spec: PoolSpec, backing: B) -> RawMempool<'s, Sim<'m>, B> {
    RawMempool::create(slabs, &spec, backing).map_err(|refused| refused.error).unwrap()
}

fn write(element: NonNull<u8>, offset: usize, byte: u8) {
    // SAFETY: inside the element.
    let at = unsafe { element.add(offset) };
    // SAFETY: its memory is there; that it is freed is what the test is about.
    unsafe { at.write_volatile(byte) };
}

fn read(element: NonNull<u8>, offset: usize) -> u8 {
    // SAFETY: its memory is there; that it is freed is what the test is about.
    let at = unsafe { element.add(offset) };
    // SAFETY: its memory is there; that it is freed is what the test is about.
    unsafe { at.read_volatile() }
}

/// Lets the next allocation come from the reserve.
fn run_dry(slabs: &Slabs<'_, '_>, dry: bool) {
    slabs.set_careful(dry);
    slabs.hal().slabs_left.store(if dry { 0 } else { u64::MAX }, Ordering::Relaxed);
}

// Behaviour 332.
#[test]
fn a_byte_written_after_the_free_is_named_with_its_place() {
    with_slabs(|slabs| {
        for (offset, expected) in [(0, POISON_FREE), (17, POISON_FREE), (254, POISON_FREE), (255, POISON_END)] {
            let pool = pool(slabs, PoolSpec::new("io", 1).with_poison(true), KmallocBacking::new(slabs, 256).unwrap());
            let element = pool.alloc_preallocated().unwrap();
            assert_eq!((read(element, 0), read(element, 255)), (POISON_IN_USE, POISON_IN_USE));
            raw!(pool.free(element.as_ptr())).unwrap();
            assert_eq!(
                (read(element, 0), read(element, 254), read(element, 255)),
                (POISON_FREE, POISON_FREE, POISON_END)
            );
            pool.check().unwrap();
            write(element, offset, 0x41);
            assert_eq!(pool.check().unwrap_err().tag, "POOL-4");
            assert_eq!(pool.alloc_preallocated(), None, "nobody gets it");
            let line = slabs.hal().lines().concat();
            let at = VirtAddr::of(element.as_ptr());
            let words = format!("byte {offset} of the element at {at} is 0x41 instead of {expected:#04x}");
            assert!(line.contains("mempool poison overwritten") && line.contains(&words), "{line}");
            assert!(line.contains("mempool \"io\""), "{line}");
            assert_eq!((pool.stats().set_aside, pool.stats().reserve), (1, 0));
            // The next element that is freed takes its place.
            let other = pool.alloc(KERNEL).unwrap();
            raw!(pool.free(other.as_ptr())).unwrap();
            assert_eq!(pool.stats().reserve, 1);
            pool.check().unwrap();
            pool.destroy().map_err(|(_, why)| why).unwrap();
            // Lost to the pool, which is what the machine would notice.
            raw!(slabs.kfree(at)).unwrap();
        }
    });
}

// The first word alone, in production.
#[test]
fn a_mark_written_after_the_free_is_named_without_poison() {
    with_slabs(|slabs| {
        let pool = pool(slabs, PoolSpec::new("io", 2).with_poison(false), KmallocBacking::new(slabs, 256).unwrap());
        let elements = [(); 2].map(|()| pool.alloc_preallocated().unwrap());
        assert!(
            elements.iter().all(|element| (0..8).all(|offset| read(*element, offset) == 0)),
            "no mark is given out"
        );
        elements.iter().for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
        write(elements[1], 200, 0x41);
        pool.check().unwrap();
        // Another byte than the mark's, which is secret.
        write(elements[1], 3, !read(elements[1], 3));
        assert_eq!(pool.check().unwrap_err().tag, "POOL-4");
        assert_eq!(pool.alloc_preallocated(), Some(elements[0]), "the other one is whole");
        assert!(slabs.hal().lines().concat().contains("byte 3 of"));
        raw!(pool.free(elements[0].as_ptr())).unwrap();
        pool.destroy().map_err(|(_, why)| why).unwrap();
        raw!(slabs.kfree(VirtAddr::of(elements[1].as_ptr()))).unwrap();
    });
}

// Whether the reserve is full afterwards or not; with poison and without.
#[test]
fn an_element_freed_twice_is_never_given_out_twice() {
    with_slabs(|slabs| {
        for (poison, full) in [(true, true), (true, false), (false, true), (false, false)] {
            let spec = PoolSpec::new("twice", 2).with_poison(poison);
            let pool = pool(slabs, spec, KmallocBacking::new(slabs, 64).unwrap());
            let elements = [(); 2].map(|()| pool.alloc_preallocated().unwrap());
            raw!(pool.free(elements[0].as_ptr())).unwrap();
            if full {
                raw!(pool.free(elements[1].as_ptr())).unwrap();
            }
            let at = VirtAddr::of(elements[0].as_ptr());
            assert_eq!(raw!(pool.free(elements[0].as_ptr())), Err(NotFreed::InReserve(at)), "{poison} {full}");
            pool.check().unwrap();
            if !full {
                raw!(pool.free(elements[1].as_ptr())).unwrap();
            }
            // An element freed to the backing is not taken into the reserve.
            let other = pool.alloc(KERNEL).unwrap();
            raw!(pool.free(other.as_ptr())).unwrap();
            let reserved = pool.alloc_preallocated().unwrap();
            let again = raw!(pool.free(other.as_ptr())).unwrap_err();
            assert!(
                matches!(again, NotFreed::Foreign { why: NotElement::Object(Misuse::DoubleFree { .. }), .. }),
                "{again:?}"
            );
            raw!(pool.free(reserved.as_ptr())).unwrap();
            pool.check().unwrap();
            pool.destroy().map_err(|(_, why)| why).unwrap();
        }
    });
}

#[test]
fn a_number_freed_twice_is_found_while_the_reserve_lacks_one() {
    with_slabs(|slabs| {
        let source = Source::of(3);
        let pool = numbers(slabs, 3, &source).unwrap();
        let elements = [(); 2].map(|()| pool.alloc_preallocated().unwrap());
        raw!(pool.free(elements[0].as_ptr())).unwrap();
        assert!(matches!(raw!(pool.free(elements[0].as_ptr())), Err(NotFreed::InReserve(_))));
        raw!(pool.free(elements[1].as_ptr())).unwrap();
        pool.destroy().unwrap();
    });
}

// A pointer that a reserve would give out as an element, and that is not one.
#[test]
fn what_is_no_element_does_not_come_into_the_reserve() {
    with_slabs(|slabs| {
        let cache = slabs.create(&spec("own", 96)).unwrap();
        let other = slabs.create(&spec("other", 96)).unwrap();
        let foreign = |result: Result<(), NotFreed>| match result {
            Err(NotFreed::Foreign { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        let wrong = slabs.alloc_object(other.cache(), KERNEL).unwrap();
        let small = slabs.kmalloc(64, KERNEL).unwrap();
        {
            let pool = pool(slabs, PoolSpec::new("cache", 1), CacheBacking::new(slabs, cache.cache()));
            let element = pool.alloc_preallocated().unwrap();
            let why = foreign(raw!(pool.free(wrong.as_ptr())));
            assert!(matches!(why, NotElement::Object(Misuse::WrongCache { .. })), "{why}");
            let inside = VirtAddr::new(VirtAddr::of(element.as_ptr()).get() + 8);
            let why = foreign(raw!(pool.free(inside.as_ptr())));
            assert!(matches!(why, NotElement::Object(Misuse::Misaligned { .. })), "{why}");
            let outside = slabs.hal().outside();
            assert!(matches!(foreign(raw!(pool.free(outside.as_ptr()))), NotElement::Object(Misuse::NotLinear(_))));
            raw!(pool.free(element.as_ptr())).unwrap();
            pool.destroy().map_err(|(_, why)| why).unwrap();
        }
        let pool = pool(slabs, PoolSpec::new("blocks", 1), KmallocBacking::new(slabs, 200).unwrap());
        let element = pool.alloc_preallocated().unwrap();
        assert_eq!(foreign(raw!(pool.free(small.as_ptr()))), NotElement::Small { usable: 64, size: 200 });
        raw!(pool.free(element.as_ptr())).unwrap();
        pool.destroy().map_err(|(_, why)| why).unwrap();
        let order = |order| Order::new(order).unwrap();
        let pool = self::pool(slabs, PoolSpec::new("pages", 1), PageBacking::new(slabs.pages(), order(1)).unwrap());
        let element = pool.alloc_preallocated().unwrap();
        assert!(matches!(foreign(raw!(pool.free(small.as_ptr()))), NotElement::Pages(_)));
        let page = slabs.pages().alloc_pages(KERNEL, order(0)).unwrap();
        use quarry::mm::page::PageMap;
        use quarry::mm::zone::PageHal;
        let at = slabs.hal().to_virt(slabs.hal().map().phys(page));
        assert_eq!(foreign(raw!(pool.free(at.as_ptr()))), NotElement::Order { block: order(0), element: order(1) });
        raw!(slabs.pages().free_pages(page, order(0))).unwrap();
        raw!(pool.free(element.as_ptr())).unwrap();
        pool.destroy().map_err(|(_, why)| why).unwrap();
        raw!(slabs.kfree(small)).unwrap();
        raw!(slabs.free_object(other.cache(), wrong)).unwrap();
        slabs.destroy(cache).map_err(|(_, why)| why).unwrap();
        slabs.destroy(other).map_err(|(_, why)| why).unwrap();
    });
}

// Behaviour 337, its second half.
#[test]
fn a_free_to_a_destroyed_pool_is_named() {
    with_slabs(|slabs| {
        let source = Source::of(10);
        let mut place = MaybeUninit::new(numbers(slabs, 2, &source).unwrap());
        // SAFETY: it is there.
        let pool = unsafe { place.assume_init_mut() };
        let element = pool.alloc(KERNEL).unwrap();
        // SAFETY: dropped once.
        unsafe { std::ptr::drop_in_place(pool) };
        let line = slabs.hal().lines().concat();
        assert!(line.contains("pool dropped with 1 elements in use; mempool \"numbers\""), "{line}");
        let at = VirtAddr::of(element.as_ptr());
        // SAFETY: its fields are as its end has left them; they own nothing any more.
        let pool = unsafe { place.assume_init_ref() };
        assert_eq!(raw!(pool.free(element.as_ptr())), Err(NotFreed::Destroyed(at)));
        assert_eq!(source.out(), 1, "it stays with whoever has it");
        take_back(element, &&source);
    });
}

#[test]
fn elements_of_the_reserve_that_are_wanted_back_are_reported_when_the_backing_is_dry() {
    with_slabs(|slabs| {
        let pool = pool(slabs, PoolSpec::new("dry", 2), KmallocBacking::new(slabs, 64).unwrap());
        run_dry(slabs, true);
        let elements = [(); 2].map(|()| pool.alloc(NOWAIT).unwrap());
        assert_eq!(pool.stats().reserve, 0);
        assert!(pool.alloc(NOWAIT).is_err());
        elements.into_iter().for_each(|element| raw!(pool.free(element.as_ptr())).unwrap());
        run_dry(slabs, false);
        pool.check().unwrap();
        pool.destroy().map_err(|(_, why)| why).unwrap();
    });
}
