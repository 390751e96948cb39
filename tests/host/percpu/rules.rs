//! The guarantees, one rule at a time.

use super::with_allocator;
use crate::vmalloc::kernel::{acknowledging_late, before_mapping, take_page, touch};
use quarry::addr::{CpuId, Order, PAGE_SIZE, VirtAddr};
use quarry::gfp::Gfp;
use quarry::mm::percpu::{PerCpuError, PerCpuPtr, UNIT_SIZE};
use quarry::mm::vmalloc::VmallocRequest;
use std::cell::Cell;
use std::sync::atomic::Ordering;

const GFP: Gfp = Gfp::KERNEL.union(Gfp::NOWARN);

// Behaviour 341: zeroed on every CPU.
#[test]
fn every_cpu_has_a_zeroed_copy_at_one_distance() {
    with_allocator(|space, percpu| {
        for (size, align) in [(1, 1), (4, 4), (5, 1), (8, 8), (100, 64), (4096, 4096), (UNIT_SIZE, 4096), (3, 2048)] {
            space.hal().cleared.lock().unwrap().clear();
            let ptr = percpu.alloc(size, align, GFP).unwrap();
            assert!(ptr.addr().is_aligned(align.max(4)), "{size} {align}");
            assert_eq!(ptr.of(CpuId::new(1)).offset_from(ptr.addr()), Some(UNIT_SIZE));
            let cleared = space.hal().cleared.lock().unwrap().clone();
            for cpu in [CpuId::BOOT, CpuId::new(1)] {
                let covers = |range: &quarry::addr::VirtRange| {
                    range.start() == ptr.of(cpu) && range.size() >= size && range.size() < size + 4
                };
                assert!(cleared.iter().any(covers), "{cleared:?}");
                touch(space, ptr.of(cpu).align_down(PAGE_SIZE), size.div_ceil(PAGE_SIZE));
            }
            raw!(percpu.free(ptr)).unwrap();
            percpu.check().unwrap();
        }
    });
}

// Behaviour 342.
#[test]
fn what_cannot_be_is_refused() {
    with_allocator(|_, percpu| {
        assert_eq!(percpu.alloc(0, 8, GFP), Err(PerCpuError::Empty));
        assert_eq!(percpu.alloc(UNIT_SIZE + 1, 8, GFP), Err(PerCpuError::TooLarge(UNIT_SIZE + 1)));
        assert_eq!(percpu.alloc(u64::MAX, 8, GFP), Err(PerCpuError::TooLarge(u64::MAX)));
        for align in [0, 3, 8192, 1 << 63] {
            assert_eq!(percpu.alloc(8, align, GFP), Err(PerCpuError::BadAlignment(align)));
        }
        assert_eq!(percpu.stats().chunks, 0);
    });
}

// A freed allocation is kept for the next one of its size, is free to everybody who asks, and is not freed again.
#[test]
fn the_next_allocation_of_a_size_gets_the_last_that_was_freed() {
    with_allocator(|_, percpu| {
        // At no multiple of a page.
        let pad = percpu.alloc(8, 8, GFP).unwrap();
        let [first, second, third] = [(); 3].map(|()| percpu.alloc(64, 8, GFP).unwrap());
        for ptr in [first, second] {
            raw!(percpu.free(ptr)).unwrap();
            percpu.check().unwrap();
            assert_eq!(raw!(percpu.free(ptr)), Err(PerCpuError::NotAllocated(ptr.addr())), "twice, while it is kept");
        }
        assert_eq!(percpu.alloc(64, 8, GFP), Ok(second));
        let small = percpu.alloc(60, 8, GFP).unwrap();
        assert!(![first, second, third].contains(&small), "another size");
        let aligned = percpu.alloc(64, 4096, GFP).unwrap();
        assert!(aligned.addr().is_aligned(4096), "kept ones at other places do not do");
        assert_eq!(percpu.alloc(64, 8, GFP), Ok(first));
        // More than are kept.
        let many: Vec<_> = (0..30).map(|_| percpu.alloc(64, 8, GFP).unwrap()).collect();
        for ptr in many.iter().copied().chain([first, second, third, small, aligned, pad]) {
            raw!(percpu.free(ptr)).unwrap();
            percpu.check().unwrap();
        }
        for ptr in many {
            assert_eq!(raw!(percpu.free(ptr)), Err(PerCpuError::NotAllocated(ptr.addr())), "twice, kept or not");
        }
        // All of a unit in one piece: nothing that is kept is in the way.
        let whole = percpu.alloc(UNIT_SIZE, 4096, GFP).unwrap();
        assert_eq!(percpu.stats().chunks, 1);
        raw!(percpu.free(whole)).unwrap();
    });
}

