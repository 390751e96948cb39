//! References, splitting, sizes that are no powers of two, contiguous ranges, reserved memory.

use super::machine::{GIB, MIB, Pages, on_cpus};
use super::{Spec, blocks, give_back, order, range, take_all};
use quarry::addr::{Order, PAGE_SIZE, Pfn, PhysAddr};
use quarry::gfp::{Gfp, ZoneType};
use quarry::mm::page::{Kind, MigrateType, Page, PageMap};
use quarry::mm::zone::{AllocError, ContigError, FreeError, PageHal};

fn page_at(pages: &Pages<'_>, phys: u64) -> Page {
    pages.hal().map().find(Pfn::containing(PhysAddr::new(phys))).unwrap()
}

// Behaviour 117.
#[test]
fn the_last_reference_frees() {
    Spec::of_size(16 * MIB).run(|pages| {
        for (gfp, o) in [(Gfp::KERNEL, 0), (Gfp::KERNEL, 3), (Gfp::KERNEL | Gfp::COMP, 3), (Gfp::KERNEL, 10)] {
            let page = pages.alloc_pages(gfp, order(o)).unwrap();
            let inner = page.offset((1 << o) - 1);
            assert_eq!(pages.page_count(page), 1);
            pages.get_page(inner).unwrap();
            assert_eq!(pages.page_count(inner), 2);
            raw!(pages.put_page(page)).unwrap();
            assert_eq!(pages.page_count(page), 1);
            // Freeing drops a reference, too.
            pages.get_page(page).unwrap();
            raw!(pages.free_pages(page, order(o))).unwrap();
            assert_eq!(pages.page_count(page), 1);
            raw!(pages.put_page(inner)).unwrap();
            assert_eq!(pages.page_count(page), 0);
            assert!(matches!(pages.get_page(page), Err(FreeError::DoubleFree(_))));
            assert!(matches!(raw!(pages.put_page(page)), Err(FreeError::DoubleFree(_))));
        }
    });
}

#[test]
fn references_are_counted_by_several_cpus_at_once() {
    Spec::of_size(16 * MIB).cpus(4).run(|pages| {
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        on_cpus(pages, 4, |_| {
            for _ in 0..rounds {
                pages.get_page(page).unwrap();
                raw!(pages.put_page(page)).unwrap();
            }
        });
        assert_eq!(pages.page_count(page), 1);
        raw!(pages.put_page(page)).unwrap();
        assert_eq!(pages.page_count(page), 0);
    });
}

// Behaviour 109.
#[test]
fn a_split_block_is_freed_page_by_page() {
    Spec::of_size(16 * MIB).run(|pages| {
        let before = blocks(pages);
        for o in 0..=10 {
            let page = pages.alloc_pages(Gfp::KERNEL, order(o)).unwrap();
            raw!(pages.split_page(page, order(o))).unwrap();
            pages.check().unwrap();
            if o > 0 {
                assert!(raw!(pages.free_pages(page, order(o))).is_err(), "it is no block of that order any more");
            }
            give_back(pages, (0..1 << o).map(|index| page.offset(index)), Order::ZERO);
            assert_eq!(blocks(pages), before);
        }
    });
}

// Behaviour 116: what cannot be split stays as it is.
#[test]
fn what_is_no_plain_block_is_not_split() {
    Spec::of_size(16 * MIB).run(|pages| {
        let compound = pages.alloc_pages(Gfp::KERNEL | Gfp::COMP, order(3)).unwrap();
        let shared = pages.alloc_pages(Gfp::KERNEL, order(3)).unwrap();
        pages.get_page(shared).unwrap();
        let slab = pages.alloc_pages(Gfp::KERNEL, order(3)).unwrap();
        raw!(pages.claim(slab, Kind::Slab, 0)).unwrap();
        for (page, o) in [(compound, 3), (shared, 3), (slab, 3), (shared, 2), (shared.offset(1), 0)] {
            assert!(raw!(pages.split_page(page, order(o))).is_err());
        }
        pages.check().unwrap();
        raw!(pages.put_page(shared)).unwrap();
        raw!(pages.disown(slab, Kind::Slab)).unwrap();
        give_back(pages, [compound, shared, slab], order(3));
    });
}

