//! Where two numbers are equal: the last page above a mark, the block of just the right size, the range that ends where the
//! memory does.

use super::machine::{GIB, MIB, Pages, in_interrupt};
use super::reclaim::{alloc, exhaust, finish};
use super::{Spec, give_back, order, range};
use quarry::addr::{CpuId, Order, PAGE_SIZE, Pfn, PhysAddr};
use quarry::gfp::{Gfp, ZoneType};
use quarry::mm::page::{PAGEBLOCK_PAGES, Page, PageMap};
use quarry::mm::zone::{AllocError, PageBatch, PageHal, WatermarkTuning, ZoneLimits};

const MOVABLE: Gfp = Gfp::HIGHUSER_MOVABLE;

/// Every page of a machine, as movable ones, in order.
fn take_movable(pages: &Pages<'_>) -> Vec<Page> {
    let gfp = MOVABLE | Gfp::MEMALLOC | Gfp::NOWARN;
    let mut taken: Vec<Page> = std::iter::from_fn(|| pages.alloc_pages(gfp, Order::ZERO).ok()).collect();
    taken.sort_unstable_by_key(|page| page.index());
    taken
}

/// What an unmovable page does to a movable page block of which `free` pages are free, the first of the zone or the last:
/// page blocks stolen, pages mixed in, and by how much the marks were raised.
fn steal(size: u64, last: bool, free: usize) -> (u64, u64, u64) {
    let mut found = (0, 0, 0);
    Spec::of_size(size).without_reserve().run(|pages| {
        let mut taken = take_movable(pages);
        assert_eq!(taken.len() as u64, size / PAGE_SIZE);
        let start = if last { taken.len() - PAGEBLOCK_PAGES as usize } else { 0 };
        let freed: Vec<Page> = taken.drain(start..start + free).collect();
        give_back(pages, freed, Order::ZERO);
        pages.drain_all();
        let before = pages.zone(ZoneType::Dma).unwrap();
        let page = pages.alloc_pages(Gfp::ATOMIC, Order::ZERO).unwrap();
        let after = pages.zone(ZoneType::Dma).unwrap();
        found = (
            after.events.stolen_blocks - before.events.stolen_blocks,
            after.events.mixed - before.events.mixed,
            after.boost - before.boost,
        );
        give_back(pages, taken, Order::ZERO);
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        pages.drain_all();
    });
    found
}

#[test]
fn a_page_block_is_stolen_from_half_of_it_on() {
    let half = PAGEBLOCK_PAGES as usize / 2;
    let boost = u64::from(PAGEBLOCK_PAGES);
    for last in [false, true] {
        assert_eq!(steal(16 * MIB, last, half), (1, 0, boost), "last: {last}");
        assert_eq!(steal(16 * MIB, last, half - 1), (0, 1, boost), "last: {last}");
        // A whole page block changes hands, and large blocks are no fewer for it.
        assert_eq!(steal(16 * MIB, last, 2 * half), (1, 0, 0), "last: {last}");
    }
    // A zone of four page blocks is the smallest that has large blocks to defend.
    assert_eq!(steal(8 * MIB, false, half), (1, 0, boost));
    assert_eq!(steal(6 * MIB, false, half), (1, 0, 0));
}

#[test]
fn new_marks_are_not_raised_by_what_was() {
    Spec::of_size(16 * MIB).without_reserve().run(|pages| {
        let mut taken = take_movable(pages);
        give_back(pages, taken.drain(..PAGEBLOCK_PAGES as usize / 2), Order::ZERO);
        pages.drain_all();
        let page = pages.alloc_pages(Gfp::ATOMIC, Order::ZERO).unwrap();
        assert_ne!(pages.zone(ZoneType::Dma).unwrap().boost, 0);
        pages.set_tuning(pages.tuning());
        assert_eq!(pages.zone(ZoneType::Dma).unwrap().boost, 0);
        give_back(pages, taken.into_iter().chain([page]), Order::ZERO);
    });
}

