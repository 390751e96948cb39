//! Processes that share memory see each other's writes, wherever and whenever each page is touched first.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use quarry_user::call::{self, DONTNEED, READ, WRITE};
use quarry_user::{Arguments, children, println};

quarry_user::program!(main);

const PAGE: usize = 4096;
/// More than the pages of one table.
const PAGES: usize = 520;
const CHILDREN: u8 = 4;

/// A word of a page.
fn word(at: *mut u8, page: usize) -> &'static AtomicU64 {
    // SAFETY: the mapping has so many pages, and stays until the process ends.
    unsafe { &*at.wrapping_add(page * PAGE + page % 512 * 8).cast::<AtomicU64>() }
}

fn main(_: Arguments) -> i32 {
    let Ok(at) = call::mmap_shared(PAGES * PAGE, READ | WRITE) else { return 1 };
    // One page is there before the fork; all others come when a child or the parent touches them.
    word(at, 7).store(70, Ordering::Relaxed);
    let add = |number: u8| {
        for page in 0..PAGES {
            word(at, page).fetch_add(number.into(), Ordering::Relaxed);
            if page % 64 == 0 {
                call::sched_yield();
            }
        }
        // SAFETY: pages of the mapping, whose content the object keeps.
        let given_up = unsafe { call::madvise(at, PAGES * PAGE, DONTNEED) };
        assert!(given_up.is_ok() && word(at, 7).load(Ordering::Relaxed) >= 70 + u64::from(number));
    };
    if let Err(status) = children::run(CHILDREN, add, || ()) {
        return status;
    }
    for page in 0..PAGES {
        let before = if page == 7 { 70 } else { 0 };
        assert_eq!(word(at, page).load(Ordering::Relaxed), before + 10, "page {page}");
    }
    println!("{CHILDREN} processes added to {PAGES} pages that they share");
    0
}