// Behaviours 114, 115.
#[test]
fn exact_sizes_take_no_more_pages_than_they_need() {
    Spec::of_size(64 * MIB).run(|pages| {
        let total = pages.total_pages();
        let before = blocks(pages);
        for bytes in [1, PAGE_SIZE, PAGE_SIZE + 1, 5 * PAGE_SIZE, 17 * PAGE_SIZE - 1, 3 * MIB, 4 * MIB] {
            let page = pages.alloc_pages_exact(Gfp::KERNEL, bytes).unwrap();
            pages.check().unwrap();
            pages.drain_all();
            assert_eq!(total - pages.free_page_count(), bytes.div_ceil(PAGE_SIZE), "{bytes} bytes");
            raw!(pages.free_pages_exact(page, bytes)).unwrap();
        }
        assert_eq!(pages.alloc_pages_exact(Gfp::KERNEL, 0), Err(AllocError::Empty));
        assert_eq!(pages.alloc_pages_exact(Gfp::KERNEL, 4 * MIB + 1), Err(AllocError::TooLarge));
        assert_eq!(pages.alloc_pages_exact(Gfp::KERNEL, u64::MAX), Err(AllocError::TooLarge));
        assert_eq!(pages.alloc_pages_exact(Gfp::KERNEL | Gfp::COMP, 1), Err(AllocError::Compound));
        assert_eq!(blocks(pages), before);
    });
}

// Behaviour 87: a given frame.
#[test]
fn a_given_range_is_had_or_refused() {
    Spec::of_size(32 * MIB).run(|pages| {
        let before = blocks(pages);
        for (offset, count) in [(0, 1), (5, 1), (0, 1024), (3, 7), (512, 512), (1023, 2), (100, 5000)] {
            let first = page_at(pages, GIB + offset * PAGE_SIZE);
            pages.alloc_contig_range(first, count, Gfp::KERNEL).unwrap();
            pages.check().unwrap();
            assert!((0..count).all(|index| pages.page_count(first.offset(index)) == 1));
            let again = pages.alloc_contig_range(first, count, Gfp::KERNEL);
            assert!(matches!(again, Err(ContigError::Busy(_))), "{again:?}");
            raw!(pages.free_contig_range(first, count)).unwrap();
            assert_eq!(blocks(pages), before, "{count} pages from {offset}");
        }
        let first = page_at(pages, GIB);
        assert_eq!(pages.alloc_contig_range(first, 0, Gfp::KERNEL), Err(ContigError::Empty));
        assert_eq!(pages.alloc_contig_range(first, 8193, Gfp::KERNEL), Err(ContigError::NoRange));
        assert_eq!(pages.alloc_contig_range(first, u32::MAX, Gfp::KERNEL), Err(ContigError::NoRange));
        assert_eq!(blocks(pages), before);
    });
}

// Behaviour 110.
#[test]
fn one_page_in_use_keeps_a_range_from_being_had() {
    Spec::of_size(32 * MIB).run(|pages| {
        let pinned = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        let before = (blocks(pages), pages.pagetypeinfo().to_string());
        let first = page_at(pages, GIB);
        let refused = pages.alloc_contig_range(first, 8192, Gfp::KERNEL);
        assert_eq!(refused, Err(ContigError::Busy(pages.hal().map().pfn(pinned))));
        assert_eq!((blocks(pages), pages.pagetypeinfo().to_string()), before, "all pages are back as they were");
        raw!(pages.free_pages(pinned, Order::ZERO)).unwrap();
    });
}

#[test]
fn contiguous_pages_are_found_between_those_in_use() {
    Spec::of_size(64 * MIB).run(|pages| {
        let whole = blocks(pages);
        let one = pages.alloc_contig_pages(6000, 1024, Gfp::KERNEL).unwrap();
        let two = pages.alloc_contig_pages(6000, 1, Gfp::KERNEL | Gfp::ZERO).unwrap();
        assert!(one.is_aligned(10));
        assert!(one.index() + 6000 <= two.index() || two.index() + 6000 <= one.index());
        assert!((0..6000).all(|index| pages.hal().byte(two.offset(index)) == 0));
        assert_eq!(pages.alloc_contig_pages(6000, 1, Gfp::KERNEL), Err(ContigError::NoRange));
        assert_eq!(pages.alloc_contig_pages(1, 3, Gfp::KERNEL), Err(ContigError::NoRange), "no power of two");
        raw!(pages.free_contig_range(one, 6000)).unwrap();
        raw!(pages.free_contig_range(two, 6000)).unwrap();
        assert_eq!(blocks(pages), whole);
    });
}

