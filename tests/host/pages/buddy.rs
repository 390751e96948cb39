//! Splitting and merging.

use super::machine::{GIB, MIB};
use super::{Spec, blocks, give_back, order, phys, range, take_all};
use quarry::addr::{Order, PAGE_SIZE, to_usize};
use quarry::gfp::Gfp;
use quarry::mm::zone::SetupError;

// Behaviours 76, 114.
#[test]
fn without_memory_there_is_no_allocator() {
    Spec::of_size(4 * MIB).reserve(range(GIB, 4 * MIB)).run(|pages| {
        assert_eq!((pages.total_pages(), pages.free_page_count()), (0, 0));
        for o in 0..=10 {
            assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::NOWARN, order(o)).is_err());
        }
    });
}

#[test]
fn memory_is_handed_over_once() {
    Spec::of_size(4 * MIB).run(|pages| {
        let ram = [range(GIB, 4 * MIB)];
        let limits = quarry::mm::zone::ZoneLimits::new(ram[0].start(), None, None);
        let again = raw!(pages.hand_over(ram.into_iter(), ram.into_iter(), limits, pages.tuning()));
        assert_eq!(again, Err(SetupError::Twice));
    });
}

// Behaviour 77.
#[test]
fn one_page_of_memory_can_be_had_and_given_back() {
    Spec::of_size(PAGE_SIZE).without_reserve().run(|pages| {
        let page = pages.alloc_pages(Gfp::MEMALLOC, Order::ZERO).unwrap();
        assert_eq!(phys(pages, page), GIB);
        assert_eq!(pages.free_page_count(), 0);
        assert!(pages.alloc_pages(Gfp::MEMALLOC | Gfp::NOWARN, Order::ZERO).is_err());
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        assert_eq!(pages.free_page_count(), 1);
    });
}

// Behaviours 75, 79: at every order exactly as many blocks as fit, all aligned, none overlapping.
#[test]
fn all_memory_can_be_had_at_every_order() {
    for o in 0..=10 {
        Spec::of_size(16 * MIB).without_reserve().run(|pages| {
            let before = blocks(pages);
            let mut taken = take_all(pages, order(o));
            assert_eq!(taken.len() as u64, 16 * MIB / order(o).bytes());
            taken.sort();
            for pair in taken.windows(2) {
                assert!(pair[0].index() + (1 << o) <= pair[1].index(), "overlap");
            }
            assert!(taken.iter().all(|page| phys(pages, *page).is_multiple_of(order(o).bytes())));
            assert_eq!(pages.free_page_count(), 0);
            give_back(pages, taken, order(o));
            assert_eq!(blocks(pages), before);
        });
    }
}

// Behaviour 80.
#[test]
fn memory_merges_again_whatever_the_order_of_freeing() {
    let shuffle = |taken: &mut Vec<_>| {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for index in (1..taken.len()).rev() {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            taken.swap(index, to_usize(seed % (index as u64 + 1)));
        }
    };
    let orders: [&dyn Fn(&mut Vec<_>); 3] = [&|_| {}, &|taken| taken.reverse(), &shuffle];
    for arrange in orders {
        Spec::of_size(8 * MIB).without_reserve().run(|pages| {
            let mut taken = take_all(pages, Order::ZERO);
            assert_eq!(taken.len(), 2048);
            arrange(&mut taken);
            give_back(pages, taken, Order::ZERO);
            let mut expected = vec![0; 11];
            expected[10] = 2;
            assert_eq!(blocks(pages), expected);
        });
    }
}

// Behaviour 82.
#[test]
fn every_second_page_makes_no_larger_block() {
    Spec::of_size(4 * MIB).without_reserve().run(|pages| {
        let taken = take_all(pages, Order::ZERO);
        let (kept, freed): (Vec<_>, Vec<_>) = taken.into_iter().partition(|page| page.index() % 2 == 0);
        give_back(pages, freed, Order::ZERO);
        pages.drain_all();
        assert_eq!(pages.free_page_count(), 512);
        assert!(pages.alloc_pages(Gfp::MEMALLOC | Gfp::NOWARN, order(1)).is_err());
        let page = pages.alloc_pages(Gfp::MEMALLOC, Order::ZERO).unwrap();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        give_back(pages, kept, Order::ZERO);
        pages.drain_all();
        let whole = pages.alloc_pages(Gfp::MEMALLOC, Order::MAX).unwrap();
        raw!(pages.free_pages(whole, Order::MAX)).unwrap();
    });
}

// Behaviours 84, 85, 144: neither a hole, nor the end of memory, nor another zone is merged with or handed out.
#[test]
fn blocks_end_at_holes_at_the_end_and_at_zones() {
    let banks = [range(GIB, 3 * MIB), range(GIB + 5 * MIB, 3 * MIB + PAGE_SIZE), range(4 * GIB - MIB, 3 * MIB)];
    Spec::new(&banks).without_reserve().limits(GIB + 6 * MIB).run(|pages| {
        let before = blocks(pages);
        let taken = take_all(pages, Order::ZERO);
        assert_eq!(taken.len() as u64, banks.iter().map(|bank| bank.size() / PAGE_SIZE).sum::<u64>());
        for page in &taken {
            let at = quarry::addr::PhysAddr::new(phys(pages, *page));
            assert!(banks.iter().any(|bank| bank.contains(at)), "{at} is no RAM");
        }
        give_back(pages, taken, Order::ZERO);
        assert_eq!(blocks(pages), before);
    });
}

// Behaviour 86.
#[test]
fn buddies_are_each_others() {
    Spec::of_size(16 * MIB).without_reserve().run(|pages| {
        for page in take_all(pages, Order::ZERO) {
            for o in 0..10 {
                let buddy = page.buddy(o);
                assert_eq!(buddy.buddy(o), page);
                assert_eq!(buddy.index().abs_diff(page.index()), 1 << o);
            }
            raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        }
    });
}

// Behaviour 112.
#[test]
fn reserved_memory_never_appears() {
    let reserved = [range(GIB, 64 * PAGE_SIZE), range(GIB + 3 * MIB, PAGE_SIZE), range(GIB + 8 * MIB - 1, 1)];
    let spec = reserved.into_iter().fold(Spec::of_size(8 * MIB).without_reserve(), Spec::reserve);
    spec.run(|pages| {
        let taken = take_all(pages, Order::ZERO);
        assert_eq!(taken.len(), 2048 - 64 - 1 - 1);
        for page in &taken {
            let at = range(phys(pages, *page), PAGE_SIZE);
            assert!(!reserved.iter().any(|reserved| reserved.overlaps(at)));
        }
        give_back(pages, taken, Order::ZERO);
    });
}
