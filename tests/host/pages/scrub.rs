//! What pages hold when they change hands, where the boot arguments want something done about it.

use super::machine::{MIB, Pages, range};
use super::{Spec, blocks, order, phys};
use quarry::addr::{CpuId, Order, PAGE_SIZE, Pfn, PhysAddr};
use quarry::gfp::Gfp;
use quarry::mm::page::{Page, PageMap};
use quarry::mm::zone::{PAGE_POISON, PageHal, Scrub};

fn holds(pages: &Pages<'_>, page: Page, count: u32, byte: u8) -> bool {
    (0..count).all(|index| pages.hal().byte(page.offset(index)) == byte)
}

/// Runs `f` for a dirty block of every order, which has just been freed.
fn each_freed_block(pages: &Pages<'_>, f: impl Fn(Page, Order)) {
    for order in (0..=10).map(order) {
        let page = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
        pages.hal().fill(page, 1 << order.get(), 0xab);
        raw!(pages.free_pages(page, order)).unwrap();
        f(page, order);
    }
}

// Behaviours 95, 99.
#[test]
fn zeroing_on_allocation_leaves_nothing_of_the_last_owner() {
    Spec::of_size(32 * MIB).run(|pages| {
        pages.set_scrub(Scrub::ZERO_ON_ALLOC);
        each_freed_block(pages, |page, order| {
            let count = 1 << order.get();
            assert!(holds(pages, page, count, 0xab), "a free costs nothing");
            let again = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
            assert!(holds(pages, again, count, 0), "order {}", order.get());
            raw!(pages.free_pages(again, order)).unwrap();
            pages.hal().fill(page, count, 0xcd);
            pages.alloc_contig_range(page, count, Gfp::KERNEL).unwrap();
            assert!(holds(pages, page, count, 0));
            raw!(pages.free_contig_range(page, count)).unwrap();
        });
        // Off means off.
        pages.set_scrub(Scrub::empty());
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        pages.hal().fill(page, 1, 0xab);
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        assert_ne!(pages.pages_on_lists(CpuId::BOOT), 0, "the short way again");
        assert_eq!(pages.alloc_pages(Gfp::KERNEL, Order::ZERO), Ok(page));
        assert!(holds(pages, page, 1, 0xab));
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

// Behaviour 96.
#[test]
fn zeroing_on_free_leaves_nothing_behind() {
    let reserved = range((1 << 30) + 4 * MIB, MIB);
    Spec::of_size(32 * MIB).reserve(reserved).run(|pages| {
        pages.set_scrub(Scrub::ZERO_ON_FREE);
        let free = pages.alloc_pages(Gfp::KERNEL, order(4)).unwrap();
        assert!(holds(pages, free, 16, 0), "what was free before as well");
        raw!(pages.free_pages(free, order(4))).unwrap();
        each_freed_block(pages, |page, order| assert!(holds(pages, page, 1 << order.get(), 0)));
        // Nor does memory that only booting needed.
        let first = pages.hal().map().find(Pfn::containing(reserved.start())).unwrap();
        pages.hal().fill(first, 256, 0xab);
        super::free_reserved(pages, first, 256).unwrap();
        assert!(holds(pages, first, 256, 0));
    });
}

// Behaviour 97.
#[test]
fn a_write_to_a_free_page_is_reported_with_its_place() {
    Spec::of_size(32 * MIB).run(|pages| {
        let whole = blocks(pages);
        // Poison wins over zeroes.
        pages.set_scrub(Scrub::POISON | Scrub::ZERO_ON_FREE);
        let overwritten = || std::mem::take(&mut *pages.hal().watcher.overwritten.lock().unwrap());
        each_freed_block(pages, |page, order| {
            assert!(holds(pages, page, 1 << order.get(), PAGE_POISON));
            let victim = page.offset((1 << order.get()) - 1);
            pages.hal().fill(victim, 1, 0x42);
            pages.alloc_contig_range(page, 1 << order.get(), Gfp::KERNEL).unwrap();
            assert_eq!(overwritten(), [(PhysAddr::new(phys(pages, victim)), 0x42)]);
            raw!(pages.free_contig_range(page, 1 << order.get())).unwrap();
        });
        // All memory is sound otherwise, also what was free before it was turned on.
        let taken = super::take_all(pages, Order::ZERO);
        assert_eq!(taken.len() as u64, 32 * MIB / PAGE_SIZE);
        assert_eq!(overwritten(), []);
        super::give_back(pages, taken, Order::ZERO);
        let page = pages.alloc_pages(Gfp::KERNEL | Gfp::ZERO, order(3)).unwrap();
        assert!(holds(pages, page, 8, 0));
        raw!(pages.free_pages(page, order(3))).unwrap();
        assert_eq!(overwritten(), []);
        pages.set_scrub(Scrub::empty());
        assert_eq!(blocks(pages), whole);
    });
}

// Tests that ask for the long way and stop asking do not turn it off.
#[test]
fn scrubbing_outlives_a_careful_test() {
    Spec::of_size(32 * MIB).run(|pages| {
        pages.set_scrub(Scrub::ZERO_ON_FREE);
        pages.set_careful(true);
        pages.set_careful(false);
        each_freed_block(pages, |page, order| assert!(holds(pages, page, 1 << order.get(), 0)));
        assert_eq!(pages.scrub(), Scrub::ZERO_ON_FREE);
        pages.set_scrub(Scrub::empty());
    });
}
