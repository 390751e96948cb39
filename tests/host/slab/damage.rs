//! The checker is worth something only if it fails: damage to each kind of metadata, and its tag.

use super::machine::Sim;
use super::*;
use quarry::addr::{PAGE_SIZE, Pfn};
use quarry::hal::cpu::PerCpu;
use quarry::mm::page::{Page, PageMap, find_head};
use quarry::mm::slab::SlabHal;
use quarry::mm::zone::PageHal;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

/// The page that an object lies in.
fn page_of(slabs: &Slabs<'_, '_>, at: VirtAddr) -> Page {
    let hal = slabs.hal();
    hal.map().find(Pfn::containing(hal.to_phys(at).unwrap())).unwrap()
}

/// The first page of its slab.
fn head_of(slabs: &Slabs<'_, '_>, at: VirtAddr) -> Page {
    find_head(&slabs.hal().map(), page_of(slabs, at)).unwrap().0
}

/// The word in which a slab's first page says how its slab is.
fn book_of<'m>(slabs: &Slabs<'_, 'm>, head: Page) -> &'m AtomicU64 {
    let words = std::ptr::from_ref(slabs.hal().map().get(head)).cast::<AtomicU64>();
    // SAFETY: a descriptor is 32 bytes, `repr(C)`, the last eight of which are an atomic: the owner's word.
    unsafe { &*words.wrapping_add(3) }
}

fn word_at(at: VirtAddr) -> &'static AtomicU64 {
    // SAFETY: aligned words of the simulated RAM, which outlives the test's use of them.
    unsafe { &*at.as_ptr::<AtomicU64>() }
}

/// Flips a bit, and says what the checker says, with the bit as it was.
fn flipped(slabs: &Slabs<'_, '_>, word: &AtomicU64, bit: u32) -> Option<&'static str> {
    word.fetch_xor(1 << bit, Ordering::Relaxed);
    let found = slabs.check().err().map(|broken| broken.tag);
    word.fetch_xor(1 << bit, Ordering::Relaxed);
    check(slabs);
    found
}

/// A cache with objects in use and objects on the free list of a slab, none in its arrays.
fn with_free_list(size: u32, f: impl for<'p, 'm> FnOnce(&Slabs<'p, 'm>, &Cache<Sim<'m>>, &[VirtAddr], &[VirtAddr])) {
    // As little as there can be: everything is checked twice for each bit.
    Spec::of_size(4 << 20).run(|slabs| {
        let cache = slabs.create(&spec("damaged", size)).unwrap();
        let mut objects = take(slabs, cache.cache(), 20);
        let used = objects.split_off(10);
        give(slabs, cache.cache(), objects.iter().copied());
        slabs.shrink(cache.cache());
        check(slabs);
        f(slabs, cache.cache(), &used, &objects);
        check(slabs);
        give(slabs, cache.cache(), used);
        slabs.destroy(cache).unwrap();
    });
}

// Behaviour 504: the link and the mark of a free object, and nothing else of it, are the allocator's.
#[test]
fn no_flipped_bit_of_a_link_goes_unnoticed() {
    for size in [8, 16, 64, 96, 256] {
        with_free_list(size, |slabs, _, _, free| {
            let noticed = |word: u64| -> Vec<_> {
                let at = word_at(offset(free[3], word * 8));
                (0..64).map(|bit| flipped(slabs, at, bit)).collect()
            };
            let words: Vec<_> = (0..u64::from(size) / 8).map(noticed).collect();
            let matter: Vec<_> = words.iter().filter(|bits| bits.iter().any(Option::is_some)).collect();
            assert_eq!(matter.len(), if size == 8 { 1 } else { 2 }, "{size}: a mark and a link");
            for bits in matter {
                assert!(bits.iter().all(|found| *found == Some("SLAB-2")), "{size}: {bits:?}");
            }
        });
    }
}

// Behaviour 504: what the first page says about its slab.
#[test]
fn no_flipped_bit_of_a_slab_s_book_goes_unnoticed() {
    with_free_list(64, |slabs, _, used, _| {
        let head = head_of(slabs, used[0]);
        let book = book_of(slabs, head);
        let found = |bit| flipped(slabs, book, bit).unwrap_or_else(|| panic!("bit {bit} of {book:#x?}"));
        let tags: BTreeSet<_> = (0..64).map(found).collect();
        assert!(tags.contains("SLAB-1") && tags.contains("SLAB-2"), "{tags:?}");
    });
}

// Behaviour 504: what each page says about the slab that it belongs to.
#[test]
fn no_flipped_bit_of_a_page_s_word_goes_unnoticed() {
    with_free_list(1000, |slabs, cache, used, _| {
        let (map, head) = (slabs.hal().map(), head_of(slabs, used[0]));
        let info = slabs.info(cache);
        let pages = u32::try_from(info.pages / info.slabs).unwrap();
        assert!(pages > 1, "a slab of several pages");
        for page in 0..pages {
            for bit in 0..64 {
                let found = flipped(slabs, map.get(head.offset(page)).aux(), bit);
                assert!(matches!(found, Some("SLAB-1" | "SLAB-3" | "WORD-1")), "page {page}, bit {bit}: {found:?}");
            }
        }
    });
}

/// The header of this CPU's array, with so many objects in it.
fn with_array(count: usize, f: impl FnOnce(&Slabs<'_, '_>, &quarry::mm::slab::ArrayHeader, &[AtomicU64], &[VirtAddr])) {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&spec("damaged", 64)).unwrap();
        let used = take(slabs, cache.cache(), 10);
        let at_hand = take(slabs, cache.cache(), count);
        slabs.shrink(cache.cache());
        give(slabs, cache.cache(), at_hand);
        let header = Sim::header(slabs.hal().local(), cache.cache().array());
        let base = header.words()[0].load(Ordering::Relaxed);
        let entries: &[AtomicU64] = {
            // SAFETY: ARR-2: so many entries start there.
            unsafe { std::slice::from_raw_parts(VirtAddr::new(base).as_ptr::<AtomicU64>(), count) }
        };
        check(slabs);
        f(slabs, header, entries, &used);
        check(slabs);
        give(slabs, cache.cache(), used);
        slabs.destroy(cache).unwrap();
    });
}

