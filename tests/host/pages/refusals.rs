//! Every refusal that a caller, a machine or a damaged descriptor can bring about, by name; nothing has changed then.

use super::damage::flip;
use super::machine::{GIB, MIB, Pages, range};
use super::{Spec, blocks, order};
use quarry::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use quarry::gfp::{Gfp, GfpError, ZoneType};
use quarry::hal::prot::MemoryType;
use quarry::mm::page::{Kind, MigrateType, PAGEBLOCK_PAGES, Page, PageMap};
use quarry::mm::zone::{AllocError, ContigError, FreeError, PageHal, SetupError, WatermarkTuning, ZoneLimits};
use std::sync::atomic::Ordering;

const TWO_ZONES: Gfp = Gfp::KERNEL.union(Gfp::DMA).union(Gfp::DMA32);

/// A machine with a reserved page at the start and a hole behind, and its first page.
fn with_hole(f: impl FnOnce(&Pages<'_>, Page)) {
    let ram = [range(GIB, 8 * MIB), range(GIB + 12 * MIB, MIB)];
    Spec::new(&ram).reserve(range(GIB, 2 * PAGE_SIZE)).run(|pages| {
        f(pages, pages.hal().map().find(Pfn::containing(PhysAddr::new(GIB))).unwrap());
    });
}

/// What each call that needs an allocated block says of a page.
fn of_block(pages: &Pages<'_>, page: Page) -> [FreeError; 6] {
    [
        pages.get_page(page).unwrap_err(),
        raw!(pages.put_page(page)).unwrap_err(),
        pages.page_order(page).unwrap_err(),
        raw!(pages.claim(page, Kind::Slab, 1)).unwrap_err(),
        raw!(pages.disown(page, Kind::Slab)).unwrap_err(),
        raw!(pages.set_memory_type(page, MemoryType::NonCacheable)).unwrap_err(),
    ]
}

/// A page that the machine has no descriptor of.
fn nowhere(pages: &Pages<'_>) -> (Page, FreeError) {
    let map = pages.hal().map();
    let page = map.find(Pfn::containing(PhysAddr::new(GIB + 16 * MIB - PAGE_SIZE))).unwrap().offset(1);
    (page, FreeError::NoDescriptor(map.phys(page)))
}

#[test]
fn a_page_that_is_no_allocated_block_is_named_by_every_call() {
    with_hole(|pages, first| {
        let map = pages.hal().map();
        let before = blocks(pages);
        assert_eq!(of_block(pages, first), [FreeError::Reserved(map.pfn(first)); 6]);
        let hole = map.find(Pfn::containing(PhysAddr::new(GIB + 14 * MIB))).unwrap();
        assert_eq!(of_block(pages, hole), [FreeError::Hole(map.pfn(hole)); 6]);
        let free = first.offset(2);
        assert_eq!(of_block(pages, free), [FreeError::DoubleFree(map.pfn(free)); 6]);
        let (outside, named) = nowhere(pages);
        assert_eq!(of_block(pages, outside), [named; 6]);
        assert_eq!(raw!(pages.split_page(outside, order(0))), Err(named));
        assert_eq!(raw!(pages.free_pages_exact(outside, 1)), Err(named));
        assert_eq!(raw!(pages.free_contig_range(outside, 1)), Err(named));
        assert_eq!(raw!(pages.free_pages(first, order(1))), Err(FreeError::Reserved(map.pfn(first))));
        assert_eq!(raw!(pages.split_page(first, order(1))), Err(FreeError::Reserved(map.pfn(first))));
        assert_eq!((pages.page_count(outside), pages.zone_of_page(outside)), (0, None));
        assert_eq!(blocks(pages), before);
    });
}

#[test]
fn what_is_not_reserved_is_not_given_to_the_allocator() {
    with_hole(|pages, first| {
        let map = pages.hal().map();
        let hole = map.find(Pfn::containing(PhysAddr::new(GIB + 14 * MIB))).unwrap();
        let (outside, named) = nowhere(pages);
        let taken = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        let before = blocks(pages);
        assert_eq!(super::free_reserved(pages, hole, 1), Err(FreeError::Hole(map.pfn(hole))));
        assert_eq!(super::free_reserved(pages, first, 3), Err(FreeError::DoubleFree(map.pfn(first.offset(2)))));
        assert_eq!(super::free_reserved(pages, outside, 1), Err(named));
        let claimed = FreeError::Claimed { page: map.pfn(taken), kind: Kind::Block };
        assert_eq!(super::free_reserved(pages, taken, 1), Err(claimed));
        assert_eq!(pages.zone_of_page(hole), None);
        // A reserved page whose descriptor was damaged to name no zone.
        flip(pages, first, 2);
        flip(pages, first, 3);
        assert_eq!(super::free_reserved(pages, first, 1), Err(FreeError::Corrupt(map.pfn(first))));
        assert_eq!(pages.zone_of_page(first), None);
        flip(pages, first, 2);
        flip(pages, first, 3);
        assert_eq!(blocks(pages), before);
        raw!(pages.free_pages(taken, Order::ZERO)).unwrap();
    });
}

#[test]
fn a_zone_that_the_machine_has_not_answers_nothing() {
    Spec::of_size(16 * MIB).run(|pages| {
        assert_eq!(pages.traffic(ZoneType::Normal), None);
        assert_eq!(pages.zone(ZoneType::Normal), None);
    });
}

// Behaviour 504: a free block of memory that is kept for contiguous ranges, damaged: what wants it fails and says so, and
// nobody gets it.
#[test]
fn a_damaged_block_that_movable_pages_would_borrow_is_not_handed_out() {
    for share in [3, 1] {
        // Most of what is free is kept, or the lesser part: it is taken first, or last.
        let kept = range(GIB, share * 4 * MIB);
        Spec::new(&[range(GIB, 16 * MIB)]).reserve(kept).without_reserve().run_setup(|pages, handed| {
            handed.unwrap();
            let map = pages.hal().map();
            let first = map.find(Pfn::containing(PhysAddr::new(GIB))).unwrap();
            super::add_cma(pages, first, u32::try_from(kept.size() / PAGE_SIZE).unwrap()).unwrap();
            let heads = (0..u32::try_from(kept.size() / PAGE_SIZE).unwrap()).map(|index| first.offset(index));
            let heads: Vec<_> = heads.filter(|page| map.get(*page).state().kind() == Kind::Free).collect();
            heads.iter().for_each(|head| flip(pages, *head, 20));
            let movable = Gfp::KERNEL | Gfp::MOVABLE | Gfp::NOWARN;
            let taken: Vec<_> = std::iter::from_fn(|| pages.alloc_pages(movable, order(3)).ok()).take(4096).collect();
            assert!(taken.iter().all(|page| !kept.contains(map.phys(*page))), "a damaged block was handed out");
            heads.iter().for_each(|head| flip(pages, *head, 20));
            super::give_back(pages, taken, order(3));
        });
    }
}

// The lesser part is kept, and nothing else has a block of that size.
#[test]
fn a_damaged_block_is_not_borrowed_at_last_either() {
    let kept = range(GIB, 4 * MIB);
    Spec::new(&[range(GIB, 16 * MIB)]).reserve(kept).without_reserve().run_setup(|pages, handed| {
        handed.unwrap();
        let map = pages.hal().map();
        let first = map.find(Pfn::containing(PhysAddr::new(GIB))).unwrap();
        super::add_cma(pages, first, 1024).unwrap();
        let singles: Vec<_> =
            std::iter::from_fn(|| pages.alloc_pages(Gfp::MEMALLOC | Gfp::NOWARN, Order::ZERO).ok()).collect();
        let (kept, freed): (Vec<_>, Vec<_>) = singles.into_iter().partition(|page| page.index().is_multiple_of(2));
        super::give_back(pages, freed, Order::ZERO);
        pages.drain_all();
        flip(pages, first, 20);
        let movable = Gfp::KERNEL | Gfp::MOVABLE | Gfp::NOWARN;
        assert!(pages.alloc_pages(movable, order(10)).is_err());
        flip(pages, first, 20);
        super::give_back(pages, kept, Order::ZERO);
    });
}

// Behaviour 504: a page of the chain behind a CPU's list.
#[test]
fn a_damaged_page_of_a_reserve_ends_the_chain() {
    Spec::of_size(64 * MIB).without_reserve().run_setup(|pages, handed| {
        handed.unwrap();
        let map = pages.hal().map();
        let taken: Vec<_> = (0..2000).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()).collect();
        super::give_back(pages, taken.iter().copied(), Order::ZERO);
        let listed: Vec<_> = taken.iter().filter(|page| map.get(**page).state().kind() == Kind::Pcp).collect();
        listed.iter().for_each(|page| flip(pages, **page, 20));
        pages.drain_all();
        let again: Vec<_> = std::iter::from_fn(|| pages.alloc_pages(Gfp::MEMALLOC | Gfp::NOWARN, Order::ZERO).ok())
            .take(20_000)
            .collect();
        let each: std::collections::BTreeSet<_> = again.iter().collect();
        assert_eq!(each.len(), again.len(), "a page was handed out twice");
        assert!(again.len() < 16_384 - listed.len() / 2, "the damaged chain is left alone");
    });
}

