//! The cases of Linux's `lib/test_vmalloc.c`, by name, at the level of areas.

use super::machine::{Machine, memory};
use super::{MIB, START, all_free, alloc, free, of_pages, space};
use crate::random::Random;
use quarry::addr::{PAGE_SIZE, VirtAddr};
use quarry::mm::vmalloc::AreaRequest;

const ROUNDS: u64 = if cfg!(miri) { 60 } else { 100_000 };
/// Pages of the region: 16 GiB.
const REGION: u64 = 4 << 20;

fn aligned(pages: u64, align: u64) -> AreaRequest {
    AreaRequest { align, ..of_pages(pages) }
}

// Behaviour 229.
#[test]
fn fix_size() {
    let mut nodes = memory(10_000);
    let space = space(Machine::new(1, &mut nodes), REGION);
    for _ in 0..10 * ROUNDS {
        let area = alloc(&space, &of_pages(1)).unwrap();
        free(&space, area.start());
    }
    space.check().unwrap();
    all_free(&space);
}

// Behaviour 231.
#[test]
fn full_fit() {
    let junk = if cfg!(miri) { 64 } else { 2 * (32 * MIB / PAGE_SIZE) };
    let mut nodes = memory(40_000);
    let space = space(Machine::new(1, &mut nodes), REGION);
    let starts: Vec<VirtAddr> = (0..junk).map(|_| alloc(&space, &of_pages(1)).unwrap().start()).collect();
    let top = *starts.iter().max().unwrap();
    for start in starts.iter().step_by(2) {
        free(&space, *start);
    }
    space.purge_all();
    for _ in 0..ROUNDS {
        let area = alloc(&space, &of_pages(1)).unwrap();
        assert!(area.start() < top, "it fits into a hole");
        free(&space, area.start());
    }
    space.check().unwrap();
    for start in starts.iter().skip(1).step_by(2) {
        free(&space, *start);
    }
    all_free(&space);
}

// Behaviour 232.
#[test]
fn long_busy_list() {
    let busy = if cfg!(miri) { 50 } else { 15_000 };
    let mut nodes = memory(60_000);
    let space = space(Machine::new(1, &mut nodes), REGION);
    let starts: Vec<VirtAddr> = (0..busy).map(|_| alloc(&space, &of_pages(1)).unwrap().start()).collect();
    for _ in 0..ROUNDS / 2 {
        let large = alloc(&space, &of_pages(100)).unwrap();
        let small = alloc(&space, &of_pages(1)).unwrap();
        free(&space, large.start());
        free(&space, small.start());
    }
    space.check().unwrap();
    for start in starts {
        free(&space, start);
    }
    all_free(&space);
}

#[test]
fn random_size() {
    let mut nodes = memory(60_000);
    let space = space(Machine::new(1, &mut nodes), REGION);
    let mut random = Random(3);
    for _ in 0..ROUNDS {
        let area = alloc(&space, &of_pages(1 + random.below(100))).unwrap();
        free(&space, area.start());
    }
    space.check().unwrap();
    all_free(&space);
}

// Behaviour 234.
#[test]
fn fix_align() {
    let mut nodes = memory(60_000);
    let space = space(Machine::new(1, &mut nodes), REGION);
    for _ in 0..ROUNDS {
        let area = alloc(&space, &aligned(5, 32 << 10)).unwrap();
        assert!(area.start().is_aligned(32 << 10));
        free(&space, area.start());
    }
    space.check().unwrap();
    all_free(&space);
}

// Behaviour 235.
#[test]
fn random_size_align() {
    let mut nodes = memory(60_000);
    let space = space(Machine::new(1, &mut nodes), REGION);
    let mut random = Random(4);
    for _ in 0..ROUNDS {
        let align = 1 << random.below(23);
        let area = alloc(&space, &aligned(1 + random.below(10), align)).unwrap();
        assert!(area.start().is_aligned(align));
        free(&space, area.start());
    }
    space.check().unwrap();
    all_free(&space);
}

// Behaviour 236.
#[test]
fn align_shift() {
    let mut nodes = memory(1_000);
    let space = space(Machine::new(1, &mut nodes), REGION);
    let mut failing = false;
    for shift in 0..64 {
        let area = alloc(&space, &aligned(1, 1 << shift));
        // Once an alignment does not occur in the region, no greater one does.
        assert!(!(failing && area.is_some()), "2^{shift}");
        failing = area.is_none();
        let first = START.checked_next_multiple_of(1 << shift);
        assert_eq!(
            area.is_some(),
            first.is_some_and(|first| first < START + REGION * PAGE_SIZE - PAGE_SIZE),
            "2^{shift}"
        );
        if let Some(area) = area {
            assert!(area.start().is_aligned(1 << shift));
            free(&space, area.start());
        }
        space.check().unwrap();
    }
    all_free(&space);
}

// Behaviour 249.
#[test]
fn addresses_that_wait_for_a_purge_are_found_when_all_others_are_gone() {
    let mut nodes = memory(200);
    let space = space(Machine::new(1, &mut nodes), 100);
    for _ in 0..3 {
        let starts: Vec<VirtAddr> = (0..50).map(|_| alloc(&space, &of_pages(1)).unwrap().start()).collect();
        for start in starts {
            free(&space, start);
        }
        assert_eq!(space.lazy_pages(), 50);
        let large = alloc(&space, &of_pages(59)).expect("after a purge");
        assert_eq!(space.lazy_pages(), 0);
        free(&space, large.start());
    }
    all_free(&space);
}
