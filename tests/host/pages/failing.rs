//! Every allocation fails once, on request: nothing is lost, and the next try succeeds.

use super::machine::{GIB, MIB, Pages, in_interrupt, run_on};
use super::{Spec, blocks, order};
use quarry::addr::{Order, PAGE_SIZE, to_usize};
use quarry::gfp::Gfp;
use quarry::mm::fault_inject::{
    FaultAttr, FaultContext, FaultInjector, FaultSite, FaultTarget, MayRecover, Rounds, fail_every,
};
use quarry::mm::page::{Page, PageMap};
use quarry::mm::zone::{AllocError, ContigError, PageBatch, PageHal, ZoneBroken};

/// The machine of a test, as the driver sees it.
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
        (blocks(self.0), self.0.accounted_pages())
    }

    fn check(&self) -> Result<(), ZoneBroken> {
        self.0.check()
    }
}

const ONE_POINT: Rounds = Rounds { points: 1, recovered: 0 };

fn page_at(pages: &Pages<'_>, phys: u64) -> Page {
    pages.hal().map().find(quarry::addr::Pfn::containing(quarry::addr::PhysAddr::new(phys))).unwrap()
}

// Behaviour 497.
#[test]
fn a_failed_page_allocation_changes_nothing() {
    Spec::of_size(32 * MIB).run(|pages| {
        let target = UnderTest(pages);
        for raw in 0..=10 {
            for gfp in [Gfp::KERNEL, Gfp::ATOMIC, Gfp::KERNEL_ACCOUNT | Gfp::COMP, Gfp::KERNEL | Gfp::ZERO | Gfp::COLD]
            {
                let rounds = fail_every(
                    &target,
                    MayRecover::No,
                    || pages.alloc_pages(gfp, order(raw)),
                    |page| raw!(pages.free_pages(page, order(raw))).unwrap(),
                );
                assert_eq!(rounds, Ok(ONE_POINT), "order {raw}, {gfp}");
            }
        }
    });
}

// Behaviour 497: blocks that are no power of two, and ranges.
#[test]
fn a_failed_allocation_of_any_size_changes_nothing() {
    Spec::of_size(64 * MIB).run(|pages| {
        let target = UnderTest(pages);
        for bytes in [1, PAGE_SIZE, 3 * PAGE_SIZE, 5 * PAGE_SIZE + 1, 4 * MIB] {
            let rounds = fail_every(
                &target,
                MayRecover::No,
                || pages.alloc_pages_exact(Gfp::KERNEL, bytes),
                |page| raw!(pages.free_pages_exact(page, bytes)).unwrap(),
            );
            assert_eq!(rounds, Ok(ONE_POINT), "{bytes} bytes");
        }
        for count in [1, 7, 512, 1500] {
            let rounds = fail_every(
                &target,
                MayRecover::No,
                || pages.alloc_contig_pages(count, 1, Gfp::KERNEL),
                |first| raw!(pages.free_contig_range(first, count)).unwrap(),
            );
            assert_eq!(rounds, Ok(ONE_POINT), "{count} pages somewhere");
            let first = page_at(pages, GIB + 16 * MIB + 3 * PAGE_SIZE);
            let rounds = fail_every(
                &target,
                MayRecover::No,
                || pages.alloc_contig_range(first, count, Gfp::KERNEL | Gfp::ZERO),
                |()| raw!(pages.free_contig_range(first, count)).unwrap(),
            );
            assert_eq!(rounds, Ok(ONE_POINT), "{count} pages there");
        }
    });
}

// Behaviour 501: the answer is how many pages the batch has, whichever page could not be had.
#[test]
fn a_batch_holds_exactly_what_was_counted() {
    Spec::of_size(32 * MIB).run(|pages| {
        let target = UnderTest(pages);
        let bulk = |before: usize| {
            let mut batch = PageBatch::<64>::new();
            for _ in 0..before {
                assert!(batch.push(pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()));
            }
            let answer = pages.alloc_pages_bulk(Gfp::KERNEL, &mut batch);
            assert_eq!(batch.pages().len(), before + answer.unwrap_or(0));
            let all = batch.pages().to_vec();
            raw!(pages.free_pages_bulk(&mut batch)).unwrap();
            let mut distinct = all.clone();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), all.len(), "a page twice");
            answer
        };
        let before = target.counts();
        for held in [0, 5] {
            for nth in 1..=64 - held {
                pages.set_careful(true);
                let armed = target.injector().fail_nth(target.context(), held + nth).unwrap();
                let answer = bulk(to_usize(held.into()));
                assert!(armed.has_failed());
                drop(armed);
                pages.set_careful(false);
                match nth {
                    1 => assert_eq!(answer, Err(AllocError::OutOfMemory)),
                    _ => assert_eq!(answer, Ok(to_usize(u64::from(nth) - 1))),
                }
                assert_eq!(target.counts(), before);
            }
            assert_eq!(bulk(to_usize(held.into())), Ok(64 - to_usize(held.into())));
        }
        let rounds = fail_every(&target, MayRecover::Yes, || bulk(0), |_| {});
        assert_eq!(rounds, Ok(Rounds { points: 64, recovered: 63 }));
    });
}

