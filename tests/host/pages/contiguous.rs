//! Contiguous areas: allocations of many pages in a row, lent to movable pages meanwhile, which their owners move.

use super::machine::{GIB, MIB, Pages, Reclaiming, in_interrupt, on_cpus, range};
use super::{Spec, add_cma, blocks, give_back, order, phys, take_all};
use crate::random::Random;
use quarry::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange, to_usize};
use quarry::gfp::{Gfp, ZoneType};
use quarry::mm::fault_inject::{FaultContext, FaultInjector, FaultTarget, MayRecover, Rounds, fail_every};
use quarry::mm::page::{Kind, Page, PageMap};
use quarry::mm::zone::{CmaArea, CmaUsage, ContigError, FreeError, Mover, PageHal, ZoneBroken};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const MOVABLE: Gfp = Gfp::HIGHUSER_MOVABLE.union(Gfp::NOWARN).union(Gfp::NORETRY);

fn area_range() -> PhysRange {
    range(GIB + 8 * MIB, 8 * MIB)
}

fn area_of(pages: &Pages<'_>, at: PhysRange) -> CmaArea {
    let first = pages.hal().map().find(Pfn::containing(at.start())).unwrap();
    let count = u32::try_from(at.size() / PAGE_SIZE).unwrap();
    // SAFETY: memory that is no memory, only descriptors.
    unsafe { pages.add_cma(first, count) }.unwrap()
}

/// Runs `f` on 32 MiB of which 8 are a contiguous area.
fn with_area(f: impl FnOnce(&Pages<'_>, CmaArea)) {
    Spec::of_size(32 * MIB).reserve(area_range()).without_reserve().run(|pages| {
        let area = area_of(pages, area_range());
        f(pages, area);
        pages.drain_all();
        assert_eq!(pages.cma_usage(area), Ok(CmaUsage { free: 2048, lent: 0, taken: 0 }));
        assert_eq!(pages.zone(ZoneType::Dma).unwrap().free_cma, 2048);
    });
}

fn alloc(pages: &Pages<'_>, area: CmaArea, count: u32, align: u32, gfp: Gfp) -> Result<Page, ContigError> {
    let first = pages.cma_alloc(area, count, align, gfp)?;
    assert!(area.contains(first, count), "outside of the area");
    assert!(phys(pages, first).is_multiple_of(u64::from(align) * PAGE_SIZE), "{align}");
    assert_eq!(pages.contiguous_pages(first), Some(count));
    Ok(first)
}

fn release(pages: &Pages<'_>, first: Page, count: u32) -> Result<(), FreeError> {
    raw!(pages.cma_release(first, count))
}

fn sum(usage: CmaUsage) -> u32 {
    usage.free + usage.lent + usage.taken
}

/// An owner of movable pages, as a page cache is: finds a page by a number of its own, whatever becomes of it.
struct Cache {
    pages: &'static Pages<'static>,
    /// Which page has each number.
    held: Mutex<BTreeMap<u32, Page>>,
    moves: AtomicU64,
}

impl Cache {
    fn register(machine: Reclaiming) -> &'static Self {
        let cache = Self { pages: machine.pages, held: Mutex::default(), moves: AtomicU64::new(0) };
        let cache: &'static Self = Box::leak(Box::new(cache));
        assert!(machine.pages.hal().watcher.mover.set(cache).is_ok());
        cache
    }

    fn take(&self, number: u32) -> bool {
        let Ok(page) = self.pages.alloc_pages(MOVABLE, Order::ZERO) else { return false };
        self.pages.hal().fill(page, 1, number.to_le_bytes()[0]);
        assert!(self.held.lock().unwrap().insert(number, page).is_none());
        true
    }

    fn drop_all(&self) {
        for (number, page) in std::mem::take(&mut *self.held.lock().unwrap()) {
            assert_eq!(self.pages.hal().byte(page), number.to_le_bytes()[0], "what a page holds comes along");
            raw!(self.pages.free_pages(page, Order::ZERO)).unwrap();
        }
    }
}