// An unmovable page goes to the reclaimable ones before it goes to the movable ones.
#[test]
fn of_two_types_with_equal_blocks_the_nearer_one_is_taken() {
    Spec::of_size(16 * MIB).without_reserve().run(|pages| {
        let all = 2 * PAGEBLOCK_PAGES as usize;
        let gfp = Gfp::KERNEL | Gfp::RECLAIMABLE;
        let mut near: Vec<Page> = (0..all).map(|_| pages.alloc_pages(gfp, Order::ZERO).unwrap()).collect();
        near.sort_unstable_by_key(|page| page.index());
        let mut far = take_movable(pages);
        let half = PAGEBLOCK_PAGES as usize / 2;
        let aligned = |pages: &[Page]| pages.iter().position(|page| page.is_aligned(9)).unwrap();
        for taken in [&mut near, &mut far] {
            let start = aligned(taken);
            give_back(pages, taken.drain(start..start + half), Order::ZERO);
        }
        pages.drain_all();
        let page = pages.alloc_pages(Gfp::ATOMIC, Order::ZERO).unwrap();
        let block = |page: Page| page.align_down(9);
        assert!(near.iter().any(|other| block(*other) == block(page)), "not among the reclaimable ones");
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        give_back(pages, near.into_iter().chain(far), Order::ZERO);
    });
}

#[test]
fn the_last_page_above_the_mark_is_had_and_the_next_one_is_not() {
    let machine = Spec::of_size(16 * MIB).with_reclaimer();
    let taken = exhaust(machine);
    let zone = machine.pages.zone(ZoneType::Dma).unwrap();
    assert_eq!((zone.free, zone.boost), (zone.marks.min, 0));
    finish(machine, taken);
}

#[test]
fn a_list_is_filled_with_what_is_above_the_high_mark() {
    Spec::of_size(16 * MIB).run(|pages| {
        let zone = || pages.zone(ZoneType::Dma).unwrap();
        let (managed, high) = (zone().managed, zone().marks.high);
        for o in [0, 1] {
            let mut taken = Vec::new();
            for above in (0..=5).rev() {
                while managed - (taken.len() as u64) > high + (above << o) {
                    taken.push(pages.alloc_pages(MOVABLE, Order::ZERO).unwrap());
                }
                pages.drain_all();
                assert_eq!((zone().free, zone().boost), (high + (above << o), 0));
                let block = pages.alloc_pages(MOVABLE, order(o)).unwrap();
                let listed = above.saturating_sub(1) << o;
                assert_eq!(pages.pages_on_lists(CpuId::BOOT), listed, "order {o}, {above} blocks above the mark");
                raw!(pages.free_pages(block, order(o))).unwrap();
                pages.drain_all();
            }
            give_back(pages, taken, Order::ZERO);
            pages.drain_all();
        }
    });
}

#[test]
fn the_only_block_of_the_right_size_is_had() {
    for o in 1..=9 {
        Spec::of_size(32 * MIB).without_reserve().run(|pages| {
            let mut taken = take_movable(pages);
            // Two, so that enough is left; apart, so that they do not merge.
            let blocks: Vec<Page> = taken.iter().copied().filter(|page| page.is_aligned(o + 1)).take(2).collect();
            let inside = |page: &Page| blocks.iter().any(|block| page.align_down(o) == *block);
            let freed: Vec<Page> = taken.extract_if(.., |page| inside(page)).collect();
            give_back(pages, freed, Order::ZERO);
            pages.drain_all();
            let block = pages.alloc_pages(MOVABLE, order(o)).unwrap();
            assert!(blocks.contains(&block), "order {o}");
            give_back(pages, taken, Order::ZERO);
            raw!(pages.free_pages(block, order(o))).unwrap();
        });
    }
}

#[test]
fn no_mark_is_above_what_the_zone_has() {
    let tuning = WatermarkTuning { min_free_kbytes: None, scale_factor: 3000, ..WatermarkTuning::DEFAULT };
    for managed in [1, 2, 7, 10, 100, 5000] {
        for min_pages in [0, 1, managed / 2, managed, 10 * managed] {
            let marks = tuning.marks(managed, managed, min_pages);
            assert!(1 <= marks.min && marks.min <= marks.low && marks.low <= marks.high, "{marks:?}");
            assert!(marks.high <= managed, "{marks:?} of {managed}");
        }
    }
}