#[test]
fn isolated_memory_is_nobodys() {
    Spec::of_size(8 * MIB).without_reserve().cpus(2).run(|pages| {
        // Two ranges of one machine, taken and given back by two CPUs, while others allocate.
        let rounds = if cfg!(miri) { 2 } else { 200 };
        on_cpus(pages, 2, |cpu| {
            let first = page_at(pages, GIB + u64::from(cpu) * 2 * MIB + 3 * PAGE_SIZE);
            for _ in 0..rounds {
                if pages.alloc_contig_range(first, 400, Gfp::ATOMIC).is_ok() {
                    raw!(pages.free_contig_range(first, 400)).unwrap();
                }
                let page = pages.alloc_pages(Gfp::ATOMIC, order(4)).unwrap();
                raw!(pages.free_pages(page, order(4))).unwrap();
            }
        });
        pages.drain_all();
        assert_eq!(pages.free_page_count(), 2048);
    });
}

#[test]
fn memory_for_contiguous_allocations_is_lent_to_movable_ones_only() {
    let cma = range(GIB + 8 * MIB, 8 * MIB);
    Spec::of_size(32 * MIB).reserve(cma).without_reserve().run(|pages| {
        let first = page_at(pages, cma.start().get());
        assert_eq!(super::add_cma(pages, first, 100), Err(ContigError::Isolated), "no whole page blocks");
        assert_eq!(super::add_cma(pages, first.offset(2048), 512), Err(ContigError::NoRange), "not reserved");
        super::add_cma(pages, first, 2048).unwrap();
        pages.check().unwrap();
        let zone = pages.zone(ZoneType::Dma).unwrap();
        assert_eq!((zone.cma, zone.free_cma, zone.managed), (2048, 2048, 8192));
        let inside = |page: &Page| (first.index()..first.index() + 2048).contains(&page.index());

        let fixed = take_all(pages, Order::ZERO);
        assert!(!fixed.iter().any(inside), "an unmovable page in the memory of contiguous allocations");
        assert_eq!(fixed.len(), 6144);
        let movable: Vec<Page> =
            std::iter::from_fn(|| pages.alloc_pages(Gfp::KERNEL | Gfp::MOVABLE | Gfp::NOWARN, Order::ZERO).ok())
                .collect();
        assert!(!movable.is_empty() && movable.iter().all(inside));
        assert!(pages.alloc_contig_range(first, 2048, Gfp::KERNEL).is_err(), "lent");
        give_back(pages, movable, Order::ZERO);
        pages.alloc_contig_range(first, 2048, Gfp::KERNEL).unwrap();
        raw!(pages.free_contig_range(first, 2048)).unwrap();
        pages.drain_all();
        assert_eq!(pages.zone(ZoneType::Dma).unwrap().free_cma, 2048);
        give_back(pages, fixed, Order::ZERO);
        let types = pages.free_blocks(ZoneType::Dma).unwrap();
        let cma_pages: u32 = types.blocks[MigrateType::Cma.index()].iter().enumerate().map(|(o, n)| n << o).sum();
        pages.drain_all();
        assert_eq!(cma_pages, 2048);
    });
}

// Movable pages keep the two kinds of memory in balance: they are borrowed when more than half of what is free is lent.
#[test]
fn exactly_half_of_what_is_free_is_not_borrowed_from() {
    let cma = range(GIB + 8 * MIB, 8 * MIB);
    Spec::of_size(32 * MIB).reserve(cma).without_reserve().run(|pages| {
        let first = page_at(pages, cma.start().get());
        super::add_cma(pages, first, 2048).unwrap();
        let mut taken: Vec<Page> = (0..4096).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()).collect();
        // No list is filled: each page comes from where it is decided.
        pages.set_careful(true);
        let zone = pages.zone(ZoneType::Dma).unwrap();
        assert_eq!((zone.free, zone.free_cma), (4096, 2048));
        for (left, borrowed) in [(4096, false), (4095, true), (4094, false), (4093, true)] {
            assert_eq!(pages.zone(ZoneType::Dma).unwrap().free, left);
            let page = pages.alloc_pages(Gfp::KERNEL | Gfp::MOVABLE, Order::ZERO).unwrap();
            let inside = (first.index()..first.index() + 2048).contains(&page.index());
            assert_eq!(inside, borrowed, "of {left} free pages");
            taken.push(page);
        }
        pages.set_careful(false);
        give_back(pages, taken, Order::ZERO);
    });
}