impl Mover for Cache {
    fn name(&self) -> &'static str {
        "cache of the tests"
    }

    fn evacuate(&self, page: Page, order: Order) -> bool {
        let mut held = self.held.lock().unwrap();
        let Some(place) = held.values_mut().find(|held| **held == page) else { return false };
        assert_eq!(order, Order::ZERO);
        let Ok(new) = self.pages.alloc_pages(MOVABLE, order) else { return false };
        self.pages.hal().fill(new, 1, self.pages.hal().byte(page));
        *place = new;
        raw!(self.pages.free_pages(page, order)).unwrap();
        self.moves.fetch_add(1, Ordering::Relaxed);
        true
    }
}

// Behaviour 325
#[test]
fn memory_in_a_row_is_had_from_the_area_when_all_other_is_in_pieces() {
    with_area(|pages, area| {
        let mut taken = take_all(pages, Order::ZERO);
        let kept: Vec<Page> = taken.extract_if(.., |page| page.index().is_multiple_of(2)).collect();
        give_back(pages, taken, Order::ZERO);
        assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::NOWARN, order(9)).is_err(), "in pieces");
        assert_eq!(pages.alloc_contig_pages(512, 1, Gfp::KERNEL), Err(ContigError::NoRange));
        let contiguous: Vec<Page> =
            std::iter::from_fn(|| alloc(pages, area, 512, 512, Gfp::KERNEL | Gfp::NOWARN).ok()).collect();
        let lowest_first = (0..4).map(|index| area.first().offset(512 * index)).collect::<Vec<_>>();
        assert_eq!(contiguous, lowest_first);
        assert_eq!(pages.cma_usage(area), Ok(CmaUsage { free: 0, lent: 0, taken: 2048 }));
        let zone = pages.zone(ZoneType::Dma).unwrap();
        assert_eq!((zone.cma, zone.free_cma), (2048, 0));
        assert_eq!(pages.census().unwrap().of(Kind::Dma), 2048);
        pages.check().unwrap();
        contiguous.into_iter().for_each(|first| release(pages, first, 512).unwrap());
        // Movable pages have it again, and nobody else.
        let unmovable = take_all(pages, Order::ZERO);
        assert!(!unmovable.iter().any(|page| area.contains(*page, 1)));
        let movable: Vec<Page> = std::iter::from_fn(|| pages.alloc_pages(MOVABLE, Order::ZERO).ok()).collect();
        assert!(movable.iter().filter(|page| area.contains(**page, 1)).count() >= 2047, "but for the last page of all");
        for held in [kept, unmovable, movable] {
            give_back(pages, held, Order::ZERO);
        }
    });
}

// Behaviour 325
#[test]
fn what_is_lent_is_moved_by_its_owner_and_keeps_what_it_holds() {
    let machine = Spec::of_size(32 * MIB).reserve(area_range()).without_reserve().with_reclaimer();
    let pages = machine.pages;
    let (area, cache) = (area_of(pages, area_range()), Cache::register(machine));
    for number in 0..5500 {
        assert!(cache.take(number), "{number}");
    }
    let usage = pages.cma_usage(area).unwrap();
    assert!(usage.lent > 500 && usage.taken == 0 && sum(usage) == 2048, "{usage:?}");
    pages.check().unwrap();
    let whole = alloc(pages, area, 2048, 512, Gfp::KERNEL).unwrap();
    assert!(cache.moves.load(Ordering::Relaxed) > 500);
    assert_eq!(pages.cma_usage(area), Ok(CmaUsage { free: 0, lent: 0, taken: 2048 }));
    pages.check().unwrap();
    release(pages, whole, 2048).unwrap();
    cache.drop_all();
    pages.drain_all();
    assert_eq!(pages.cma_usage(area), Ok(CmaUsage { free: 2048, lent: 0, taken: 0 }));
    pages.check().unwrap();
}