// One per cent of the zone, which is just a page block, or a page less.
#[test]
fn a_page_block_is_kept_for_atomic_orders_where_it_is_one_per_cent() {
    for (pages, kept) in [(51_200, 512), (51_100, 0)] {
        let machine = Spec::of_size(pages * PAGE_SIZE).with_reclaimer();
        let mut taken = exhaust(machine);
        let block = alloc(machine, Gfp::ATOMIC, 1).unwrap();
        assert_eq!(machine.pages.zone(ZoneType::Dma).unwrap().high_atomic, kept);
        raw!(machine.pages.free_pages(block, order(1))).unwrap();
        taken.extend(std::iter::from_fn(|| alloc(machine, Gfp::KERNEL, 0).ok()));
        assert_eq!(machine.pages.zone(ZoneType::Dma).unwrap().high_atomic, 0, "given up before anything fails");
        finish(machine, taken);
    }
}

// The block beside it is free, too, and only both together make the block that is wanted.
#[test]
fn a_page_block_that_is_given_up_merges_with_its_neighbour() {
    let machine = Spec::of_size(51_200 * PAGE_SIZE).with_reclaimer();
    let pages = machine.pages;
    let mut taken = exhaust(machine);
    taken.extend(super::take_all(pages, Order::ZERO));
    taken.sort_unstable_by_key(|page| page.index());
    assert_eq!(taken.len(), 51_200);
    let start = taken.iter().position(|page| page.is_aligned(10)).unwrap();
    let half = PAGEBLOCK_PAGES as usize;
    give_back(pages, taken.drain(start..start + half), Order::ZERO);
    pages.drain_all();
    let block = alloc(machine, Gfp::ATOMIC, 1).unwrap();
    assert_eq!(pages.zone(ZoneType::Dma).unwrap().high_atomic, u64::from(PAGEBLOCK_PAGES));
    raw!(pages.free_pages(block, order(1))).unwrap();
    give_back(pages, taken.drain(start..start + half), Order::ZERO);
    // Enough to leave the marks alone, and none of it a larger block.
    let mut single = 0;
    let apart = taken.extract_if(.., |page| {
        single += page.index() & 1;
        page.index() & 1 == 1 && single <= 1000
    });
    let apart: Vec<Page> = apart.collect();
    give_back(pages, apart, Order::ZERO);
    let largest = alloc(machine, Gfp::KERNEL, 10).unwrap();
    assert_eq!(pages.zone(ZoneType::Dma).unwrap().high_atomic, 0);
    raw!(pages.free_pages(largest, order(10))).unwrap();
    finish(machine, taken);
}

#[test]
fn a_contiguous_range_may_be_all_that_is_free_and_end_where_memory_does() {
    Spec::of_size(16 * MIB).without_reserve().run(|pages| {
        let mut taken = take_movable(pages);
        let free: Vec<Page> = taken.drain(taken.len() - 700..).collect();
        let first = free[0];
        give_back(pages, free, Order::ZERO);
        pages.drain_all();
        assert!(pages.alloc_contig_pages(701, 1, Gfp::KERNEL).is_err());
        assert_eq!(pages.alloc_contig_pages(700, 1, Gfp::KERNEL), Ok(first));
        raw!(pages.free_contig_range(first, 700)).unwrap();
        pages.drain_all();
        pages.alloc_contig_range(first, 700, Gfp::KERNEL).unwrap();
        raw!(pages.free_contig_range(first, 700)).unwrap();
        assert!(pages.alloc_contig_range(first.offset(1), 700, Gfp::KERNEL).is_err(), "beyond the end");
        give_back(pages, taken, Order::ZERO);
    });
}

#[test]
fn the_first_address_of_a_zone_is_its_own() {
    let at = PhysAddr::new;
    let limits = ZoneLimits::new(at(GIB), Some(at(GIB + 2 * MIB)), None);
    assert_eq!(limits.zone_of(at(GIB + 2 * MIB - 1)), ZoneType::Dma);
    assert_eq!(limits.zone_of(at(GIB + 2 * MIB)), ZoneType::Dma32);
    assert_eq!(limits.zone_of(at((4 * GIB) - 1)), ZoneType::Dma32);
    assert_eq!(limits.zone_of(at(4 * GIB)), ZoneType::Normal);
    // A device that reaches nothing of the RAM limits nothing.
    let none = ZoneLimits::new(at(GIB), Some(at(GIB)), None);
    assert_eq!(none.zone_of(at(GIB)), ZoneType::Dma);
}

