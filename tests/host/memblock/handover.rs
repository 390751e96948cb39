//! The hand-over: whole free pages, once, and nothing afterwards.

use super::{GIB, KIB, MIB, at, range, regions, unmapped, with_memory};
use quarry::addr::{PAGE_SIZE, PhysRange};
use quarry::mm::memblock::{MemblockError, Window};
use std::sync::Mutex;

/// Behaviour 49.
#[test]
fn the_pages_handed_over_are_memory_minus_reservations() {
    let mut memblock = with_memory(GIB, 8 * MIB);
    memblock.add(at(2 * GIB), 8 * MIB).unwrap();
    memblock.reserve(at(GIB + MIB), 64 * KIB).unwrap();
    memblock.reserve(at(2 * GIB), PAGE_SIZE).unwrap();
    let expected = memblock.memory().total() - memblock.reserved().total();
    let pages = memblock.retire().unwrap();
    assert_eq!(pages.pages() * PAGE_SIZE, expected);
    let ranges: Vec<_> = pages.collect();
    assert_eq!(ranges.iter().copied().map(PhysRange::size).sum::<u64>(), expected);
    let whole = [
        range(GIB, MIB),
        range(GIB + MIB + 64 * KIB, 7 * MIB - 64 * KIB),
        range(2 * GIB + PAGE_SIZE, 8 * MIB - PAGE_SIZE),
    ];
    assert_eq!(ranges, whole);
}

/// Behaviour 49.
#[test]
fn a_page_that_a_reservation_touches_stays() {
    let mut memblock = with_memory(GIB + 100, 16 * PAGE_SIZE);
    memblock.reserve(at(GIB + 3 * PAGE_SIZE + 10), 10).unwrap();
    memblock.reserve(at(GIB + 6 * PAGE_SIZE - 1), 2).unwrap();
    // Two reservations with free bytes between them in one page.
    memblock.reserve(at(GIB + 9 * PAGE_SIZE), 8).unwrap();
    memblock.reserve(at(GIB + 10 * PAGE_SIZE - 8), 8).unwrap();
    // Outside memory, and over its end.
    memblock.reserve(at(GIB - MIB), 4 * KIB).unwrap();
    memblock.reserve(at(GIB + 15 * PAGE_SIZE + 1), MIB).unwrap();
    let page = |first: u64, count: u64| range(GIB + first * PAGE_SIZE, count * PAGE_SIZE);
    let ranges: Vec<_> = memblock.retire().unwrap().collect();
    assert_eq!(ranges, [page(1, 2), page(4, 1), page(7, 2), page(10, 5)]);
}

/// Behaviours 49, 47.
#[test]
fn nomap_pages_are_not_handed_over() {
    let mut memblock = with_memory(GIB, 4 * PAGE_SIZE);
    memblock.mark_nomap(at(GIB + PAGE_SIZE), 1).unwrap();
    let ranges: Vec<_> = memblock.retire().unwrap().collect();
    assert_eq!(ranges, [range(GIB, PAGE_SIZE), range(GIB + 2 * PAGE_SIZE, 2 * PAGE_SIZE)]);
}