// A page that was freed last is allocated first, and it is one of those that are to go.
#[test]
fn a_page_is_moved_once_and_not_into_the_range_that_is_wanted() {
    let machine = Spec::of_size(64 * MIB).reserve(area_range()).without_reserve().with_reclaimer();
    let pages = machine.pages;
    let (area, cache) = (area_of(pages, area_range()), Cache::register(machine));
    // Movable pages borrow while there is little else, and then there is enough.
    let fixed: Vec<Page> = (0..12_500).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()).collect();
    (0..1200).for_each(|number| assert!(cache.take(number)));
    give_back(pages, fixed, Order::ZERO);
    pages.drain_all();
    let lent = pages.cma_usage(area).unwrap().lent;
    assert!(lent > 500, "{lent}");
    let whole = alloc(pages, area, 2048, 1, Gfp::KERNEL).unwrap();
    assert_eq!(cache.moves.load(Ordering::Relaxed), u64::from(lent));
    pages.check().unwrap();
    release(pages, whole, 2048).unwrap();
    cache.drop_all();
    pages.drain_all();
    pages.check().unwrap();
}

#[test]
fn a_page_that_nobody_moves_stays_and_the_next_range_is_taken() {
    with_area(|pages, area| {
        let mut held = Vec::new();
        // The first page of each two MiB but the last.
        while let Ok(page) = pages.alloc_pages(MOVABLE, Order::ZERO) {
            held.push(page);
        }
        let stays = |page: &Page| {
            let offset = page.index().wrapping_sub(area.first().index());
            offset < 2048 && offset.is_multiple_of(512) && offset != 3 * 512
        };
        let staying: Vec<Page> = held.extract_if(.., |page| stays(page)).collect();
        assert_eq!(staying.len(), 3);
        give_back(pages, held, Order::ZERO);
        let first = alloc(pages, area, 512, 512, Gfp::KERNEL).unwrap();
        assert_eq!(first, area.first().offset(3 * 512));
        assert_eq!(pages.cma_alloc(area, 512, 512, Gfp::KERNEL), Err(ContigError::NoRange));
        let usage = CmaUsage { free: 2048 - 512 - 3, lent: 3, taken: 512 };
        assert_eq!(pages.cma_usage(area), Ok(usage));
        pages.check().unwrap();
        // Less is had beside the page.
        let small = alloc(pages, area, 300, 1, Gfp::KERNEL).unwrap();
        assert_eq!(small, area.first().offset(1));
        release(pages, small, 300).unwrap();
        release(pages, first, 512).unwrap();
        give_back(pages, staying, Order::ZERO);
    });
}