// Behaviour 344: interior addresses among others.
#[test]
fn what_is_not_allocated_is_not_freed() {
    with_allocator(|space, percpu| {
        let first = percpu.alloc(64, 8, GFP).unwrap();
        let second = percpu.alloc(64, 8, GFP).unwrap();
        let at = |offset: u64| PerCpuPtr::new(VirtAddr::new(first.addr().get() + offset));
        let area = space.vmalloc(&VmallocRequest::new(PAGE_SIZE, GFP)).unwrap();
        let wrong = [
            at(4),                                 // inside
            at(1),                                 // between two units of allocation
            at(128),                               // behind the last one
            at(UNIT_SIZE),                         // the copy of another CPU
            at(PAGE_SIZE),                         // where there is no page
            PerCpuPtr::new(area),                  // vmalloc's
            PerCpuPtr::new(VirtAddr::new(0x1000)), // nobody's
            PerCpuPtr::new(VirtAddr::new(u64::MAX - 3)),
        ];
        for ptr in wrong {
            assert_eq!(raw!(percpu.free(ptr)), Err(PerCpuError::NotAllocated(ptr.addr())));
        }
        raw!(percpu.free(first)).unwrap();
        assert_eq!(raw!(percpu.free(first)), Err(PerCpuError::NotAllocated(first.addr())), "twice");
        assert!(raw!(space.vfree(second.addr().align_down(UNIT_SIZE))).is_err(), "the area is nobody's to free");
        raw!(percpu.free(second)).unwrap();
        raw!(space.vfree(area)).unwrap();
    });
}

// Behaviour 346.
#[test]
fn a_gap_is_used_again_and_the_lowest_that_fits_is_taken() {
    with_allocator(|_, percpu| {
        let rows: Vec<_> = (0..64).map(|_| percpu.alloc(256, 4, GFP).unwrap()).collect();
        assert_eq!(percpu.stats().chunks, 1);
        for index in [3, 4, 10, 11, 12, 30] {
            raw!(percpu.free(rows[index])).unwrap();
        }
        // Counting really frees what is kept for the next of a size.
        assert_eq!(percpu.stats().allocations, 58);
        let take = |size| percpu.alloc(size, 4, GFP).unwrap();
        let again = [take(600), take(256), take(256), take(256)];
        assert_eq!(again, [rows[10], rows[3], rows[4], rows[30]]);
        for ptr in again.into_iter().chain((0..64).filter(|i| ![3, 4, 10, 11, 12, 30].contains(i)).map(|i| rows[i])) {
            raw!(percpu.free(ptr)).unwrap();
        }
    });
}

// Behaviour 346: across pages.
#[test]
fn a_gap_across_pages_is_found() {
    with_allocator(|_, percpu| {
        // A unit in thirds of a page, so that gaps of four of them lie across every border.
        let parts: Vec<_> = (0..24).map(|_| percpu.alloc(1364, 4, GFP).unwrap()).collect();
        let mut large = Vec::new();
        for window in parts.chunks(4) {
            window.iter().for_each(|ptr| raw!(percpu.free(*ptr)).unwrap());
            large.push(percpu.alloc(4 * 1364, 4, GFP).unwrap());
            assert_eq!(large.last(), window.first());
            percpu.check().unwrap();
        }
        assert_eq!(percpu.stats().chunks, 1);
        large.into_iter().for_each(|ptr| raw!(percpu.free(ptr)).unwrap());
    });
}