#[test]
fn pages_just_outside_of_a_section_have_no_descriptor() {
    let ram = [range(GIB, 4 * MIB), range(GIB + 4 * MIB, 4 * MIB), range(GIB + 16 * MIB, 4 * MIB)];
    Spec::new(&ram).run(|pages| {
        let map = pages.hal().map();
        let find = |addr| map.find(Pfn::containing(PhysAddr::new(addr)));
        assert_eq!(map.sections().len(), 2, "neighbours are one");
        for (start, end) in [(GIB, GIB + 8 * MIB), (GIB + 16 * MIB, GIB + 20 * MIB)] {
            assert_eq!(find(start - PAGE_SIZE), None);
            assert!(find(start).is_some() && find(end - PAGE_SIZE).is_some());
            assert_eq!(find(end), None);
        }
        // A range may reach from one bank into its neighbour, and no further.
        let first = find(GIB + 3 * MIB).unwrap();
        pages.alloc_contig_range(first, 512, Gfp::KERNEL).unwrap();
        raw!(pages.free_contig_range(first, 512)).unwrap();
        assert!(pages.alloc_contig_range(find(GIB + 7 * MIB).unwrap(), 257, Gfp::KERNEL).is_err());
    });
}

#[test]
fn many_pages_at_once_are_as_many_as_there_are() {
    Spec::of_size(16 * MIB).without_reserve().run(|pages| {
        let mut taken = take_movable(pages);
        let free: Vec<Page> = taken.drain(..5).collect();
        give_back(pages, free, Order::ZERO);
        pages.drain_all();
        let mut batch = PageBatch::<50>::new();
        let got = pages.alloc_pages_bulk(Gfp::NOWAIT | Gfp::MEMALLOC | Gfp::NOWARN, &mut batch);
        assert_eq!(got, Ok(5));
        let none = pages.alloc_pages_bulk(Gfp::NOWAIT | Gfp::MEMALLOC | Gfp::NOWARN, &mut batch);
        assert_eq!(none, Err(AllocError::OutOfMemory));
        assert_eq!(batch.pages().len(), 5);
        raw!(pages.free_pages_bulk(&mut batch)).unwrap();
        give_back(pages, taken, Order::ZERO);
        // Where it may not wait, what must not fail is like any other request.
        let nofail = Gfp::KERNEL | Gfp::NOFAIL;
        assert_eq!(in_interrupt(|| pages.alloc_pages_bulk(nofail, &mut batch)), Ok(50));
        raw!(pages.free_pages_bulk(&mut batch)).unwrap();
    });
}

#[test]
fn pages_on_lists_count_as_available() {
    Spec::of_size(16 * MIB).run(|pages| {
        let line = || {
            let info = pages.meminfo().to_string();
            let line = info.lines().find(|line| line.starts_with("MemAvailable:")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        pages.drain_all();
        let before = line();
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        assert_eq!(line(), before - 4, "the rest of the batch is on a list");
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        assert_eq!(line(), before);
    });
}

// The farthest page from its head, of every order, plain and compound.
#[test]
fn the_last_page_of_a_block_leads_to_its_head() {
    Spec::of_size(16 * MIB).run(|pages| {
        for gfp in [Gfp::KERNEL, Gfp::KERNEL | Gfp::COMP] {
            for o in 0..=10 {
                let head = pages.alloc_pages(gfp, order(o)).unwrap();
                let (found, state) = pages.head(head.offset((1 << o) - 1)).unwrap();
                assert_eq!((found, state.order()), (head, order(o)), "order {o}");
                assert_eq!(pages.page_order(head.offset((1 << o) - 1)), Ok(order(o)));
                raw!(pages.free_pages(head, order(o))).unwrap();
            }
        }
    });
}