#[test]
fn who_may_not_wait_gets_what_is_free_and_nobody_is_asked_to_move() {
    let machine = Spec::of_size(32 * MIB).reserve(area_range()).without_reserve().with_reclaimer();
    let pages = machine.pages;
    let (area, cache) = (area_of(pages, area_range()), Cache::register(machine));
    let first = in_interrupt(|| alloc(pages, area, 100, 4, Gfp::ATOMIC)).unwrap();
    in_interrupt(|| release(pages, first, 100)).unwrap();
    (0..).find(|number| !cache.take(*number));
    assert_eq!(in_interrupt(|| pages.cma_alloc(area, 2, 1, Gfp::ATOMIC)), Err(ContigError::NoRange));
    assert_eq!(cache.moves.load(Ordering::Relaxed), 0);
    // A caller that says it may wait, where it may not, is reported; no page moves.
    assert_eq!(in_interrupt(|| pages.cma_alloc(area, 2, 1, Gfp::KERNEL)), Err(ContigError::NoRange));
    assert_eq!(pages.hal().watcher.atomic_sleeps.load(Ordering::Relaxed), 1);
    // All memory is in use: there is nowhere to move to.
    assert_eq!(pages.cma_alloc(area, 2, 1, Gfp::KERNEL), Err(ContigError::NoRange));
    assert_eq!(cache.moves.load(Ordering::Relaxed), 0);
    cache.drop_all();
    pages.drain_all();
    pages.check().unwrap();
    assert_eq!(pages.cma_usage(area), Ok(CmaUsage { free: 2048, lent: 0, taken: 0 }));
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    with_area(|pages, area| {
        let first = alloc(pages, area, 10, 1, Gfp::KERNEL).unwrap();
        let before = pages.cma_usage(area).unwrap();
        assert_eq!(pages.cma_alloc(area, 0, 1, Gfp::KERNEL), Err(ContigError::Empty));
        for (count, align) in [(2049, 1), (1, 3), (1, 0), (u32::MAX, 1), (2048, 1), (1, 1 << 31)] {
            assert_eq!(pages.cma_alloc(area, count, align, Gfp::KERNEL), Err(ContigError::NoRange), "{count} {align}");
        }
        assert!(matches!(pages.cma_alloc(area, 1, 1, Gfp::KERNEL | Gfp::DMA | Gfp::DMA32), Err(ContigError::Flags(_))));
        let pfn = |page: Page| pages.hal().map().pfn(page);
        let wrong = [(first, 9), (first, 11), (first, 0), (first.offset(1), 9), (first.offset(10), 1)];
        for (page, count) in wrong {
            let refused = release(pages, page, count);
            let error = FreeError::NotContiguous { page: pfn(page), pages: count };
            let free = FreeError::DoubleFree(pfn(page));
            assert!(refused == Err(error) || refused == Err(free), "{count}: {refused:?}");
        }
        // Page by page it does not go back, and nobody claims it.
        let claimed = FreeError::Claimed { page: pfn(first), kind: Kind::Dma };
        assert_eq!(raw!(pages.free_pages(first, Order::ZERO)), Err(claimed));
        assert_eq!(raw!(pages.claim(first, Kind::Slab, 7)), Err(claimed));
        pages.get_page(first.offset(4)).unwrap();
        assert_eq!(release(pages, first, 10), Err(FreeError::NotContiguous { page: pfn(first), pages: 10 }));
        assert!(raw!(pages.put_page(first.offset(4))).is_err(), "a claimed page is not freed so");
        assert_eq!(pages.cma_usage(area), Ok(before));
        pages.check().unwrap();
        // The reference is gone with the owner's help.
        raw!(pages.disown(first.offset(4), Kind::Dma)).unwrap();
        raw!(pages.put_page(first.offset(4))).unwrap();
        raw!(pages.claim(first.offset(4), Kind::Dma, pages.hal().map().get(first).owner())).unwrap();
        release(pages, first, 10).unwrap();
        assert_eq!(release(pages, first, 10), Err(FreeError::DoubleFree(pfn(first))));
    });
    // The area of another machine.
    with_area(|_, area| {
        Spec::of_size(8 * MIB).run(|other| {
            assert_eq!(other.cma_alloc(area, 1, 1, Gfp::KERNEL), Err(ContigError::NoRange));
            assert_eq!(other.cma_usage(area), Err(ContigError::NoRange));
        });
    });
}

#[test]
fn pages_of_an_area_are_zeroed_if_that_is_asked_for() {
    with_area(|pages, area| {
        let first = alloc(pages, area, 3, 1, Gfp::KERNEL).unwrap();
        pages.hal().fill(first, 3, 7);
        release(pages, first, 3).unwrap();
        let again = alloc(pages, area, 3, 1, Gfp::KERNEL | Gfp::ZERO).unwrap();
        assert_eq!(again, first);
        assert!((0..3).all(|index| pages.hal().byte(again.offset(index)) == 0));
        release(pages, again, 3).unwrap();
    });
}

