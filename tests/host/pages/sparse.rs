//! A machine whose RAM spans just under 16 TiB: eight banks of 1 GiB with wide holes between.

use super::machine::{GIB, Pages, Spec, range, visits};
use super::{give_back, order, phys};
use quarry::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use quarry::gfp::{Gfp, ZoneType};
use quarry::mm::page::{Bank, BankMap, PageMap, SECTION_PAGES, Section, sections_of};
use quarry::mm::zone::{FreeError, PageHal};

const TIB: u64 = 1 << 40;

/// The bank at the very end is as far as page numbers reach.
fn banks() -> Vec<PhysRange> {
    let mut banks: Vec<PhysRange> = (0..7).map(|index| range(GIB + index * 2 * TIB, GIB)).collect();
    banks.push(range(GIB + 16 * TIB - GIB - (8 << 20), GIB));
    banks
}

#[test]
fn ram_that_spans_almost_16_tib_works() {
    if cfg!(miri) {
        return;
    }
    Spec::new(&banks()).run(|pages: &Pages<'_>| {
        assert_eq!(pages.total_pages(), 8 * GIB / PAGE_SIZE);
        let zone = pages.zone(ZoneType::Normal).unwrap();
        assert_eq!(zone.managed, 7 * GIB / PAGE_SIZE);
        assert!(zone.spanned > 12 * TIB / PAGE_SIZE);
        let last = banks()[7];
        // The highest frames are there, and work.
        let taken = pages.alloc_contig_pages(1000, 1, Gfp::KERNEL).unwrap();
        raw!(pages.free_contig_range(taken, 1000)).unwrap();
        let first = pages.hal().map().find(Pfn::containing(last.start())).unwrap();
        pages.alloc_contig_range(first, 262_144, Gfp::KERNEL).unwrap();
        assert_eq!(phys(pages, first.offset(262_143)), last.end().get() - PAGE_SIZE);
        raw!(pages.free_contig_range(first, 262_144)).unwrap();
        // Between the banks there is nothing.
        for hole in [2 * GIB, TIB, 10 * TIB, last.end().get() + (8 << 20)] {
            let addr = quarry::mm::layout::phys_to_virt(PhysAddr::new(hole)).unwrap();
            assert_eq!(pages.page_at(addr), Err(FreeError::NoDescriptor(PhysAddr::new(hole))));
        }
        let blocks: Vec<_> = (0..2048)
            .map(|_| pages.alloc_pages(Gfp::KERNEL, Order::MAX).unwrap_or_else(|e| panic!("{e}")))
            .take(1700)
            .collect();
        give_back(pages, blocks, order(10));
    });
}

#[test]
fn ram_that_spans_16_tib_is_refused() {
    let fits = banks();
    assert!(sections_of(fits.iter().copied()).0.all(|section| section.is_some()));
    let too_far = [range(GIB, GIB), range(GIB + 16 * TIB - GIB, GIB)];
    assert!(sections_of(too_far.into_iter()).0.any(|section| section.is_none()));
    let beyond = [range(0, GIB), range(100 * TIB, GIB)];
    assert!(sections_of(beyond.into_iter()).0.any(|section| section.is_none()));
    let wraps = [range(GIB, GIB), range(u64::MAX - 2 * PAGE_SIZE, PAGE_SIZE)];
    assert!(sections_of(wraps.into_iter()).0.any(|section| section.is_none()));
}

#[test]
fn a_map_is_made_of_whole_sections_in_order_alone() {
    let (descriptors, blocks) = ([], []);
    let map = |first: u32, end: u32| {
        let section = Section { first, end };
        let banks = [Bank { section, descriptors: &descriptors, blocks: &blocks }];
        BankMap::new(Pfn::new(0), &banks, &[section]).is_some()
    };
    assert!(map(0, 0));
    for (first, end) in [(1, 0), (u32::MAX, 0), (0, SECTION_PAGES), (1, 1)] {
        assert!(!map(first, end), "{first} to {end}");
    }
}

// What a hand-over costs grows with the memory and not with what it spans.
#[test]
fn the_span_costs_nothing() {
    if cfg!(miri) {
        return;
    }
    let sections = |banks: &[PhysRange]| {
        sections_of(banks.iter().copied()).0.map(|section| u64::from(section.unwrap().pages())).sum::<u64>()
    };
    assert_eq!(sections(&banks()), 8 * GIB / PAGE_SIZE, "descriptors for RAM alone");
    assert_eq!(sections(&[range(GIB, 8 * GIB)]), 8 * GIB / PAGE_SIZE);
    // Descriptors that are touched until the allocator is there, and by an allocation of each order and its undoing.
    let cost = |banks: &[PhysRange]| {
        let before = visits();
        let mut costs = (0, Vec::new());
        Spec::new(banks).limits(GIB).run(|pages| {
            costs.0 = visits() - before;
            for o in 0..=10 {
                let before = visits();
                let page = pages.alloc_pages(Gfp::KERNEL, order(o)).unwrap();
                raw!(pages.free_pages(page, order(o))).unwrap();
                costs.1.push(visits() - before);
            }
        });
        costs
    };
    let (wide, dense) = (cost(&banks()), cost(&[range(4 * GIB, 8 * GIB)]));
    assert!(wide.0 <= dense.0 + 8 * 16, "{} descriptors against {}", wide.0, dense.0);
    assert!(dense.0 < 8 * GIB / PAGE_SIZE / 64, "{}: not one for each page", dense.0);
    assert_eq!(wide.1, dense.1, "what an allocation costs");
    // In proportion to the memory, and an allocation no more for more of it.
    let half = cost(&[range(4 * GIB, 4 * GIB)]);
    assert!(dense.0.abs_diff(2 * half.0) <= 64, "{} and {}", half.0, dense.0);
    assert_eq!(half.1, dense.1);
}