// Behaviour 499: what gives memory back asks for none.
#[test]
fn freeing_never_asks_for_memory() {
    Spec::of_size(64 * MIB).run(|pages| {
        let target = UnderTest(pages);
        let before = target.counts();
        let blocks: Vec<_> = (0..=10).map(|raw| pages.alloc_pages(Gfp::KERNEL, order(raw)).unwrap()).collect();
        let exact = pages.alloc_pages_exact(Gfp::KERNEL, 5 * PAGE_SIZE).unwrap();
        let range = pages.alloc_contig_pages(700, 1, Gfp::KERNEL).unwrap();
        let mut batch = PageBatch::<32>::new();
        assert_eq!(pages.alloc_pages_bulk(Gfp::KERNEL, &mut batch), Ok(32));
        let shared = pages.alloc_pages(Gfp::KERNEL, order(2)).unwrap();
        pages.get_page(shared).unwrap();

        target.injector().configure(FaultSite::PageAlloc, &FaultAttr::always());
        pages.set_careful(true);
        for (raw, page) in (0..).zip(blocks) {
            raw!(pages.free_pages(page, order(raw))).unwrap();
        }
        raw!(pages.free_pages_exact(exact, 5 * PAGE_SIZE)).unwrap();
        raw!(pages.free_contig_range(range, 700)).unwrap();
        raw!(pages.free_pages_bulk(&mut batch)).unwrap();
        raw!(pages.put_page(shared)).unwrap();
        raw!(pages.put_page(shared)).unwrap();
        assert_eq!(target.counts(), before);
        assert_eq!(target.injector().statistics(FaultSite::PageAlloc).calls, 0);
    });
}

/// How many of `tries` pages of `order` fail.
fn failures(pages: &Pages<'_>, gfp: Gfp, raw: u8, tries: u32) -> u32 {
    let count = (0..tries).filter(|_| match pages.alloc_pages(gfp, order(raw)) {
        Ok(page) => raw!(pages.free_pages(page, order(raw))).is_err(),
        Err(error) => error == AllocError::OutOfMemory,
    });
    u32::try_from(count.count()).unwrap()
}

// Behaviour 496: as `fail_page_alloc` has it in Linux, unless told otherwise.
#[test]
fn small_orders_and_callers_that_may_wait_are_spared_by_default() {
    Spec::of_size(32 * MIB).run(|pages| {
        let faults = &pages.hal().watcher.faults;
        let parsed = FaultAttr::parse(FaultSite::PageAlloc, "1,100,0,-1,verbose=0").unwrap();
        faults.configure(FaultSite::PageAlloc, &parsed);
        // Not told to go the long way, the allocator does not ask.
        assert_eq!(failures(pages, Gfp::ATOMIC, 3, 10), 0);
        pages.set_careful(true);
        assert_eq!(failures(pages, Gfp::ATOMIC, 0, 10), 0);
        assert_eq!(failures(pages, Gfp::ATOMIC, 1, 10), 10);
        assert_eq!(failures(pages, Gfp::KERNEL, 1, 10), 0);
        assert_eq!(failures(pages, Gfp::ATOMIC | Gfp::HIGHMEM, 1, 10), 0);
        let parsed = FaultAttr::parse(
            FaultSite::PageAlloc,
            "1,100,0,-1,verbose=0,min-order=3,ignore-gfp-wait=0,ignore-gfp-highmem=0",
        );
        faults.configure(FaultSite::PageAlloc, &parsed.unwrap());
        for raw in 0..=10 {
            let expected = if raw < 3 { 0 } else { 10 };
            assert_eq!(failures(pages, Gfp::HIGHUSER, raw, 10), expected, "order {raw}");
        }
        // Whoever must not fail is never made to.
        assert_eq!(failures(pages, Gfp::KERNEL | Gfp::NOFAIL, 3, 10), 0);
        faults.configure(FaultSite::PageAlloc, &FaultAttr::off(FaultSite::PageAlloc));
        assert!(!faults.is_armed());
        assert_eq!(failures(pages, Gfp::ATOMIC, 3, 10), 0);
        pages.set_careful(false);
    });
}

#[test]
fn only_the_calls_of_one_context_are_counted() {
    Spec::of_size(32 * MIB).cpus(2).run(|pages| {
        let faults = &pages.hal().watcher.faults;
        pages.set_careful(true);
        let second = faults.fail_nth(FaultContext::new(0), 2).unwrap();
        assert!(faults.fail_nth(FaultContext::new(0), 2).is_err(), "counted already");
        assert_eq!(in_interrupt(|| failures(pages, Gfp::ATOMIC, 0, 5)), 0);
        run_on(1);
        assert_eq!(failures(pages, Gfp::KERNEL, 0, 5), 0);
        run_on(0);
        assert_eq!(failures(pages, Gfp::KERNEL, 0, 1), 0);
        assert!(!second.has_failed());
        assert_eq!(failures(pages, Gfp::KERNEL, 0, 1), 1);
        assert!(second.has_failed());
        assert_eq!(failures(pages, Gfp::KERNEL, 0, 5), 0);
        drop(second);
        assert!(!faults.is_armed());
        assert_eq!(faults.statistics(FaultSite::PageAlloc).nth, 1);
        pages.set_careful(false);
    });
}

#[test]
fn a_range_that_fails_on_request_is_named() {
    Spec::of_size(32 * MIB).run(|pages| {
        pages.set_careful(true);
        pages.hal().watcher.faults.configure(FaultSite::PageAlloc, &FaultAttr::always());
        assert_eq!(pages.alloc_contig_pages(3, 1, Gfp::KERNEL), Err(ContigError::NoRange));
        let first = page_at(pages, GIB + 8 * MIB);
        let pfn = pages.hal().map().pfn(first);
        assert_eq!(pages.alloc_contig_range(first, 3, Gfp::KERNEL), Err(ContigError::Busy(pfn)));
        pages.set_careful(false);
    });
}