// Freed pages wait on lists that the next allocation takes from.
#[test]
fn a_range_taken_for_unmovable_pages_does_not_let_them_into_the_area() {
    with_area(|pages, area| {
        for round in 0..4 {
            pages.alloc_contig_range(area.first(), 600, Gfp::KERNEL).unwrap();
            pages.check().unwrap();
            raw!(pages.free_contig_range(area.first(), 600)).unwrap();
            let unmovable: Vec<Page> = (0..100).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()).collect();
            assert!(!unmovable.iter().any(|page| area.contains(*page, 1)), "{round}");
            pages.check().unwrap();
            give_back(pages, unmovable, Order::ZERO);
        }
    });
}

struct UnderTest<'p, 'm>(&'p Pages<'m>);

impl FaultTarget for UnderTest<'_, '_> {
    type Counts = (Vec<u64>, u64);
    type Broken = ZoneBroken;

    fn injector(&self) -> &FaultInjector {
        &self.0.hal().watcher.faults
    }

    fn context(&self) -> FaultContext {
        FaultContext::new(0)
    }

    fn set_careful(&self, careful: bool) {
        self.0.set_careful(careful);
    }

    fn counts(&self) -> (Vec<u64>, u64) {
        (blocks(self.0), self.0.zone(ZoneType::Dma).unwrap().free_cma)
    }

    fn check(&self) -> Result<(), ZoneBroken> {
        self.0.check()
    }
}

// Behaviour 497
#[test]
fn a_failed_contiguous_allocation_changes_nothing() {
    with_area(|pages, area| {
        for (count, align) in [(1, 1), (512, 512), (2048, 1)] {
            let rounds = fail_every(
                &UnderTest(pages),
                MayRecover::No,
                || pages.cma_alloc(area, count, align, Gfp::KERNEL),
                |first| release(pages, first, count).unwrap(),
            );
            assert_eq!(rounds, Ok(Rounds { points: 1, recovered: 0 }));
        }
    });
}

// Promises 1, 2 and 8
#[test]
fn random_allocations_agree_with_a_model_and_every_page_is_counted() {
    for seed in 0..if cfg!(miri) { 1 } else { 6 } {
        let machine = Spec::of_size(32 * MIB).reserve(area_range()).without_reserve().with_reclaimer();
        let pages = machine.pages;
        let (area, cache) = (area_of(pages, area_range()), Cache::register(machine));
        let mut random = Random(seed + 1);
        let (mut live, mut fixed): (Vec<(Page, u32)>, Vec<Page>) = (Vec::new(), Vec::new());
        let mut next = 0;
        for round in 0..if cfg!(miri) { 30 } else { 2500 } {
            match random.below(8) {
                0 | 1 => {
                    let (count, align) = (1 + u32::try_from(random.below(700)).unwrap(), 1 << random.below(10));
                    if let Ok(first) = alloc(pages, area, count, align, Gfp::KERNEL | Gfp::NOWARN) {
                        let apart = |(other, pages): &(Page, u32)| {
                            first.index() >= other.index() + pages || other.index() >= first.index() + count
                        };
                        assert!(live.iter().all(apart), "two allocations share a page");
                        live.push((first, count));
                    }
                }
                2 if !live.is_empty() => {
                    let (first, count) = live.swap_remove(to_usize(random.below(live.len() as u64)));
                    release(pages, first, count).unwrap();
                }
                3 if fixed.len() < 2000 => {
                    let page = pages.alloc_pages(Gfp::KERNEL | Gfp::NOWARN | Gfp::NORETRY, Order::ZERO);
                    fixed.extend(page.iter());
                    assert!(page.is_err() || !area.contains(page.unwrap(), 1));
                }
                4 => give_back(pages, fixed.pop(), Order::ZERO),
                5 if next > 6000 => {
                    cache.drop_all();
                    next = 0;
                }
                _ => {
                    for _ in 0..20 {
                        cache.take(next);
                        next += 1;
                    }
                }
            }
            let usage = pages.cma_usage(area).unwrap();
            let taken: u32 = live.iter().map(|(_, count)| count).sum();
            assert_eq!((sum(usage), usage.taken), (2048, taken));
            if round % 100 == 0 {
                pages.check().unwrap();
            }
        }
        assert!(cfg!(miri) || cache.moves.load(Ordering::Relaxed) > 100, "nothing was moved");
        cache.drop_all();
        live.into_iter().for_each(|(first, count)| release(pages, first, count).unwrap());
        give_back(pages, fixed, Order::ZERO);
        pages.drain_all();
        assert_eq!(pages.cma_usage(area), Ok(CmaUsage { free: 2048, lent: 0, taken: 0 }));
        assert_eq!(pages.free_page_count(), 8192);
        pages.check().unwrap();
    }
}

