//! Several CPUs, and what pages hold when they change hands.

use super::machine::{MIB, run_on};
use super::{Spec, blocks, order};
use quarry::gfp::Gfp;

// Behaviours 95, 99, 136: whatever the last owner left, at every order, also straight from a per-CPU list.
#[test]
fn zeroed_pages_are_zero_whatever_was_there() {
    Spec::of_size(32 * MIB).run(|pages| {
        for raw in 0..=10 {
            let order = order(raw);
            let page = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
            pages.hal().fill(page, 1 << raw, 0xab);
            raw!(pages.free_pages(page, order)).unwrap();
            let again = pages.alloc_pages(Gfp::KERNEL | Gfp::ZERO, order).unwrap();
            for index in 0..1 << raw {
                assert_eq!(pages.hal().byte(again.offset(index)), 0, "order {raw}, page {index}");
            }
            raw!(pages.free_pages(again, order)).unwrap();
        }
    });
}

// Behaviours 102, 477: one CPU takes, another gives back, and each page is in one place.
#[test]
fn pages_freed_on_another_cpu_come_back() {
    Spec::of_size(16 * MIB).cpus(2).run(|pages| {
        let before = blocks(pages);
        for raw in [0, 1, 3, 4, 9] {
            let order = order(raw);
            let taken: Vec<_> =
                (0..3 + (600 >> raw)).map_while(|_| pages.alloc_pages(Gfp::KERNEL, order).ok()).collect();
            assert!(taken.len() > 2, "order {raw}");
            run_on(1);
            for page in taken {
                raw!(pages.free_pages(page, order)).unwrap();
            }
            let hot = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
            raw!(pages.free_pages(hot, order)).unwrap();
            assert_eq!(
                pages.alloc_pages(Gfp::KERNEL, order).unwrap(),
                hot,
                "the page freed last is the next one given"
            );
            raw!(pages.free_pages(hot, order)).unwrap();
            run_on(0);
        }
        // A CPU that is gone has its lists emptied by those that stay.
        pages.hal().set_online(1, false);
        assert_eq!(blocks(pages), before);
    });
}