/// Result of the checker while `word` is `value`.
fn with_value(slabs: &Slabs<'_, '_>, word: &AtomicU64, value: u64) -> Option<&'static str> {
    let before = word.swap(value, Ordering::Relaxed);
    let found = slabs.check().err().map(|broken| broken.tag);
    word.store(before, Ordering::Relaxed);
    check(slabs);
    found
}

// Behaviour 504.
#[test]
fn an_array_that_is_damaged_is_named() {
    with_array(20, |slabs, header, entries, used| {
        let other = slabs.kmalloc(64, KERNEL).unwrap();
        let (first, top) = (entries[0].load(Ordering::Relaxed), header.words()[1].load(Ordering::Relaxed));
        let slab = VirtAddr::new(first).align_down(PAGE_SIZE);
        for (entry, expected, what) in [
            (entries[1].load(Ordering::Relaxed), "ARR-1", "an object twice"),
            (first + 8, "ARR-1", "an address inside an object"),
            (0, "ARR-1", "no address"),
            (slabs.hal().outside().get(), "ARR-1", "an address outside RAM"),
            (other.get(), "ARR-1", "an object of another cache"),
            (used[0].get(), "SLAB-4", "an object in use"),
        ] {
            assert_eq!(with_value(slabs, &entries[0], entry), Some(expected), "{what}");
        }
        for bit in 0..64 {
            let found = flipped(slabs, &entries[5], bit);
            assert!(found.is_some(), "bit {bit} of an entry in {slab}");
        }
        let limit = header.words()[2].load(Ordering::Relaxed);
        assert_eq!(with_value(slabs, header.words()[1], limit + 8), Some("ARR-2"), "more than it holds");
        assert_eq!(
            with_value(slabs, header.words()[2], limit + 8),
            Some("ARR-2"),
            "larger than the cache's arrays are"
        );
        assert_eq!(with_value(slabs, header.words()[1], top - 8), None, "an object that nobody has is not noticed");
        raw!(slabs.kfree(other)).unwrap();
    });
}

// Behaviour 504: an object in an array that its slab's free list has too.
#[test]
fn an_object_in_two_places_is_named() {
    with_array(20, |slabs, _, entries, _| {
        let at_hand = VirtAddr::new(entries[3].load(Ordering::Relaxed));
        let head = head_of(slabs, at_hand);
        let book = book_of(slabs, head);
        // The free list starts at this object instead.
        let start = slabs.hal().to_virt(slabs.hal().map().phys(head));
        let index = (at_hand.get() - start.get()) / 64;
        let before = book.load(Ordering::Relaxed);
        assert_eq!(with_value(slabs, book, before & !(0x1fff << 13) | index << 13), Some("SLAB-2"));
    });
}