#[test]
fn pages_come_when_they_are_touched_and_go_when_nothing_lies_in_them() {
    with_allocator(|_, percpu| {
        let small = percpu.alloc(16, 16, GFP).unwrap();
        assert_eq!(percpu.stats().pages, 2, "one for each CPU");
        let large = percpu.alloc(3 * PAGE_SIZE, 4096, GFP).unwrap();
        assert_eq!(percpu.stats().pages, 2 * 4);
        assert_eq!(percpu.idle_pages(), 0);
        raw!(percpu.free(large)).unwrap();
        assert_eq!((percpu.stats().pages, percpu.idle_pages()), (2 * 4, 2 * 3), "kept for the next one");
        let again = percpu.alloc(2 * PAGE_SIZE, 4096, GFP).unwrap();
        assert_eq!(again, large);
        assert_eq!(percpu.trim(), 2);
        assert_eq!((percpu.stats().pages, percpu.idle_pages()), (2 * 3, 0));
        percpu.check().unwrap();
        raw!(percpu.free(again)).unwrap();
        raw!(percpu.free(small)).unwrap();
        assert_eq!(percpu.stats().chunks, 1, "the last chunk stays");
    });
}

#[test]
fn of_empty_chunks_one_stays() {
    with_allocator(|_, percpu| {
        let full: Vec<_> = (0..5).map(|_| percpu.alloc(UNIT_SIZE, 4, GFP).unwrap()).collect();
        assert_eq!((percpu.stats().chunks, percpu.stats().pages), (5, 5 * 8 * 2));
        full.into_iter().for_each(|ptr| raw!(percpu.free(ptr)).unwrap());
        assert_eq!((percpu.stats().chunks, percpu.stats().pages), (1, 8 * 2));
    });
}

// Promise 3: `take_page` says to the machine that a page has a new owner, and that looks for old translations.
#[test]
fn a_page_that_goes_is_translated_by_nobody() {
    with_allocator(|space, percpu| {
        let ptrs: Vec<_> = (0..4).map(|_| percpu.alloc(UNIT_SIZE, 4, GFP).unwrap()).collect();
        for ptr in &ptrs {
            touch(space, ptr.addr(), 2 * UNIT_SIZE / PAGE_SIZE);
        }
        ptrs.into_iter().for_each(|ptr| raw!(percpu.free(ptr)).unwrap());
        percpu.trim();
        let mut taken = Vec::new();
        while let Some(page) = take_page(space) {
            taken.push(page);
        }
        space.hal().machine.check().unwrap_or_else(|violations| panic!("{violations:?}"));
        for page in taken {
            raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        }
    });
}