// The zone begins in the middle of a page block, which cannot be isolated.
#[test]
fn the_lowest_range_begins_right_behind_a_page_block_of_two_zones() {
    Spec::of_size(16 * MIB).limits(GIB + 3 * MIB).run(|pages| {
        for count in [1, 300, 512, 1024] {
            let first = pages.alloc_contig_pages(count, 1, Gfp::KERNEL).unwrap();
            assert_eq!(super::phys(pages, first), GIB + 4 * MIB, "{count} pages");
            raw!(pages.free_contig_range(first, count)).unwrap();
        }
    });
}

#[test]
fn reserved_memory_can_be_adopted_by_whom_it_is_reserved_for() {
    let reserved = range(GIB + MIB, 3 * MIB);
    Spec::of_size(16 * MIB).reserve(reserved).run(|pages| {
        let first = page_at(pages, GIB + 2 * MIB + 5 * PAGE_SIZE);
        let managed = pages.total_pages();
        let adopt = |first, count| raw!(pages.adopt_reserved(first, count));
        // Reaches into memory that is free.
        assert!(matches!(adopt(first, 600), Err(FreeError::DoubleFree(_))));
        assert_eq!(pages.total_pages(), managed);
        adopt(first, 300).unwrap();
        pages.check().unwrap();
        assert_eq!(pages.total_pages(), managed + 300);
        assert!((0..300).all(|index| pages.page_count(first.offset(index)) == 1));
        // Of what is adopted already nothing changes, and what would have come along goes back.
        assert!(matches!(adopt(first.offset(299), 2), Err(FreeError::Claimed { .. })));
        assert!(matches!(adopt(first.offset(298), 1), Err(FreeError::Claimed { .. })));
        assert_eq!(pages.total_pages(), managed + 300);
        raw!(pages.claim(first.offset(7), Kind::Dma, 3)).unwrap();
        raw!(pages.reserve_again(first, 300));
        assert_eq!(pages.total_pages(), managed + 1, "but for the one that somebody has");
        raw!(pages.disown(first.offset(7), Kind::Dma)).unwrap();
        raw!(pages.reserve_again(first, 300));
        assert_eq!(pages.total_pages(), managed);
        pages.check().unwrap();
        adopt(first, 300).unwrap();
        raw!(pages.reserve_again(first, 300));
    });
}

#[test]
fn reserved_memory_can_be_given_to_the_allocator() {
    let reserved = range(GIB + MIB, 3 * MIB);
    Spec::of_size(16 * MIB).reserve(reserved).run(|pages| {
        let first = page_at(pages, reserved.start().get());
        let total = pages.total_pages();
        assert_eq!(super::free_reserved(pages, first.offset(100), 50), Ok(50));
        pages.check().unwrap();
        assert_eq!(pages.total_pages(), total + 50);
        // Twice, and what was never reserved.
        assert!(matches!(super::free_reserved(pages, first.offset(149), 2), Err(FreeError::DoubleFree(_))));
        assert!(matches!(super::free_reserved(pages, first.offset(767), 2), Err(FreeError::DoubleFree(_))));
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        assert!(matches!(super::free_reserved(pages, page, 1), Err(FreeError::Claimed { .. })));
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        assert_eq!(pages.total_pages(), total + 50);
        super::free_reserved(pages, first, 100).unwrap();
        super::free_reserved(pages, first.offset(150), 618).unwrap();
        assert_eq!(blocks(pages)[10], 4, "and merges with the rest");
    });
}

// RAM that starts off the alignment: an alignment is one of physical addresses, not of distances from the lowest RAM.
#[test]
fn contiguous_pages_are_aligned_by_their_physical_address() {
    let start = 0x40c0_0000;
    Spec::new(&[range(start, 64 * MIB)]).run(|pages| {
        let before = blocks(pages);
        for align in [1, 2, 512, 1024, 2048, 4096, 8192] {
            let first = pages.alloc_contig_pages(1, align, Gfp::KERNEL).unwrap();
            let bytes = u64::from(align) * PAGE_SIZE;
            assert_eq!(super::phys(pages, first), start.next_multiple_of(bytes), "the lowest multiple of {bytes:#x}");
            raw!(pages.free_contig_range(first, 1)).unwrap();
        }
        for align in [1 << 20, 1 << 31] {
            let refused = pages.alloc_contig_pages(1, align, Gfp::KERNEL);
            assert_eq!(refused, Err(ContigError::NoRange), "no multiple of {align} pages is RAM");
        }
        assert_eq!(blocks(pages), before);
    });
}