#[test]
fn references_that_cannot_be_counted_are_refused() {
    Spec::of_size(16 * MIB).run(|pages| {
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        // All bits of the count but the one that is set.
        (33..64).for_each(|bit| flip(pages, page, bit));
        assert_eq!(pages.get_page(page), Err(FreeError::Corrupt(pages.hal().map().pfn(page))));
        (33..64).for_each(|bit| flip(pages, page, bit));
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

#[test]
fn contiguous_ranges_that_cannot_be_had_are_refused() {
    with_hole(|pages, first| {
        let map = pages.hal().map();
        let flags = Err(ContigError::Flags(GfpError::TwoZones));
        assert_eq!(pages.alloc_contig_range(first.offset(8), 1, TWO_ZONES), flags);
        assert_eq!(pages.alloc_contig_pages(1, 1, TWO_ZONES), flags.map(|()| first));
        let whole = PAGEBLOCK_PAGES;
        assert_eq!(super::add_cma(pages, nowhere(pages).0, whole), Err(ContigError::NoRange));
        assert_eq!(super::add_cma(pages, first.offset(whole), whole), Err(ContigError::NoRange), "not reserved");
        assert_eq!(super::add_cma(pages, first, 2), Err(ContigError::Isolated), "no whole page block");
        // A page block that somebody else has isolated: there is no second allocation in it.
        let block = map.block_type(first.offset(whole));
        let kind = block.swap(MigrateType::Isolate as u8, Ordering::Relaxed);
        assert_eq!(pages.alloc_contig_range(first.offset(whole), 4, Gfp::KERNEL), Err(ContigError::Isolated));
        block.store(kind, Ordering::Relaxed);
    });
}

/// What the hand-over of `ram` says on a machine.
fn refused(spec: &Spec, ram: &[PhysRange]) -> Option<SetupError> {
    let mut refused = None;
    spec.before_hand_over(|pages| {
        let says_so = || {
            assert_eq!(pages.alloc_pages(Gfp::KERNEL, Order::ZERO), Err(AllocError::NotReady));
            assert_eq!(pages.alloc_contig_pages(1, 1, Gfp::KERNEL), Err(ContigError::NoRange));
            assert_eq!(pages.total_pages(), 0);
            assert_eq!(pages.traffic(ZoneType::Normal), None);
        };
        says_so();
        let limits = ZoneLimits::new(PhysAddr::new(GIB), None, None);
        let free = ram.iter().copied();
        refused = raw!(pages.hand_over(free.clone(), free, limits, WatermarkTuning::DEFAULT)).err();
        says_so();
    });
    refused
}

#[test]
fn an_allocator_without_memory_says_so() {
    let missing = |phys| Some(SetupError::NoDescriptor(Pfn::containing(PhysAddr::new(phys))));
    let one = Spec::of_size(16 * MIB);
    assert_eq!(refused(&one, &[]), Some(SetupError::NoMemory));
    assert_eq!(refused(&one, &[range(GIB + 1, PAGE_SIZE)]), Some(SetupError::NoMemory));
    assert_eq!(refused(&one, &[range(GIB - MIB, MIB)]), missing(GIB - MIB));
    assert_eq!(refused(&one, &[range(GIB + 15 * MIB, 2 * MIB)]), missing(GIB + 17 * MIB - PAGE_SIZE));
    // Both ends have descriptors, what lies between has none.
    let two = Spec::new(&[range(GIB, 4 * MIB), range(4 * GIB, 4 * MIB)]);
    assert_eq!(refused(&two, &[range(GIB, 3 * GIB + MIB)]), missing(GIB));
}