/// Behaviour 50.
#[test]
fn after_the_hand_over_every_change_is_refused() {
    let mut memblock = with_memory(GIB, MIB);
    memblock.reserve(at(GIB), PAGE_SIZE).unwrap();
    assert!(!memblock.is_retired());
    assert_eq!(memblock.retire().unwrap().count(), 1);
    assert!(memblock.is_retired());
    let late = Err(MemblockError::Retired);
    assert_eq!(memblock.retire().map(|_| ()), late);
    assert_eq!(memblock.add(at(2 * GIB), MIB), late);
    assert_eq!(memblock.remove(at(GIB), MIB), late);
    assert_eq!(memblock.reserve(at(GIB), MIB), late);
    assert_eq!(memblock.free(range(GIB, PAGE_SIZE)), late);
    assert_eq!(memblock.free_bootmem(range(GIB, PAGE_SIZE)), late);
    assert_eq!(memblock.mark_nomap(at(GIB), PAGE_SIZE), late);
    assert_eq!(memblock.clear_nomap(at(GIB), PAGE_SIZE), late);
    assert_eq!(memblock.trim_memory(MIB), late);
    assert_eq!(memblock.enforce_memory_limit(PAGE_SIZE), late);
    assert_eq!(memblock.cap_memory_end(at(GIB + PAGE_SIZE)), late);
    assert_eq!(memblock.alloc(1, 1, Window::ANYWHERE).map(|_| ()), late);
    assert_eq!(memblock.alloc_raw(1, 1, Window::ANYWHERE).map(|_| ()), late);
    assert_eq!(memblock.alloc_bootmem(1).map(|_| ()), late);
    assert_eq!(memblock.alloc_bootmem_pages(1).map(|_| ()), late);
    assert_eq!(memblock.alloc_bootmem_low(1).map(|_| ()), late);
    assert_eq!(memblock.alloc_bootmem_low_pages(1).map(|_| ()), late);
    // The lists can still be read.
    memblock.check().unwrap();
    assert_eq!(regions(memblock.memory()), [(GIB, MIB)]);
    assert_eq!(regions(memblock.reserved()), [(GIB, PAGE_SIZE)]);
}

/// Keeps what is logged.
struct Capture(Mutex<Vec<String>>);

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// Behaviour 50.
#[test]
fn a_late_call_is_logged_with_its_caller() {
    static CAPTURE: Capture = Capture(Mutex::new(Vec::new()));
    log::set_logger(&CAPTURE).expect("no other host test has a logger");
    log::set_max_level(log::LevelFilter::Error);
    let mut memblock = with_memory(GIB, MIB);
    memblock.retire().unwrap().for_each(drop);
    let line = line!() + 1;
    memblock.alloc_bootmem_low(1).unwrap_err();
    let expected = format!("ERROR memblock: alloc after the hand-over, from {}:{line}:", file!());
    let seen = CAPTURE.0.lock().unwrap();
    assert!(seen.iter().any(|message| message.starts_with(&expected)), "{expected} is not among {seen:?}");
}

#[test]
fn a_hand_over_of_nothing_is_refused_and_does_not_count() {
    let refused = Err(MemblockError::NoMemory);
    assert_eq!(unmapped().retire().map(|_| ()), refused);
    let mut memblock = with_memory(GIB + 1, 2 * PAGE_SIZE - 2);
    assert_eq!(memblock.retire().map(|_| ()), refused);
    assert!(!memblock.is_retired());
    memblock.add(at(GIB), 2 * PAGE_SIZE).unwrap();
    memblock.reserve(at(GIB + PAGE_SIZE - 1), 2).unwrap();
    assert_eq!(memblock.retire().map(|_| ()), refused);
    memblock.free(range(GIB + PAGE_SIZE, 1)).unwrap();
    assert_eq!(memblock.retire().unwrap().collect::<Vec<_>>(), [range(GIB + PAGE_SIZE, PAGE_SIZE)]);
}

#[test]
fn an_iterator_of_free_ranges_can_be_walked_from_both_ends() {
    let mut memblock = with_memory(GIB, MIB);
    for index in 0..7 {
        memblock.reserve(at(GIB + 16 * KIB + index * 100 * KIB), 20 * KIB).unwrap();
    }
    memblock.add(at(2 * GIB), MIB).unwrap();
    let all: Vec<_> = memblock.free_ranges().collect();
    assert_eq!(all.len(), 9);
    for front in 0..=all.len() {
        let mut ranges = memblock.free_ranges();
        let mut seen: Vec<_> = ranges.by_ref().take(front).collect();
        let mut back: Vec<_> = ranges.by_ref().rev().collect();
        back.reverse();
        seen.append(&mut back);
        assert_eq!(seen, all);
        assert_eq!((ranges.next(), ranges.next_back()), (None, None));
    }
}