#[test]
fn an_allocation_that_fails_leaves_nothing() {
    with_allocator(|space, percpu| {
        let kept = percpu.alloc(16, 4, GFP).unwrap();
        space.hal().pages.set_careful(true);
        let mut failures = 0;
        for passes in 0.. {
            let before = percpu.stats();
            space.hal().pages.hal().until_failure.store(passes, Ordering::Relaxed);
            let result = percpu.alloc(UNIT_SIZE, 4, GFP);
            let failed = space.hal().pages.hal().until_failure.swap(u64::MAX, Ordering::Relaxed) == u64::MAX;
            percpu.check().unwrap();
            match result {
                Err(PerCpuError::OutOfMemory) => {
                    assert!(failed);
                    failures += 1;
                    assert_eq!((percpu.stats().pages, percpu.stats().bytes), (before.pages, before.bytes));
                }
                Ok(ptr) => {
                    raw!(percpu.free(ptr)).unwrap();
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        space.hal().pages.set_careful(false);
        assert_eq!(failures, 16, "each of the pages of two CPUs");
        raw!(percpu.free(kept)).unwrap();
    });
}

#[test]
fn without_addresses_there_is_an_error() {
    with_allocator(|space, percpu| {
        let all = space.region().unwrap().size() - PAGE_SIZE;
        let request = quarry::mm::vmalloc::AreaRequest::new(all, quarry::mm::vmalloc::VmFlags::MAP);
        let everything = space.alloc(&request).unwrap();
        assert!(matches!(percpu.alloc(8, 8, GFP), Err(PerCpuError::Area(_))));
        raw!(space.recycle(space.abandon(everything).unwrap()));
    });
}

// Memory kept after a peak: one array of records, whose memory is the first one.
#[test]
fn rows_of_records_go_back_when_none_is_in_use() {
    with_allocator(|space, percpu| {
        let rows = || space.hal().rows.load(Ordering::Relaxed);
        for _ in 0..3 {
            // 4, 8, 16 and 32 chunks.
            let full: Vec<_> = (0..50).map(|_| percpu.alloc(UNIT_SIZE, 4, GFP).unwrap()).collect();
            assert_eq!(rows(), 4);
            // One in the third row, by number, keeps the rows up to it.
            for (number, ptr) in full.iter().enumerate().filter(|(number, _)| *number != 20) {
                raw!(percpu.free(*ptr)).unwrap_or_else(|error| panic!("{number}: {error}"));
            }
            percpu.trim();
            percpu.check().unwrap();
            assert_eq!(rows(), 3);
            let again = percpu.alloc(UNIT_SIZE, 4, GFP).unwrap();
            percpu.check().unwrap();
            raw!(percpu.free(again)).unwrap();
            raw!(percpu.free(full[20])).unwrap();
            percpu.trim();
            percpu.check().unwrap();
            assert_eq!((rows(), percpu.stats().chunks), (1, 0));
        }
    });
}

// Another CPU allocates while the pages of an allocation are on their way: they are not there yet, and not its own to make.
#[test]
fn pages_that_are_under_way_for_one_allocation_serve_no_other() {
    with_allocator(|_, percpu| {
        for size in [16, PAGE_SIZE, 3 * PAGE_SIZE] {
            let meanwhile = Cell::new(None);
            let look = || meanwhile.set(Some(percpu.alloc(16, 16, GFP).unwrap()));
            let first = before_mapping(&look, || percpu.alloc(size, 16, GFP)).unwrap();
            let second = meanwhile.take().unwrap();
            let page = |ptr: PerCpuPtr| ptr.addr().get() / PAGE_SIZE;
            let taken = page(first)..page(first) + size.div_ceil(PAGE_SIZE);
            assert!(!taken.contains(&page(second)), "in a page that was not there yet");
            percpu.check().unwrap();
            // They serve the next one, which needs no others.
            let pages = percpu.stats().pages;
            let third = percpu.alloc(16, 16, GFP).unwrap();
            assert_eq!(percpu.stats().pages, pages);
            for ptr in [first, second, third] {
                raw!(percpu.free(ptr)).unwrap();
            }
            percpu.trim();
        }
    });
}

// They are unmapped, and other CPUs have not acknowledged it yet.
#[test]
fn pages_that_are_on_their_way_out_serve_nobody() {
    with_allocator(|space, percpu| {
        let small = percpu.alloc(16, 16, GFP).unwrap();
        let large = percpu.alloc(3 * PAGE_SIZE, 4096, GFP).unwrap();
        touch(space, large.addr(), 3);
        raw!(percpu.free(large)).unwrap();
        let taken = Cell::new(None);
        let look = || {
            if taken.get().is_none() {
                taken.set(Some(percpu.alloc(2 * PAGE_SIZE, 4096, GFP).unwrap()));
            }
        };
        assert_eq!(acknowledging_late(&look, || percpu.trim()), 2 * 3);
        let other = taken.take().unwrap();
        assert!(other.addr().get() >= large.addr().get() + 3 * PAGE_SIZE, "behind those that go");
        touch(space, other.addr(), 2);
        percpu.check().unwrap();
        // When they have gone they are had again.
        let again = percpu.alloc(3 * PAGE_SIZE, 4096, GFP).unwrap();
        assert_eq!(again, large);
        for ptr in [small, other, again] {
            raw!(percpu.free(ptr)).unwrap();
        }
    });
}

#[test]
fn a_chunk_that_cannot_be_recorded_leaves_no_area() {
    with_allocator(|space, percpu| {
        for round in 0..2 {
            let before = (space.iter().count(), percpu.stats().chunks);
            space.hal().no_rows.store(true, Ordering::Relaxed);
            let mut full = Vec::new();
            // As many as there are records for.
            while let Ok(ptr) = percpu.alloc(UNIT_SIZE, 4, GFP) {
                full.push(ptr);
                assert!(full.len() < 5);
            }
            assert_eq!(percpu.alloc(UNIT_SIZE, 4, GFP), Err(PerCpuError::OutOfMemory));
            assert_eq!(space.iter().count() - before.0, percpu.stats().chunks - before.1, "round {round}");
            percpu.check().unwrap();
            space.hal().no_rows.store(false, Ordering::Relaxed);
            full.push(percpu.alloc(UNIT_SIZE, 4, GFP).unwrap());
            full.into_iter().for_each(|ptr| raw!(percpu.free(ptr)).unwrap());
            percpu.trim();
        }
    });
}