#[test]
fn cpus_take_ranges_of_one_area_side_by_side_while_it_is_lent() {
    Spec::of_size(32 * MIB).reserve(area_range()).cpus(4).run(|pages| {
        let area = area_of(pages, area_range());
        let rounds = if cfg!(miri) { 2 } else { 150 };
        let had = AtomicU64::new(0);
        on_cpus(pages, 4, |cpu| {
            let mut random = Random(u64::from(cpu) + 1);
            for _ in 0..rounds {
                let count = 1 + u32::try_from(random.below(300)).unwrap();
                let gfp = if random.below(2) == 0 { Gfp::KERNEL } else { Gfp::ATOMIC };
                if let Ok(first) = pages.cma_alloc(area, count, 1, gfp | Gfp::NOWARN) {
                    had.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(pages.contiguous_pages(first), Some(count));
                    release(pages, first, count).unwrap();
                }
                let lent: Vec<Page> = (0..20).filter_map(|_| pages.alloc_pages(MOVABLE, Order::ZERO).ok()).collect();
                let fixed = pages.alloc_pages(Gfp::ATOMIC, order(1)).unwrap();
                assert!(!area.contains(fixed, 1));
                give_back(pages, lent, Order::ZERO);
                give_back(pages, [fixed], order(1));
            }
        });
        assert!(had.load(Ordering::Relaxed) > rounds * 2, "{had:?} of {}", rounds * 4);
        pages.drain_all();
        assert_eq!(pages.cma_usage(area), Ok(CmaUsage { free: 2048, lent: 0, taken: 0 }));
    });
}

#[test]
fn damaged_pages_of_an_area_are_found() {
    with_area(|pages, area| {
        let first = alloc(pages, area, 4, 1, Gfp::KERNEL).unwrap();
        let tag = || pages.check().err().map(|broken| broken.tag);
        // Another use than movable.
        super::damage::flip(pages, first.offset(2), 0);
        assert_eq!(tag(), Some("CMA-1"));
        super::damage::flip(pages, first.offset(2), 0);
        // One page that somebody has let go of by itself.
        let word = pages.hal().map().get(first).owner();
        raw!(pages.disown(first.offset(2), Kind::Dma)).unwrap();
        assert_eq!(tag(), Some("CMA-2"));
        // And one that says that it is another's.
        raw!(pages.claim(first.offset(2), Kind::Dma, word + 1)).unwrap();
        assert_eq!(tag(), Some("CMA-2"));
        raw!(pages.disown(first.offset(2), Kind::Dma)).unwrap();
        raw!(pages.claim(first.offset(2), Kind::Dma, word)).unwrap();
        assert_eq!(tag(), None);
        release(pages, first, 4).unwrap();
    });
}

#[test]
fn an_area_is_whole_page_blocks_of_one_zone() {
    let kept = range(GIB + 6 * MIB, 4 * MIB);
    Spec::of_size(16 * MIB).reserve(kept).limits(GIB + 8 * MIB).run(|pages| {
        let first = pages.hal().map().find(Pfn::containing(PhysAddr::new(GIB + 6 * MIB))).unwrap();
        assert_eq!(add_cma(pages, first, 1024), Err(ContigError::NoRange), "two zones");
        add_cma(pages, first, 512).unwrap();
        add_cma(pages, first.offset(512), 512).unwrap();
        assert_eq!(add_cma(pages, first, 512), Err(ContigError::NoRange), "twice");
    });
}
